import { decodeUtf8, fromHex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { isJsonObject, type JsonValue, parseJson } from "../core/json.ts";
import type { SecretsKey } from "../core/release.ts";
import { secretsKeySchema, type SecretsKeyAnswer } from "../core/release-wire.ts";
import { type SecretsContext, sealSecrets } from "../core/sealed-secrets.ts";
import { askNode, type HttpOptions } from "./http.ts";

/*
 * The other side of `openPublished`: what a service's people seal for their machines. No message here shows anything of a file but line numbers.
 */

/** KmsRegistry's MAX_CIPHERTEXT and MAX_NAME. */
export const MAX_CIPHERTEXT_BYTES = 32_768;
export const MAX_NAME_BYTES = 64;
/** What sealing adds: "KSS1", two epochs, the encapsulated key, the tag. */
export const SEAL_OVERHEAD = 8 + 32 + 16;

/** What a file of secrets is. */
export type SecretsKind = "env" | "registry" | "raw";

/** What may be said of a file of secrets. */
export interface SecretsSummary {
  readonly kind: SecretsKind;
  /** Variables, or registries; 0 for `raw`. */
  readonly count: number;
}

const fault = (code: string, message: string, remedy: string, details: Readonly<Record<string, unknown>> = {}) =>
  new KeysteadError(`secrets/${code}`, message, { argument: "file", remedy, details });

/**
 * Checks that a file is what it is taken for, and fits. Without a kind: registry credentials if it is JSON, else an environment file.
 *
 * @throws KeysteadError `secrets/empty`, `secrets/too-large` {bytes, limit}, `secrets/bad-line` {line}, `secrets/duplicate-name` {line}, `secrets/not-credentials`,
 * `text/not-utf8`
 * @example
 * checkSecrets(new TextEncoder().encode("A=1\n")); // { kind: "env", count: 1 }
 */
export function checkSecrets(bytes: Uint8Array, kind?: SecretsKind): SecretsSummary {
  const limit = MAX_CIPHERTEXT_BYTES - SEAL_OVERHEAD;
  if (bytes.length > limit)
    throw fault(
      "too-large",
      `${bytes.length} bytes do not fit: at most ${limit} do`,
      "Seal less, or in parts under several names.",
      {
        bytes: bytes.length,
        limit,
      },
    );
  if (bytes.length === 0) throw fault("empty", "the file is empty", "Give the file with the secrets.");
  if (kind === "raw") return { kind, count: 0 };
  const text = decodeUtf8(bytes, "file");
  const registry = kind === "registry" || (kind === undefined && text.trimStart().startsWith("{"));
  return registry ? { kind: "registry", count: countRegistries(text) } : { kind: "env", count: countVariables(text) };
}

/** Docker's `config.json` (`auths`), or one registry's `username` and `password`. */
function countRegistries(text: string): number {
  let json: JsonValue;
  try {
    json = parseJson(text, "file");
  } catch (error) {
    // a parser's message may quote the file
    const why = isKeysteadError(error) ? error.code : "json/malformed";
    throw fault("not-credentials", `the file is not good JSON (${why})`, "Give Docker's config.json, or --kind raw.");
  }
  const hasText = (value: JsonValue | undefined, ...names: readonly string[]) =>
    isJsonObject(value) && names.every((name) => typeof value[name] === "string" && value[name] !== "");
  const logsIn = (value: JsonValue | undefined) =>
    hasText(value, "auth") || hasText(value, "identitytoken") || hasText(value, "username", "password");
  const auths = isJsonObject(json) && isJsonObject(json.auths) ? Object.values(json.auths) : undefined;
  if (auths === undefined ? logsIn(json) : auths.length > 0 && auths.every(logsIn)) return auths?.length ?? 1;
  throw fault(
    "not-credentials",
    "the JSON holds no registry credentials",
    "Give Docker's config.json with auths inside (not a credsStore), or --kind raw for other secrets.",
  );
}

/** `NAME=value` lines, comments, blank lines; a quoted value may go over several lines. */
function countVariables(text: string): number {
  const names = new Set<string>();
  const lines = text.split(/\r?\n/);
  for (let at = 0; at < lines.length; at += 1) {
    const line = lines[at] ?? "";
    if (/^\s*(#|$)/.test(line)) continue;
    const [, name, value = ""] = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$/.exec(line) ?? [];
    const where = { line: at + 1 };
    if (name === undefined || line.includes("\0"))
      throw fault("bad-line", `line ${where.line} is not NAME=value`, "Correct that line, or give --kind raw.", where);
    if (names.has(name))
      throw fault(
        "duplicate-name",
        `line ${where.line} names a variable for the second time`,
        "Remove one of the two.",
        where,
      );
    names.add(name);
    const [, quote] = /^\s*(["'])/.exec(value) ?? [];
    if (quote === undefined || closes(value.trimStart().slice(1), quote)) continue;
    do at += 1;
    while (at < lines.length && !closes(lines[at] ?? "", quote));
    if (at >= lines.length)
      throw fault(
        "bad-line",
        `the quote opened in line ${where.line} is not closed`,
        "Close it, or give --kind raw.",
        where,
      );
  }
  if (names.size === 0) throw fault("empty", "the file sets no variable", "Give the file with the secrets.");
  return names.size;
}

function closes(text: string, quote: string): boolean {
  return new RegExp(quote === '"' ? '^(?:[^"\\\\]|\\\\.)*"' : "^[^']*'").test(text);
}

/**
 * Asks a node for a service's environment key. The answer is not checked here: `verifySecretsKey` does that.
 *
 * @throws KeysteadError as `askNode`
 * @example
 * const key = await verifySecretsKey(await fetchSecretsKey(node, serviceId), serviceId, trust);
 */
export function fetchSecretsKey(node: string, serviceId: string, options: HttpOptions = {}): Promise<SecretsKeyAnswer> {
  return askNode(node, `/v1/secrets-key/${serviceId}`, undefined, secretsKeySchema, options);
}

/**
 * Seals a checked file to a service's environment key.
 *
 * @param context its name is empty for the creation of a service that is not upgradeable
 * @returns what `publishSealedSecrets` or `addSecretKeyByImage` takes
 * @throws KeysteadError `secrets/name` {bytes}, and those of `sealSecrets`
 * @example
 * const ciphertext = await sealForService(bytes, key, { chainId, registry, serviceId, name: "env" });
 */
export async function sealForService(bytes: Uint8Array, key: SecretsKey, context: SecretsContext): Promise<Uint8Array> {
  const length = new TextEncoder().encode(context.name).length;
  if (length > MAX_NAME_BYTES) {
    throw new KeysteadError("secrets/name", `the name has ${length} bytes, and at most ${MAX_NAME_BYTES} fit`, {
      argument: "name",
      remedy: "Give a shorter name.",
      details: { bytes: length },
    });
  }
  return sealSecrets(bytes, { ...key, publicKey: fromHex(key.publicKey, "publicKey") }, context);
}
