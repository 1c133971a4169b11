import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { parseDocument as parseYaml } from "yaml";
import { z } from "zod";
import type { Hex } from "../core/bytes.ts";
import { isLocalChain } from "../core/chain-id.ts";
import { KeysteadError } from "../core/errors.ts";
import { isNetwork } from "./dstack-gate.ts";
import { DEFAULT_LIMITS } from "./limits.ts";

/*
 * A node's configuration: one YAML (or JSON) file, and environment variables that stand before it: KEYSTEAD_NODE__LISTEN__PORT=8701 is `listen.port`.
 * What is not known is an error, and paths are relative to the file.
 */

const hex = (bytes: number) =>
  z
    .string()
    .regex(new RegExp(`^0x[0-9a-fA-F]{${2 * bytes}}$`), `must be ${bytes} bytes in hex, with 0x`)
    .transform((text) => text.toLowerCase() as Hex);
const path = z.string().min(1);
const url = z.url({ protocol: /^https?$/ });
const seconds = z
  .number()
  .positive()
  .max(86_400 * 30);
const count = (most: number) => z.int().min(1).max(most);
const code = z.strictObject({ address: hex(20), codeHash: hex(32) });
const tcb = z.int().min(0).max(255).optional();
const minimumTcb = z
  .strictObject({
    fmc: tcb,
    bootloader: tcb,
    tee: tcb,
    snp: tcb,
    microcode: tcb,
    /** Whether firmware must have checked the memory for aliases (BadRAM); default: true. */
    aliasCheck: z.boolean().optional(),
  })
  // With none, every machine of the product would be up to date.
  .refine(
    (given) => Object.values(given).some((least) => typeof least === "number"),
    "name at least one part's version",
  )
  .optional();

const endpoint = z
  .strictObject({
    /** For logs: never a secret. */
    name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}$/),
    url: url.optional(),
    /** A file that holds the URL, where that holds a key. */
    urlFile: path.optional(),
  })
  .refine((given) => (given.url === undefined) !== (given.urlFile === undefined), "give url or urlFile");

/** dstack-kms's authorization server, on a listener of its own. It is off unless it is said who may ask. */
const dstackWebhook = z
  .strictObject(
    {
      listen: z
        .strictObject({ host: z.string().default("127.0.0.1"), port: z.int().min(0).max(65_535).default(8701) })
        .prefault({}),
      /** Addresses and networks of dstack-kms. */
      allow: z
        .array(z.string().refine(isNetwork, "must be an address or a network, such as 10.0.0.7 or 10.0.0.0/8"))
        .min(1)
        .optional(),
      /** A file with the token that dstack-kms has in its URL. */
      tokenFile: path.optional(),
    },
    {
      error: ({ input }) => (typeof input === "boolean" ? "must say who may ask: allow, tokenFile or both" : undefined),
    },
  )
  .refine(({ allow, tokenFile }) => allow !== undefined || tokenFile !== undefined, "give allow, tokenFile or both");

const schema = z.strictObject({
  listen: z
    .strictObject({ host: z.string().default("127.0.0.1"), port: z.int().min(0).max(65_535).default(8700) })
    .prefault({}),
  /** The deployment's record, as the deployment wrote it. */
  deployment: path,
  /** Implementations that came later, by upgrade, and that this version understands. */
  implementations: z
    .strictObject({ registry: z.array(code).default([]), policy: z.array(code).default([]) })
    .prefault({}),
  chain: z.strictObject({
    endpoints: z.array(endpoint).min(1).max(16),
    /** How many endpoints must agree: more than half. */
    quorum: count(16),
    /** How old the finalized block may be. Finality takes about 15 minutes on Ethereum. */
    maxAgeSeconds: seconds.default(1800),
    maxFutureSeconds: seconds.optional(),
    pollSeconds: seconds.optional(),
    maxSilenceSeconds: seconds.optional(),
  }),
  root: z.discriminatedUnion("store", [
    /** Without `passphraseFile`, the passphrase is KEYSTEAD_ROOT_PASSPHRASE in the environment. */
    z.strictObject({ store: z.literal("file"), path, passphraseFile: path.optional() }),
    z.strictObject({ store: z.literal("dstack"), socketPath: path.optional(), rootEpochs: count(64).default(1) }),
  ]),
  /** Where a node without a root file gets its root, and which root it must be: what the policy publishes of the KMS. */
  join: z.strictObject({ url, environmentKey: hex(32), receiptSigner: hex(20) }).optional(),
  receipts: path,
  evidence: z
    .strictObject({
      pccs: z
        .strictObject({
          /** Intel's service or a PCCS, as in its qcnl.conf; several are asked in turn. */
          url: z.union([url, z.array(url).min(1).max(8)]),
          rootCaCrlUrl: url.optional(),
          /** A PCCS's own certificate, or its authority's (PEM), beside the public authorities. */
          caFile: path.optional(),
          /** Looks at Intel's early set as well (`update=early`): metrics and refusals tell of a TCB recovery before it counts. */
          early: z.boolean().default(true),
        })
        .optional(),
      collateralFiles: z.array(path).optional(),
      snpCrlFiles: z
        .strictObject({
          milan: path.optional(),
          genoa: path.optional(),
          turin: path.optional(),
          venice: path.optional(),
        })
        .optional(),
      /** AMD's key distribution service, or a mirror: the lists of products that have no file, and intermediates that are not known. */
      snpKdsUrl: url.optional(),
      requireSnpCrl: z.boolean().default(true),
      snpVmpls: z.array(z.int().min(0).max(3)).min(1).default([0]),
      snpMinimumTcb: z
        .strictObject({ milan: minimumTcb, genoa: minimumTcb, turin: minimumTcb, venice: minimumTcb })
        .optional(),
      nitroMaxAgeSeconds: seconds.default(300),
      threads: count(64).default(1),
    })
    .prefault({}),
  /** Takes evidence under these roots (certificates, DER or PEM). It proves nothing about hardware; refused on public chains. */
  unsafeTestTee: z.strictObject({ roots: z.array(path).min(1) }).optional(),
  challengeSeconds: count(3600).default(120),
  shareRoot: z.boolean().default(true),
  dstackWebhook: dstackWebhook.optional(),
  limits: z
    .strictObject({
      requestsPerSecond: z.number().positive().max(1e6).default(DEFAULT_LIMITS.requestsPerSecond),
      burst: count(1e7).default(DEFAULT_LIMITS.burst),
      concurrent: count(10_000).default(DEFAULT_LIMITS.concurrent),
      timeoutMs: count(600_000).default(DEFAULT_LIMITS.timeoutMs),
      maxBodyBytes: z
        .int()
        .min(16_384)
        .max(4 * 1024 * 1024)
        .default(DEFAULT_LIMITS.maxBodyBytes),
      forwardedHops: z.int().min(0).max(8).default(DEFAULT_LIMITS.forwardedHops),
    })
    .prefault({}),
  log: z.strictObject({ level: z.enum(["debug", "info", "warn", "error", "silent"]).default("info") }).prefault({}),
  /** Starts even where the kernel would write a crashed process's memory, and the secrets in it, to disk. */
  allowCoreDumps: z.boolean().default(false),
});

/** A node's configuration, checked, with every path absolute. */
export type NodeConfig = z.output<typeof schema>;

const PREFIX = "KEYSTEAD_NODE__";
/** What begins as a setting does, and is none. */
const NEAR_PREFIX = "KEYSTEAD_NODE_";
/** Names the file itself; read by the command line. */
export const CONFIG_VARIABLE = "KEYSTEAD_NODE_CONFIG";

const bad = (argument: string, message: string, remedy: string, cause?: unknown) =>
  new KeysteadError("config/invalid", message, { argument, remedy, cause });

/**
 * Reads and checks a configuration.
 *
 * @param env environment variables; those that begin with `KEYSTEAD_NODE__` count
 * @throws KeysteadError `config/not-found`, `config/invalid` (argument: the path in the configuration)
 * @example
 * const config = await readNodeConfig("/etc/keystead/node.yaml", process.env);
 */
export async function readNodeConfig(
  file: string,
  env: Readonly<Record<string, string | undefined>>,
): Promise<NodeConfig> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (cause) {
    throw new KeysteadError("config/not-found", `the configuration ${file} cannot be read`, {
      argument: "config",
      remedy: "Give the file's path with --config.",
      cause,
    });
  }
  return parseNodeConfig(text, env, dirname(resolve(file)));
}

/**
 * Checks a configuration's text.
 *
 * @param folder what paths are relative to
 * @throws KeysteadError `config/invalid`
 * @example
 * const config = parseNodeConfig(text, process.env, "/etc/keystead");
 */
export function parseNodeConfig(
  text: string,
  env: Readonly<Record<string, string | undefined>>,
  folder: string,
): NodeConfig {
  const { value, variables } = withEnvironment(parseDocument(text), env);
  const result = schema.safeParse(value);
  if (!result.success) {
    const lines = result.error.issues.map((issue) => {
      const where = issue.path.map(String).join(".");
      const variable = variables.get(where);
      const named = variable === undefined ? where : `${where} (${variable} in the environment)`;
      return `${where === "" ? "the configuration" : named}: ${issue.message}${settingsAt(issue)}`;
    });
    const argument = result.error.issues[0]?.path.map(String).join(".");
    throw bad(
      argument === undefined || argument === "" ? "config" : argument,
      lines.join("; "),
      "Correct what is named; src/node/README.md lists every setting.",
    );
  }
  return absolute(result.data, folder);
}

/** What there is, where something was named that is not. */
function settingsAt({ code, path }: z.core.$ZodIssue): string {
  if (code !== "unrecognized_keys") return "";
  // An element of a list has no settings of its own here: its list is named.
  const shape = path.reduce<z.ZodType | undefined>((at, part) => childOf(at, String(part)), schema);
  const keys = [...new Set(keysOf(shape))];
  return keys.length === 0 ? "" : `; there is ${keys.join(", ")}`;
}

function parseDocument(text: string): unknown {
  try {
    // YAML 1.2 core: no custom tags, unique keys, and few enough aliases that nothing explodes.
    const document = parseYaml(text, { uniqueKeys: true, schema: "core", logLevel: "silent" });
    const [wrong] = [...document.errors, ...document.warnings];
    if (wrong !== undefined) throw wrong;
    return document.toJS({ maxAliasCount: 16 });
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split("\n")[0] ?? "") : "";
    throw bad("config", `the configuration is no YAML: ${why}`, "Correct the file.", cause);
  }
}

/** Names in the environment are upper-case; which setting they mean is found without regard to case, so SCREAMING names reach camelCase settings. */
function withEnvironment(
  base: unknown,
  env: Readonly<Record<string, string | undefined>>,
): { readonly value: unknown; readonly variables: ReadonlyMap<string, string> } {
  const root: Record<string, unknown> = isRecord(base) ? structuredClone(base) : {};
  const variables = new Map<string, string>();
  for (const [name, text] of Object.entries(env)) {
    if (text === undefined || name === CONFIG_VARIABLE || !name.startsWith(NEAR_PREFIX)) continue;
    if (!name.startsWith(PREFIX)) {
      const remedy = `Name settings as in ${PREFIX}LISTEN__PORT, with two underscores between the parts, or unset it.`;
      throw bad(name, `${name} names no setting`, remedy);
    }
    const path: string[] = [];
    const parts = name.slice(PREFIX.length).split("__");
    let at: Record<string, unknown> = root;
    let shape: z.ZodType | undefined = schema;
    for (const [index, part] of parts.entries()) {
      const keys: readonly string[] = keysOf(shape);
      const key = keys.find((known) => known.toLowerCase() === part.toLowerCase().replaceAll("_", ""));
      if (key === undefined) throw bad(name, `${name} names no setting`, "Correct or unset the variable.");
      shape = childOf(shape, key);
      path.push(key);
      if (index === parts.length - 1) at[key] = parseDocument(text);
      else {
        const next = at[key];
        const child: Record<string, unknown> = isRecord(next) ? next : {};
        at[key] = child;
        at = child;
      }
    }
    variables.set(path.join("."), name);
  }
  return { value: isRecord(base) || Object.keys(root).length > 0 ? root : base, variables };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The object schemas inside of defaults, options and unions. */
function objectsIn(shape: z.ZodType | undefined): readonly z.ZodObject[] {
  if (shape instanceof z.ZodObject) return [shape];
  if (shape instanceof z.ZodOptional || shape instanceof z.ZodPrefault || shape instanceof z.ZodDefault)
    return objectsIn(shape.unwrap() as z.ZodType);
  if (shape instanceof z.ZodDiscriminatedUnion)
    return shape.options.flatMap((option) => objectsIn(option as unknown as z.ZodType));
  return [];
}

function keysOf(shape: z.ZodType | undefined): readonly string[] {
  return objectsIn(shape).flatMap((object) => Object.keys(object.shape));
}

function childOf(shape: z.ZodType | undefined, key: string): z.ZodType | undefined {
  return objectsIn(shape)
    .map((object) => object.shape[key] as z.ZodType | undefined)
    .find((child) => child !== undefined);
}

function absolute(config: NodeConfig, folder: string): NodeConfig {
  const at = (given: string) => resolve(folder, given);
  const { root, evidence, unsafeTestTee, chain, dstackWebhook } = config;
  const { snpCrlFiles, collateralFiles, pccs } = evidence;
  return {
    ...config,
    deployment: at(config.deployment),
    receipts: at(config.receipts),
    chain: {
      ...chain,
      endpoints: chain.endpoints.map((one) => ({
        ...one,
        ...(one.urlFile === undefined ? {} : { urlFile: at(one.urlFile) }),
      })),
    },
    root:
      root.store === "dstack"
        ? root
        : {
            ...root,
            path: at(root.path),
            ...(root.passphraseFile === undefined ? {} : { passphraseFile: at(root.passphraseFile) }),
          },
    evidence: {
      ...evidence,
      ...(collateralFiles === undefined ? {} : { collateralFiles: collateralFiles.map(at) }),
      ...(pccs === undefined
        ? {}
        : { pccs: { ...pccs, ...(pccs.caFile === undefined ? {} : { caFile: at(pccs.caFile) }) } }),
      ...(snpCrlFiles === undefined
        ? {}
        : {
            snpCrlFiles: Object.fromEntries(
              Object.entries(snpCrlFiles).flatMap(([name, file]) => (file === undefined ? [] : [[name, at(file)]])),
            ),
          }),
    },
    ...(dstackWebhook?.tokenFile === undefined
      ? {}
      : { dstackWebhook: { ...dstackWebhook, tokenFile: at(dstackWebhook.tokenFile) } }),
    ...(unsafeTestTee === undefined ? {} : { unsafeTestTee: { roots: unsafeTestTee.roots.map(at) } }),
  };
}

/**
 * Refuses test roots where real keys could be at stake.
 *
 * @throws KeysteadError `config/test-tee-on-public-chain` {chainId}
 * @example
 * checkTestTee(config, 1n);
 */
export function checkTestTee({ unsafeTestTee }: Pick<NodeConfig, "unsafeTestTee">, chainId: bigint): void {
  if (unsafeTestTee === undefined || isLocalChain(chainId)) return;
  throw new KeysteadError(
    "config/test-tee-on-public-chain",
    `chain ${chainId} is not a development chain: evidence under test roots is never taken there`,
    {
      argument: "unsafeTestTee",
      remedy: "Remove unsafeTestTee from the configuration.",
      details: { chainId: String(chainId) },
    },
  );
}

/**
 * Whether the kernel would write this process's memory to disk if it crashed: the soft limit of core dumps of `/proc/self/limits`.
 *
 * @returns false where that cannot be known, as on systems without /proc
 * @example
 * if (writesCoreDumps(await readFile("/proc/self/limits", "utf8"))) …
 */
export function writesCoreDumps(limits: string): boolean {
  const soft = /^Max core file size\s+(\S+)/m.exec(limits)?.[1];
  return soft !== undefined && soft !== "0";
}
