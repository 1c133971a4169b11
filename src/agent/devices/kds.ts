import { createHash, X509Certificate } from "node:crypto";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isZero, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { parseSnpReport, type SnpProduct, type SnpReport, type SnpTcb } from "../../core/evidence/snp.ts";
import type { Device, DeviceEvidence } from "./device.ts";

/*
 * The VCEK of a machine whose host hands out no certificates, as on bare metal: AMD, "Versioned Chip Endorsement Key (VCEK) Certificate and KDS Interface
 * Specification" (57230): GET /vcek/v1/PRODUCT/CHIP?blSPL=…&teeSPL=…&snpSPL=…&ucodeSPL=…, DER. From Turin on the chip has 8 bytes and the TCB an fmcSPL. A
 * VCEK is per chip and TCB, and AMD answers 429 to who asks too often: what was fetched is kept. Nothing is believed here: the node checks it.
 */

/** AMD's own. */
export const AMD_KDS = "https://kdsintf.amd.com";

/** How the service is asked. */
export interface KdsOptions {
  /** The address before `/vcek/v1`. Default: {@link AMD_KDS}. */
  readonly url?: string | undefined;
  /** A folder that keeps certificates between runs. Default: none. */
  readonly cache?: string | undefined;
  readonly fetch?: typeof fetch | undefined;
  readonly sleep?: ((milliseconds: number) => Promise<void>) | undefined;
  /** Tells people what is waited for. */
  readonly log?: ((line: string) => void) | undefined;
}

const NAMES: Readonly<Record<Exclude<SnpProduct, undefined>, string>> = {
  milan: "Milan",
  genoa: "Genoa",
  turin: "Turin",
  venice: "Venice",
};
const LONG_CHIP_ID_BYTES = 64;
const SHORT_CHIP_ID_BYTES = 8;
const TIMEOUT_MS = 15_000;
/** Tries for one certificate, with pauses of 2, 4, 8 and 16 seconds between them, or what the service asks for. */
const TRIES = 5;
const FIRST_PAUSE_MS = 2_000;
const LONGEST_PAUSE_MS = 30_000;
const MAX_CERTIFICATE_BYTES = 4096;

/**
 * A device whose SEV-SNP reports come with the chip's VCEK, fetched from AMD where the host gives none.
 *
 * @example
 * const device = withKds(await detectDevice(system), { log: console.error });
 */
export function withKds(device: Device, options: KdsOptions = {}): Device {
  const kept = new Map<string, Uint8Array>();
  return {
    name: device.name,
    attest: async (binding): Promise<DeviceEvidence> => {
      const evidence = await device.attest(binding);
      if (evidence.kind !== "snp" || evidence.certificates.endorsementKey !== undefined) return evidence;
      const path = vcekPath(parseSnpReport(evidence.report));
      const endorsementKey = kept.get(path) ?? (await readKept(path, options)) ?? (await fetchVcek(path, options));
      kept.set(path, endorsementKey);
      return { ...evidence, certificates: { ...evidence.certificates, endorsementKey } };
    },
  };
}

/**
 * Where the VCEK of a report's chip and TCB is.
 *
 * @throws KeysteadError `device/no-certificates` for a VLEK, which the provider alone has, for a masked chip id, and for a report that does not tell its
 * product
 * @example
 * vcekPath(parseSnpReport(bytes)); // "/vcek/v1/Milan/0f5c…?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
 */
export function vcekPath(report: SnpReport): string {
  const { signingKey, chipId } = report;
  if (signingKey !== "vcek")
    throw missing("a VLEK signs this machine's reports, and the host does not hand it out", "Ask the provider for it.");
  if (isZero(chipId)) {
    const remedy = "Give the VCEK with --vcek, or let the host hand it out or not mask the chip id (MASK_CHIP_ID).";
    throw missing("the host masks the chip id, by which AMD would be asked for the VCEK", remedy);
  }
  // A report of version 2 does not name its product, but from Turin on a chip id has 8 bytes.
  const short = isZero(chipId.subarray(SHORT_CHIP_ID_BYTES));
  const product = report.product ?? (short ? "turin" : undefined);
  if (product === undefined) {
    const remedy =
      "Give the VCEK with --vcek: the firmware is too old to say whether this is a Milan or a Genoa processor.";
    throw missing("a report of version 2 does not say which processor AMD is to be asked about", remedy);
  }
  const { reportedTcb } = product === report.product ? report : parseSnpReport(rebuild(report), product);
  const late = product === "turin" || product === "venice";
  const chip = toHex(chipId.subarray(0, late ? SHORT_CHIP_ID_BYTES : LONG_CHIP_ID_BYTES)).slice(2);
  return `/vcek/v1/${NAMES[product]}/${chip}?${query(reportedTcb)}`;
}

/** The whole report again: what is signed, and a signature that nobody looks at. */
function rebuild({ signed }: SnpReport): Uint8Array {
  const bytes = new Uint8Array(1184);
  bytes.set(signed);
  return bytes;
}

function query({ fmc, bootloader, tee, snp, microcode }: SnpTcb): string {
  const parts: readonly (readonly [string, number | undefined])[] = [
    ["fmcSPL", fmc],
    ["blSPL", bootloader],
    ["teeSPL", tee],
    ["snpSPL", snp],
    ["ucodeSPL", microcode],
  ];
  return parts
    .flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${String(value).padStart(2, "0")}`]))
    .join("&");
}

function missing(what: string, remedy: string): KeysteadError {
  return new KeysteadError("device/no-certificates", what, { argument: "vcek", remedy });
}

const fileOf = (folder: string, path: string): string =>
  join(folder, `vcek-${createHash("sha256").update(path).digest("hex").slice(0, 32)}.der`);

/** What cannot be read, or is no certificate, is fetched again. */
async function readKept(path: string, { cache }: KdsOptions): Promise<Uint8Array | undefined> {
  if (cache === undefined) return undefined;
  const bytes = await readFile(fileOf(cache, path)).catch(() => undefined);
  return bytes === undefined || !isCertificate(bytes) ? undefined : new Uint8Array(bytes);
}

async function keep(path: string, der: Uint8Array, { cache, log }: KdsOptions): Promise<void> {
  if (cache === undefined) return;
  try {
    await mkdir(cache, { recursive: true });
    const file = fileOf(cache, path);
    const unfinished = `${file}.${process.pid}`;
    await writeFile(unfinished, der);
    await rename(unfinished, file);
  } catch (error) {
    log?.(`the VCEK cannot be kept in ${cache}: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function isCertificate(der: Uint8Array): boolean {
  try {
    return der.length <= MAX_CERTIFICATE_BYTES && new X509Certificate(der).raw.length === der.length;
  } catch {
    return false;
  }
}

async function fetchVcek(path: string, options: KdsOptions): Promise<Uint8Array> {
  const { log, sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)) } = options;
  const url = `${(options.url ?? AMD_KDS).replace(/\/+$/, "")}${path}`;
  for (let attempt = 1, pause = FIRST_PAUSE_MS; ; attempt += 1, pause *= 2) {
    try {
      const der = await ask(url, options);
      await keep(path, der, options);
      return der;
    } catch (error) {
      if (!(error instanceof KeysteadError) || !error.retryable || attempt === TRIES) throw error;
      const { retryAfterSeconds } = error.details;
      const asked = typeof retryAfterSeconds === "number" ? retryAfterSeconds * 1000 : pause;
      const wait = Math.min(asked, LONGEST_PAUSE_MS);
      log?.(`${error.message}; again in ${Math.ceil(wait / 1000)} s`);
      await sleep(wait);
    }
  }
}

async function ask(url: string, { fetch: send = fetch }: KdsOptions): Promise<Uint8Array> {
  const { host } = new URL(url);
  const failed = (what: string, retryable: boolean, details: Readonly<Record<string, unknown>> = {}, cause?: unknown) =>
    new KeysteadError("device/kds", `${host} ${what}`, {
      argument: "kds",
      remedy: "Check the network of this machine, name a mirror with --kds, or give the VCEK with --vcek.",
      retryable,
      details,
      cause,
    });
  let response: Response;
  let body: Uint8Array;
  try {
    response = await send(url, { signal: AbortSignal.timeout(TIMEOUT_MS), redirect: "error" });
    body = new Uint8Array(await response.arrayBuffer());
  } catch (cause) {
    const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause.message : String(cause);
    throw failed(`cannot be asked for this chip's VCEK: ${inner}`, true, {}, cause);
  }
  const { status } = response;
  if (status === 429 || status >= 500) {
    const after = response.headers.get("retry-after") ?? "";
    const retryAfterSeconds = /^\d{1,4}$/.test(after) ? Number(after) : undefined;
    throw failed(`answered ${status} to the question for this chip's VCEK`, true, { status, retryAfterSeconds });
  }
  if (status !== 200) throw failed(`knows no VCEK of this chip and TCB (${status})`, false, { status });
  if (!isCertificate(body)) throw failed("gave what is not a certificate in DER", false);
  return body;
}
