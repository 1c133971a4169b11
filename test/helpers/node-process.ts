import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { getAddress } from "ethers";
import { type Deployment, formatDeployment } from "../../src/chain/deployment.ts";
import type { PinnedCode } from "../../src/chain/pins.ts";
import { fromHex, type Hex } from "../../src/core/bytes.ts";
import { decodeImage } from "../../src/core/image.ts";
import type { TestTdxQuote } from "../../src/node/test-tee/tdx.ts";
import type { NodeChain } from "./decider.ts";
import { PROGRAM_ENVIRONMENT } from "./environment.ts";
import type { TestTees } from "./node.ts";

const MAIN = join(import.meta.dirname, "..", "..", "src", "cli", "main.ts");

/** A `keystead node` that runs as a process of its own. */
export interface NodeProcess {
  readonly url: string;
  readonly child: ChildProcess;
  /** Everything that it printed so far. */
  readonly output: () => Buffer;
  /** Sends a signal and waits for the end; gives the exit code, or the signal's name. */
  readonly kill: (signal: NodeJS.Signals) => Promise<number | string | null>;
}

/** A node that ended in place of listening. */
export class NodeEnded extends Error {
  readonly code: number | string | null;
  readonly output: string;
  constructor(code: number | string | null, output: string) {
    super(`the node ended with ${code}: ${output}`);
    this.code = code;
    this.output = output;
  }
}

/** Starts `keystead node run` without core dumps, and waits until it listens; throws {@link NodeEnded} where it does not. */
export async function startNodeProcess(
  config: string,
  env: Readonly<Record<string, string>> = {},
  args: readonly string[] = [],
): Promise<NodeProcess> {
  const command = 'ulimit -c 0; exec "$@"';
  const words = ["-c", command, "sh", process.execPath, MAIN, "node", "run", "--config", config, ...args];
  const child = spawn("sh", words, {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...PROGRAM_ENVIRONMENT, ...env },
  });
  const chunks: Buffer[] = [];
  const output = () => Buffer.concat(chunks);
  const ended = new Promise<number | string | null>((resolve) => {
    child.once("close", (code, signal) => resolve(signal ?? code));
  });
  const url = await new Promise<string>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`the node does not listen: ${output()}`)), 120_000);
    let looking = true;
    const look = (chunk: Buffer) => {
      chunks.push(chunk);
      // Every line is kept, none looked at twice: a reader that is slow holds up the writer, and this one is measured.
      if (!looking) return;
      const found = /"url":"(http:[^"]+)","chainId"/.exec(output().toString("utf8"))?.[1];
      if (found === undefined) return;
      looking = false;
      clearTimeout(timer);
      resolve(found);
    };
    child.stdout?.on("data", look);
    child.stderr?.on("data", look);
    void ended.then((code) => {
      clearTimeout(timer);
      reject(new NodeEnded(code, output().toString("utf8")));
    });
  });
  const kill = async (signal: NodeJS.Signals) => {
    child.kill(signal);
    return await ended;
  };
  return { url, child, output, kill };
}

/** The record of a chain's suite, as a deployment would have written it. */
export function recordOf(chain: NodeChain): string {
  const { deployment, suite } = chain;
  const contract = ({ address, codeHash }: PinnedCode) => ({
    address: getAddress(address),
    source: "contracts/Test.sol:Test",
    codeHash,
    transaction: `0x${"11".repeat(32)}`,
    block: 1,
    constructorArguments: [],
  });
  // what a node does not look at is filled in
  const safe = { address: suite.guardian.address, version: "1.5.0", owners: [suite.eve.address], threshold: 1 };
  const [registryCode] = deployment.registry.implementations;
  const [policyCode] = deployment.policy.implementations;
  if (registryCode === undefined || policyCode === undefined) throw new Error("nothing is pinned");
  const dstackAuth = { address: deployment.dstackAuth, codeHash: deployment.policy.codeHash };
  const record: Deployment = {
    schema: 1,
    network: "test",
    chainId: BigInt(deployment.chainId),
    block: 0,
    delaySeconds: 0,
    safes: { governance: safe, guardian: safe },
    contracts: {
      timelock: contract(dstackAuth),
      registry: contract(deployment.registry),
      policy: contract(deployment.policy),
      registryImplementation: contract(registryCode),
      policyImplementation: contract(policyCode),
      dstackAuth: contract(dstackAuth),
    },
    roles: [],
  };
  return formatDeployment(record);
}

/** Writes what a node of the tests needs, and gives its configuration's path. */
export function writeNodeConfig(
  tees: TestTees,
  chain: NodeChain,
  name: string,
  changes: Readonly<Record<string, unknown>> = {},
): string {
  const { folder, judgeOptions } = tees;
  const roots = (judgeOptions.unsafeTestRoots ?? []).map((der, index) =>
    folder.write(`${name}-root-${index}.der`, der),
  );
  folder.write("record.json", recordOf(chain));
  folder.write("passphrase", "a passphrase of the tests\n");
  const endpoint = { name: "anvil", url: chain.anvil.url };
  const config = {
    listen: { port: 0 },
    deployment: "record.json",
    chain: { endpoints: [endpoint], quorum: 1, maxAgeSeconds: 86_400, pollSeconds: 1 },
    root: { store: "file", path: `${name}.root.json`, passphraseFile: "passphrase" },
    receipts: `${name}.receipts.jsonl`,
    evidence: { collateralFiles: judgeOptions.collateralFiles, requireSnpCrl: false },
    unsafeTestTee: { roots },
    limits: { requestsPerSecond: 100_000, burst: 1_000_000, timeoutMs: 60_000 },
    ...changes,
  };
  return folder.write(`${name}.yaml`, JSON.stringify(config));
}

/** A TDX quote's registers for an image: what a machine that runs it shows. */
export function quoteOf(image: string): Partial<TestTdxQuote> {
  const { registers } = decodeImage(fromHex(image, "image"), "service");
  const bytes = (name: string) => fromHex(registers[name] ?? `0x${"00".repeat(48)}`, name);
  return {
    mrTd: bytes("mrtd"),
    rtMr0: bytes("rtmr0"),
    rtMr1: bytes("rtmr1"),
    rtMr2: bytes("rtmr2"),
    rtMr3: bytes("rtmr3"),
  };
}

/** Every spelling of a secret that a leak could have. */
export function spellings(secret: Uint8Array): readonly Buffer[] {
  const bytes = Buffer.from(secret);
  const hex = bytes.toString("hex");
  const texts = [hex, hex.toUpperCase(), bytes.toString("base64"), bytes.toString("base64url"), [...bytes].join(",")];
  // Inside other base64 a secret's characters depend on where it begins: the middle is the same for each of the three places.
  const shifted = [1, 2].map((shift) => {
    const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString("base64");
    return text.slice(4, Math.floor(((shift + bytes.length) * 4) / 3) - 1);
  });
  return [bytes, ...[...texts, ...shifted, [...bytes].join(", ")].map((text) => Buffer.from(text))];
}

/** Which of some secrets, by name, are in a text, in any spelling. */
export function leaks(text: Buffer, secrets: ReadonlyMap<string, Uint8Array>): readonly string[] {
  return [...secrets].flatMap(([name, secret]) =>
    spellings(secret).some((form) => text.includes(form)) ? [name] : [],
  );
}

export type { Hex };
