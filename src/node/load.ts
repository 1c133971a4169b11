import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Logger } from "pino";
import { type Deployment, parseDeployment } from "../chain/deployment.ts";
import { createEndpoint } from "../chain/endpoint.ts";
import { type PinnedDeployment, pinDeployment } from "../chain/pins.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { checkTestTee, type NodeConfig, writesCoreDumps } from "./config.ts";
import type { Decider } from "./decide.ts";
import { createDecider, type DeciderOptions } from "./decider.ts";
import type { DstackGateOptions } from "./dstack-gate.ts";
import { monotonicSeconds } from "./evidence/time.ts";
import { parsePemChain } from "./evidence/x509.ts";
import { type Attest, joinNode } from "./join.ts";
import type { JudgeOptions } from "./judge.ts";
import { createDstackRootStore, createFileRootStore, type FileRootStore, type RootSecret } from "./keys.ts";

/* What a configuration names, read and opened: the deployment, the chain, how evidence is judged, the root secrets. */

/** What a node needs from outside of its configuration. */
export interface NodeSurroundings {
  /** The passphrase of a root file, where no file holds it. */
  readonly passphrase?: string | undefined;
  /** Makes evidence with this machine's TEE: for joining. */
  readonly attest?: Attest | undefined;
}

const clock = () => Date.now() / 1000;

/** What a configuration says about the chain, loaded. */
export interface LoadedDeployment {
  readonly record: Deployment;
  readonly pinned: PinnedDeployment;
}

/**
 * Reads the deployment's record, and refuses what its chain does not allow.
 *
 * @throws KeysteadError `config/invalid`, `deployment/invalid`, `config/test-tee-on-public-chain`
 * @example
 * const { pinned } = await loadDeployment(config);
 */
export async function loadDeployment(config: NodeConfig): Promise<LoadedDeployment> {
  const record = parseDeployment(await readConfigured(config.deployment, "deployment"));
  checkTestTee(config, record.chainId);
  return { record, pinned: pinDeployment(record, config.implementations) };
}

/**
 * Makes what decides, over the configured endpoints. It is not started.
 *
 * @param more `floor` is the block of the latest receipt: nothing older is decided on
 * @throws KeysteadError `config/invalid`: an address cannot be read, or is there twice; `chain/bad-quorum`
 * @example
 * const decider = await openDecider(config, pinned, { onError: (error) => log.warn(error) });
 */
export async function openDecider(
  config: NodeConfig,
  deployment: PinnedDeployment,
  more: Pick<DeciderOptions, "onError" | "onRecovery" | "floor"> = {},
): Promise<Decider> {
  const { chainId } = deployment;
  const { endpoints, quorum, ...rest } = config.chain;
  const opened = await Promise.all(
    endpoints.map(async ({ name, url, urlFile }) => {
      const address = url ?? (await readConfigured(urlFile ?? "", "chain.endpoints")).trim();
      return { name, address };
    }),
  );
  // Two names of one endpoint would be a quorum of one.
  const seen = new Map<string, string>();
  for (const { name, address } of opened) {
    const key = URL.canParse(address) ? new URL(address).href : address;
    const other = seen.get(key);
    if (other !== undefined) {
      throw new KeysteadError("config/invalid", `the endpoints ${other} and ${name} have one address`, {
        argument: "chain.endpoints",
        remedy: "Give endpoints of different operators: one that is there twice agrees with itself.",
      });
    }
    seen.set(key, name);
  }
  return createDecider({
    deployment,
    endpoints: opened.map(({ name, address }) => createEndpoint(name, address, { chainId }, monotonicSeconds)),
    required: quorum,
    clock,
    stopwatch: monotonicSeconds,
    ...more,
    ...rest,
  });
}

/**
 * How the configuration says that evidence is judged.
 *
 * @throws KeysteadError `config/invalid`, and those of `parsePemChain`
 * @example
 * const judge = createJudge(await loadJudgeOptions(config));
 */
export async function loadJudgeOptions({ evidence, unsafeTestTee }: NodeConfig): Promise<JudgeOptions> {
  const { threads: _, snpMinimumTcb, pccs, ...rest } = evidence;
  const roots = await loadTestRoots({ unsafeTestTee });
  return {
    ...rest,
    ...(pccs === undefined ? {} : { pccs: await loadPccs(pccs) }),
    snpMinimumTcb: snpMinimumTcb as JudgeOptions["snpMinimumTcb"],
    ...(unsafeTestTee === undefined ? {} : { unsafeTestRoots: roots }),
  };
}

/**
 * How the configuration says that PCCSs are asked.
 *
 * @throws KeysteadError `config/invalid`, and those of `parsePemChain`
 * @example
 * const { urls, ca } = await loadPccs(config.evidence.pccs);
 */
export async function loadPccs({
  url,
  caFile,
  ...rest
}: NonNullable<NodeConfig["evidence"]["pccs"]>): Promise<NonNullable<JudgeOptions["pccs"]>> {
  const urls = typeof url === "string" ? [url] : url;
  if (caFile === undefined) return { ...rest, urls };
  const ca = await readConfigured(caFile, "evidence.pccs.caFile");
  try {
    // Any of them that OpenSSL can't read would be left out silently.
    parsePemChain(ca, "tdx", caFile).map((der) => new X509Certificate(der));
  } catch (cause) {
    const remedy = "Give the PCCS's certificate, or its authority's, in PEM.";
    throw new KeysteadError("config/invalid", `${caFile} does not hold certificates in PEM`, {
      argument: "evidence.pccs.caFile",
      remedy,
      cause,
    });
  }
  return { ...rest, urls, ca };
}

/**
 * The test roots that the configuration names.
 *
 * @returns DER, one after the other
 * @throws KeysteadError `config/invalid`, and those of `parsePemChain`
 * @example
 * const unsafeTestRoots = await loadTestRoots(config);
 */
export async function loadTestRoots({ unsafeTestTee }: Pick<NodeConfig, "unsafeTestTee">): Promise<Uint8Array[]> {
  return (await Promise.all((unsafeTestTee?.roots ?? []).map(readRoots))).flat();
}

async function readRoots(path: string): Promise<readonly Uint8Array[]> {
  const bytes = await readConfiguredBytes(path, "unsafeTestTee.roots");
  return bytes[0] === 0x30 ? [new Uint8Array(bytes)] : parsePemChain(new Uint8Array(bytes), "tdx", path);
}

/**
 * Reads a file that the configuration names.
 *
 * @param argument the setting
 * @throws KeysteadError `config/invalid`
 * @example
 * const der = await readConfiguredBytes("/etc/keystead/milan.crl", "evidence.snpCrlFiles");
 */
export async function readConfiguredBytes(path: string, argument: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (cause) {
    const remedy = "Check the path and who may read it.";
    throw new KeysteadError("config/invalid", `${path} cannot be read`, { argument, remedy, cause });
  }
}

/** As {@link readConfiguredBytes}, as text. */
export async function readConfigured(path: string, argument: string): Promise<string> {
  return (await readConfiguredBytes(path, argument)).toString("utf8");
}

/**
 * Refuses to hold secrets where a crash would write them to disk.
 *
 * @throws KeysteadError `node/core-dumps`
 * @example
 * await checkCoreDumps(config);
 */
export async function checkCoreDumps({ allowCoreDumps }: Pick<NodeConfig, "allowCoreDumps">): Promise<void> {
  const limits = await readFile("/proc/self/limits", "utf8").catch(() => "");
  if (allowCoreDumps || !writesCoreDumps(limits)) return;
  throw new KeysteadError(
    "node/core-dumps",
    "a crash of this process would write its memory, with the root secret, to disk",
    {
      argument: "allowCoreDumps",
      remedy:
        "Start it with core dumps off: ulimit -c 0 in a shell, LimitCORE=0 for systemd, --ulimit core=0 for Docker.",
    },
  );
}

/**
 * The root file's store.
 *
 * @throws KeysteadError `config/invalid`, `root/weak-passphrase`
 * @example
 * await (await openFileStore(config, { passphrase })).create();
 */
export async function openFileStore(
  { root }: Pick<NodeConfig, "root">,
  { passphrase }: NodeSurroundings,
): Promise<FileRootStore> {
  if (root.store !== "file") {
    throw new KeysteadError("config/invalid", "the root is the TEE's key agent's, not a file's", {
      argument: "root.store",
      remedy: "This is for nodes with root.store: file.",
    });
  }
  const text =
    root.passphraseFile === undefined ? passphrase : await readConfigured(root.passphraseFile, "root.passphraseFile");
  if (text === undefined) {
    throw new KeysteadError("config/invalid", "there is no passphrase for the root file", {
      argument: "root.passphraseFile",
      remedy: "Name a file in root.passphraseFile, or set KEYSTEAD_ROOT_PASSPHRASE.",
    });
  }
  return createFileRootStore(root.path, Buffer.from(text.replace(/\r?\n$/, "")));
}

/**
 * Root secrets from where the configuration says; from another node where there are none yet and it says to join. The caller wipes them.
 *
 * @throws KeysteadError those of the stores and of `joinNode`; `join/no-device`
 * @example
 * const ring = createKeyRing(await loadRoots(config, loaded, { attest }), deployment);
 */
export async function loadRoots(
  config: NodeConfig,
  { pinned }: LoadedDeployment,
  surroundings: NodeSurroundings,
  log?: Pick<Logger, "info">,
): Promise<readonly RootSecret[]> {
  const { root, join } = config;
  if (root.store === "dstack") {
    const { socketPath, rootEpochs } = root;
    return await createDstackRootStore({ rootEpochs, ...(socketPath === undefined ? {} : { socketPath }) }).load();
  }
  const store = await openFileStore(config, surroundings);
  try {
    return await store.load();
  } catch (error) {
    if (!isKeysteadError(error, "root/not-found") || join === undefined) throw error;
  }
  if (surroundings.attest === undefined) {
    throw new KeysteadError("join/no-device", "this machine's TEE is needed to join a node", {
      argument: "join",
      remedy: "Run it in a TEE, or give a command that makes evidence.",
    });
  }
  log?.info({ url: new URL(join.url).host }, "no root file: joining a running node");
  const roots = await joinNode({
    url: join.url,
    attest: surroundings.attest,
    deployment: { chainId: BigInt(pinned.chainId), registry: pinned.registry.address },
    expected: join,
    testTee: config.unsafeTestTee !== undefined,
  });
  await store.write(roots);
  log?.info({ epochs: roots.length }, "joined: the root file is written");
  return roots;
}

/**
 * Who may ask the dstack webhook, as the configuration says.
 *
 * @returns undefined where there is no webhook
 * @throws KeysteadError `config/invalid`: the token's file cannot be read
 * @example
 * const gate = await loadDstackGate(config);
 */
export async function loadDstackGate({
  dstackWebhook,
}: Pick<NodeConfig, "dstackWebhook">): Promise<DstackGateOptions | undefined> {
  if (dstackWebhook === undefined) return undefined;
  const { allow, tokenFile } = dstackWebhook;
  const token = tokenFile === undefined ? undefined : await readConfigured(tokenFile, "dstackWebhook.tokenFile");
  return { allow, token: token?.trim() };
}

/** The address cannot be listened on. */
export function notListening(host: string, port: number, cause: unknown): KeysteadError {
  const errno = cause instanceof Error && "code" in cause ? `: ${String(cause.code)}` : "";
  return new KeysteadError("node/not-listening", `${host}:${port} cannot be listened on${errno}`, {
    argument: "listen",
    remedy: "Choose another port or address, or stop what listens there.",
    cause,
  });
}
