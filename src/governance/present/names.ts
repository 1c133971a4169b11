import { getAddress, isAddress } from "ethers";
import type { Deployment } from "../../chain/deployment.ts";
import { KeysteadError } from "../../core/errors.ts";
import { parseJson } from "../../core/json.ts";
import type { Operation } from "../operation.ts";

/** The `format` of an address book. */
export const ADDRESS_BOOK_FORMAT = "keystead.address-book/1";

/** Names of addresses, by the address with its checksum. Matched on the whole address: a name is never given to a lookalike. */
export type Names = ReadonlyMap<string, string>;

const refuse = (field: string, rule: string) =>
  new KeysteadError("address-book/malformed", `${field} ${rule}`, {
    argument: "address-book",
    remedy: `Give {"format": "${ADDRESS_BOOK_FORMAT}", "names": {"0x…": "Alice, Ledger"}}, or Safe{Wallet}'s own export (CSV).`,
    details: { field },
  });

/** What the record and the protocol are called: nobody else may be named so. */
const RESERVED = /\b(governance|guardian)\s+safe\b|\btimelock\b|platformpolicy|kmsregistry/i;

/**
 * Reads an address book: this project's JSON, or the file that Safe{Wallet} exports (CSV: `address,name,chainId`).
 *
 * @param text the file
 * @param chainId names for other chains in a CSV are left out
 * @throws KeysteadError `address-book/malformed` {field}: no address, a name that is empty, long, hidden, taken twice, or reserved
 * @example
 * parseAddressBook('{"format":"keystead.address-book/1","names":{"0x…":"Alice"}}', 1n);
 */
export function parseAddressBook(text: string, chainId: bigint): Names {
  const rows = text.trimStart().startsWith("{") ? jsonRows(text) : csvRows(text, chainId);
  const names = new Map<string, string>();
  for (const [address, name] of rows) {
    const given = JSON.stringify(address.slice(0, 60));
    if (!isAddress(address)) throw refuse(given, "is not an address");
    if (!/^[\x21-\x7e](?:[\x20-\x7e]{0,38}[\x21-\x7e])?$/.test(name)) {
      throw refuse(`the name of ${address}`, "must be 1 to 40 plain characters (ASCII), without spaces at its ends");
    }
    if (/^0x/i.test(name) || RESERVED.test(name))
      throw refuse(`the name of ${address}`, "is reserved: it would mislead");
    const checked = getAddress(address);
    if (names.has(checked)) throw refuse(checked, "has two names");
    if ([...names.values()].some((known) => known.toLowerCase() === name.toLowerCase())) {
      throw refuse(`the name of ${address}`, "is another address's name too");
    }
    names.set(checked, name);
  }
  return names;
}

function jsonRows(text: string): readonly (readonly [string, string])[] {
  const document: unknown = parseJson(text, "address-book");
  const fields = typeof document === "object" && document !== null ? Object.entries(document) : [];
  const of = new Map<string, unknown>(fields);
  if (of.get("format") !== ADDRESS_BOOK_FORMAT) throw refuse("format", `must be ${ADDRESS_BOOK_FORMAT}`);
  const names = of.get("names");
  if (fields.length !== 2 || typeof names !== "object" || names === null || Array.isArray(names)) {
    throw refuse("names", "must be an object of addresses and names, beside format alone");
  }
  return Object.entries(names).map(([address, name]) => {
    if (typeof name !== "string") throw refuse(`the name of ${address}`, "must be a text");
    return [address, name];
  });
}

function csvRows(text: string, chainId: bigint): readonly (readonly [string, string])[] {
  const [head = "", ...lines] = text.trim().split(/\r?\n/);
  if (head.replaceAll('"', "") !== "address,name,chainId")
    throw refuse("the first line", "must be address,name,chainId");
  return lines.flatMap((line, i) => {
    const cells = /^"?([^",]*)"?,(?:"([^"]*)"|([^",]*)),"?(\d+)"?$/.exec(line);
    if (cells === null) throw refuse(`line ${i + 2}`, "must be an address, a name and a chain's id");
    const [, address = "", quoted, plain, chain = ""] = cells;
    return BigInt(chain) === chainId ? [[address, quoted ?? plain ?? ""] as const] : [];
  });
}

/**
 * What a record of a deployment and an address book call the addresses of a proposal. The record's names come first.
 *
 * @example
 * namesOf({ deployment, book }).get(operation.safe.address); // "governance Safe"
 */
export function namesOf(known: {
  readonly deployment?: Deployment | undefined;
  readonly book?: Names | undefined;
}): Names {
  const { deployment, book = new Map<string, string>() } = known;
  if (deployment === undefined) return book;
  const { safes, contracts } = deployment;
  return new Map([
    ...book,
    [safes.governance.address, "governance Safe"],
    [safes.guardian.address, "guardian Safe"],
    [contracts.timelock.address, "timelock"],
    [contracts.policy.address, "PlatformPolicy"],
    [contracts.registry.address, "KmsRegistry"],
    [contracts.policyImplementation.address, "PlatformPolicy's recorded implementation"],
    [contracts.registryImplementation.address, "KmsRegistry's recorded implementation"],
    [contracts.dstackAuth.address, "DstackAuth"],
  ]);
}

/**
 * The part that an address plays in a proposal, by the proposal's own word; always with the whole address.
 *
 * @example
 * partOf(operation, operation.safe.address); // "the proposing Safe 0x…"
 */
export function partOf(operation: Operation, address: string): string {
  const { safe, timelock, cancellers, rollback } = operation;
  if (address === safe.address) return `the ${timelock === null ? "acting" : "proposing"} Safe ${address}`;
  if (cancellers.some((one) => one.address === address)) return `the cancelling Safe ${address}`;
  if (rollback?.safe.address === address) return `the rollback's Safe ${address}`;
  return address;
}

/**
 * A party's name for people: from the record or the address book; else its part in the proposal with its whole address.
 *
 * @example
 * nameIn(operation, names)(operation.safe.address); // "the governance Safe"
 */
export const nameIn =
  (operation: Operation, names: Names) =>
  (address: string): string => {
    const name = names.get(address);
    if (name === undefined) return partOf(operation, address);
    return name.endsWith(" Safe") || name === "timelock" ? `the ${name}` : name;
  };

/**
 * A sentence with its addresses as names, where they have one.
 *
 * @example
 * withNames("give CANCELLER_ROLE to 0x…", names); // "give CANCELLER_ROLE to Alice"
 */
export const withNames = (text: string, names: Names): string =>
  text.replace(/\b0x[0-9a-fA-F]{40}\b/g, (found) => {
    const name = isAddress(found) ? names.get(getAddress(found)) : undefined;
    return name ?? found;
  });
