import type { Hex } from "../../../../core/bytes.ts";
import { KeysteadError } from "../../../../core/errors.ts";
import { computeComposeHash } from "../../../../core/evidence/dstack.ts";
import { verifyEventLog } from "../../../../core/evidence/event-log.ts";
import { type GuestInfo, isGuestInfo, parseGuestInfo } from "../../../../core/evidence/guest-info.ts";
import { refusePage } from "../../../../core/evidence/page.ts";
import type { Measurement } from "../../../../core/measurement.ts";
import { type InputFile, type Io, inputFile } from "../../../io.ts";
import { jsonObject, measured, OS_IMAGE_OPTIONS, readOsImage, TEXT_LIMIT, textOption } from "../deployment.ts";
import { fileFindings } from "../evidence-file.ts";
import { checkConfigId, MR_CONFIG_OPTION } from "../mr-config-id.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";
import { measureAppCompose } from "./dstack.ts";
import { factsOf, logFindings, readQuote, rtmrsOf } from "./event-log.ts";

async function read(io: Io, { inputs, options }: ReaderArguments): Promise<Measurement> {
  const file = await io.readFile(inputs[0] ?? "-", { limit: TEXT_LIMIT, argument: "info" });
  refusePage(file.bytes, "info");
  const info = parseGuestInfo(file.bytes);
  const { log, facts } = info;
  const quote = await readQuote(io, file, undefined, textOption(options, "quote"));
  if (quote !== undefined && (log === undefined || facts === undefined)) {
    throw new KeysteadError("guest-info/no-log", `${file.name} has no event log to hold against the quote`, {
      argument: "--quote",
      remedy: "Leave the quote out, or get an answer with its tcb_info (public_tcbinfo).",
    });
  }
  const check = quote === undefined || log === undefined ? undefined : verifyEventLog(log, rtmrsOf(quote.registers));
  if (quote !== undefined) sameRegisters(info, quote.registers);
  const configId = quote?.registers.mr_config_id;
  const config =
    configId === undefined || facts === undefined
      ? []
      : await checkConfigId(io, configId, facts, textOption(options, "mrConfig"));
  const osImage = await readOsImage(io, options);
  if (osImage !== undefined && info.osImageHash !== undefined && osImage.register.value !== info.osImageHash) {
    throw new KeysteadError("measure/two-os-images", `${file.name} names another OS image than the one given`, {
      argument: "--os-image",
      remedy: "Give the OS image that the machine booted.",
      details: { stated: info.osImageHash, given: osImage.register.value },
    });
  }
  const inner = info.appCompose === undefined ? undefined : measureInner(file, info.appCompose);
  const from = log === undefined ? "os_image_hash of the answer" : "payload of the first os-image-hash event";
  return {
    kind: "dstack",
    input: "info",
    registers: {
      ...(info.osImageHash === undefined
        ? osImage === undefined
          ? {}
          : { os_image_hash: osImage.register }
        : { os_image_hash: measured(info.osImageHash, "read", file.source, from) }),
      compose_hash:
        info.appCompose === undefined
          ? measured(info.composeHash, "read", file.source, "as the answer states it: the app-compose is not shown")
          : measured(computeComposeHash(info.appCompose), "computed", file.source, "SHA-256 of app_compose inside"),
    },
    facts: {
      ...inner?.facts,
      format: "answer of the dstack guest agent (Info, tcb_info)",
      ...(facts === undefined ? {} : factsOf(facts)),
      ...info.registers,
      checked:
        log === undefined
          ? "there is no event log in it"
          : `the log replays to ${info.checked.join(", ") || "no register that is stated"}${check === undefined ? "" : "; equal to the quote's"}`,
    },
    sources: [
      file.source,
      ...(quote === undefined ? [] : [quote.source]),
      ...(osImage === undefined ? [] : [osImage.register.source]),
    ],
    findings: [
      ...fileFindings(file),
      ...(inner?.findings ?? []),
      ...(quote?.findings ?? []),
      ...(facts === undefined ? [] : logFindings(facts)),
    ],
    unchecked: [
      check === undefined
        ? "Everything that the answer states: it agrees with itself, and anyone could have written it. Add --quote."
        : "The quote's signatures and certificate chain: the answer agrees with what the quote file claims. Key delivery checks them.",
      ...config,
      ...(osImage?.unchecked ?? []),
      "What the container images inside it contain.",
    ],
  };
}

const measureInner = (file: InputFile, appCompose: Uint8Array): Measurement =>
  measureAppCompose(inputFile(`app_compose in ${file.name}`, appCompose), "info", undefined);

/** The registers that the answer states are the quote's, all of them. */
function sameRegisters({ registers }: GuestInfo, quote: Readonly<Record<string, Hex>>): void {
  for (const [name, value] of Object.entries(registers)) {
    if (quote[name] === value) continue;
    throw new KeysteadError("guest-info/contradiction", `the answer states another ${name} than the quote`, {
      argument: "--quote",
      remedy: "Give answer and quote of one machine.",
      details: { field: name, stated: value, quote: quote[name] },
    });
  }
}

/** Answers of guest agents. */
export const readers: readonly InputReader[] = [
  {
    name: "info",
    summary: "a dstack guest agent's Info or tcb_info answer: the app-compose inside, held against its event log",
    inputs: ["info"],
    options: [
      { flags: "--quote <file>", description: "the TDX quote of the same machine, to hold the answer against" },
      MR_CONFIG_OPTION,
      ...OS_IMAGE_OPTIONS,
    ],
    read,
    detect: (file) => {
      const value = jsonObject(file);
      return value !== undefined && isGuestInfo(value);
    },
  },
];
