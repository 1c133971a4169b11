import { isKeysteadError } from "../core/errors.ts";
import { foreignOperations } from "./alarms.ts";
import { evaluate } from "./conditions.ts";
import type { ChainFacts, Facts, SafeFacts } from "./facts.ts";
import type { PinningFault } from "./pinning.ts";
import type { Plan } from "./plan.ts";
import { STATEMENTS } from "./steps.ts";

/** One line of the checklist. `unknown` is never taken for `ok`. */
export interface Check {
  readonly id: string;
  readonly title: string;
  readonly result: "ok" | "failed" | "unknown" | "not-needed";
  readonly says: string;
}

/** What only the outside can tell, each by a function that may fail: a failure makes the check unknown. */
export interface PreflightProbes {
  /** Restores the backup into a temporary folder and compares. */
  readonly backup: () => Promise<readonly string[]>;
  /** Compose files that the new version is measured from, by name. */
  readonly pinning: () => Promise<ReadonlyMap<string, readonly PinningFault[]>>;
  /** Measures everything new again from its sources, and says what differs. */
  readonly remeasure: () => Promise<readonly string[]>;
  /** Whether a proposal's way back was played on a copy of the chain, by the proposal's id; undefined: it could not be. */
  readonly rollback: (proposal: string) => Promise<{ readonly ok: boolean; readonly says: string }>;
  /** On the Nitro parent instance: whether the VSOCK proxy runs and was up before the enclave; undefined: this machine is none. */
  readonly vsock: () => Promise<VsockFacts | undefined>;
}

/** Processes of a Nitro parent instance; times in seconds since boot. */
export interface VsockFacts {
  readonly proxies: readonly { readonly pid: number; readonly started: number }[];
  readonly enclaves: readonly { readonly pid: number; readonly started: number }[];
}

/**
 * The checklist before an upgrade. Every check says what it saw; what could not be checked says so and is no pass.
 *
 * @example
 * const checks = await preflight(plan, facts, probes);
 * process.exitCode = exitOf(checks);
 */
export async function preflight(plan: Plan, facts: Facts, probes: PreflightProbes): Promise<readonly Check[]> {
  const { chain } = facts;
  const onChain = (id: string, title: string, check: (read: ChainFacts) => Check): Check =>
    isKeysteadError(chain)
      ? { id, title, result: "unknown", says: `the chain could not be read: ${chain.code}` }
      : check(chain);
  return [
    await guarded("backup", "Backups are made, and were restored and compared", async () => {
      const faults = await probes.backup();
      return faults.length === 0
        ? ok(`${plan.inputs.backup.files.length} files restored from ${plan.inputs.backup.folder}, byte for byte`)
        : failed(faults.join("; "));
    }),
    onChain("signers", "Signers are current owners, and enough", (read) => signers(plan, read)),
    onChain("timelock-window", "The timelock is over before the planned date", (read) => window(plan, read, facts.now)),
    await guarded("images-pinned", "Container images are pinned by digest", async () => pinned(await probes.pinning())),
    await guarded("measurements", "What is new measures again as the plan says", async () => {
      const faults = await probes.remeasure();
      return faults.length === 0 ? ok("measured again from the sources: the same images") : failed(faults.join("; "));
    }),
    nodesAnswer(plan, facts),
    ...(await rollbacks(plan, facts, probes)),
    onChain("old-registered", "The old measurements are still registered", (read) => oldRegistered(plan, read)),
    onChain("nothing-pending", "Nothing else waits that conflicts", (read) => nothingPending(plan, read)),
    await vsock(plan, facts, probes),
    ...statements(plan, facts),
  ];
}

type Verdict = Pick<Check, "result" | "says">;
const ok = (says: string): Verdict => ({ result: "ok", says });
const failed = (says: string): Verdict => ({ result: "failed", says });
const unknown = (says: string): Verdict => ({ result: "unknown", says });
const notNeeded = (says: string): Verdict => ({ result: "not-needed", says });

/**
 * The exit code of a checklist: 1 where something is wrong, else 2 where something could not be checked, else 0.
 *
 * @example
 * exitOf(checks); // 0
 */
export function exitOf(checks: readonly Check[]): 0 | 1 | 2 {
  if (checks.some(({ result }) => result === "failed")) return 1;
  return checks.some(({ result }) => result === "unknown") ? 2 : 0;
}

async function guarded(id: string, title: string, check: () => Promise<Verdict>): Promise<Check> {
  try {
    return { id, title, ...(await check()) };
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    // a backup that is not there, or a source that is gone, is a fault and no failure of the check
    const result = /^(backup|rollout|measure|input)\//.test(error.code) ? "failed" : "unknown";
    return { id, title, result, says: `${error.code}: ${error.message}` };
  }
}

function signers(plan: Plan, chain: ChainFacts): Check {
  const title = "Signers are current owners, and enough";
  const at = (verdict: Verdict): Check => ({ id: "signers", title, ...verdict });
  const lanes = new Set(plan.steps.flatMap(({ proposal, governance }) => (proposal === null ? [] : [governance])));
  const faults: string[] = [];
  const said: string[] = [];
  const needed: readonly (readonly [string, SafeFacts, readonly string[], boolean])[] = [
    ["governance", chain.governance, plan.inputs.signers.governance, lanes.has("timelock")],
    // whoever loosens something must be able to stop it as well
    ["guardian", chain.guardian, plan.inputs.signers.guardian, lanes.size > 0],
  ];
  for (const [name, safe, named, isNeeded] of needed) {
    const strangers = named.filter((signer) => !safe.owners.includes(signer));
    const enough = new Set(named.filter((signer) => safe.owners.includes(signer))).size >= safe.threshold;
    if (strangers.length > 0) faults.push(`${strangers.join(", ")}: no owner of the ${name} Safe`);
    if (!enough && isNeeded)
      faults.push(`the ${name} Safe needs ${safe.threshold} of its ${safe.owners.length} owners`);
    said.push(`${name}: ${named.length} named, ${safe.threshold} needed`);
  }
  return at(faults.length === 0 ? ok(said.join("; ")) : failed(faults.join("; ")));
}

function window(plan: Plan, chain: ChainFacts, now: number): Check {
  const { inputs, steps } = plan;
  const at = (verdict: Verdict): Check => ({
    id: "timelock-window",
    title: "The timelock is over before the planned date",
    ...verdict,
  });
  if (chain.minDelay > inputs.deployment.delaySeconds) {
    const says = `the timelock's delay is ${chain.minDelay} s now and was ${inputs.deployment.delaySeconds} s when the plan was made: make it again`;
    return at(failed(says));
  }
  const goes = steps.some(({ governance }) => governance === "timelock");
  const listing = steps.some(({ id }) => id === "service-image");
  const notice = listing && !inputs.service.empty ? (chain.service?.noticePeriod ?? inputs.service.noticePeriod) : 0;
  const upgrades = steps.some(({ id }) => id === "contracts");
  const registers = steps.some(({ id }) => id === "measurements");
  const delay = goes ? inputs.deployment.delaySeconds : 0;
  // what is new is registered in the new contracts: one wait after the other
  const wait = (upgrades ? delay : 0) + Math.max(registers ? delay : 0, notice);
  if (wait === 0) return at(notNeeded("nothing waits"));
  if (inputs.plannedFor === null) return at(unknown(`no date is planned; from now it takes at least ${wait} s`));
  const left = inputs.plannedFor - now;
  return at(
    left >= wait
      ? ok(`${left} s until the planned date, ${wait} s needed`)
      : failed(`${left} s until the planned date, and delays and notice periods take ${wait} s`),
  );
}

function pinned(files: ReadonlyMap<string, readonly PinningFault[]>): Verdict {
  if (files.size === 0) return notNeeded("nothing new is measured from a compose file");
  const faults = [...files].flatMap(([name, found]) => found.map(({ line, says }) => `${name}:${line}: ${says}`));
  return faults.length === 0
    ? ok(`${[...files.keys()].join(", ")}: every image has its digest`)
    : failed(faults.join("; "));
}

function nodesAnswer(plan: Plan, { nodes }: Facts): Check {
  const at = (verdict: Verdict): Check => ({
    id: "nodes",
    title: "The nodes' monitoring endpoints answer",
    ...verdict,
  });
  const first = plan.inputs.kms !== null && plan.inputs.kms.old === null;
  if (first) return at(notNeeded("the nodes are started by this rollout"));
  const silent = [...nodes].filter(([, { up, ready }]) => !up || !ready);
  if (silent.length > 0)
    return at(failed(silent.map(([name, { problem }]) => `${name}: ${problem ?? "not ready"}`).join("; ")));
  const roots = new Set([...nodes.values()].map(({ environmentKey }) => environmentKey));
  if (roots.size > 1) return at(failed("the nodes do not have the same root secret: they would give different keys"));
  return at(nodes.size === 0 ? failed("the plan names no node") : ok(`${nodes.size} nodes answer and release keys`));
}

async function rollbacks(plan: Plan, facts: Facts, probes: PreflightProbes): Promise<readonly Check[]> {
  const checks: Check[] = [];
  for (const { proposal, governance, id } of plan.steps) {
    if (proposal === null || governance !== "timelock") continue;
    const first = plan.steps.find((step) => step.proposal !== null && step.proposal.id === proposal.after);
    const done = first?.check.every((condition) => evaluate(condition, facts, []).holds === "yes") ?? true;
    checks.push(
      await guarded(
        `rollback-${id}`,
        `The way back of ${id} is ready, and was played on a copy of the chain`,
        async () => {
          // what it starts from is not there yet; its own commands play both ways before anybody signs
          if (!done) return notNeeded(`it can be played once ${proposal.after} is executed: run this again then`);
          const { ok: good, says } = await probes.rollback(proposal.id);
          return good ? ok(says) : failed(says);
        },
      ),
    );
  }
  return checks;
}

function oldRegistered({ inputs }: Plan, chain: ChainFacts): Check {
  const at = (verdict: Verdict): Check => ({
    id: "old-registered",
    title: "The old measurements are still registered",
    ...verdict,
  });
  const { application, kms } = inputs;
  const missing: string[] = [];
  const old = application?.old ?? null;
  if (old !== null) {
    const status = chain.images.get(old.image.id)?.status;
    if (status !== "active") missing.push(`the old image is ${status ?? "not listed"}`);
    if (old.platform !== null && chain.platforms.get(old.platform.id)?.state !== "allowed")
      missing.push("the old platform is not allowed");
  }
  if (kms?.old && chain.kmsImages.get(kms.old.image.id)?.state !== "allowed")
    missing.push("the old KMS image is not allowed");
  if (missing.length > 0) return at(failed(`${missing.join("; ")}: there would be no way back`));
  return at(
    old === null && !kms?.old
      ? notNeeded("there is no older version")
      : ok("image, platform and KMS image of the old version are in force"),
  );
}

function nothingPending(plan: Plan, chain: ChainFacts): Check {
  const at = (verdict: Verdict): Check => ({
    id: "nothing-pending",
    title: "Nothing else waits that conflicts",
    ...verdict,
  });
  const { deployment } = plan.inputs;
  const ours = new Set(
    [deployment.policy, deployment.registry, deployment.timelock].map((address) => address.toLowerCase()),
  );
  const conflicts = foreignOperations(plan, chain).filter(({ calls }) =>
    calls.some(({ to }) => ours.has(to.toLowerCase())),
  );
  if (conflicts.length === 0) return at(ok("no other operation on these contracts waits at the timelock"));
  return at(failed(`${conflicts.map(({ id }) => id).join(", ")} on the same contracts: execute or cancel first`));
}

async function vsock(plan: Plan, facts: Facts, probes: PreflightProbes): Promise<Check> {
  const at = (verdict: Verdict): Check => ({
    id: "vsock-proxy",
    title: "On Nitro, the VSOCK proxy is up before the enclave",
    ...verdict,
  });
  const nitro = plan.inputs.nodes.filter(({ vsockProxy }) => vsockProxy !== null);
  if (nitro.length === 0) return at(notNeeded("no node runs on Nitro"));
  const unsaid = nitro.filter(
    ({ name }) =>
      evaluate({ is: "acknowledged", item: `vsock-proxy-${name}` }, facts, plan.acknowledgements).holds !== "yes",
  );
  const here = await probes.vsock();
  if (here !== undefined) {
    const first = Math.min(...here.proxies.map(({ started }) => started));
    if (here.proxies.length === 0)
      return at(failed("no vsock-proxy runs on this machine: start it before the enclave"));
    const early = here.enclaves.filter(({ started }) => started < first);
    if (early.length > 0) return at(failed("an enclave was started before the VSOCK proxy: start it again"));
    if (nitro.length === 1 || unsaid.length === 0) return at(ok("vsock-proxy runs, and no enclave is older"));
  }
  if (unsaid.length === 0) return at(ok("acknowledged for every node"));
  const items = unsaid.map(({ name }) => `vsock-proxy-${name}`).join(", ");
  return at(unknown(`run this on the parent instance of each node, or acknowledge ${items}`));
}

function statements(plan: Plan, facts: Facts): readonly Check[] {
  return Object.entries(STATEMENTS).map(([item, title]): Check => {
    const { holds, says } = evaluate({ is: "acknowledged", item }, facts, plan.acknowledgements);
    return { id: item, title: `Acknowledged: ${title}`, result: holds === "yes" ? "ok" : "failed", says };
  });
}
