import { decodeUtf8 } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { type Operation, parseOperation } from "./operation.ts";
import { attachmentNames } from "./proposal.ts";
import { parseSignature, SIGNATURES_FOLDER, signaturePath } from "./signatures.ts";

/** As many files, and bytes of them all, as a proposal's folder may have in a browser. */
export const MAX_FOLDER_FILES = 256;
export const MAX_FOLDER_BYTES = 64 * 1024 * 1024;

/**
 * The operation of a folder's files.
 *
 * @throws KeysteadError `proposal/not-found`; as `parseOperation`
 * @example
 * readOperation(files).id;
 */
export function readOperation(files: ReadonlyMap<string, Uint8Array>): Operation {
  const source = files.get("operation.json");
  if (source === undefined) {
    throw new KeysteadError("proposal/not-found", "there is no operation.json among these files", {
      argument: "folder",
      remedy: "Choose the folder of one proposal, or all of its files.",
    });
  }
  return parseOperation(decodeUtf8(source, "operation.json"));
}

/**
 * Puts a proposal's files where they belong. A folder keeps its paths; files that were chosen one by one (as a phone does) have lost theirs, and get them
 * back from what the operation and the signatures themselves say. What belongs nowhere stays under its name, for `verifyProposal` to complain of.
 *
 * @param given paths as the browser gives them: `007-tdx/operation.json`, or bare names
 * @returns files by their path in the folder, and the folder's name where it is known
 * @throws KeysteadError as {@link readOperation}
 * @example
 * const { files, folder } = placeFiles(chosen);
 */
export function placeFiles(given: ReadonlyMap<string, Uint8Array>): {
  readonly files: ReadonlyMap<string, Uint8Array>;
  readonly folder: string | undefined;
} {
  const root = [...given.keys()].filter((path) => /(^|\/)operation\.json$/.test(path));
  const [at, ...others] = root;
  if (at === undefined || others.length > 0) {
    readOperation(at === undefined ? new Map() : given);
    throw new KeysteadError("proposal/not-found", `there are ${root.length} proposals among these files`, {
      argument: "folder",
      remedy: "Choose the folder of one proposal.",
    });
  }
  const prefix = at.slice(0, -"operation.json".length);
  if (prefix !== "") {
    const files = new Map([...given].map(([path, bytes]) => [inside(path, prefix), bytes]));
    return { files, folder: prefix.split("/").at(-2) };
  }
  const attachments = attachmentNames(readOperation(given));
  const files = new Map([...given].map(([name, bytes]) => [placeOf(name, bytes, attachments), bytes]));
  return { files, folder: undefined };
}

const inside = (path: string, prefix: string): string => (path.startsWith(prefix) ? path.slice(prefix.length) : path);

function placeOf(name: string, bytes: Uint8Array, attachments: readonly string[]): string {
  if (name.includes("/")) return name;
  const attachment = attachments.find((path) => path.endsWith(`/${name}`));
  if (attachment !== undefined) return attachment;
  if (!/^0x[0-9a-fA-F]{40}.*\.json$/.test(name)) return name;
  try {
    return signaturePath(parseSignature(decodeUtf8(bytes, name)));
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    return `${SIGNATURES_FOLDER}${name}`;
  }
}
