import { createHmac, randomBytes } from "node:crypto";
import { acquireKeys } from "../agent/acquire.ts";
import { createCommandDevice } from "../agent/devices/command.ts";
import type { Device } from "../agent/devices/device.ts";
import type { Fetch } from "../agent/http.ts";
import { selectKeys } from "../agent/keys.ts";
import type { Trust } from "../agent/receipt.ts";
import { createSystem, type System } from "../agent/system.ts";
import type { Hex } from "../core/bytes.ts";
import { isLocalChain } from "../core/chain-id.ts";
import { isKeysteadError } from "../core/errors.ts";
import type { Inputs } from "./inputs.ts";

/** A request that a node got, and what came of it. No part of it tells anything about a key. */
export interface Delivery {
  readonly node: string;
  readonly machine: string;
  readonly runs: "old" | "new";
  readonly result: "delivered" | "refused" | "unknown";
  /** One sentence. */
  readonly says: string;
  /** The code of what went wrong. */
  readonly code: string | undefined;
  /** Equal for equal keys, within one run of {@link deliverAll}; worth nothing outside of it. */
  readonly mark: string | undefined;
  /** Whether the node accepts test roots: nothing is proven about hardware then. */
  readonly testTee: boolean;
}

/** How deliveries are tried. */
export interface DeliverOptions {
  readonly trust: Trust;
  readonly only?: "old" | "new" | undefined;
  /** Milliseconds for one answer. Default: the agent's. */
  readonly timeoutMs?: number | undefined;
  readonly fetch?: Fetch | undefined;
  readonly system?: System | undefined;
  readonly log?: (line: string) => void;
}

/**
 * Asks every node for the service's keys with evidence of every machine that the plan has a command for: a real request, whose answer is opened, compared and
 * wiped. The evidence must be of the image that the plan says, or the request counts as refused. Answers of nodes that accept test roots are taken on
 * development chains alone, whatever `trust` says.
 *
 * @example
 * const deliveries = await deliverAll(plan.inputs, { trust });
 */
export async function deliverAll(inputs: Inputs, options: DeliverOptions): Promise<readonly Delivery[]> {
  const salt = randomBytes(32);
  const done: Delivery[] = [];
  const { trust } = options;
  const allowTestTee = trust.allowTestTee === true && isLocalChain(trust.chainId);
  const strict = { ...options, trust: { ...trust, allowTestTee } };
  for (const machine of inputs.machines) {
    const { application } = inputs;
    const image = machine.runs === "new" ? application?.new.image.id : application?.old?.image.id;
    if (machine.evidence === null || (options.only !== undefined && machine.runs !== options.only)) continue;
    for (const { name, url } of inputs.nodes) {
      options.log?.(`${machine.name} asks ${name}`);
      const asked = { node: name, machine: machine.name, runs: machine.runs };
      done.push({ ...asked, ...(await deliver(url, machine.evidence, image, inputs.service.id, salt, strict)) });
    }
  }
  return done;
}

async function deliver(
  url: string,
  program: readonly string[],
  imageId: Hex | undefined,
  serviceId: Hex,
  salt: Uint8Array,
  { trust, fetch, timeoutMs, system = createSystem() }: DeliverOptions,
): Promise<Pick<Delivery, "result" | "says" | "code" | "mark" | "testTee">> {
  const command = createCommandDevice(system, program);
  let noEvidence = false;
  const device: Device = {
    name: command.name,
    attest: async (binding) => {
      noEvidence = true;
      const evidence = await command.attest(binding);
      noEvidence = false;
      return evidence;
    },
  };
  try {
    const nodes = [url.replace(/\/+$/, "")];
    const opened = await acquireKeys({
      nodes,
      device,
      serviceId,
      trust,
      imageId,
      fetch,
      timeoutMs,
      waitSeconds: 0,
      log: () => {},
    });
    try {
      const { release, bundle, receipt } = opened;
      // an answer without keys would be equal to another one without keys
      selectKeys(bundle, {});
      const mac = createHmac("sha256", salt);
      for (const { rootEpoch, keyEpoch, purpose, key } of bundle.keys)
        mac.update(`${rootEpoch} ${keyEpoch} ${purpose} `).update(key);
      return {
        ...{ result: "delivered", code: undefined, mark: mac.digest("hex"), testTee: receipt.testTee },
        says: `keys of epoch ${release.keyEpoch} for the image ${release.imageId}, by block ${release.blockNumber}`,
      };
    } finally {
      opened.plaintext.fill(0);
    }
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    // what may pass with time, or never reached the node, is no answer of the contracts
    const unknown =
      noEvidence || error.code === "agent/unreachable" || (error.retryable && error.code !== "agent/denied");
    const decision = typeof error.details.decision === "string" ? ` (${error.details.decision})` : "";
    return {
      result: unknown ? "unknown" : "refused",
      says: `${error.message}${decision}`,
      code: error.code,
      mark: undefined,
      testTee: false,
    };
  }
}

/**
 * What must be said wherever a verdict rests on nodes that accept test roots; nothing where it rests on none.
 *
 * @example
 * testEvidence(["north"]); // ["TEST EVIDENCE: north …"]
 */
export function testEvidence(nodes: readonly string[]): readonly string[] {
  if (nodes.length === 0) return [];
  return [`TEST EVIDENCE: ${nodes.join(", ")} accept machines under test roots; nothing about hardware is proven`];
}

/** What deliveries prove, or do not. */
export interface DeliveryVerdict {
  readonly verdict: "proven" | "refused" | "unknown";
  readonly says: readonly string[];
}

/**
 * What the deliveries show together: every node delivers to the new version and to the old, and all of them the same keys. One request whose outcome is
 * unknown leaves all of it unknown, and so does none at all.
 *
 * @example
 * judgeDeliveries(plan.inputs, deliveries).verdict; // "proven"
 */
export function judgeDeliveries(
  inputs: Inputs,
  deliveries: readonly Delivery[],
  only?: "old" | "new",
): DeliveryVerdict {
  const refused = deliveries.filter(({ result }) => result === "refused");
  const says = refused.map(({ node, machine, says }) => `${node} gives ${machine} no keys: ${says}`);
  if (new Set(deliveries.flatMap(({ mark }) => mark ?? [])).size > 1) {
    return { verdict: "refused", says: [...says, "not all of them got the same keys: the nodes have different roots"] };
  }
  if (refused.length > 0) return { verdict: "refused", says };
  const versions = (["new", "old"] as const).filter(
    (runs) => (only === undefined || only === runs) && (runs === "new" || inputs.application?.old != null),
  );
  const missing = inputs.nodes.flatMap(({ name }) =>
    versions
      .filter((runs) => !deliveries.some((one) => one.node === name && one.runs === runs && one.result === "delivered"))
      .map((runs) => `no machine of the ${runs} version got keys from ${name}`),
  );
  const open = deliveries
    .filter(({ result }) => result === "unknown")
    .map(({ node, machine, says }) => `${machine} at ${node}: ${says}`);
  if (missing.length > 0 || open.length > 0) return { verdict: "unknown", says: [...open, ...missing] };
  if (deliveries.length === 0) return { verdict: "unknown", says: ["no machine asked any node"] };
  const proven = `every node delivers the same keys to the ${versions.join(" and the ")} version`;
  const test = [...new Set(deliveries.flatMap(({ node, testTee }) => (testTee ? [node] : [])))];
  return { verdict: "proven", says: [...testEvidence(test), proven] };
}
