import { getAddress, isAddress, isHexString } from "ethers";
import { KeysteadError } from "../core/errors.ts";

/** The contracts of a deployment, by the part that they play. */
export const DEPLOYED_CONTRACTS = [
  "timelock",
  "policyImplementation",
  "policy",
  "registryImplementation",
  "registry",
  "dstackAuth",
] as const;
export type DeployedContractName = (typeof DEPLOYED_CONTRACTS)[number];

/** One deployed contract. */
export interface DeployedContract {
  readonly address: string;
  /** `path:Name` of the source that it was built from. */
  readonly source: string;
  /** keccak256 of its code on chain. */
  readonly codeHash: string;
  /** Hash and block of the transaction that created it. */
  readonly transaction: string;
  readonly block: number;
  /** As they were given to the constructor; numbers in decimal. */
  readonly constructorArguments: readonly string[];
}

/** A Safe as it was at deployment. */
export interface DeployedSafe {
  readonly address: string;
  readonly version: string;
  readonly owners: readonly string[];
  readonly threshold: number;
}

/** Everything that is recorded about a deployment; `deploy/deployments/<network>.json`. */
export interface Deployment {
  readonly schema: 1;
  readonly network: string;
  readonly chainId: bigint;
  /** The earliest block that matters: before it, no contract of the deployment existed. */
  readonly block: number;
  /** The timelock's minimum delay at deployment, seconds. */
  readonly delaySeconds: number;
  readonly safes: { readonly governance: DeployedSafe; readonly guardian: DeployedSafe };
  readonly contracts: Readonly<Record<DeployedContractName, DeployedContract>>;
  /** The role matrix as asserted from events: contract, role, holders. */
  readonly roles: readonly { readonly contract: string; readonly role: string; readonly holders: readonly string[] }[];
}

/**
 * Parses a recorded deployment and checks every field.
 *
 * @throws KeysteadError `deployment/invalid`; `argument` is the path of the field, such as `contracts.policy.address`
 * @example parseDeployment(await readFile("deploy/deployments/sepolia.json", "utf8")).contracts.registry.address
 */
export function parseDeployment(text: string): Deployment {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new KeysteadError("deployment/invalid", "the record is not JSON", {
      argument: "file",
      remedy: "restore the file from version control",
      cause,
    });
  }
  const record = object(value, "deployment");
  if (record.schema !== 1) throw invalid("schema", "must be 1", record.schema);
  const contracts = object(record.contracts, "contracts");
  const safes = object(record.safes, "safes");
  return {
    schema: 1,
    network: string(record.network, "network"),
    chainId: BigInt(matching(record.chainId, "chainId", /^[1-9]\d{0,77}$/, "a decimal number in quotes")),
    block: integer(record.block, "block"),
    delaySeconds: integer(record.delaySeconds, "delaySeconds"),
    safes: { governance: safe(safes.governance, "safes.governance"), guardian: safe(safes.guardian, "safes.guardian") },
    contracts: {
      timelock: contract(contracts.timelock, "contracts.timelock"),
      policyImplementation: contract(contracts.policyImplementation, "contracts.policyImplementation"),
      policy: contract(contracts.policy, "contracts.policy"),
      registryImplementation: contract(contracts.registryImplementation, "contracts.registryImplementation"),
      registry: contract(contracts.registry, "contracts.registry"),
      dstackAuth: contract(contracts.dstackAuth, "contracts.dstackAuth"),
    },
    roles: list(record.roles, "roles").map((entry, index) => {
      const at = `roles[${index}]`;
      const line = object(entry, at);
      return {
        contract: string(line.contract, `${at}.contract`),
        role: string(line.role, `${at}.role`),
        holders: list(line.holders, `${at}.holders`).map((holder, i) => address(holder, `${at}.holders[${i}]`)),
      };
    }),
  };
}

/** The text that {@link parseDeployment} reads back, in a fixed order of fields, so that records can be compared line by line. */
export function formatDeployment(deployment: Deployment): string {
  const text = JSON.stringify(deployment, (_, field) => (typeof field === "bigint" ? field.toString() : field), 2);
  return `${text}\n`;
}

function invalid(argument: string, rule: string, found: unknown): KeysteadError {
  return new KeysteadError("deployment/invalid", `${argument} ${rule}; found ${JSON.stringify(found) ?? "nothing"}`, {
    argument,
    remedy: "restore the record from version control, or deploy again: the same command resumes and rewrites it",
  });
}

function object(value: unknown, argument: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw invalid(argument, "must be an object", value);
  return { ...value };
}

function list(value: unknown, argument: string): readonly unknown[] {
  if (!Array.isArray(value)) throw invalid(argument, "must be a list", value);
  return value;
}

function string(value: unknown, argument: string): string {
  if (typeof value !== "string" || value === "") throw invalid(argument, "must be a text", value);
  return value;
}

function matching(value: unknown, argument: string, pattern: RegExp, rule: string): string {
  if (typeof value !== "string" || !pattern.test(value)) throw invalid(argument, `must be ${rule}`, value);
  return value;
}

function integer(value: unknown, argument: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw invalid(argument, "must be a whole number, 0 or more", value);
  }
  return value;
}

function address(value: unknown, argument: string): string {
  if (typeof value !== "string" || !isAddress(value) || getAddress(value) !== value) {
    throw invalid(argument, "must be an address with its checksum", value);
  }
  return value;
}

function hash(value: unknown, argument: string): string {
  if (!isHexString(value, 32)) throw invalid(argument, "must be 32 bytes in hex", value);
  return value;
}

function contract(value: unknown, argument: string): DeployedContract {
  const entry = object(value, argument);
  return {
    address: address(entry.address, `${argument}.address`),
    source: matching(entry.source, `${argument}.source`, /^[^:]+\.sol:\w+$/, "path:Name of a source"),
    codeHash: hash(entry.codeHash, `${argument}.codeHash`),
    transaction: hash(entry.transaction, `${argument}.transaction`),
    block: integer(entry.block, `${argument}.block`),
    constructorArguments: list(entry.constructorArguments, `${argument}.constructorArguments`).map((item, index) =>
      string(item, `${argument}.constructorArguments[${index}]`),
    ),
  };
}

function safe(value: unknown, argument: string): DeployedSafe {
  const entry = object(value, argument);
  return {
    address: address(entry.address, `${argument}.address`),
    version: string(entry.version, `${argument}.version`),
    owners: list(entry.owners, `${argument}.owners`).map((owner, index) =>
      address(owner, `${argument}.owners[${index}]`),
    ),
    threshold: integer(entry.threshold, `${argument}.threshold`),
  };
}
