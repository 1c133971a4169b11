import { decodeUtf8, fromHex, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import type { CollateralSource } from "./collateral.ts";
import { type Answer, type FetchLike, requestDocument } from "./request.ts";
import type { TdxCollateral } from "./tdx-collateral.ts";

/*
 * TDX collateral from Intel's service or a PCCS that mirrors it. Addresses, headers and bodies: Intel, "Provisioning Certification Service for ECDSA
 * Attestation", API v4.
 */

const INTEL_HOST = "api.trustedservices.intel.com";
const INTEL_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";

/** Where a PCCS is, and how long it may take. */
export interface PccsOptions {
  /**
   * The address before `/tdx/certification/v4` and `/sgx/certification/v4`, `https:` or `http:`. Either of the two may be part of it, as in the
   * `pccs_url` of Intel's qcnl.conf.
   */
  readonly url: string;
  readonly fetch: FetchLike;
  /** For each of the four requests. Default: ten seconds. */
  readonly timeoutMs?: number | undefined;
  /** Default: the PCCS's own `rootcacrl`, or Intel's published list where `url` is Intel's service. */
  readonly rootCaCrlUrl?: string | undefined;
  /**
   * Which of Intel's two sets. Default: `standard`. `early` has a TCB recovery as soon as it is published, months before the standard set: a
   * look ahead, by which nobody is judged.
   */
  readonly update?: "standard" | "early" | undefined;
}

/**
 * Collateral from Intel's service or a PCCS.
 *
 * @throws KeysteadError `collateral/bad-url`; `fetch` throws those of `requestDocument`, and `collateral/malformed`
 * @example
 * const source = createPccsSource({ url: "https://api.trustedservices.intel.com", fetch });
 */
export function createPccsSource(options: PccsOptions): CollateralSource {
  const { base, rootCrl, get } = openPccs(options);
  const early = options.update === "early";
  const tdx = `${base}/tdx/certification/v4`;
  return {
    name: new URL(base).host,
    fetch: async ({ fmspc, ca }): Promise<TdxCollateral> => {
      const digits = toHex(fromHex(fmspc, "fmspc")).slice(2);
      const [tcb, qe, pckCrl, rootCaCrl] = await Promise.all([
        get(`${tdx}/tcb?fmspc=${digits}${early ? "&update=early" : ""}`, `TCB info of platform family ${digits}`),
        get(`${tdx}/qe/identity${early ? "?update=early" : ""}`, "identity of the TD quoting enclave"),
        get(`${base}/sgx/certification/v4/pckcrl?ca=${ca}&encoding=der`, `CRL of the PCK ${ca} CA`),
        get(rootCrl, "CRL of the root CA"),
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
  const [qe, rootCaCrl] = await Promise.all([
    get(`${base}/tdx/certification/v4/qe/identity`, "identity of the TD quoting enclave"),
    get(rootCrl, "CRL of the root CA"),
  ]);
  splitSigned(qe, "enclaveIdentity");
  readChainHeader(qe, "SGX-Enclave-Identity-Issuer-Chain");
  readCrl(rootCaCrl);
}

function badUrl(what: string): KeysteadError {
  return new KeysteadError("collateral/bad-url", what, {
    argument: "collateral",
    remedy: "Give https://HOST[:PORT] of the PCCS, or the pccs_url of its qcnl.conf (…/sgx/certification/v4/).",
  });
}

function openPccs(options: PccsOptions) {
  const parsed = URL.canParse(options.url) ? new URL(options.url) : undefined;
  // Credentials are not repeated: what they are part of is not shown.
  if (parsed !== undefined && (parsed.username !== "" || parsed.password !== ""))
    throw badUrl(`the address of the PCCS at ${parsed.host} holds credentials, which none needs`);
  if (parsed === undefined || !/^https?:$/.test(parsed.protocol) || parsed.search !== "" || parsed.hash !== "")
    throw badUrl(`${options.url} is not an address of a PCCS`);
  const [, rest = "", version] = /^(.*?)(?:\/(?:sgx|tdx)\/certification\/(v\d+))?\/*$/.exec(parsed.pathname) ?? [];
  if (version !== undefined && version !== "v4")
    throw badUrl(`${options.url} is of API ${version}, and TDX collateral is of API v4 alone`);
  const base = `${parsed.origin}${rest}`;
  const rootCrl =
    options.rootCaCrlUrl ??
    (parsed.hostname === INTEL_HOST ? INTEL_ROOT_CRL : `${base}/sgx/certification/v4/rootcacrl`);
  const { fetch, timeoutMs } = options;
  const get = (url: string, what: string) => requestDocument(url, { fetch, what, who: "the PCCS", timeoutMs });
  return { base, rootCrl, get };
}

const malformed = (url: string, what: string) =>
  new KeysteadError("collateral/malformed", `the answer of ${url} ${what}`, {
    argument: "collateral",
    remedy: "Check that the PCCS speaks API version 4.",
  });

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

/** DER, or DER as hex text, as a PCCS answers: with or without quotes around it and a line end after it. */
function readCrl({ body, url }: Answer): Uint8Array {
  const first = body[0];
  if (first === undefined) throw malformed(url, "is empty");
  if (first === 0x30 && body[1] !== undefined && body[1] >= 0x80) return body;
  const text = decodeUtf8(body, url)
    .trim()
    .replace(/^"(.*)"$/s, "$1");
  if (!/^(?:0x)?30[0-9a-fA-F]+$/.test(text) || text.length % 2 !== 0)
    throw malformed(url, "is neither DER nor DER in hex");
  return fromHex(text, url);
}
