import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { getAddress, isAddress } from "ethers";
import { KeysteadError } from "../src/core/errors.ts";
import { type Connection, fetchChainId, isLocalChain, type Log, silent } from "./connection.ts";
import { createSafe, inspectSafe, predictSafeAddress, type SafeState } from "./safe/account.ts";
import { SAFE_VERSIONS, type SafeVersion } from "./safe/contracts.ts";

/** A Safe to create, or one that exists. */
export type SafeParameter =
  | { readonly owners: readonly string[]; readonly threshold: number; readonly saltNonce: string }
  | { readonly address: string };

/** What a deployment is made from; one file per network in `deploy/parameters/`. */
export interface DeploymentParameters {
  /** Version of the Safes that are created. */
  readonly safeVersion: SafeVersion;
  /** Proposes, executes and cancels at the timelock. */
  readonly governance: SafeParameter;
  /** Cancels at the timelock, tightens at the policy. */
  readonly guardian: SafeParameter;
  /** The timelock's minimum delay, seconds. */
  readonly delaySeconds: number;
}

/** The least delay on a public chain: time for people in every time zone to see an operation and to cancel it. */
export const LEAST_PUBLIC_DELAY = 24 * 60 * 60;
/** The least delay anywhere: GovernanceTimelock's LEAST_DELAY. */
export const LEAST_DELAY = 60 * 60;
/** The greatest delay anywhere, GovernanceTimelock's MAX_DELAY; a longer one is a typing error, and would lock governance out for as long. */
export const GREATEST_DELAY = 30 * 24 * 60 * 60;

const FOLDER = join(import.meta.dirname, "parameters");

/**
 * Reads and checks `deploy/parameters/<network>.json`.
 *
 * @param folder where the files are; default `deploy/parameters`
 * @throws KeysteadError `parameters/missing`, `parameters/invalid`
 * @example readParameters("localhost").delaySeconds
 */
export function readParameters(network: string, folder = FOLDER): DeploymentParameters {
  const path = join(folder, `${network}.json`);
  if (!/^[\w-]+$/.test(network) || !existsSync(path)) {
    const known = readdirSync(folder).map((file) => file.replace(/\.json$/, ""));
    throw new KeysteadError("parameters/missing", `there are no deployment parameters for network ${network}`, {
      argument: "network",
      remedy: `write deploy/parameters/${network}.json after the example in deploy/README.md; there are: ${known.join(", ")}`,
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new KeysteadError("parameters/invalid", `deploy/parameters/${network}.json is not JSON`, {
      argument: "file",
      remedy: "correct the syntax",
      cause,
    });
  }
  return parseParameters(value);
}

/**
 * Checks the shape of deployment parameters, and everything about them that needs no chain.
 *
 * @throws KeysteadError `parameters/invalid`; `argument` is the path of the field, such as `guardian.owners[1]`
 */
export function parseParameters(value: unknown): DeploymentParameters {
  const object = parseObject(value, "parameters", ["safeVersion", "governance", "guardian", "delaySeconds"]);
  const safeVersion = SAFE_VERSIONS.find((version) => version === object.safeVersion);
  if (safeVersion === undefined)
    throw invalid("safeVersion", `must be ${SAFE_VERSIONS.join(" or ")}`, object.safeVersion);
  const delaySeconds = parseInteger(object.delaySeconds, "delaySeconds", LEAST_DELAY, GREATEST_DELAY);
  const governance = parseSafe(object.governance, "governance", "1");
  const guardian = parseSafe(object.guardian, "guardian", "2");
  return { safeVersion, governance, guardian, delaySeconds };
}

function invalid(argument: string, rule: string, found: unknown): KeysteadError {
  return new KeysteadError("parameters/invalid", `${argument} ${rule}; found ${JSON.stringify(found) ?? "nothing"}`, {
    argument,
    remedy: `correct ${argument} in the parameter file: it ${rule}`,
  });
}

function parseObject(value: unknown, argument: string, fields: readonly string[]): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw invalid(argument, "must be an object", value);
  const unknown = Object.keys(value).find((key) => !fields.includes(key));
  if (unknown !== undefined) throw invalid(argument, `may have the fields ${fields.join(", ")} only`, unknown);
  return { ...value };
}

function parseInteger(value: unknown, argument: string, least: number, greatest: number): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < least || value > greatest) {
    throw invalid(argument, `must be a whole number from ${least} to ${greatest}`, value);
  }
  return value;
}

function parseAddress(value: unknown, argument: string): string {
  if (typeof value !== "string" || !isAddress(value) || BigInt(value) <= 1n) {
    throw invalid(
      argument,
      "must be an address (0x and 40 hex digits, checksum correct where letters are mixed)",
      value,
    );
  }
  return getAddress(value);
}

function parseSafe(value: unknown, argument: string, defaultSalt: string): SafeParameter {
  const object = parseObject(value, argument, ["address", "owners", "threshold", "saltNonce"]);
  if ("address" in object) {
    parseObject(value, argument, ["address"]);
    return { address: parseAddress(object.address, `${argument}.address`) };
  }
  if (!Array.isArray(object.owners) || object.owners.length === 0) {
    throw invalid(
      `${argument}.owners`,
      "must be a list of addresses, unless address names a Safe that exists",
      object.owners,
    );
  }
  const owners = object.owners.map((owner, index) => parseAddress(owner, `${argument}.owners[${index}]`));
  if (new Set(owners).size !== owners.length) throw invalid(`${argument}.owners`, "must not repeat an owner", owners);
  const threshold = parseInteger(object.threshold, `${argument}.threshold`, 1, owners.length);
  const saltNonce = object.saltNonce ?? defaultSalt;
  if (typeof saltNonce !== "string" || !/^(0|[1-9]\d{0,76})$/.test(saltNonce)) {
    throw invalid(`${argument}.saltNonce`, "must be a decimal number in quotes", saltNonce);
  }
  return { owners, threshold, saltNonce };
}

/** The two Safes of a deployment as they stand on chain. */
export interface DeploymentSafes {
  readonly governance: SafeState;
  readonly guardian: SafeState;
}

/**
 * Refuses parameters that no public chain should see, before anything is sent: a delay under 24 hours, a threshold of 1, one Safe in both
 * offices, an account that is not a Safe (an EOA, an EIP-7702 delegation, anything else), a Safe with a module that acts without signatures.
 * On a local chain delays and thresholds are free; two different real Safes are wanted there too.
 *
 * @throws KeysteadError `parameters/delay-too-short`, `parameters/threshold-too-low`, `parameters/same-safe`, `parameters/module-enabled`,
 *   `safe/not-a-safe`; `argument` names the field
 */
export async function checkParameters(connection: Connection, parameters: DeploymentParameters): Promise<void> {
  const isPublic = !isLocalChain(await fetchChainId(connection));
  if (isPublic && parameters.delaySeconds < LEAST_PUBLIC_DELAY) {
    throw new KeysteadError(
      "parameters/delay-too-short",
      `delaySeconds is ${parameters.delaySeconds}; a public chain needs ${LEAST_PUBLIC_DELAY} or more`,
      { argument: "delaySeconds", remedy: `set delaySeconds to at least ${LEAST_PUBLIC_DELAY} (24 hours)` },
    );
  }
  const addresses: string[] = [];
  for (const office of ["governance", "guardian"] as const) {
    const safe = parameters[office];
    if ("address" in safe) {
      const state = await inspectSafe(connection, safe.address).catch((error) => {
        throw error instanceof KeysteadError
          ? new KeysteadError(error.code, `${office}: ${error.message}`, {
              argument: `${office}.address`,
              remedy: error.remedy,
              details: error.details,
              cause: error,
            })
          : error;
      });
      if (isPublic) checkPublicSafe(office, state.threshold, state.modules);
      addresses.push(state.address);
    } else {
      if (isPublic) checkPublicSafe(office, safe.threshold, []);
      addresses.push(await predictSafeAddress(connection, { ...safe, version: parameters.safeVersion }));
    }
  }
  if (addresses[0] === addresses[1]) {
    throw new KeysteadError("parameters/same-safe", `governance and guardian are the same Safe ${addresses[0]}`, {
      argument: "guardian",
      remedy: "give the guardian a Safe of its own: it must be able to stop what governance does",
    });
  }
}

function checkPublicSafe(office: string, threshold: number, modules: readonly string[]): void {
  if (threshold < 2) {
    throw new KeysteadError("parameters/threshold-too-low", `the ${office} Safe acts on ${threshold} signature`, {
      argument: `${office}.threshold`,
      remedy: "raise the Safe's threshold to at least 2: with 1, any single owner's key is the whole of it",
    });
  }
  if (modules.length > 0) {
    throw new KeysteadError("parameters/module-enabled", `the ${office} Safe has modules: ${modules.join(", ")}`, {
      argument: `${office}.address`,
      remedy: "disable the modules: each of them can act for the Safe without any signature",
      details: { modules },
    });
  }
}

/**
 * The Safes that checked parameters ask for: created where they are missing, taken as they are where they stand.
 */
export async function ensureSafes(
  connection: Connection,
  parameters: DeploymentParameters,
  log: Log = silent,
): Promise<DeploymentSafes> {
  const ensure = async (safe: SafeParameter) =>
    inspectSafe(
      connection,
      "address" in safe
        ? safe.address
        : await createSafe(connection, { ...safe, version: parameters.safeVersion }, log),
    );
  return { governance: await ensure(parameters.governance), guardian: await ensure(parameters.guardian) };
}
