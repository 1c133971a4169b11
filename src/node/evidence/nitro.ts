import { verify } from "node:crypto";
import { concatBytes, isZero } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { type NitroDocument, parseNitroDocument } from "../../core/evidence/nitro.ts";
import { type ChainCache, defineChainKind } from "./chain-cache.ts";
import { AWS_NITRO_ROOT_G1 } from "./roots.ts";
import { CLOCK_TOLERANCE_SECONDS, checkTime, isoTime } from "./time.ts";
import { type Certificate, checkDates, type Trust, verifyChain } from "./x509.ts";

/*
 * AWS Nitro attestation documents: is this document genuine? Sources: AWS, "Attestation process" of the Nitro Enclaves NSM API (fields, chain, what to
 * check; AWS publishes no revocation lists for it); RFC 9052 §4.4 (what a COSE_Sign1 signature covers); RFC 9053 §2.1 (ES384).
 *
 *   AWS Nitro Enclaves Root G1 (pinned) ──▶ region ──▶ zone ──▶ instance ──▶ enclave's leaf ──signs──▶ document
 */

/** PCRs that every enclave has: image, kernel and boot ramdisk, application. All zero: debug mode. */
const REQUIRED_PCRS: readonly number[] = [0, 1, 2];
/** A CBOR array of four, then the text "Signature1": the head of the Sig_structure. */
const SIG_STRUCTURE_HEAD = Uint8Array.from([0x84, 0x6a, ...Buffer.from("Signature1")]);
const MAX_CHAIN = 8;

/** What {@link verifyNitroDocument} needs to know. */
export interface NitroOptions {
  /** The time to judge at, in seconds since 1970. Default: the document's own time, which proves what was true then and not that it is fresh. */
  readonly atUnixSeconds?: number | undefined;
  /** How old the document may be at `atUnixSeconds`. Default: as long as its certificates last (three hours for the leaf). */
  readonly maxAgeSeconds?: number | undefined;
  /** Roots, DER, that are taken beside AWS's. Evidence under them proves nothing about hardware; the result's `trust` says `TEST ROOT`. */
  readonly unsafeTestRoots?: readonly Uint8Array[] | undefined;
  /** Keeps checked chains between calls. */
  readonly chains?: ChainCache | undefined;
}

/** A genuine document's contents, and what vouches for them. */
export interface VerifiedNitro {
  readonly kind: "nitro";
  readonly document: NitroDocument;
  readonly trust: Trust;
  /** The document's own time, in seconds since 1970. */
  readonly documentUnixSeconds: number;
}

const refuse = (code: string, message: string, remedy: string, details: Readonly<Record<string, unknown>> = {}) =>
  new KeysteadError(`nitro/${code}`, message, { argument: "document", remedy, details });

/**
 * Verifies an AWS Nitro attestation document. Each step has its own error code; the first that fails throws.
 *
 * @param bytes the COSE_Sign1, binary
 * @throws KeysteadError `nitro/leaf-certificate`, `nitro/from-the-future`, `nitro/too-old` {ageSeconds}, `nitro/signature`, `nitro/debug` {pcrs},
 * `nitro/pcr-missing` {pcr}; those of `parseNitroDocument`, `verifyChain` and `checkDates`
 * @example
 * const { document } = verifyNitroDocument(bytes, { atUnixSeconds: 1_750_000_000, maxAgeSeconds: 300 });
 */
export function verifyNitroDocument(bytes: Uint8Array, options: NitroOptions = {}): VerifiedNitro {
  const document = parseNitroDocument(bytes);
  const documentUnixSeconds = Math.floor(Number(document.timestampMs) / 1000);
  const atUnixSeconds = options.atUnixSeconds ?? documentUnixSeconds;
  checkTime(atUnixSeconds);

  const { chain, leaf, trust } = readChain(document, options);
  // Inside its dates both when it was made and now: a leaf that was not valid then signed nothing.
  checkDates(chain, atUnixSeconds, "nitro", "certificate chain");
  checkDates(chain, documentUnixSeconds, "nitro", "certificate chain at the document's time");
  checkAge(documentUnixSeconds, atUnixSeconds, options.maxAgeSeconds);
  if (
    !verify("sha384", sigStructure(document), { key: leaf.publicKey, dsaEncoding: "ieee-p1363" }, document.signature)
  ) {
    throw refuse(
      "signature",
      "the enclave's certificate did not sign this document",
      "Refuse this machine: its document was altered or not made by the Nitro hypervisor.",
    );
  }
  checkPcrs(document);
  return { kind: "nitro", document, trust, documentUnixSeconds };
}

interface NitroChain {
  readonly chain: readonly Certificate[];
  readonly leaf: Certificate;
  readonly trust: Trust;
}

const CHAIN = defineChainKind<NitroChain>();

function readChain(
  { certificate, caBundle }: NitroDocument,
  { chains, unsafeTestRoots = [] }: NitroOptions,
): NitroChain {
  // The bundle starts at the root.
  const ders = [certificate, ...[...caBundle].reverse()];
  const argument = "certificate chain";
  if (ders.length > MAX_CHAIN) {
    throw refuse(
      "chain-length",
      `the document carries ${ders.length} certificates`,
      "Give the document as the NSM returned it.",
      {
        length: ders.length,
      },
    );
  }
  const make = (): NitroChain => {
    const { chain, trust } = verifyChain(ders, {
      room: "nitro",
      argument,
      roots: [AWS_NITRO_ROOT_G1],
      testRoots: unsafeTestRoots,
    });
    const [leaf] = chain;
    if (leaf === undefined || leaf.isCa || leaf.publicKey.asymmetricKeyDetails?.namedCurve !== "secp384r1") {
      throw refuse(
        "leaf-certificate",
        "the document's certificate is a CA's, or its key is not of P-384",
        "Give the document as the Nitro Security Module returned it.",
      );
    }
    return { chain, leaf, trust };
  };
  return chains === undefined ? make() : chains.get(CHAIN, [...ders, Buffer.from("roots"), ...unsafeTestRoots], make);
}

function checkAge(made: number, now: number, maxAgeSeconds: number | undefined): void {
  const ageSeconds = now - made;
  if (ageSeconds < -CLOCK_TOLERANCE_SECONDS) {
    throw new KeysteadError(
      "nitro/from-the-future",
      `the document says ${isoTime(made)}, ${-ageSeconds} s after ${isoTime(now)}; ${CLOCK_TOLERANCE_SECONDS} s are tolerated`,
      {
        argument: "document",
        remedy: "Check this machine's clock (NTP): it is slow, or the host's is fast.",
        retryable: true,
        details: { ageSeconds, retryAfterSeconds: -ageSeconds - CLOCK_TOLERANCE_SECONDS },
      },
    );
  }
  if (maxAgeSeconds !== undefined && !(ageSeconds <= maxAgeSeconds)) {
    throw refuse(
      "too-old",
      `the document is ${ageSeconds} s old, and ${maxAgeSeconds} s are allowed`,
      "Ask for a new one.",
      {
        ageSeconds,
        maxAgeSeconds,
      },
    );
  }
}

/** RFC 9052 §4.4: ["Signature1", protected header, external data (none), payload], each in its one shortest CBOR form. */
function sigStructure(document: NitroDocument): Uint8Array {
  const bytes = (value: Uint8Array) => concatBytes(byteStringHead(value.length), value);
  return concatBytes(SIG_STRUCTURE_HEAD, bytes(document.protected), bytes(new Uint8Array()), bytes(document.payload));
}

function byteStringHead(length: number): Uint8Array {
  if (length < 24) return Uint8Array.of(0x40 + length);
  if (length < 0x100) return Uint8Array.of(0x58, length);
  if (length < 0x1_0000) return Uint8Array.of(0x59, length >> 8, length & 0xff);
  return Uint8Array.of(0x5a, length >>> 24, (length >> 16) & 0xff, (length >> 8) & 0xff, length & 0xff);
}

function checkPcrs({ pcrs }: NitroDocument): void {
  const zero: string[] = [];
  for (const index of REQUIRED_PCRS) {
    const pcr = pcrs.get(index);
    if (pcr === undefined)
      throw refuse("pcr-missing", `the document has no PCR${index}`, "Give the document as the NSM returned it.", {
        pcr: index,
      });
    if (isZero(pcr)) zero.push(`PCR${index}`);
  }
  if (zero.length === 0) return;
  throw refuse(
    "debug",
    `${zero.join(", ")} all zeros: the enclave runs in debug mode`,
    "Run the enclave without --debug-mode.",
    { pcrs: zero },
  );
}
