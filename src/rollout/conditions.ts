import type { Hex } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";
import { printable } from "../core/printable.ts";
import type { ChainFacts, Facts } from "./facts.ts";

/** Something that must be so before a step, or that shows that a step worked. As data, so that a plan file can hold it and anyone can check it. */
export type Condition =
  | { readonly is: "acknowledged"; readonly item: string }
  | { readonly is: "implementation"; readonly contract: "policy" | "registry"; readonly address: string }
  | { readonly is: "platform" | "kms-image"; readonly id: Hex; readonly state: "allowed" | "not-allowed" }
  | { readonly is: "image"; readonly id: Hex; readonly state: "listed" | "receives-keys" | "ends" | "gone" }
  | { readonly is: "tee-enabled"; readonly tee: string }
  | { readonly is: "not-paused" }
  | { readonly is: "node-ready"; readonly node: string }
  /**
   * So many nodes run the image, by the order in which nodes released the root secret to it and to the one that it replaces; or somebody acknowledged which
   * image the node runs.
   */
  | {
      readonly is: "node-joined";
      readonly node: string;
      readonly image: Hex;
      readonly replaces: Hex;
      readonly times: number;
      readonly since: number;
    }
  | { readonly is: "identity"; readonly environmentKey: Hex }
  | { readonly is: "another-node-ready"; readonly node: string }
  | { readonly is: "nodes-ready"; readonly least: number }
  | { readonly is: "machine-as-planned"; readonly machine: string }
  | { readonly is: "machine-stopped"; readonly machine: string }
  | { readonly is: "delivered"; readonly node: string; readonly image: Hex; readonly since: number };

/** Whether a condition holds. `unknown` is not `no`: it could not be read. */
export interface Finding {
  readonly holds: "yes" | "no" | "unknown";
  /** One sentence about what is so. */
  readonly says: string;
  /** When time alone will make it hold, seconds since 1970. */
  readonly until?: number;
}

/** Who said that something is so that no program can see. */
export interface Acknowledgement {
  readonly item: string;
  readonly by: string;
  readonly at: number;
  readonly note: string;
}

const yes = (says: string): Finding => ({ holds: "yes", says });
const no = (says: string, until?: number): Finding => ({
  holds: "no",
  says,
  ...(until === undefined ? {} : { until }),
});
const unknown = (says: string): Finding => ({ holds: "unknown", says });

/**
 * Holds a condition against what was read.
 *
 * @example
 * evaluate({ is: "not-paused" }, facts, plan.acknowledgements).holds; // "yes"
 */
export function evaluate(condition: Condition, facts: Facts, acknowledged: readonly Acknowledgement[]): Finding {
  switch (condition.is) {
    case "acknowledged": {
      const found = acknowledged.find(({ item }) => item === condition.item);
      if (found === undefined) return no(`nobody has acknowledged ${condition.item}`);
      return yes(`${condition.item}: acknowledged by ${printable(found.by)}`);
    }
    case "node-ready":
      return nodeReady(condition.node, facts);
    case "node-joined":
      return nodeJoined(condition, facts, acknowledged);
    case "another-node-ready": {
      const others = [...facts.nodes].filter(([name, node]) => name !== condition.node && node.ready);
      if (others.length > 0) return yes(`${others.map(([name]) => name).join(", ")} can release keys meanwhile`);
      return no(`${condition.node} is the last node that releases keys: it must not be stopped`);
    }
    case "nodes-ready": {
      const ready = [...facts.nodes].filter(([, node]) => node.ready).length;
      return ready >= condition.least
        ? yes(`${ready} of ${facts.nodes.size} nodes release keys`)
        : no(`${ready} of ${facts.nodes.size} nodes release keys; at least ${condition.least} must`);
    }
    case "machine-as-planned":
      return machineAsPlanned(condition.machine, facts);
    case "machine-stopped": {
      const machine = facts.machines.get(condition.machine);
      if (machine?.up === undefined) {
        const item = `stopped-${condition.machine}`;
        return evaluate({ is: "acknowledged", item }, facts, acknowledged);
      }
      return machine.up ? no(`${condition.machine} still runs`) : yes(`${condition.machine} answers no more`);
    }
    case "delivered":
      return delivered(condition.node, condition.image, condition.since, facts);
    default:
      return isKeysteadError(facts.chain)
        ? unknown(`the chain could not be read: ${facts.chain.code}`)
        : onChain(condition, facts.chain);
  }
}

type ChainCondition = Extract<
  Condition,
  { readonly is: "implementation" | "platform" | "kms-image" | "image" | "tee-enabled" | "not-paused" | "identity" }
>;

function onChain(condition: ChainCondition, chain: ChainFacts): Finding {
  switch (condition.is) {
    case "implementation": {
      const now = chain.implementations[condition.contract];
      return now.toLowerCase() === condition.address.toLowerCase()
        ? yes(`the ${condition.contract} runs ${now}`)
        : no(`the ${condition.contract} runs ${now}, not ${condition.address}`);
    }
    case "platform":
    case "kms-image": {
      const what = condition.is === "platform" ? "platform" : "KMS image";
      const list = condition.is === "platform" ? chain.platforms : chain.kmsImages;
      const state = list.get(condition.id)?.state;
      const says = `the ${what} ${condition.id} is ${state ?? "not known to the policy"}`;
      return (state === "allowed") === (condition.state === "allowed") ? yes(says) : no(says);
    }
    case "identity":
      return chain.identities.has(condition.environmentKey)
        ? yes(`the KMS identity ${condition.environmentKey} is published`)
        : no(`the KMS identity ${condition.environmentKey} is not published`);
    case "image":
      return imageFinding(condition.id, condition.state, chain);
    case "tee-enabled":
      return chain.enabledTees.has(condition.tee)
        ? yes(`${condition.tee} machines are enabled`)
        : no(`${condition.tee} machines are not enabled`);
    case "not-paused":
      return chain.time < chain.pausedUntil
        ? no("all releases are paused", chain.pausedUntil)
        : yes("releases are not paused");
  }
}

function imageFinding(
  id: Hex,
  wanted: Extract<Condition, { readonly is: "image" }>["state"],
  chain: ChainFacts,
): Finding {
  const found = chain.images.get(id);
  const status = found?.status;
  const says = `the service's image ${id} is ${status ?? "not listed"}`;
  switch (wanted) {
    case "listed":
      return status === "pending" || status === "active" || status === "retiring" ? yes(says) : no(says);
    case "receives-keys":
      if (status === "active" || status === "retiring") return yes(says);
      return status === "pending" ? no(says, found?.until) : no(says);
    case "ends":
      return status === "active" || status === "pending" ? no(says) : yes(says);
    case "gone":
      if (status === "retiring") return no(says, found?.until);
      return status === "active" || status === "pending" ? no(says) : yes(says);
  }
}

function nodeReady(name: string, facts: Facts): Finding {
  const node = facts.nodes.get(name);
  if (node === undefined) return unknown(`${name} was not asked`);
  return node.ready ? yes(`${name} releases keys`) : no(`${name} releases no keys: ${reasonOf(node.problem)}`);
}

const reasonOf = (problem: string | undefined): string => printable(problem ?? "it does not say why", 200);

/**
 * A node says nothing of its own image that would prove anything: that it got the root secret as that image does. A node that went back to the old image got
 * it as the old image, or a person says so; nodes go forward in the plan's order and back in the reverse.
 */
function nodeJoined(
  { node, image, replaces, times, since }: Extract<Condition, { readonly is: "node-joined" }>,
  facts: Facts,
  acknowledged: readonly Acknowledgement[],
): Finding {
  const latest = (item: string) => Math.max(-1, ...acknowledged.flatMap((said) => (said.item === item ? said.at : [])));
  const back = latest(`node-back-${node}`);
  if (latest(`node-image-${node}`) > back) {
    return evaluate({ is: "acknowledged", item: `node-image-${node}` }, facts, acknowledged);
  }
  const shown = [...facts.nodes.values()].flatMap(({ receipts }) => receipts ?? []);
  const joined = [...new Map(shown.map((receipt) => [receipt.digest, receipt])).values()]
    .filter(({ type, issuedAt }) => type === "root" && issuedAt >= since)
    .sort((a, b) => a.issuedAt - b.issuedAt);
  if (back >= 0 && !joined.some(({ imageId, issuedAt }) => imageId === image && issuedAt > back)) {
    return no(`${node} was brought back to the old image: acknowledged`);
  }
  let count = 0;
  for (const { imageId } of joined) {
    if (imageId === image) count += 1;
    else if (imageId === replaces) count = Math.max(0, count - 1);
  }
  // one that came back without a receipt needs another to go forward again
  const again = [...facts.nodes.keys()].slice(0, times).filter((name) => latest(`node-back-${name}`) >= 0).length;
  if (count >= times + again) return yes(`the KMS image ${image} received the root secret`);
  return no(
    `${count} of ${times + again} nodes received the root secret as the KMS image ${image} since the plan was made`,
  );
}

function machineAsPlanned(name: string, facts: Facts): Finding {
  const machine = facts.machines.get(name);
  if (machine === undefined) return unknown(`${name} was not asked`);
  const problem = machine.problem === undefined ? "" : `: ${printable(machine.problem, 200)}`;
  if (machine.up === false) return no(`${name} does not answer${problem}`);
  if (machine.quote === "differs") {
    return no(`${name}'s quote is not of the image that the plan says: ${machine.differs.join(", ")} differ`);
  }
  if (machine.quote === "unreadable") return unknown(`${name}'s quote could not be read${problem}`);
  if (machine.up === undefined && machine.quote === undefined) {
    return unknown(`the plan names nothing of ${name} that could be asked`);
  }
  return yes(
    `${name} ${machine.up ? "answers" : "runs"}${machine.quote === undefined ? "" : ", and its quote is of the image that the plan says"}`,
  );
}

function delivered(name: string, image: Hex, since: number, facts: Facts): Finding {
  const receipts = facts.nodes.get(name)?.receipts;
  if (receipts === undefined) return unknown(`${name} shows no receipts`);
  const latest = Math.max(
    0,
    ...receipts.filter(({ type, imageId }) => type === "keys" && imageId === image).map(({ issuedAt }) => issuedAt),
  );
  return latest >= since && latest > 0
    ? yes(`${name} released keys to ${image}`)
    : no(`${name} has released no keys to ${image} since the plan was made`);
}
