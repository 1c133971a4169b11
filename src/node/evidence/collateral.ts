import { readFile } from "node:fs/promises";
import { decodeUtf8, fromHex, toHex } from "../../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../core/errors.ts";
import type { TdxCollateralKey } from "./tdx.ts";
import {
  PCK_CAS,
  parseTdxCollateral,
  type TdxCollateral,
  type VerifiedTdxCollateral,
  verifyTdxCollateral,
} from "./tdx-collateral.ts";
import { parseTcbInfo } from "./tdx-tcb.ts";
import { parseCertificate, parsePemChain } from "./x509.ts";

/*
 * Where TDX collateral comes from, and how long it is kept. Addresses, headers and bodies: Intel, "Provisioning Certification Service for ECDSA
 * Attestation", API v4, and the PCCS that mirrors it. A source is not trusted: all it gives is signed, and verified before it is kept. The one thing a
 * source could do is to give old collateral that is still in date; what is held is therefore never replaced by anything older.
 */

const DEFAULT_TIMEOUT_MS = 10_000;
/** The largest of the four, a PCK CRL, has some kilobytes today. */
const MAX_BODY_BYTES = 4 * 1024 * 1024;
const INTEL_HOST = "api.trustedservices.intel.com";
const INTEL_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";

/** Gives collateral, not verified. */
export interface CollateralSource {
  readonly fetch: (key: TdxCollateralKey) => Promise<TdxCollateral>;
}

/** The part of the global `fetch` that is used. */
export type FetchLike = (
  url: string,
  init: { readonly signal: AbortSignal; readonly redirect: "error" },
) => Promise<Response>;

/** Where a PCCS is, and how long it may take. */
export interface PccsOptions {
  /** The address before `/tdx/certification/v4` and `/sgx/certification/v4`, `https:` or `http:`. */
  readonly url: string;
  readonly fetch: FetchLike;
  /** For each of the four requests. Default: ten seconds. */
  readonly timeoutMs?: number;
  /** Default: the PCCS's own `rootcacrl`, or Intel's published list where `url` is Intel's service. */
  readonly rootCaCrlUrl?: string;
}

const fail = (code: string, message: string, remedy: string, retryable: boolean, cause?: unknown) =>
  new KeysteadError(`collateral/${code}`, message, { argument: "collateral", remedy, retryable, cause });

/**
 * Collateral from Intel's service or a PCCS.
 *
 * @throws KeysteadError `collateral/bad-url`; `fetch` throws `collateral/unreachable` (retryable), `collateral/not-found`, `collateral/http-status`,
 * `collateral/too-large`, `collateral/malformed`
 * @example
 * const source = createPccsSource({ url: "https://api.trustedservices.intel.com", fetch });
 */
export function createPccsSource(options: PccsOptions): CollateralSource {
  const { base, rootCrl, get } = openPccs(options);
  return {
    fetch: async ({ fmspc, ca }) => {
      const digits = toHex(fromHex(fmspc, "fmspc")).slice(2);
      const [tcb, qe, pckCrl, rootCaCrl] = await Promise.all([
        get(`${base}/tdx/certification/v4/tcb?fmspc=${digits}`),
        get(`${base}/tdx/certification/v4/qe/identity`),
        get(`${base}/sgx/certification/v4/pckcrl?ca=${ca}&encoding=der`),
        get(rootCrl),
      ]);
      const tcbInfo = splitSigned(tcb, "tcbInfo");
      const qeIdentity = splitSigned(qe, "enclaveIdentity");
      return {
        pckCrlIssuerChain: readChainHeader(pckCrl, "SGX-PCK-CRL-Issuer-Chain"),
        rootCaCrl: readCrl(rootCaCrl),
        pckCrl: readCrl(pckCrl),
        tcbInfoIssuerChain: readChainHeader(tcb, "TCB-Info-Issuer-Chain"),
        tcbInfo: tcbInfo.text,
        tcbInfoSignature: tcbInfo.signature,
        qeIdentityIssuerChain: readChainHeader(qe, "SGX-Enclave-Identity-Issuer-Chain"),
        qeIdentity: qeIdentity.text,
        qeIdentitySignature: qeIdentity.signature,
      };
    },
  };
}

/**
 * Asks a PCCS for the two documents that every platform needs, and keeps nothing: whether it is there and speaks this protocol.
 *
 * @throws KeysteadError as {@link createPccsSource} and its `fetch`
 * @example
 * await probePccs({ url: "https://api.trustedservices.intel.com", fetch });
 */
export async function probePccs(options: PccsOptions): Promise<void> {
  const { base, rootCrl, get } = openPccs(options);
  const [qe, rootCaCrl] = await Promise.all([get(`${base}/tdx/certification/v4/qe/identity`), get(rootCrl)]);
  splitSigned(qe, "enclaveIdentity");
  readChainHeader(qe, "SGX-Enclave-Identity-Issuer-Chain");
  readCrl(rootCaCrl);
}

function openPccs(options: PccsOptions) {
  const parsed = URL.canParse(options.url) ? new URL(options.url) : undefined;
  if (
    parsed === undefined ||
    !["https:", "http:"].includes(parsed.protocol) ||
    parsed.search !== "" ||
    parsed.hash !== ""
  ) {
    throw fail("bad-url", `${options.url} is not an address of a PCCS`, "Give https://HOST[:PORT] of the PCCS.", false);
  }
  const base = parsed.href.replace(/\/+$/, "");
  const rootCrl =
    options.rootCaCrlUrl ??
    (parsed.hostname === INTEL_HOST ? INTEL_ROOT_CRL : `${base}/sgx/certification/v4/rootcacrl`);
  const get = (url: string) => requestCollateral(url, options.fetch, options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  return { base, rootCrl, get };
}

/** A document as it came. */
export interface Answer {
  readonly url: string;
  readonly headers: Headers;
  readonly body: Uint8Array;
}

/**
 * Asks a vendor's server for one document, bounded in time and size.
 *
 * @throws KeysteadError `collateral/unreachable` (retryable), `collateral/not-found`, `collateral/http-status`, `collateral/too-large`
 * @example
 * const { body } = await requestCollateral("https://kdsintf.amd.com/vcek/v1/Milan/crl", fetch, 10_000);
 */
export async function requestCollateral(url: string, fetch: FetchLike, timeoutMs: number): Promise<Answer> {
  try {
    const response = await fetch(url, { signal: AbortSignal.timeout(timeoutMs), redirect: "error" });
    const { status } = response;
    if (status === 404)
      throw fail(
        "not-found",
        `${url} has no collateral of this platform`,
        "Check that the PCCS serves this platform.",
        false,
      );
    if (status !== 200) {
      const later = status === 429 || status >= 500;
      throw fail(later ? "unreachable" : "http-status", `${url} answered ${status}`, "Check the PCCS.", later);
    }
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of response.body ?? []) {
      size += chunk.length;
      if (size > MAX_BODY_BYTES)
        throw fail("too-large", `${url} answered with more than ${MAX_BODY_BYTES} bytes`, "Check the PCCS.", false);
      chunks.push(chunk);
    }
    return { url, headers: response.headers, body: new Uint8Array(Buffer.concat(chunks)) };
  } catch (cause) {
    if (isKeysteadError(cause)) throw cause;
    throw fail(
      "unreachable",
      `${url} did not answer in ${timeoutMs} ms`,
      "Check the network and the PCCS.",
      true,
      cause,
    );
  }
}

const malformed = (url: string, what: string) =>
  fail("malformed", `the answer of ${url} ${what}`, "Check that the PCCS speaks API version 4.", false);

/** The bytes between the two fixed parts are what is signed: they are cut out, not parsed and written again. */
function splitSigned({ url, body }: Answer, name: string): { readonly text: string; readonly signature: Uint8Array } {
  const match = /^\s*\{"([A-Za-z]+)":(\{.*\}),"signature":"([0-9a-fA-F]{128})"\}\s*$/s.exec(decodeUtf8(body, url));
  if (match?.[1] !== name) throw malformed(url, `is not {"${name}":…,"signature":…}`);
  return { text: match[2] ?? "", signature: fromHex(match[3] ?? "", "signature") };
}

function readChainHeader({ url, headers }: Answer, name: string): string {
  const value = headers.get(name);
  if (value === null) throw malformed(url, `has no header ${name}`);
  try {
    return decodeURIComponent(value);
  } catch {
    throw malformed(url, `has a header ${name} that is not URL-encoded`);
  }
}

/** DER, or DER in hex, as a PCCS answers. */
function readCrl({ body, url }: Answer): Uint8Array {
  const first = body[0];
  if (first === undefined) throw malformed(url, "is empty");
  return first === 0x30 ? body : fromHex(decodeUtf8(body, url).trim(), url);
}

/**
 * Collateral from JSON files, as `formatTdxCollateral` writes them, one platform family each. They are read at every fetch, so a replaced file counts
 * from the next refresh on.
 *
 * @throws KeysteadError `fetch` throws `collateral/not-found`, `collateral/unreadable` (retryable), and those of `parseTdxCollateral`
 * @example
 * const source = createFileSource(["collateral/b0c06f000000.json"]);
 */
export function createFileSource(paths: readonly string[]): CollateralSource {
  return {
    fetch: async ({ fmspc, ca }) => {
      for (const path of paths) {
        let text: string;
        try {
          text = await readFile(path, "utf8");
        } catch (cause) {
          throw fail("unreadable", `${path} cannot be read`, "Check the path and the file's rights.", true, cause);
        }
        const collateral = parseTdxCollateral(text);
        const [issuer] = parsePemChain(collateral.pckCrlIssuerChain, "tdx", path);
        const name = issuer === undefined ? undefined : parseCertificate(issuer, "tdx", path).commonName;
        if (name === PCK_CAS[ca] && toHex(parseTcbInfo(collateral.tcbInfo).fmspc) === fmspc) return collateral;
      }
      throw fail(
        "not-found",
        `no collateral file is for the platform family ${fmspc} of the ${ca} CA`,
        "Add the file of this platform family.",
        false,
      );
    },
  };
}

/** How {@link createCollateralCache} keeps and renews. Durations in seconds. */
export interface CollateralCacheOptions {
  readonly source: CollateralSource;
  /** Roots, DER, that are taken beside Intel's. */
  readonly unsafeTestRoots?: readonly Uint8Array[] | undefined;
  /** When to look for newer collateral. Default: an hour. */
  readonly refreshAfterSeconds?: number;
  /** How long to leave a source alone after it failed. Default: half a minute. */
  readonly retryAfterSeconds?: number;
  /** How many platform families. Default: 64. */
  readonly limit?: number;
}

/** What is held for one platform family, for readiness and metrics. */
export interface CollateralState {
  readonly key: TdxCollateralKey;
  readonly validUntil: number | undefined;
  readonly refreshedAt: number | undefined;
  /** Why the last try failed; `undefined` after a success. */
  readonly lastError: KeysteadError | undefined;
}

/** Verified collateral, kept until it expires. */
export interface CollateralCache {
  /**
   * Collateral that is in date at `atUnixSeconds`. What is held is given at once, and renewed beside; where nothing in date is held, the call waits
   * for the source and fails with it.
   *
   * @throws KeysteadError those of the source and of `verifyTdxCollateral`
   */
  readonly get: (key: TdxCollateralKey, atUnixSeconds: number) => Promise<VerifiedTdxCollateral>;
  /** Renews now, and says what came of it. What is held stays where that fails. */
  readonly refresh: (key: TdxCollateralKey, atUnixSeconds: number) => Promise<VerifiedTdxCollateral>;
  readonly states: () => readonly CollateralState[];
}

interface Entry {
  readonly key: TdxCollateralKey;
  held: VerifiedTdxCollateral | undefined;
  refreshedAt: number | undefined;
  retryAt: number;
  lastError: KeysteadError | undefined;
  pending: Promise<VerifiedTdxCollateral> | undefined;
}

/**
 * A cache of verified collateral. Expired collateral is never given out; collateral that does not verify, or is older than what is held in any part,
 * never replaces it; while a source fails, it is asked again only after a pause.
 *
 * @example
 * const cache = createCollateralCache({ source });
 * const collateral = await cache.get(readTdxCollateralKey(quote), atUnixSeconds);
 */
export function createCollateralCache(options: CollateralCacheOptions): CollateralCache {
  const { source, unsafeTestRoots, refreshAfterSeconds = 3600, retryAfterSeconds = 30, limit = 64 } = options;
  const entries = new Map<string, Entry>();

  const entryOf = (key: TdxCollateralKey): Entry => {
    const id = `${key.ca}:${key.fmspc}`;
    const found = entries.get(id);
    const entry: Entry = found ?? {
      key,
      held: undefined,
      refreshedAt: undefined,
      retryAt: 0,
      lastError: undefined,
      pending: undefined,
    };
    entries.delete(id);
    entries.set(id, entry);
    if (entries.size > limit) evict(entries);
    return entry;
  };

  const renew = async (entry: Entry, atUnixSeconds: number): Promise<VerifiedTdxCollateral> => {
    try {
      const fresh = verifyTdxCollateral(await source.fetch(entry.key), { atUnixSeconds, unsafeTestRoots });
      checkAnswers(entry.key, fresh);
      if (entry.held !== undefined) checkNotOlder(entry.held, fresh);
      entry.held = fresh;
      entry.refreshedAt = atUnixSeconds;
      entry.lastError = undefined;
      return fresh;
    } catch (cause) {
      const error = isKeysteadError(cause)
        ? cause
        : fail("unreachable", "the collateral source failed", "Check the source.", true, cause);
      entry.lastError = error;
      entry.retryAt = atUnixSeconds + retryAfterSeconds;
      throw error;
    }
  };

  const start = (entry: Entry, atUnixSeconds: number): Promise<VerifiedTdxCollateral> => {
    entry.pending ??= renew(entry, atUnixSeconds).finally(() => {
      entry.pending = undefined;
    });
    return entry.pending;
  };

  return {
    get: async (key, atUnixSeconds) => {
      const entry = entryOf(key);
      const { held, refreshedAt = 0, lastError } = entry;
      const inDate = held !== undefined && atUnixSeconds >= held.validFrom && atUnixSeconds <= held.validUntil;
      const mayAsk = atUnixSeconds >= entry.retryAt;
      if (!inDate) {
        if (entry.pending === undefined && !mayAsk && lastError !== undefined) throw lastError;
        return await start(entry, atUnixSeconds);
      }
      if (mayAsk && atUnixSeconds >= refreshedAt + refreshAfterSeconds) {
        // Its failure is kept in `lastError`, for states(); what is held is in date and stays.
        start(entry, atUnixSeconds).catch(() => undefined);
      }
      return held;
    },
    refresh: (key, atUnixSeconds) => start(entryOf(key), atUnixSeconds),
    states: () =>
      [...entries.values()].map(({ key, held, refreshedAt, lastError }) => ({
        key,
        validUntil: held?.validUntil,
        refreshedAt,
        lastError,
      })),
  };
}

/** What was never found goes first: it cannot push out what is in use. */
function evict(entries: Map<string, Entry>): void {
  const [oldest] = entries.keys();
  const empty = [...entries].slice(0, -1).find(([, { held, pending }]) => held === undefined && pending === undefined);
  const id = empty?.[0] ?? oldest;
  if (id !== undefined) entries.delete(id);
}

function checkAnswers(key: TdxCollateralKey, { tcbInfo, pckCa }: VerifiedTdxCollateral): void {
  if (toHex(tcbInfo.fmspc) === key.fmspc && pckCa.commonName === PCK_CAS[key.ca]) return;
  throw fail(
    "other-platform",
    `the source gave collateral of ${toHex(tcbInfo.fmspc)} for ${key.fmspc}, or of the other CA`,
    "Check the PCCS.",
    false,
  );
}

/** Part by part: a mix of new and old would hide what the old part does not know. */
function checkNotOlder(held: VerifiedTdxCollateral, fresh: VerifiedTdxCollateral): void {
  const ages: readonly [string, number, number][] = [
    ["TCB info", held.tcbInfo.issueDate, fresh.tcbInfo.issueDate],
    ["TCB evaluation data number", held.tcbInfo.evaluationDataNumber, fresh.tcbInfo.evaluationDataNumber],
    ["QE identity", held.qeIdentity.issueDate, fresh.qeIdentity.issueDate],
    ["QE evaluation data number", held.qeIdentity.evaluationDataNumber, fresh.qeIdentity.evaluationDataNumber],
    ["PCK CRL", held.pckCrl.thisUpdate, fresh.pckCrl.thisUpdate],
    ["root CA CRL", held.rootCaCrl.thisUpdate, fresh.rootCaCrl.thisUpdate],
  ];
  const older = ages.find(([, before, after]) => after < before);
  if (older === undefined) return;
  throw fail(
    "older",
    `the source's ${older[0]} is older than what is held`,
    "Let the PCCS refresh its own cache.",
    true,
  );
}
