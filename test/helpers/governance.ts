import { createHash } from "node:crypto";
import { getAddress, toBeHex } from "ethers";
import { deriveProposal } from "../../src/governance/proposal.ts";
import { buildOperation, type Parties, type ProposalInput } from "../../src/governance/propose.ts";
import { MULTI_SEND_CALL_ONLY, type SafeRef, type SafeVersion } from "../../src/governance/safe-hash.ts";
import { PLATFORM } from "./images.ts";

/** An address that says which one it is. */
export const addressOf = (number: number): string => getAddress(toBeHex(BigInt(number) * 0x1111n + (1n << 152n), 20));

export const safeRef = (number: number, nonce: bigint, version: SafeVersion = "1.5.0"): SafeRef => ({
  address: addressOf(number),
  version,
  multiSend: MULTI_SEND_CALL_ONLY[version][0] ?? "",
  nonce,
});

export const CONTRACTS = { policy: addressOf(1), registry: addressOf(2), timelock: addressOf(3) };
export const TIME = 1_764_000_000n;
export const SERVICE = `0x${"5e".repeat(20)}` as const;

export const PARTIES: Parties = { governance: safeRef(10, 5n), guardian: safeRef(11, 7n, "1.4.1"), delay: 172_800n };

/** A platform to be allowed, as an intent. */
export const ALLOW_TDX = {
  intent: "allow-platform",
  arguments: { image: PLATFORM.tdx, description: "firmware 1.5" },
};

/** A proposal with everything that is not asked for set to something. */
export const propose = (input: Partial<ProposalInput> = {}) =>
  buildOperation({
    ...{ id: "007-tdx", chainId: 1n, contracts: CONTRACTS, parties: PARTIES, time: TIME, intents: [ALLOW_TDX] },
    ...input,
  });

/** A measurement as `keystead measure … --json` prints it, of a compose file whose bytes are given. */
export function savedMeasurement(
  kind: string,
  registers: Readonly<Record<string, string>>,
  compose: Uint8Array,
): Uint8Array {
  const source = {
    name: "docker-compose.yaml",
    sha256: `0x${createHash("sha256").update(compose).digest("hex")}`,
    bytes: compose.length,
  };
  const measured = Object.entries(registers).map(([name, value]) => [
    name,
    { value, how: "computed", source, formula: "SHA-256 of the file" },
  ]);
  const measurement = {
    ...{ kind, input: "compose", registers: Object.fromEntries(measured), facts: {} },
    ...{ sources: [source], findings: [], unchecked: ["nothing"] },
  };
  return new TextEncoder().encode(JSON.stringify({ format: "keystead.measurement/1", measurement }));
}

/** The bytes of a whole folder. */
export function folderOf(
  operation: ReturnType<typeof propose>,
  attachments: ReadonlyMap<string, Uint8Array> = new Map(),
): Map<string, Uint8Array> {
  const encoder = new TextEncoder();
  const derived = [...deriveProposal(operation, attachments)].map(([name, text]): [string, Uint8Array] => [
    name,
    encoder.encode(text),
  ]);
  return new Map([...attachments, ...derived]);
}
