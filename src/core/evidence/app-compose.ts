import { decodeUtf8, type Hex } from "../bytes.ts";
import { KeysteadError } from "../errors.ts";
import { isJsonArray, isJsonObject, type JsonObject, parseJson } from "../json.ts";
import { computeComposeHash } from "./dstack.ts";

/*
 * The app-compose.json that `dstack-cloud prepare` writes for an app.json, byte for byte, so that its hash is known before anything is
 * deployed. It is Python's json.dump(…, indent=2): fixed key order, every character outside printable ASCII escaped, no final newline.
 *
 * Where the tool's output is not a function of its input, this module says so and enumerates: names from the .env file are merged with
 * allowed_envs through a Python set, whose order changes from run to run. Source: scripts/bin/dstack-cloud of Dstack-TEE/dstack.
 */

/** What of an app.json is measured. Everything else in it is configuration of the cloud. */
export interface AppConfig {
  readonly name: string;
  /** OS image by name, e.g. `dstack-0.6.0`; its hash comes from the image itself. */
  readonly osImage: string;
  /** Path of the compose file, relative to app.json. */
  readonly dockerComposeFile: string;
  /** Path of a finished app-compose.json to use as it is; empty: none. */
  readonly appComposeFile: string;
  /** Path of the pre-launch script; a missing file counts as empty. */
  readonly prelaunchScript: string;
  /** Path of the environment file; a missing file counts as none. */
  readonly envFile: string;
  readonly gatewayEnabled: boolean;
  readonly publicLogs: boolean;
  readonly publicSysinfo: boolean;
  readonly publicTcbinfo: boolean;
  readonly keyProvider: string;
  readonly keyProviderId: string;
  readonly storageFs: string;
  readonly noInstanceId: boolean;
  readonly secureTime: boolean;
  readonly allowedEnvs: readonly string[];
}

/** The files that an app.json refers to, as exact bytes. */
export interface AppFiles {
  readonly dockerCompose: Uint8Array;
  /** Undefined: no such file. */
  readonly prelaunch?: Uint8Array | undefined;
  /** Undefined: no such file. */
  readonly env?: Uint8Array | undefined;
}

/** One app-compose.json that the tool may write. */
export interface AppComposeCandidate {
  readonly bytes: Uint8Array;
  readonly composeHash: Hex;
  readonly allowedEnvs: readonly string[];
}

/** Most environment names whose orders are enumerated: 6! = 720 candidates. */
export const MAX_ENUMERATED_ENVS = 6;
/** Most bytes that all candidates together may take. */
const MAX_ENUMERATED_BYTES = 32 * 1024 * 1024;

/**
 * Reads a dstack-cloud app.json. Fields left out take the tool's defaults; a field that is measured must have its type; unknown fields are
 * passed over, as the tool does.
 *
 * @throws KeysteadError `text/not-utf8`, `json/*`, `app/field` {field}
 * @example
 * parseAppConfig(bytes).dockerComposeFile; // "docker-compose.yaml"
 */
export function parseAppConfig(bytes: Uint8Array): AppConfig {
  const app = parseJson(decodeUtf8(bytes, "app.json"), "app.json");
  if (!isJsonObject(app)) throw fieldError("app.json", "an object");
  return {
    name: text(app, "name", "myapp"),
    osImage: text(app, "os_image", ""),
    dockerComposeFile: text(app, "docker_compose_file", "docker-compose.yaml"),
    appComposeFile: text(app, "app_compose_file", ""),
    prelaunchScript: text(app, "prelaunch_script", "prelaunch.sh"),
    envFile: text(app, "env_file", ".env"),
    gatewayEnabled: flag(app, "gateway_enabled", true),
    publicLogs: flag(app, "public_logs", true),
    publicSysinfo: flag(app, "public_sysinfo", true),
    publicTcbinfo: flag(app, "public_tcbinfo", true),
    keyProvider: text(app, "key_provider", "kms"),
    keyProviderId: text(app, "key_provider_id", ""),
    storageFs: text(app, "storage_fs", "ext4"),
    noInstanceId: flag(app, "no_instance_id", false),
    secureTime: flag(app, "secure_time", false),
    allowedEnvs: names(app),
  };
}

/**
 * Every app-compose.json that dstack-cloud may write for this app: one, unless the .env file adds names that make two or more.
 *
 * @throws KeysteadError `text/not-utf8`; `app/env-without-kms` where an .env file is there and the key provider is not `kms` (the tool stops
 * there too); `app/too-many-orders` {names} past {@link MAX_ENUMERATED_ENVS} names or 32 MiB of candidates
 * @example
 * const [only, ...others] = buildAppCompose(app, { dockerCompose });
 */
export function buildAppCompose(app: AppConfig, files: AppFiles): readonly AppComposeCandidate[] {
  const compose = readText(files.dockerCompose, "docker compose file");
  const prelaunch = files.prelaunch === undefined ? "" : readText(files.prelaunch, "pre-launch script");
  const added = files.env === undefined ? [] : parseEnvNames(files.env);
  if (files.env !== undefined && app.keyProvider !== "kms") {
    throw new KeysteadError("app/env-without-kms", "there is an environment file, and the key provider is not kms", {
      argument: "env_file",
      remedy: "Set key_provider to kms or remove the file: dstack-cloud refuses to deploy it.",
    });
  }
  // Without names from the file, the list is taken as it is, repeated names and all.
  const orders = added.length === 0 ? [app.allowedEnvs] : permutations([...new Set([...app.allowedEnvs, ...added])]);
  const length = serialise(app, compose, prelaunch, orders[0] ?? []).length;
  if (orders.length > 1 && orders.length * length > MAX_ENUMERATED_BYTES) throw tooManyOrders(added.length);
  return orders.map((allowedEnvs) => {
    const bytes = new TextEncoder().encode(serialise(app, compose, prelaunch, allowedEnvs));
    return { bytes, composeHash: computeComposeHash(bytes), allowedEnvs };
  });
}

/** What dstack requires of an app-compose.json (dstack-types, AppCompose). The version is a number, or since 0.6 a text. */
const REQUIRED = ["manifest_version", "name", "runner"] as const;

/** What an app-compose.json says, where it is the usual JSON object; for people, since only its bytes are measured. */
export interface AppComposeSummary {
  readonly name: string | undefined;
  readonly keyProvider: string | undefined;
  readonly allowedEnvs: readonly string[];
  /** Things about the file that its author may not have meant. */
  readonly remarks: readonly string[];
}

/**
 * Looks into an app-compose.json. What it finds has no part in the hash. A file without the three fields that dstack requires is something else.
 *
 * @throws KeysteadError `text/not-utf8`, `json/*`, `dstack/not-app-compose` {missing}: dstack could not start such a file
 * @example
 * inspectAppCompose(bytes).remarks;
 */
export function inspectAppCompose(bytes: Uint8Array): AppComposeSummary {
  const value = parseJson(decodeUtf8(bytes, "app-compose.json"), "app-compose.json");
  const missing = isJsonObject(value)
    ? REQUIRED.filter((field) => !(typeof value[field] === "string" || typeof value[field] === "number"))
    : REQUIRED;
  if (!isJsonObject(value) || missing.length > 0) {
    throw new KeysteadError(
      "dstack/not-app-compose",
      `this is not an app-compose.json: it has no ${missing.join(", ")}`,
      {
        argument: "app-compose",
        remedy: `Give the file that the machine was deployed with; it has ${REQUIRED.join(", ")} at its top level.`,
        details: { missing },
      },
    );
  }
  const remarks: string[] = [];
  const legacy = value.kms_enabled === true ? "kms" : value.local_key_provider_enabled === true ? "local" : undefined;
  const provider = typeof value.key_provider === "string" ? value.key_provider : legacy;
  if (provider === undefined || provider === "none") {
    remarks.push("no key provider: keys change with every start of the machine");
  }
  const compose = value.docker_compose_file;
  if (typeof compose !== "string" || compose === "") remarks.push("docker_compose_file is empty");
  else if (compose.split("\n").some(namesLooseImage)) {
    remarks.push("an image is named without its digest (@sha256:…): what runs can change while the measurement stays");
  }
  return {
    name: typeof value.name === "string" ? value.name : undefined,
    keyProvider: provider,
    allowedEnvs: isJsonArray(value.allowed_envs)
      ? value.allowed_envs.filter((name): name is string => typeof name === "string")
      : [],
    remarks,
  };
}

/** Whether a line of a compose file names a container image by tag alone. */
function namesLooseImage(line: string): boolean {
  const entry = line.trimStart();
  return entry.startsWith("image:") && entry.length > "image:".length && !entry.includes("@sha256:");
}

/** Python's text mode: UTF-8, with CRLF and CR read as LF. */
function readText(bytes: Uint8Array, argument: string): string {
  return decodeUtf8(bytes, argument).replace(/\r\n?/g, "\n");
}

function serialise(app: AppConfig, compose: string, prelaunch: string, allowedEnvs: readonly string[]): string {
  const list = allowedEnvs.map((name) => `\n    ${quote(name)}`).join(",");
  const entries: readonly (readonly [string, string])[] = [
    ["manifest_version", "2"],
    ["name", quote(app.name)],
    ["runner", quote("docker-compose")],
    ["docker_compose_file", quote(compose)],
    ["gateway_enabled", String(app.gatewayEnabled)],
    ["public_logs", String(app.publicLogs)],
    ["public_sysinfo", String(app.publicSysinfo)],
    ["public_tcbinfo", String(app.publicTcbinfo)],
    ["key_provider_id", quote(app.keyProviderId)],
    ["allowed_envs", list === "" ? "[]" : `[${list}\n  ]`],
    ["no_instance_id", String(app.noInstanceId)],
    ["secure_time", String(app.secureTime)],
    ["key_provider", quote(app.keyProvider)],
    ["storage_fs", quote(app.storageFs)],
    ["pre_launch_script", quote(prelaunch)],
  ];
  return `{\n${entries.map(([key, value]) => `  ${quote(key)}: ${value}`).join(",\n")}\n}`;
}

/** A string as Python's json module writes it: JSON.stringify's escapes, and a six-character hexadecimal escape for everything that is not printable ASCII. */
function quote(value: string): string {
  return JSON.stringify(value).replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/**
 * Names in an environment file, as dstack-cloud reads it (Python's `line.strip()`, then `split("=", 1)` and strip on both sides): empty lines, lines that begin with # and
 * lines without `=` are passed over, and a name is whatever stands before the first `=`. Values are secrets and stay where they are.
 *
 * @throws KeysteadError `text/not-utf8`
 * @example
 * parseEnvNames(new TextEncoder().encode("A = 1\nignored\nB=2=3")); // ["A", "B"]
 */
export function parseEnvNames(bytes: Uint8Array): readonly string[] {
  const found = new Set<string>();
  for (const line of readText(bytes, "environment file").split("\n")) {
    const trimmed = pythonStrip(line);
    const equals = trimmed.indexOf("=");
    if (equals !== -1 && !trimmed.startsWith("#")) found.add(pythonStrip(trimmed.slice(0, equals)));
  }
  return [...found];
}

/** `str.strip()` of Python: its white space is not JavaScript's. U+FEFF stays; U+001C to U+001F and U+0085 go. */
function pythonStrip(text: string): string {
  const space = "[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]+";
  return text.replace(new RegExp(`^${space}`), "").replace(new RegExp(`${space}$`), "");
}

function permutations(items: readonly string[]): readonly (readonly string[])[] {
  if (items.length > MAX_ENUMERATED_ENVS) throw tooManyOrders(items.length);
  if (items.length <= 1) return [items];
  return items.flatMap((item, index) =>
    permutations([...items.slice(0, index), ...items.slice(index + 1)]).map((rest) => [item, ...rest]),
  );
}

function tooManyOrders(count: number): KeysteadError {
  return new KeysteadError(
    "app/too-many-orders",
    `dstack-cloud writes the ${count} environment names in an order that changes from run to run`,
    {
      argument: "env_file",
      remedy:
        "Measure the app-compose.json that `dstack-cloud prepare` wrote, and pin it with app_compose_file so that deploying uses the same bytes.",
      details: { names: count },
    },
  );
}

function text(app: JsonObject, field: string, fallback: string): string {
  const value = app[field];
  if (value === undefined) return fallback;
  if (typeof value !== "string") throw fieldError(field, "a string");
  return value;
}

function flag(app: JsonObject, field: string, fallback: boolean): boolean {
  const value = app[field];
  if (value === undefined) return fallback;
  if (typeof value !== "boolean") throw fieldError(field, "true or false");
  return value;
}

function names(app: JsonObject): readonly string[] {
  const value = app.allowed_envs ?? [];
  if (!isJsonArray(value)) throw fieldError("allowed_envs", "an array of strings");
  return value.map((name) => {
    if (typeof name !== "string") throw fieldError("allowed_envs", "an array of strings");
    return name;
  });
}

function fieldError(field: string, expected: string): KeysteadError {
  return new KeysteadError("app/field", `${field} is not ${expected}`, {
    argument: field,
    remedy: `Write ${expected}.`,
    details: { field },
  });
}
