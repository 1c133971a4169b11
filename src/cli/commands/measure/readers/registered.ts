import { fetchImageStanding, type ImageStanding } from "../../../../audit/standing.ts";
import { isoTime } from "../../../../audit/table.ts";
import { fromHex, type Hex } from "../../../../core/bytes.ts";
import { KeysteadError } from "../../../../core/errors.ts";
import { formatImage } from "../../../../core/image.ts";
import type { Finding, Measurement } from "../../../../core/measurement.ts";
import { printable } from "../../../../core/printable.ts";
import { CHAIN_OPTIONS, openChain, requireNow, requireProof, requireRegistry } from "../../../chain-input.ts";
import { decodeAnyImage } from "../../../image-input.ts";
import { type Io, inputFile } from "../../../io.ts";
import { readRegisters } from "../evidence-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";

/** What tells a registered image from a file's name. */
export const REGISTERED_PREFIX = "chain:";
const NAME = /^(?:chain:)?(0x[0-9a-fA-F]{40})\/(0x[0-9a-fA-F]{64})$/;

async function read(io: Io, { inputs, options }: ReaderArguments): Promise<Measurement> {
  const [name = ""] = inputs;
  const [, serviceId, imageId] = NAME.exec(name) ?? [];
  if (serviceId === undefined || imageId === undefined) {
    throw new KeysteadError("measure/registered-name", `${JSON.stringify(name)} names no image of a service`, {
      argument: "registered",
      remedy: "Give chain:SERVICE/IMAGE with the service's id (20 bytes) and the image's (32 bytes), both 0x and hex.",
    });
  }
  const chain = await openChain(io, options);
  const registry = requireRegistry(chain);
  const { client, witnesses, fromBlock, deployedAt } = chain;
  const block = await requireNow(chain, Date.now() / 1000);
  const at = { at: block.number, witnesses, fromBlock, deployedAt };
  const standing = await fetchImageStanding(client, registry, serviceId as Hex, imageId as Hex, at);
  requireProof("the service's history", standing.rests, chain);
  const bytes = fromHex(requireLive(standing), "image");
  const image = decodeAnyImage(bytes);
  const { source } = inputFile(`${REGISTERED_PREFIX}${standing.serviceId}/${standing.imageId}`, bytes);
  const who = witnesses.length === 0 ? "the endpoint alone says so" : "the endpoint and the witness say so";
  return {
    kind: image.kind,
    input: "registered",
    registers: readRegisters(image.registers, source, (register) => `${register} of the registered image`),
    facts: {
      format: "canonical image, from the registry's log",
      text: formatImage(image),
      state: standing.status,
      since: isoTime(standing.since),
      until: standing.until === 0 ? "no end set" : isoTime(standing.until),
      description: printable(standing.description ?? ""),
      block: `${block.number} of chain ${client.chainId}, ${block.hash}`,
      "rests on": standing.rests.verdict === "proven" ? "a storage proof" : "the endpoint's word (not proven)",
    },
    sources: [source],
    findings: findingsOf(standing),
    unchecked: [
      `That block ${block.number} is the newest of chain ${client.chainId}: ${who}.`,
      "What software the image is.",
    ],
  };
}

/** The bytes of an image that the service accepts, or will. Comparing with another would end in "nothing to register" where something is. */
function requireLive({ status, image, serviceId, imageId }: ImageStanding): Hex {
  if (image !== undefined && status !== "removed" && status !== "retired") return image;
  throw new KeysteadError("measure/not-registered", `image ${imageId} is ${status} under service ${serviceId}`, {
    argument: "registered",
    remedy:
      image === undefined
        ? "Check both ids and the chain: keystead image show IMAGE lists the services that know it."
        : "Name an image that is in force. To compare registers alone, give the image's text, which keystead image show prints.",
    details: { status },
  });
}

function findingsOf({ status, until, rests }: ImageStanding): readonly Finding[] {
  const warn = (code: string, message: string): Finding => ({ code, severity: "warning", message });
  const findings: Finding[] = [];
  if (status === "pending")
    findings.push(warn("registered/pending", `the image gets no keys before ${isoTime(until)}`));
  if (status === "retiring")
    findings.push(warn("registered/retiring", `the image gets no keys from ${isoTime(until)} on`));
  for (const { code, message } of rests.reasons) findings.push(warn(`registered/${code}`, printable(message)));
  return findings;
}

/** Images as a service has them registered on a chain. */
export const readers: readonly InputReader[] = [
  {
    name: "registered",
    summary: "an image that a service has registered on a chain: chain:SERVICE/IMAGEID, with --rpc and --registry",
    inputs: ["registered"],
    options: CHAIN_OPTIONS,
    read,
  },
];
