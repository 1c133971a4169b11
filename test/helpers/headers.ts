import { encodeRlp, keccak256, toBeArray } from "ethers";
import type { Eip1193Provider } from "../../src/chain/client.ts";
import type { Hex } from "../../src/core/bytes.ts";

/** A header as an endpoint's JSON, with a true hash. */
export type Header = Readonly<Record<string, string>> & { readonly hash: Hex };

const zeros = (bytes: number): string => `0x${"00".repeat(bytes)}`;
const quantity = (value: number): string => `0x${value.toString(16)}`;
const QUANTITIES: ReadonlySet<string> = new Set(["difficulty", "number", "gasLimit", "gasUsed", "timestamp"]);

/** A header of a chain told apart from others by `branch`. Its hash is computed here, without `src`. */
export function header(number: number, timestamp: number, branch = 0): Header {
  const fields: Record<string, string> = {
    parentHash: zeros(32),
    sha3Uncles: zeros(32),
    miner: zeros(20),
    stateRoot: `0x${branch.toString(16).padStart(2, "0")}${"11".repeat(31)}`,
    transactionsRoot: zeros(32),
    receiptsRoot: zeros(32),
    logsBloom: zeros(256),
    difficulty: "0x0",
    number: quantity(number),
    gasLimit: "0x0",
    gasUsed: "0x0",
    timestamp: quantity(timestamp),
    extraData: "0x",
    mixHash: zeros(32),
    nonce: zeros(8),
  };
  const encoded = Object.entries(fields).map(([name, value]) =>
    QUANTITIES.has(name) ? toBeArray(value) : (value as string),
  );
  return { ...fields, hash: keccak256(encodeRlp(encoded)) as Hex };
}

/** An endpoint of a chain whose block `n` is made `secondsPerBlock * n` after `genesis`. Its state may be changed by a test. */
export interface FakeChain extends Eip1193Provider {
  chainId: number;
  finalized: number;
  latest: number;
  /** From which height on it is on its own branch, and which. */
  forkAt: number;
  branch: number;
  /** Changes an answer, or throws. */
  change: (answer: unknown, params: readonly unknown[]) => unknown;
  /** How often a block was asked for. */
  asked: number;
}

export const BLOCK_SECONDS = 10;

/** Makes an endpoint. */
export function fakeChain(changes: Partial<FakeChain> = {}): FakeChain {
  const chain: FakeChain = {
    chainId: 1,
    finalized: 100,
    latest: 110,
    forkAt: Number.POSITIVE_INFINITY,
    branch: 0,
    change: (answer) => answer,
    asked: 0,
    ...changes,
    async request({ method, params = [] }) {
      if (method === "eth_chainId") return quantity(chain.chainId);
      chain.asked += 1;
      const tag = String(params[0]);
      const number = tag === "finalized" ? chain.finalized : tag === "latest" ? chain.latest : Number(tag);
      const there = number <= chain.latest;
      const branch = number >= chain.forkAt ? chain.branch : 0;
      return chain.change(there ? header(number, number * BLOCK_SECONDS, branch) : null, params);
    },
  };
  return chain;
}
