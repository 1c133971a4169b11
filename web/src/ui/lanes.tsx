import type { Hex } from "../../../src/core/bytes.ts";
import type { Governance, GovernedContract } from "../data/governance.ts";
import { formatDuration } from "../format.ts";
import { AccountBadge, HexText } from "./bits.tsx";
import { useAccount } from "./model.ts";

/** The two lanes of governance as boxes and arrows: what loosens waits out the timelock, what tightens does not wait. */
export function LanesDiagram({ governance }: { readonly governance: Governance }) {
  const { timelock, minDelay, roles } = governance;
  const holders = (contract: GovernedContract, role: string) =>
    roles.find((entry) => entry.contract === contract && entry.role === role)?.holders ?? [];
  const proposers = holders("timelock", "PROPOSER_ROLE");
  const guardians = holders("policy", "GUARDIAN_ROLE");
  const cancellers = holders("timelock", "CANCELLER_ROLE").filter((holder) => !proposers.includes(holder));
  return (
    <figure class="diagram">
      <div class="flow">
        <p class="lane-title warn">Loosening waits</p>
        <Box title="Governance" parties={proposers} none="nobody may propose" />
        <Arrow label="schedules" />
        <Box title="Timelock" parties={timelock === undefined ? [] : [timelock]} none="no timelock">
          <p class="figure">{minDelay === undefined ? "no delay" : formatDuration(minDelay)}</p>
          <p class="small muted">{minDelay === undefined ? "" : "at least, in public"}</p>
        </Box>
        <Arrow label="executes" />
        <Box title="Policy and registry" parties={[]}>
          <p class="small">allow platforms, enable TEEs, accept TCB levels, upgrade code</p>
        </Box>
      </div>
      <div class="flow">
        <p class="lane-title ok">Tightening is immediate</p>
        <Box title="Guardian" parties={guardians} none="nobody may tighten" />
        <Arrow label="at once" />
        <Box title="Policy" parties={[]}>
          <p class="small">revoke platforms, suspend TEEs, reject TCB levels, pause for at most 14 days</p>
        </Box>
        {cancellers.length === 0 ? (
          <p class="aside">
            <strong>No independent canceller:</strong> whoever proposes is the only one who can cancel.
          </p>
        ) : (
          <p class="aside">
            {cancellers.every((holder) => guardians.includes(holder)) ? "The guardian" : "Another account"} can cancel
            whatever waits in the timelock.
          </p>
        )}
      </div>
    </figure>
  );
}

function Box({
  title,
  parties,
  none,
  children,
}: {
  readonly title: string;
  readonly parties: readonly Hex[];
  readonly none?: string;
  readonly children?: preact.ComponentChildren;
}) {
  return (
    <div class="box">
      <p class="box-title">{title}</p>
      {children}
      {parties.map((party) => (
        <div key={party} class="box-party">
          <AccountBadge address={party} />
          <HexText value={party} what={title} />
          <Owners address={party} />
        </div>
      ))}
      {parties.length === 0 && none !== undefined ? <p class="bad-text">{none}</p> : null}
    </div>
  );
}

/** Whose signatures a Safe counts. */
function Owners({ address }: { readonly address: Hex }) {
  const account = useAccount(address);
  if (account === undefined || account.owners.length === 0) return null;
  return (
    <details class="owners">
      <summary>{account.owners.length} owners</summary>
      {account.owners.map((owner) => (
        <HexText key={owner} value={owner} what="owner" />
      ))}
    </details>
  );
}

function Arrow({ label }: { readonly label: string }) {
  return (
    <div class="arrow">
      <span>{label}</span>
    </div>
  );
}
