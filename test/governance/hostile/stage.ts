import { createHash } from "node:crypto";
import { id, Wallet } from "ethers";
import type { Deployment } from "../../../src/chain/deployment.ts";
import type { Hex } from "../../../src/core/bytes.ts";
import { INTERFACES } from "../../../src/governance/abis.ts";
import {
  formatOperation,
  type Operation,
  parseOperation,
  rollbackId,
  timelockSide,
} from "../../../src/governance/operation.ts";
import type { ProposalInput } from "../../../src/governance/propose.ts";
import { type Call, hex } from "../../../src/governance/safe-hash.ts";
import { type Key, parseKey } from "../../../src/governance/sign.ts";
import {
  ALLOW_TDX,
  addressOf,
  CONTRACTS,
  folderOf,
  PARTIES,
  propose,
  SERVICE,
  safeRef,
} from "../../helpers/governance.ts";

/* What hostile and good folders are made of. Everything derived is derived as the tools do it: a hostile folder is consistent. */

export const ATTACKER = addressOf(666);
export const ZERO = `0x${"00".repeat(20)}`;
export const encoder = new TextEncoder();
export const { governance, guardian } = PARTIES;

export type Files = Map<string, Uint8Array>;

/** The deployment's record, which names two Safes and a delay of 48 h. */
export function recordOf(): Deployment {
  const contract = (address: string) => ({
    ...{ address, source: "a.sol:A", codeHash: "0x", transaction: "0x", block: 1, constructorArguments: [] },
  });
  const safe = (address: string, version: string) => ({ address, version, owners: [], threshold: 2 });
  return {
    ...{ schema: 1 as const, network: "mainnet", chainId: 1n, block: 1, delaySeconds: 172_800, roles: [] },
    safes: { governance: safe(governance.address, "1.5.0"), guardian: safe(guardian.address, "1.4.1") },
    contracts: {
      ...{ timelock: contract(CONTRACTS.timelock), policy: contract(CONTRACTS.policy) },
      ...{ registry: contract(CONTRACTS.registry), dstackAuth: contract(addressOf(4)) },
      ...{ policyImplementation: contract(addressOf(5)), registryImplementation: contract(addressOf(6)) },
    },
  };
}

/** A call by its function's name. */
export const callOf = (
  contract: "policy" | "registry" | "timelock" | "safe",
  to: string,
  name: string,
  ...args: readonly unknown[]
): Call => ({ to, value: 0n, data: hex(INTERFACES[contract].encodeFunctionData(name, args)) });

export const policyCall = (name: string, ...args: readonly unknown[]) =>
  callOf("policy", CONTRACTS.policy, name, ...args);
export const timelockCall = (name: string, ...args: readonly unknown[]) =>
  callOf("timelock", CONTRACTS.timelock, name, ...args);

export const roleOf = (name: string): string =>
  name === "DEFAULT_ADMIN_ROLE"
    ? `0x${"00".repeat(32)}`
    : id(name === "GOVERNOR_ROLE" || name === "GUARDIAN_ROLE" ? `keystead.${name.replace("_ROLE", "")}` : name);

/** An operation changed by hand, with every salt made right again: consistent in itself, whatever it does. */
export function forge(operation: Operation, change: Partial<Operation>): Operation {
  const changed = { ...operation, ...change };
  const { timelock, rollback, id: name } = changed;
  const terms = timelock === null ? null : { ...timelock, salt: hex(timelockSide(changed, timelock, name).salt) };
  const salted = { ...changed, timelock: terms };
  if (rollback === null || rollback.timelock === null) return reread(salted);
  const predecessor =
    terms === null ? rollback.timelock.predecessor : hex(timelockSide(salted, terms, name).operationId);
  const back = { chainId: salted.chainId, calls: rollback.calls };
  const backTerms = { ...rollback.timelock, predecessor };
  const salt = hex(timelockSide(back, backTerms, rollbackId(name)).salt);
  return reread({ ...salted, rollback: { ...rollback, timelock: { ...backTerms, salt } } });
}

const reread = (operation: Operation): Operation => parseOperation(formatOperation(operation));

/** A grant whose rollback makes these calls. */
export const grantThenBack = (...calls: readonly Call[]): Operation => grantBackOf(propose(), ...calls);

/** An operation whose rollback makes other calls. */
export function grantBackOf(operation: Operation, ...calls: readonly Call[]): Operation {
  if (operation.rollback === null) throw new Error("a grant has a rollback");
  return forge(operation, { rollback: { ...operation.rollback, calls } });
}

/** An admin operation through the timelock that makes these calls. */
export const adminOf = (...calls: readonly Call[]): Operation =>
  forge(propose({ intents: [{ intent: "call", arguments: { to: ATTACKER, data: "0x00" } }] }), { calls });

/** A proposal of one intent. */
export const proposeIntent = (
  intent: string,
  given: Readonly<Record<string, string>> = {},
  more: Partial<ProposalInput> = {},
): Operation => propose({ intents: [{ intent, arguments: given }], ...more });

/** The account that a service's own calls go through. */
export const OWN = { ...PARTIES, account: { safe: safeRef(20, 1n, "1.3.0") } };
export const service = (intent: string, given: Readonly<Record<string, string>>): Operation =>
  proposeIntent(intent, { service: SERVICE, ...given }, { parties: OWN });

export const sha256 = (bytes: Uint8Array): Hex => `0x${createHash("sha256").update(bytes).digest("hex")}`;

/** A measurement as `keystead measure … --json` prints it; what it says is its author's word. */
export function measurementOf(
  kind: string,
  registers: Readonly<Record<string, string>>,
  source: Uint8Array,
  more: object = {},
): Uint8Array {
  const from = { name: "source", sha256: sha256(source), bytes: source.length };
  const entries = Object.entries(registers).map(([name, value]) => [
    name,
    { value, how: "computed", source: from, formula: "measured" },
  ]);
  const measurement = {
    ...{ kind, input: "quote", registers: Object.fromEntries(entries), facts: {}, sources: [from] },
    ...{ findings: [], unchecked: [], ...more },
  };
  return encoder.encode(JSON.stringify({ format: "keystead.measurement/1", measurement }));
}

/** A folder of an operation with one measurement and the source that is kept with it. */
export function measuredFolder(
  intent: string,
  given: Readonly<Record<string, string>>,
  measurement: Uint8Array,
  source: Uint8Array,
  more: Partial<ProposalInput> = {},
): Made {
  const attachments = new Map([
    ["measurements/measurement.json", measurement],
    ["measurements/source-1", source],
  ]);
  const operation = propose({
    intents: [{ intent, arguments: given }],
    measurements: [
      {
        ...{ call: 0, file: "measurements/measurement.json", sha256: sha256(measurement) },
        sources: [{ file: "measurements/source-1", sha256: sha256(source) }],
      },
    ],
    ...more,
  });
  return { operation, files: folderOf(operation, attachments) };
}

export interface Made {
  readonly operation: Operation;
  readonly files: Files;
}

export const made = (operation: Operation): Made => ({ operation, files: folderOf(operation) });

/** A folder with more files in it. */
export const withFiles = ({ operation, files }: Made, ...more: readonly (readonly [string, string])[]): Made => ({
  operation,
  files: new Map([...files, ...more.map(([name, text]) => [name, encoder.encode(text)] as const)]),
});

export const keyOf = (name: string): Key => parseKey(new Wallet(id(`keystead hostile ${name}`)).privateKey, "key");
/** 32 bytes that say which. */
export const word = (byte: number): Hex => `0x${byte.toString(16).padStart(2, "0").repeat(32)}`;
export const register = (byte: number, width = 48): Hex => `0x${byte.toString(16).padStart(2, "0").repeat(width)}`;
export { ALLOW_TDX, addressOf, CONTRACTS, folderOf, PARTIES, propose, SERVICE, safeRef };
