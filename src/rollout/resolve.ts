import { getAddress, keccak256 } from "ethers";
import { blockParameter, fetchBlock } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import type { Deployment } from "../chain/deployment.ts";
import type { Hex } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { TEE_KINDS } from "../core/image.ts";
import { buildImage, isUnsafe, type Measurement, platformExclude, registerValues } from "../core/measurement.ts";
import { diffMeasurements } from "../core/measurement-diff.ts";
import type { ChainFacts } from "./facts.ts";
import type { Definition, Inputs, Measured, Measuring } from "./inputs.ts";
import type { ChainPlace } from "./read-chain.ts";

/** What a definition is resolved with. */
export interface Resolving {
  readonly deployment: Deployment;
  readonly client: Client;
  readonly chain: ChainFacts;
  /** Runs a reader of `keystead measure`. */
  readonly measure: (measuring: Measuring) => Promise<Measurement>;
  /** SHA-256 of a file's bytes. */
  readonly hashFile: (path: string) => Promise<Hex>;
}

/**
 * The addresses of a deployment's record that a rollout reads the chain by.
 *
 * @example
 * const chain = await readChain(client, placeOf(deployment, "deployment.json", definition.service));
 */
export function placeOf(record: Deployment, file: string, service: Hex): ChainPlace {
  const { contracts, safes, chainId, network, block, delaySeconds } = record;
  return {
    ...{ file, network, chainId: chainId.toString(), fromBlock: block, delaySeconds, service },
    registry: contracts.registry.address,
    policy: contracts.policy.address,
    timelock: contracts.timelock.address,
    governance: safes.governance.address,
    guardian: safes.guardian.address,
  };
}

/**
 * Looks up everything that a definition only names: measures what is old and new, reads what runs and who decides from the chain, hashes what is to be
 * backed up.
 *
 * @throws KeysteadError `rollout/no-service`, `rollout/unsafe-measurement` {findings}, `rollout/cannot-compare`, `rollout/no-code` {address}; those of the
 * readers and of `buildImage`
 * @example
 * const plan = buildPlan(await resolveInputs(definition, { deployment, client, chain, measure, hashFile }));
 */
export async function resolveInputs(definition: Definition, resolving: Resolving): Promise<Inputs> {
  const { chain, deployment: record } = resolving;
  const { service: _, ...deployment } = placeOf(record, definition.deployment, definition.service);
  const { application, kms } = definition;
  const measuredApplication = application === null ? null : await pair(application, "service", resolving);
  const measuredKms = kms === null ? null : await pair(kms, "kms", resolving);
  const files = [...definition.backup.files, definition.deployment];
  return {
    id: definition.id,
    created: chain.time,
    plannedFor: definition.plannedFor === null ? null : Math.floor(Date.parse(definition.plannedFor) / 1000),
    deployment: { ...deployment, delaySeconds: chain.minDelay },
    service: await resolveService(definition.service, resolving),
    application: measuredApplication,
    kms: kms === null || measuredKms === null ? null : { ...measuredKms, identity: kms.identity },
    contracts: await resolveContracts(definition, resolving),
    nodes: definition.nodes,
    machines: definition.machines,
    backup: {
      folder: definition.backup.folder,
      files: await Promise.all(
        [...new Set(files)].map(async (path) => ({ path, sha256: await resolving.hashFile(path) })),
      ),
    },
    signers: definition.signers,
    proposals: definition.proposals,
    tcb: definition.tcb,
    cleanup: definition.cleanup,
    already: {
      platforms: [measuredApplication?.new.platform, measuredKms?.new.platform].flatMap((platform) =>
        platform != null && isAllowed(chain.platforms, platform.id) ? [platform.id] : [],
      ),
      tees: TEE_KINDS.filter((kind) => chain.enabledTees.has(kind)),
      kmsImage: isAllowed(chain.kmsImages, measuredKms?.new.image.id),
      image: ["pending", "active"].includes(chain.images.get(measuredApplication?.new.image.id ?? "0x")?.status ?? ""),
      identity: kms?.identity != null && chain.identities.has(kms.identity.environmentKey),
    },
  };
}

const isAllowed = (list: ChainFacts["platforms"], id: Hex | undefined): boolean =>
  id !== undefined && list.get(id)?.state === "allowed";

async function resolveService(id: Hex, { client, chain }: Resolving): Promise<Inputs["service"]> {
  const { service } = chain;
  if (service === undefined) {
    throw new KeysteadError("rollout/no-service", `the registry knows no service ${id}`, {
      argument: "service",
      remedy: "Create it first: keystead service create.",
      details: { service: id },
    });
  }
  const code = await client.request("eth_getCode", [service.admin, blockParameter(chain.block)]);
  return {
    id,
    admin: getAddress(service.admin),
    adminKind: chain.admin !== undefined ? "safe" : code === "0x" ? "account" : "timelock",
    noticePeriod: service.noticePeriod,
    upgradeable: service.upgradeable,
    empty: chain.images.size === 0,
  };
}

/** Old and new, measured and compared: registers that only one of them says would make an image that matches too much. */
async function pair(
  given: { readonly old: Measuring | null; readonly new: Measuring },
  use: "service" | "kms",
  resolving: Resolving,
): Promise<{ readonly old: Measured | null; readonly new: Measured }> {
  const after = await resolving.measure(given.new);
  const before = given.old === null ? null : await resolving.measure(given.old);
  if (before !== null) {
    const { include, exclude } = given.new;
    const role = use === "kms" ? "kms-node" : "service";
    const diff = diffMeasurements(before, after, { include, exclude, role });
    if (diff.governanceNeeded === undefined) {
      throw new KeysteadError("rollout/cannot-compare", "old and new do not say the same registers", {
        argument: "definition",
        remedy: "Measure both from inputs of one kind, or leave registers out of both: see keystead measure diff.",
        details: { uncovered: diff.uncovered },
      });
    }
  }
  return {
    old: before === null || given.old === null ? null : measuredOf(given.old, before, use),
    new: measuredOf(given.new, after, use),
  };
}

/**
 * A measurement as a plan keeps it: the image, the platform under it, and the sources.
 *
 * @throws KeysteadError `rollout/unsafe-measurement` {findings}, those of `buildImage`
 * @example
 * measuredOf(measuring, await measure(measuring), "service").image.id;
 */
export function measuredOf(measuring: Measuring, measurement: Measurement, use: "service" | "kms"): Measured {
  if (isUnsafe(measurement)) {
    const findings = measurement.findings.map(({ code }) => code);
    throw new KeysteadError(
      "rollout/unsafe-measurement",
      `a machine like this must not get keys: ${findings.join(", ")}`,
      {
        argument: measuring.inputs.join(", "),
        remedy: "Measure the production build.",
        details: { findings },
      },
    );
  }
  const { include, exclude } = measuring;
  const values = registerValues(measurement);
  const image = buildImage(measurement.kind, values, use, { include, exclude });
  return {
    measuring,
    image: { id: image.id, text: image.text },
    platform: platformOf(measurement, exclude),
    sources: measurement.sources.map(({ name, sha256 }) => ({ name, sha256 })),
  };
}

/** An application alone, without its OS, says nothing about the platform. */
function platformOf(measurement: Measurement, exclude: readonly string[]): Measured["platform"] {
  try {
    const choice = { exclude: platformExclude(measurement.kind, exclude) };
    const { id, text } = buildImage(measurement.kind, registerValues(measurement), "platform", choice);
    return { id, text };
  } catch (error) {
    if (isKeysteadError(error, "image/missing-registers")) return null;
    throw error;
  }
}

async function resolveContracts({ contracts }: Definition, { client, chain }: Resolving): Promise<Inputs["contracts"]> {
  const found: Inputs["contracts"] = [];
  const block = await fetchBlock(client, chain.block);
  for (const contract of ["policy", "registry"] as const) {
    const to = contracts[contract];
    const from = getAddress(chain.implementations[contract]);
    if (to === undefined || to === from) continue;
    const code = String(await client.request("eth_getCode", [to, blockParameter(block.number)]));
    if (code === "0x") {
      throw new KeysteadError("rollout/no-code", `there is no contract at ${to}`, {
        argument: `contracts.${contract}`,
        remedy: "Deploy the new implementation first: scripts/deploy-kms-v2.ts does and prints its address.",
        details: { address: to },
      });
    }
    found.push({ contract, from, to, codeHash: keccak256(code) as Hex });
  }
  return found;
}
