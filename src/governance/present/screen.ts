import { getAddress } from "ethers";
import type { Operation } from "../operation.ts";
import { hashesToSign } from "../signatures.ts";
import type { PlannedTransaction } from "../transactions.ts";
import { type Row, wrap } from "./layout.ts";
import { type Names, nameIn } from "./names.ts";
import type { StepStory } from "./step.ts";
import { changeRows } from "./summary.ts";

/** Who is asked to sign. */
export interface SigningAs {
  /** The account that would sign, where it is known. */
  readonly signer: string | undefined;
  /** Owners of the Safe in whose name is signed, and how many must sign; undefined where nobody was asked. */
  readonly owners: readonly string[] | undefined;
  readonly threshold: number | undefined;
  /** Where the owners come from. */
  readonly source: "the chain" | "the record, as deployed" | undefined;
  /** Owners whose signature of this very transaction is in the folder. */
  readonly signed: readonly string[];
}

/** What one screen shows. */
export interface ScreenInput {
  readonly operation: Operation;
  readonly planned: PlannedTransaction;
  /** The owner, itself a Safe, in whose name is signed; or null. */
  readonly through: string | null;
  readonly names: Names;
  /** Whether names come from a record: without one, a proposal's own words are all there is. */
  readonly recorded: boolean;
  readonly story: StepStory;
  readonly as: SigningAs;
  /** What must be read before anything is signed. */
  readonly warnings: readonly string[];
}

/**
 * One step of a proposal as one screen: who signs, what it does, what gets looser or tighter, until when it can be stopped and by whom, and the two
 * hashes that the device shows.
 *
 * @returns rows for `renderRows`; the hashes are {@link deviceLines}
 * @example
 * renderRows(screenRows(input));
 */
export function screenRows(input: ScreenInput): readonly Row[] {
  const { operation, planned, story, warnings, names } = input;
  const [first, ...more] = changeRows(story.changes, 8);
  const unnamed = strangers(input);
  return [
    ["You", ...you(input)],
    ["Step", `${planned.name} of ${operation.id}: Safe nonce ${planned.transaction.nonce}, chain ${operation.chainId}`],
    ["Does", story.does],
    ...(first === undefined
      ? ([["Changes", "nothing gets looser or tighter"]] as const)
      : [["Changes", ...first.slice(1)] as const, ...more]),
    ["Stop", story.stop],
    ...(warnings.length === 0 ? [] : [["WARNING", ...warnings] as const]),
    ...(input.recorded
      ? []
      : [["Names", "no record was given: parties are named by the proposal's own word"] as const]),
    ...(unnamed.length === 0
      ? []
      : [["UNKNOWN", `in neither the record nor the address book: ${unnamed.join(", ")}`] as const]),
    ...(names.size === 0 && input.recorded ? [["Names", "the record names nobody"] as const] : []),
  ];
}

function you({ operation, planned, through, names, as }: ScreenInput): readonly string[] {
  const name = nameIn(operation, names);
  const { signer, owners, threshold, source, signed } = as;
  const safe = bare(name(planned.safe.address));
  const of = through === null ? safe : `${bare(name(through))}, in whose name you sign for the ${safe}`;
  const at = signer === undefined || owners === undefined ? -1 : owners.indexOf(signer);
  const who = signer === undefined ? undefined : (names.get(signer) ?? signer);
  const place =
    owners === undefined
      ? `an owner of the ${of}? Not checked: no chain was asked and no record names its owners`
      : at >= 0
        ? `${of}, owner ${at + 1} of ${owners.length}`
        : signer === undefined
          ? `${of}, one of ${owners.length} owners`
          : `NOT AN OWNER of the ${of}`;
  const have =
    signed.length === 0 ? "nobody has signed" : `signed by ${signed.map((one) => names.get(one) ?? one).join(", ")}`;
  return [
    `${place}${who === undefined ? "" : `: ${who}`}`,
    ...(threshold === undefined || through !== null
      ? [`${have}${source === undefined ? "" : ` (owners by ${source})`}`]
      : [`${threshold} of ${owners?.length ?? "?"} must sign; ${have} (owners by ${source ?? "nobody"})`]),
  ];
}

const bare = (name: string): string => name.replace(/^the /, "");

/** Parties that have no name although names were given. */
function strangers({ operation, names, recorded }: ScreenInput): readonly string[] {
  if (!recorded) return [];
  const { safe, timelock, cancellers, rollback, calls } = operation;
  const parties = [
    ...[safe, ...cancellers, ...(rollback === null ? [] : [rollback.safe])].map(({ address }) => address),
    ...[timelock, rollback?.timelock].flatMap((terms) => (terms ? [terms.address] : [])),
    ...calls.map(({ to }) => getAddress(to)),
  ];
  return [...new Set(parties)].filter((address) => !names.has(address));
}

/**
 * The hashes that a hardware wallet shows, each on a line of its own.
 *
 * @example
 * deviceLines(operation.chainId, planned, null)[1]; // "domain   0x…"
 */
export function deviceLines(chainId: bigint, planned: PlannedTransaction, through: string | null): readonly string[] {
  const hashes = hashesToSign(chainId, planned, through);
  return [
    ...wrap("Compare with your device, every character. It shows the first two, or the last:", 80),
    `domain   ${hashes.domainHash}`,
    `message  ${hashes.messageHash}`,
    `${through === null ? "safeTx" : "hash"}`.padEnd(9) + hashes.safeTxHash,
  ];
}
