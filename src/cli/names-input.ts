import type { Deployment } from "../chain/deployment.ts";
import { decodeUtf8 } from "../core/bytes.ts";
import { type Names, namesOf, parseAddressBook } from "../governance/present/names.ts";
import type { ChainOption, OptionValues } from "./chain-input.ts";
import type { Io } from "./io.ts";

/** Where the address book is, if it is not named. */
export const ADDRESS_BOOK_VARIABLE = "KEYSTEAD_ADDRESS_BOOK";

/** The option of every command that names people and contracts. */
export const ADDRESS_BOOK_OPTION: ChainOption = {
  flags: "--address-book <file>",
  description: `names of addresses, as JSON or Safe{Wallet}'s CSV (or ${ADDRESS_BOOK_VARIABLE} in the environment)`,
};

const BOOK_LIMIT = 1024 * 1024;

/**
 * The names that a run has: the record's, and the address book's.
 *
 * @throws KeysteadError `address-book/malformed`; as reading files
 * @example
 * const names = await readNames(io, command.opts(), operation.chainId, deployment);
 */
export async function readNames(
  io: Io,
  options: OptionValues,
  chainId: bigint,
  deployment: Deployment | undefined,
): Promise<Names> {
  const { addressBook } = options;
  const name = typeof addressBook === "string" ? addressBook : io.env[ADDRESS_BOOK_VARIABLE];
  if (name === undefined || name === "") return namesOf({ deployment });
  const { bytes } = await io.readFile(name, { limit: BOOK_LIMIT, argument: "address-book" });
  return namesOf({ deployment, book: parseAddressBook(decodeUtf8(bytes, "address-book"), chainId) });
}
