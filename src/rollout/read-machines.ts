import type { Fetch } from "../agent/http.ts";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { detectEvidence } from "../core/evidence/detect.ts";
import { nitroFindings, nitroRegisters, parseNitroDocument } from "../core/evidence/nitro.ts";
import { parseSnpReport, snpFindings, snpRegisters } from "../core/evidence/snp.ts";
import { parseTdxQuote, tdxFindings, tdxRegisters } from "../core/evidence/tdx.ts";
import { parseImage } from "../core/image.ts";
import { isJsonObject, parseJson } from "../core/json.ts";
import type { Finding } from "../core/measurement.ts";
import type { MachineFacts } from "./facts.ts";
import type { Machine } from "./inputs.ts";

const TIMEOUT_MS = 10_000;
const MAX_BYTES = 8 * 1024 * 1024;

/** What machines are compared with. */
export interface MachinePlace {
  readonly service: Hex;
  /** The image that it is to run, as text; undefined: nothing to compare with. */
  readonly image: string | undefined;
  /** Reads a file that the plan names, whatever it is, up to a limit and without waiting for it. */
  readonly readFile: (path: string) => Promise<Uint8Array>;
  /** Milliseconds for one answer. Default: {@link TIMEOUT_MS}. */
  readonly timeoutMs?: number | undefined;
  readonly fetch?: Fetch | undefined;
}

/**
 * What can be known of a machine from outside: whether `/vm_updates` answers for this service, and whether its quote has the registers of the planned image.
 * The quote's signature is not checked here: the node that releases keys does that. Never throws for what a machine does.
 *
 * @example
 * await readMachine(machine, { service, image: plan.inputs.application?.new.image.text, readFile });
 */
export async function readMachine(machine: Machine, place: MachinePlace): Promise<MachineFacts> {
  const updates = machine.updates === null ? undefined : await readUpdates(machine.updates, place);
  const quote = machine.quote === null ? undefined : await compareQuote(machine.quote, place);
  return {
    up: updates?.up,
    problem: updates?.problem ?? quote?.problem,
    quote: quote?.quote,
    differs: quote?.differs ?? [],
  };
}

async function readUpdates(url: string, place: MachinePlace) {
  try {
    const bytes = await download(`${url.replace(/\/+$/, "")}/vm_updates`, place);
    const answer = parseJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes), "vm_updates");
    const named = isJsonObject(answer) ? answer.service_id : undefined;
    if (typeof named === "string" && named.toLowerCase() === place.service) return { up: true, problem: undefined };
    return { up: false, problem: `/vm_updates is about the service ${JSON.stringify(named)?.slice(0, 60)}` };
  } catch (error) {
    return { up: false, problem: error instanceof Error ? error.message : String(error) };
  }
}

async function download(
  url: string,
  { fetch: ask = fetch, timeoutMs = TIMEOUT_MS }: MachinePlace,
): Promise<Uint8Array> {
  const response = await ask(url, { redirect: "error", signal: AbortSignal.timeout(timeoutMs) });
  if (response.status !== 200) {
    await response.body?.cancel();
    throw new Error(`HTTP ${response.status}`);
  }
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += chunk.length;
    if (length > MAX_BYTES) throw new Error("the answer is too long");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

async function compareQuote(
  where: string,
  place: MachinePlace,
): Promise<Pick<MachineFacts, "quote" | "differs" | "problem">> {
  const { image, readFile } = place;
  try {
    const bytes = /^https?:/.test(where) ? await download(where, place) : await readFile(where);
    const found = registersOf(bytes);
    if (image === undefined) return { quote: undefined, differs: [], problem: undefined };
    const wanted = parseImage(image);
    if (wanted.kind !== found.kind) return { quote: "differs", differs: [`kind ${found.kind}`], problem: undefined };
    const differs = Object.entries(wanted.registers).flatMap(([name, value]) =>
      found.registers[name]?.toLowerCase() === value.toLowerCase() ? [] : [name],
    );
    // the right registers on a machine that its host can read are not the planned machine
    differs.push(...found.unsafe);
    return { quote: differs.length === 0 ? "as-planned" : "differs", differs, problem: undefined };
  } catch (error) {
    return { quote: "unreadable", differs: [], problem: error instanceof Error ? error.message : String(error) };
  }
}

/** What evidence claims of its machine. */
export interface Claimed {
  readonly kind: string;
  readonly registers: Readonly<Record<string, Hex>>;
  /** Codes of findings for which a machine must not get keys, e.g. `evidence/debug`. */
  readonly unsafe: readonly string[];
}

/**
 * The registers that evidence claims.
 *
 * @throws KeysteadError `rollout/not-evidence`, and those of the parsers
 * @example
 * registersOf(quote).registers.rtmr3;
 */
export function registersOf(file: Uint8Array): Claimed {
  const { format, bytes, description } = detectEvidence(file);
  if (format === "tdx-quote") {
    const quote = parseTdxQuote(bytes);
    return { kind: "tdx", registers: tdxRegisters(quote), unsafe: unsafeOf(tdxFindings(quote)) };
  }
  if (format === "snp-report") {
    const report = parseSnpReport(bytes);
    return { kind: "snp", registers: snpRegisters(report), unsafe: unsafeOf(snpFindings(report)) };
  }
  if (format === "nitro-document") {
    const document = parseNitroDocument(bytes);
    return { kind: "nitro", registers: nitroRegisters(document), unsafe: unsafeOf(nitroFindings(document)) };
  }
  throw new KeysteadError("rollout/not-evidence", `this is no evidence of a machine but ${description}`, {
    argument: "quote",
    remedy: "Give a TDX quote, a SEV-SNP report or a Nitro document.",
  });
}

const unsafeOf = (findings: readonly Finding[]): readonly string[] =>
  findings.filter(({ severity }) => severity === "unsafe").map(({ code }) => code);
