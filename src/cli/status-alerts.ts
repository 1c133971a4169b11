import type { GovernanceStatus, ProposalStatus } from "../governance/status.ts";
import { formatTime } from "../governance/words.ts";
import { safeText } from "./output.ts";

/** The `format` of what is posted. */
export const STATUS_CHANGE_FORMAT = "keystead.status-change/1";

/** Something that whoever watches a deployment has to hear of. */
export interface StatusAlert {
  /** `alert`: nobody proposed it, or nobody can see. `news`: a proposal moved. */
  readonly severity: "alert" | "news";
  readonly kind: "orphan" | "pending-without-proposal" | "proposal" | "proposal-gone" | "cannot-check";
  /** A proposal's id, an operation's id or a transaction's hash. */
  readonly id: string;
  /** A sentence, fit for a terminal. */
  readonly text: string;
}

const stateText = ({ id, state, headline, readyAt, cancellableBy }: ProposalStatus): string =>
  [
    `${id} is ${state}: ${headline}`,
    ...(state === "scheduled" && readyAt !== null ? [`ready at ${formatTime(readyAt)}`] : []),
    ...(cancellableBy.length > 0 ? [`${cancellableBy.join(" or ")} can cancel it`] : []),
  ].join("; ");

/**
 * What is new since the last look. At the first look everything that is wrong is new, and so is every proposal that waits or is ready.
 *
 * @example
 * alertsOf(before, now).filter(({ severity }) => severity === "alert");
 */
export function alertsOf(before: GovernanceStatus | undefined, now: GovernanceStatus): readonly StatusAlert[] {
  const orphanKey = ({ transactionHash, words, contract }: GovernanceStatus["orphans"][number]) =>
    `${transactionHash} ${contract} ${words}`;
  const known = new Set(before?.orphans.map(orphanKey));
  const strange = ({ operations }: GovernanceStatus) =>
    operations.filter(({ proposal, phase }) => proposal === null && (phase === "waiting" || phase === "ready"));
  const pending = new Set(before === undefined ? [] : strange(before).map(({ id }) => id));
  const states = new Map(before?.proposals.map(({ id, state }) => [id, state]));
  const present = new Set(now.proposals.map(({ id }) => id));
  const moved = now.proposals.filter(({ id, state }) =>
    before === undefined ? state === "scheduled" || state === "ready" : states.get(id) !== state,
  );
  return [
    ...now.orphans
      .filter((one) => !known.has(orphanKey(one)))
      .map(({ contract, words, block, transactionHash }): StatusAlert => {
        const text = safeText(`nobody proposed it: ${contract}: ${words} (block ${block})`);
        return { severity: "alert", kind: "orphan", id: transactionHash, text };
      }),
    ...strange(now)
      .filter(({ id }) => !pending.has(id))
      .map(({ id, readyAt }): StatusAlert => {
        const when = readyAt === undefined ? "" : `, executable from ${formatTime(readyAt)}`;
        const text = `operation ${id} waits in the timelock and nobody proposed it${when}: cancel it`;
        return { severity: "alert", kind: "pending-without-proposal", id, text };
      }),
    ...moved.map((one): StatusAlert => {
      return { severity: "news", kind: "proposal", id: one.id, text: safeText(stateText(one)) };
    }),
    // a folder that is taken away makes what it explained look like nobody's
    ...[...states.keys()]
      .filter((id) => !present.has(id))
      .map((id): StatusAlert => {
        return { severity: "alert", kind: "proposal-gone", id, text: `the folder of ${id} is no longer there` };
      }),
  ];
}
