import type { Hex } from "../../../../core/bytes.ts";
import { KeysteadError } from "../../../../core/errors.ts";
import { type Aggregates, computeAggregates, parseStatus } from "../../../../core/evidence/dstack.ts";
import {
  type DstackFacts,
  type EventLog,
  parseEventLogFile,
  type RtmrName,
  readDstackFacts,
  replayEventLog,
  replayToBootDone,
  verifyEventLog,
} from "../../../../core/evidence/event-log.ts";
import { isGuestInfo } from "../../../../core/evidence/guest-info.ts";
import { refusePage } from "../../../../core/evidence/page.ts";
import { parseTdxQuote, tdxFindings, tdxRegisters } from "../../../../core/evidence/tdx.ts";
import type { Finding, MeasuredRegister, Measurement, MeasurementSource } from "../../../../core/measurement.ts";
import type { InputFile, Io } from "../../../io.ts";
import {
  EVENT_LOG_OPTION,
  jsonObject,
  measured,
  OS_IMAGE_OPTIONS,
  type OsImage,
  readOsImage,
  TEXT_LIMIT,
  textOption,
} from "../deployment.ts";
import { decodeEvidenceFile, EVIDENCE_LIMIT, fileFindings } from "../evidence-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";
import { checkConfigId, MR_CONFIG_OPTION } from "../mr-config-id.ts";

/** A quote to hold a log against. */
interface Quote {
  readonly registers: Readonly<Record<string, Hex>>;
  readonly findings: readonly Finding[];
  readonly source: MeasurementSource;
}

async function readLog(io: Io, { inputs, options }: ReaderArguments): Promise<Measurement> {
  const file = await io.readFile(inputs[0] ?? "-", { limit: TEXT_LIMIT, argument: "event-log" });
  const value = jsonObject(file);
  if (value !== undefined && isGuestInfo(value)) {
    throw new KeysteadError(
      "measure/wrong-input",
      `${file.name} is an answer of the guest agent, with an event log inside`,
      {
        argument: "event-log",
        remedy: "Use keystead measure info, which holds the log against the rest of the answer.",
      },
    );
  }
  refusePage(file.bytes, "event-log");
  const parsed = parseEventLogFile(file.bytes);
  const quote = await readQuote(io, file, parsed.quote, textOption(options, "quote"));
  const osImage = await readOsImage(io, options);
  const { log } = parsed;
  const facts = readDstackFacts(log);
  const check = quote === undefined ? undefined : verifyEventLog(log, rtmrsOf(quote.registers));
  const configId = quote?.registers.mr_config_id;
  const config =
    configId === undefined ? [] : await checkConfigId(io, configId, facts, textOption(options, "mrConfig"));
  const aggregates = quote === undefined ? undefined : aggregatesOf(quote.registers, log, facts);
  const sources = [file.source, ...(quote === undefined || quote.source === file.source ? [] : [quote.source])];
  return {
    kind: "dstack",
    input: "event-log",
    registers: {
      ...osImageRegister(file.source, facts, osImage),
      ...composeRegister(file.source, facts),
      ...(aggregates === undefined
        ? {}
        : {
            mr_aggregated: measured(
              aggregates.mrAggregated,
              "computed",
              file.source,
              "SHA-256 of MRTD, RTMR0 to 2, the replayed RTMR3 and, where not zero, the configuration registers",
            ),
            mr_system: measured(
              aggregates.mrSystem,
              "computed",
              file.source,
              "SHA-256 of MRTD, RTMR0 to 2 and the hash of the key-provider event",
            ),
          }),
    },
    facts: {
      format: `dstack event log, ${log.events.length} events`,
      ...factsOf(facts),
      ...replayEventLog(log),
      "rtmr3 at boot-mr-done": replayToBootDone(log) ?? "no such event",
      checked: check === undefined ? "not held against a quote" : `${check.checked.join(", ")} equal the quote's`,
    },
    sources: osImage === undefined ? sources : [...sources, osImage.register.source],
    findings: [...fileFindings(file), ...(quote?.findings ?? []), ...logFindings(facts)],
    unchecked: [
      ...(check === undefined
        ? ["The log as a whole: without --quote, anyone could have written it. Only its digests were recomputed."]
        : [
            "The quote's signatures and certificate chain: the log agrees with what the quote file claims. Key delivery checks them.",
          ]),
      ...(check !== undefined && check.unchecked.length > 0
        ? [`${check.unchecked.join(", ")}: the log has no events of them.`]
        : []),
      ...config,
      ...osImageUnchecked(facts, osImage),
    ],
  };
}

async function readStatus(io: Io, { inputs, options }: ReaderArguments): Promise<Measurement> {
  const file = await io.readFile(inputs[0] ?? "-", { limit: TEXT_LIMIT, argument: "status" });
  const { values, lines } = parseStatus(file.bytes);
  const logName = textOption(options, "eventLog");
  const logFile =
    logName === undefined ? undefined : await io.readFile(logName, { limit: TEXT_LIMIT, argument: "--event-log" });
  const log = logFile === undefined ? undefined : parseEventLogFile(logFile.bytes).log;
  const read = (name: string): MeasuredRegister | undefined => {
    const value = values[name];
    return value === undefined ? undefined : measured(value, "read", file.source, `line ${lines[name]}: ${name}`);
  };
  const rtmrs = Object.fromEntries(Object.entries(values).map(([name, value]) => [name.toLowerCase(), value]));
  if (log !== undefined && rtmrs.rtmr3 === undefined) {
    throw new KeysteadError("dstack/status-no-rtmr3", `${file.name} states no RTMR3 to hold the event log against`, {
      argument: "--event-log",
      remedy: "Leave the event log out, or give a status with its RTMR3 line.",
    });
  }
  const check = log === undefined ? undefined : verifyEventLog(log, rtmrsOf(rtmrs));
  const facts = log === undefined ? undefined : readDstackFacts(log);
  const isDstack = ["OS_IMAGE_HASH", "COMPOSE_HASH", "MR_AGGREGATED", "MR_SYSTEM"].some(
    (name) => values[name] !== undefined,
  );
  const dstack = isDstack || log !== undefined;
  const fromLog = facts === undefined || logFile === undefined ? {} : composeRegister(logFile.source, facts);
  if (
    fromLog.compose_hash !== undefined &&
    values.COMPOSE_HASH !== undefined &&
    fromLog.compose_hash.value !== values.COMPOSE_HASH
  ) {
    throw new KeysteadError("dstack/status-conflict", "the event log has another compose hash than the status", {
      argument: "--event-log",
      remedy: "Give status and event log of one machine.",
      details: { status: values.COMPOSE_HASH, eventLog: fromLog.compose_hash.value },
    });
  }
  const names = dstack
    ? ["OS_IMAGE_HASH", "COMPOSE_HASH", "MR_AGGREGATED", "MR_SYSTEM"]
    : ["MRTD", "RTMR0", "RTMR1", "RTMR2", "RTMR3"];
  const stated = names.flatMap((name): [string, MeasuredRegister][] => {
    const register = read(name);
    return register === undefined ? [] : [[name.toLowerCase(), register]];
  });
  const others = Object.keys(values).filter((name) => !names.includes(name));
  return {
    kind: dstack ? "dstack" : "tdx",
    input: "status",
    registers: { ...Object.fromEntries(stated), ...fromLog },
    facts: {
      format: "lines of a status command",
      ...Object.fromEntries(others.map((name) => [name, values[name] ?? ""])),
      ...(check === undefined ? {} : { checked: `the event log replays to ${check.checked.join(", ")}` }),
      ...(facts === undefined ? {} : factsOf(facts)),
    },
    sources: logFile === undefined ? [file.source] : [file.source, logFile.source],
    findings: [...fileFindings(file), ...(facts === undefined ? [] : logFindings(facts))],
    unchecked: [
      "Everything that the status states: it is a tool's word about a machine, without a quote.",
      ...(dstack && log === undefined && values.RTMR3 !== undefined
        ? ["RTMR3: a dstack image is known by its compose hash; add --event-log to replay it."]
        : []),
    ],
  };
}

export async function readQuote(
  io: Io,
  file: InputFile,
  inside: Uint8Array | undefined,
  name: string | undefined,
): Promise<Quote | undefined> {
  if (name === undefined) {
    if (inside === undefined) return undefined;
    const quote = parseTdxQuote(inside);
    return { registers: tdxRegisters(quote), findings: tdxFindings(quote), source: file.source };
  }
  const quoteFile = await io.readFile(name, { limit: EVIDENCE_LIMIT, argument: "--quote" });
  const evidence = decodeEvidenceFile(quoteFile, ["tdx-quote", "sgx-quote"], "--quote");
  const quote = parseTdxQuote(evidence.bytes);
  return {
    registers: tdxRegisters(quote),
    findings: [...tdxFindings(quote), ...evidence.findings],
    source: quoteFile.source,
  };
}

export function rtmrsOf(registers: Readonly<Record<string, Hex>>): Partial<Record<RtmrName, Hex>> {
  const { rtmr0, rtmr1, rtmr2, rtmr3 } = registers;
  return {
    ...(rtmr0 === undefined ? {} : { rtmr0 }),
    ...(rtmr1 === undefined ? {} : { rtmr1 }),
    ...(rtmr2 === undefined ? {} : { rtmr2 }),
    ...(rtmr3 === undefined ? {} : { rtmr3 }),
  };
}

function aggregatesOf(registers: Readonly<Record<string, Hex>>, log: EventLog, facts: DstackFacts): Aggregates {
  const get = (name: string): Hex => registers[name] ?? "0x";
  return computeAggregates({
    variant: "tdx",
    mrtd: get("mrtd"),
    rtmr0: get("rtmr0"),
    rtmr1: get("rtmr1"),
    rtmr2: get("rtmr2"),
    rtmr3: replayEventLog(log).rtmr3,
    mrConfigId: get("mr_config_id"),
    mrOwner: get("mr_owner"),
    mrOwnerConfig: get("mr_owner_config"),
    keyProvider: facts.keyProvider?.payload ?? "0x",
  });
}

function composeRegister(source: MeasurementSource, { composeHash }: DstackFacts): Record<string, MeasuredRegister> {
  if (composeHash === undefined) return {};
  return {
    compose_hash: measured(composeHash, "read", source, "payload of the first compose-hash event before system-ready"),
  };
}

function osImageRegister(
  source: MeasurementSource,
  { osImageHash }: DstackFacts,
  osImage: OsImage | undefined,
): Record<string, MeasuredRegister> {
  if (osImageHash === undefined) return osImage === undefined ? {} : { os_image_hash: osImage.register };
  if (osImage !== undefined && osImage.register.value !== osImageHash) {
    throw new KeysteadError("measure/two-os-images", "the event log names another OS image than the one given", {
      argument: "--os-image",
      remedy: "Give the OS image that the machine booted.",
      details: { eventLog: osImageHash, given: osImage.register.value },
    });
  }
  return {
    os_image_hash: measured(
      osImageHash,
      "read",
      source,
      "payload of the first os-image-hash event before system-ready",
    ),
  };
}

function osImageUnchecked({ osImageHash }: DstackFacts, osImage: OsImage | undefined): readonly string[] {
  if (osImageHash !== undefined) {
    return [
      "That RTMR0 to 2 are those of the OS image that the log names: dstack's verifier recomputes them from its files.",
    ];
  }
  if (osImage !== undefined)
    return [...osImage.unchecked, "That the machine booted the OS image given: its log does not say."];
  return ["Which OS image the machine booted: its log does not say. Add --os-image."];
}

export function factsOf(facts: DstackFacts): Record<string, string> {
  const { keyProvider } = facts;
  return {
    app_id: facts.appId ?? "not said",
    instance_id: facts.instanceId === undefined ? "not said" : facts.instanceId === "0x" ? "none" : facts.instanceId,
    key_provider:
      keyProvider === undefined
        ? "none yet"
        : keyProvider.name === undefined
          ? keyProvider.payload
          : `${keyProvider.name}, id ${keyProvider.id}`,
    ...(facts.rootfsHash === undefined ? {} : { rootfs_hash: facts.rootfsHash }),
    "events of the application": facts.applicationEvents.length === 0 ? "none" : facts.applicationEvents.join(", "),
  };
}

export function logFindings(facts: DstackFacts): readonly Finding[] {
  const findings: Finding[] = [];
  const warn = (code: string, message: string) => findings.push({ code, severity: "warning", message });
  if (!facts.ready) warn("dstack/not-ready", "the log has no system-ready event: the machine was still starting");
  if (facts.repeated.length > 0) {
    warn(
      "dstack/repeated-events",
      `${facts.repeated.join(", ")} came more than once before system-ready; the first counted`,
    );
  }
  if (facts.composeHash === undefined)
    warn("dstack/no-compose-hash", "the log has no compose-hash event before system-ready");
  return findings;
}

/** Whether a file is a bare log, or a quote response with one inside. */
function detectLog(file: InputFile): boolean {
  if (file.bytes.length > TEXT_LIMIT) return false;
  const start = new TextDecoder().decode(file.bytes.subarray(0, 4096)).trimStart();
  const bare = /^\[\s*\{/.test(start) && start.includes('"imr"') && start.includes('"event_type"');
  const value = jsonObject(file);
  return bare || (value?.event_log !== undefined && !isGuestInfo(value));
}

/** What running dstack machines say of themselves. */
export const readers: readonly InputReader[] = [
  {
    name: "event-log",
    summary: "a dstack event log (or a quote response with one), replayed and held against a quote",
    inputs: ["event-log"],
    options: [
      { flags: "--quote <file>", description: "the TDX quote of the same machine, to hold the log against" },
      MR_CONFIG_OPTION,
      ...OS_IMAGE_OPTIONS,
    ],
    read: readLog,
    detect: detectLog,
  },
  {
    name: "status",
    summary: "what dstack-cloud status prints: its RTMR3 and OS_IMAGE_HASH lines",
    inputs: ["status"],
    options: [EVENT_LOG_OPTION],
    read: readStatus,
  },
];
