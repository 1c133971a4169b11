import { type Denial, denyByPolicy, denyByService, openQuestions } from "../../../audit/accept.ts";
import {
  type Basis,
  fetchImageStanding,
  fetchKnownBy,
  fetchPolicyStanding,
  type ImageStanding,
  type PolicyStanding,
  requirePolicyOf,
} from "../../../audit/standing.ts";
import { isoTime } from "../../../audit/table.ts";
import { type Block, fetchBlock } from "../../../chain/block.ts";
import { fromHex, type Hex } from "../../../core/bytes.ts";
import { KeysteadError } from "../../../core/errors.ts";
import { IMAGE_KINDS, type Image } from "../../../core/image.ts";
import type { PolicyEntry } from "../../../core/policy-state.ts";
import { printable } from "../../../core/printable.ts";
import {
  type ChainInput,
  type OptionValues,
  openChain,
  requireNow,
  requireProof,
  requireRegistry,
} from "../../chain-input.ts";
import { decodeAnyImage, type NamedImage, readNamedImage } from "../../image-input.ts";
import type { Io } from "../../io.ts";
import { type ExitCode, type Output, renderTable } from "../../output.ts";
import { imageJson, renderImage } from "./show.ts";

/** Everything that was looked up about one image. */
interface Found {
  readonly chain: ChainInput;
  readonly block: Block;
  readonly id: Hex;
  readonly image: Image | undefined;
  readonly services: readonly ImageStanding[];
  /** Services with logs about it that were not looked at. */
  readonly left: number;
  /** Whether one service was asked about, and not which ones know the image. */
  readonly named: boolean;
  readonly policy: PolicyStanding | undefined;
}

async function look(
  { id, given }: NamedImage,
  chain: ChainInput,
  block: Block,
  serviceId: Hex | undefined,
): Promise<Found> {
  const { client, witnesses, fromBlock, deployedAt } = chain;
  const options = { at: block.number, witnesses, fromBlock, deployedAt };
  const found = { services: [] as readonly ImageStanding[], left: 0 };
  if (serviceId !== undefined) {
    found.services = [await fetchImageStanding(client, requireRegistry(chain), serviceId, id, options)];
  } else if (chain.registry !== undefined) {
    Object.assign(found, await fetchKnownBy(client, chain.registry, id, options));
  }
  const policy = chain.policy === undefined ? undefined : await fetchPolicyStanding(client, chain.policy, options);
  if (chain.registry !== undefined && chain.policy !== undefined) {
    await requirePolicyOf(client, chain.registry, chain.policy);
  }
  const logged =
    found.services.find(({ image }) => image !== undefined)?.image ?? entriesOf(policy, id)[0]?.entry.image;
  const image = given?.image ?? (logged === undefined ? undefined : decodeAnyImage(fromHex(logged, "image")));
  return { chain, block, id, image, ...found, named: serviceId !== undefined, policy };
}

function entriesOf(policy: PolicyStanding | undefined, id: Hex) {
  const lists = [
    { list: "platform", entry: policy?.platform(id) },
    { list: "kms-image", entry: policy?.kmsImage(id) },
  ];
  return lists.flatMap(({ list, entry }) => (entry === undefined ? [] : [{ list, entry }]));
}

const option = (options: OptionValues, name: string): string | undefined =>
  typeof options[name] === "string" ? options[name] : undefined;

/**
 * `keystead image show` with a chain: where the image stands under a service, or who knows it.
 *
 * @returns 0 if something knows it, else 1
 * @throws KeysteadError where nothing could be found out: as `openChain`, `fetchImageStanding`, `fetchKnownBy`, `fetchPolicyStanding`
 * @example
 * return showOnChain(io, "0x…", { rpc, registry }, output);
 */
export async function showOnChain(io: Io, argument: string, options: OptionValues, output: Output): Promise<ExitCode> {
  const named = await readNamedImage(io, argument);
  const chain = await openChain(io, options);
  if (chain.registry === undefined && chain.policy === undefined) requireRegistry(chain);
  const block = await fetchBlock(chain.client, "latest");
  const found = await look(named, chain, block, option(options, "service") as Hex | undefined);
  output.result(foundJson(found), () => renderFound(found, output));
  const known =
    found.services.some(({ status }) => status !== "unknown") || entriesOf(found.policy, found.id).length > 0;
  return known ? 0 : 1;
}

/**
 * `keystead image check` with a chain: whether the image would be accepted now.
 *
 * @param clock this machine's time, in seconds since 1970
 * @returns 0 if it would be, 1 if not
 * @throws KeysteadError where that could not be checked; `usage/service`, `usage/policy`
 * @example
 * return checkOnChain(io, "0x…", { rpc, registry, service }, Date.now() / 1000, output);
 */
export async function checkOnChain(
  io: Io,
  argument: string,
  options: OptionValues,
  clock: number,
  output: Output,
): Promise<ExitCode> {
  const serviceId = option(options, "service") as Hex | undefined;
  const asPlatform = options.use === "platform";
  if (asPlatform === (serviceId !== undefined)) {
    throw new KeysteadError("usage/service", "what the image is to be accepted as is not said, or said twice", {
      argument: "service",
      remedy: "Add --service ID for a service's image, or --use platform for a platform.",
    });
  }
  const named = await readNamedImage(io, argument);
  const platformArgument = option(options, "platform");
  const platform = platformArgument === undefined ? undefined : await readNamedImage(io, platformArgument);
  const chain = await openChain(io, options);
  if (chain.policy === undefined && (asPlatform || platform !== undefined)) {
    throw new KeysteadError("usage/policy", "a platform is a policy's, and which policy is not said", {
      argument: "policy",
      remedy: "Add --policy ADDRESS or --deployment FILE.",
    });
  }
  if (serviceId !== undefined) requireRegistry(chain);
  const block = await requireNow(chain, clock);
  const found = await look(named, asPlatform ? { ...chain, registry: undefined } : chain, block, serviceId);
  const [standing] = found.services;
  if (standing !== undefined) requireProof("the service's history", standing.rests, chain);
  if (found.policy !== undefined) requireProof("the policy's history", found.policy.rests, chain);
  const platformId = asPlatform ? found.id : platform?.id;
  const denial = (standing && denyByService(standing, clock)) ?? policyDenial(found, platformId, asPlatform);
  const notChecked = openQuestions(standing, found.policy, platformId !== undefined);
  const value = {
    ...foundJson(found),
    verdict: { accepted: denial === undefined, denial: denial ?? null, notChecked },
  };
  output.result(value, () => {
    const { bold, green, red } = output.colors;
    const answer =
      denial === undefined
        ? green("Accepted: it may have keys now, as far as the chain can tell.")
        : red(`Not accepted: ${denial.message} (${denial.decision}).`);
    const open = `${bold("Not checked")}\n${notChecked.map((item) => `- ${item}`).join("\n")}`;
    return `${renderFound(found, output)}\n\n${open}\n\n${bold(answer)}`;
  });
  return denial === undefined ? 0 : 1;
}

function policyDenial(found: Found, platformId: Hex | undefined, asPlatform: boolean): Denial | undefined {
  const { policy, image, block } = found;
  if (policy === undefined) return undefined;
  const entry = platformId === undefined ? undefined : policy.platform(platformId);
  const kind = image === undefined ? undefined : IMAGE_KINDS[image.kind].byte;
  // a platform that is known by nothing but an id that the policy does not have
  if (kind === undefined) {
    return asPlatform
      ? { decision: "PlatformNotAllowed", message: "the policy does not know this platform" }
      : undefined;
  }
  return denyByPolicy(policy.state, kind, platformId === undefined ? undefined : { entry }, block.timestamp);
}

function foundJson(found: Found) {
  const { chain, block, id, image, services, left, policy } = found;
  return {
    format: "keystead.standing/1",
    id,
    image: image === undefined ? null : imageJson(image),
    chain: {
      chainId: chain.client.chainId,
      block: block.number,
      hash: block.hash,
      timestamp: block.timestamp,
      registry: chain.registry ?? null,
      policy: chain.policy ?? null,
    },
    services: services.map((standing) => ({
      serviceId: standing.serviceId,
      status: standing.status,
      since: standing.since,
      until: standing.until,
      exists: standing.service !== undefined,
      upgradeable: standing.service?.upgradeable ?? null,
      description: standing.description === undefined ? null : printable(standing.description),
      reason: standing.reason === undefined ? null : printable(standing.reason),
      events: standing.events,
      restsOn: restsJson(standing.rests),
    })),
    servicesNotLookedAt: left,
    policy:
      policy === undefined
        ? null
        : {
            entries: entriesOf(policy, id).map(({ list, entry }) => entryJson(list, entry)),
            pausedUntil: policy.state.pausedUntil,
            restsOn: restsJson(policy.rests),
          },
    endpointsWord: endpointsWord(found),
  };
}

const restsJson = ({ verdict, basis, reasons }: Basis) => ({
  verdict,
  head: basis === "proof" ? "storage-proof" : "endpoint",
  reasons: reasons.map(({ code, message }) => ({ code, message: printable(message) })),
});

const entryJson = (list: string, { state, since, description, reason }: PolicyEntry) => ({
  list,
  state,
  since,
  description: printable(description),
  reason: reason === undefined ? null : printable(reason),
});

/** What no proof covers, one sentence each. */
function endpointsWord({ chain, block, services, named }: Found): readonly string[] {
  const who = chain.witnesses.length === 0 ? "the endpoint alone says so" : "the endpoint and the witness say so";
  const words = [`That block ${block.number} (${block.hash}) is the newest of chain ${chain.client.chainId}: ${who}.`];
  if (services.some(({ events }) => events.length !== 0)) words.push("The times of the events.");
  if (!named && chain.registry !== undefined) words.push("That no other service knows the image.");
  return words;
}

function renderFound(found: Found, output: Output): string {
  const { id, image, services, left, named, chain, policy, block } = found;
  const { bold } = output.colors;
  const sections = [image === undefined ? renderTable([["id", id]]) : renderImage(image, output)];
  for (const standing of services) sections.push(renderStanding(standing, output));
  if (!named && chain.registry !== undefined && services.length === 0)
    sections.push(bold("No service knows this image."));
  if (left !== 0) sections.push(bold(`${left} more services have logs about it that were not looked at.`));
  if (policy !== undefined) {
    const rows = entriesOf(policy, id).map(({ list, entry }) => [
      list === "platform" ? "platform" : "KMS image",
      entry.state,
      `since ${isoTime(entry.since)}`,
      entry.reason === undefined ? printable(entry.description) : `revoked: ${printable(entry.reason)}`,
    ]);
    const text =
      rows.length === 0 ? "The policy knows it neither as a platform nor as a KMS image." : renderTable(rows);
    sections.push(`${bold("In the policy")}\n${text}\n${renderRests(policy.rests)}`);
  }
  sections.push(
    `${bold(`On the endpoint's word, at ${isoTime(block.timestamp)}`)}\n${endpointsWord(found)
      .map((item) => `- ${item}`)
      .join("\n")}`,
  );
  return sections.join("\n\n");
}

function renderStanding(standing: ImageStanding, { colors }: Output): string {
  const { serviceId, status, since, until, description, reason, service, events, rests } = standing;
  const rows = [["state", service === undefined ? "unknown: there is no such service" : status]];
  if (since !== 0) rows.push(["since", isoTime(since)]);
  if (status !== "unknown") rows.push(["until", until === 0 ? "no end set" : isoTime(until)]);
  if (description !== undefined) rows.push(["description", printable(description)]);
  if (reason !== undefined) rows.push(["removed because", printable(reason)]);
  if (service !== undefined) {
    rows.push(["service", service.upgradeable ? "upgradeable" : "sealed: its image can never be replaced"]);
  }
  for (const { event, sequence, block, transaction } of events) {
    rows.push([`event ${sequence}`, `${event} in block ${block}, ${transaction}`]);
  }
  return `${colors.bold(`Under service ${serviceId}`)}\n${renderTable(rows)}\n${renderRests(rests)}`;
}

function renderRests({ verdict, reasons }: Basis): string {
  if (verdict === "proven") return "Rests on a storage proof: complete and unaltered.";
  return `NOT PROVEN, rests on the endpoint's word: ${reasons.map(({ message }) => printable(message)).join("; ")}`;
}
