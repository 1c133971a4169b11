import { sign } from "node:crypto";
import { encode } from "cbor2";
import { concatBytes } from "../../core/bytes.ts";
import { issueCertificate } from "./pki.ts";

/*
 * A Nitro hypervisor that does not exist: attestation documents under a root made here, encoded with a general CBOR library. The payload's map is
 * of indefinite length, as on today's hardware, or definite, as before mid-2025.
 */

const PROTECTED = Uint8Array.of(0xa1, 0x01, 0x38, 0x22);
const YEAR = 365 * 86_400;
const LEAF_SECONDS = 3 * 3600;

/** What a synthetic document may differ in. */
export interface TestNitroDocument {
  readonly userData?: Uint8Array;
  readonly nonce?: Uint8Array;
  readonly publicKey?: Uint8Array;
  /** PCRs by index, 0 to 31; others of 0 to 15 are zero. */
  readonly pcrs: Readonly<Record<number, Uint8Array>>;
  /** The document's own time, in milliseconds since 1970. Default: now. */
  readonly timestampMs?: number;
  /**
   * How the payload's map is written. Default: `indefinite`, as the Nitro Security Module does since mid-2025; `definite` before.
   */
  readonly form?: "definite" | "indefinite";
  /** Leaves a PCR out. */
  readonly without?: number;
}

/** A host: one root, one chain. */
export interface TestNitro {
  /** The root's DER, for `unsafeTestRoots`. */
  readonly root: Uint8Array;
  readonly issueDocument: (document: TestNitroDocument) => Uint8Array;
}

/**
 * Makes a synthetic Nitro host.
 *
 * @param options now, in seconds since 1970: the root and its chain are good for a year, the leaf for three hours; whether the leaf is a CA's
 * @example
 * const tee = await createTestNitro({ atUnixSeconds });
 * verifyNitroDocument(tee.issueDocument({ pcrs }), { atUnixSeconds, unsafeTestRoots: [tee.root] });
 */
export async function createTestNitro({
  atUnixSeconds,
  leafIsCa = false,
}: {
  readonly atUnixSeconds: number;
  readonly leafIsCa?: boolean;
}): Promise<TestNitro> {
  const dates = { notBefore: atUnixSeconds - 86_400, notAfter: atUnixSeconds + YEAR };
  const root = await issueCertificate({ commonName: "aws.nitro-enclaves", kind: "p384", ca: true, ...dates });
  const zone = await issueCertificate({
    commonName: "zone.test.aws.nitro-enclaves",
    kind: "p384",
    ca: true,
    issuer: root,
    ...dates,
  });
  const leaf = await issueCertificate({
    commonName: "i-00000000000000000-enc0000000000000000.test.aws",
    kind: "p384",
    ca: leafIsCa,
    issuer: zone,
    notBefore: atUnixSeconds - 60,
    notAfter: atUnixSeconds + LEAF_SECONDS,
  });
  return {
    root: root.der,
    issueDocument: (document) => {
      const indexes = Array.from({ length: 32 }, (_, index) => index).filter(
        (index) => index !== document.without && (index < 16 || document.pcrs[index] !== undefined),
      );
      const fields = new Map<string, unknown>([
        ["module_id", "i-00000000000000000-enc0000000000000000"],
        ["digest", "SHA384"],
        ["timestamp", document.timestampMs ?? atUnixSeconds * 1000],
        ["pcrs", new Map(indexes.map((index) => [index, document.pcrs[index] ?? new Uint8Array(48)]))],
        ["certificate", leaf.der],
        ["cabundle", [root.der, zone.der]],
        ["public_key", document.publicKey ?? null],
        ["user_data", document.userData ?? null],
        ["nonce", document.nonce ?? null],
      ]);
      const payload = document.form === "definite" ? encode(fields) : encodeIndefiniteMap(fields);
      const signed = encode(["Signature1", PROTECTED, new Uint8Array(), payload]);
      const signature = sign("sha384", signed, { key: leaf.privateKey, dsaEncoding: "ieee-p1363" });
      return encode([PROTECTED, new Map(), payload, new Uint8Array(signature)]);
    },
  };
}

/** RFC 8949 §3.2.2: the head of a map of unknown length, its entries, a break. */
function encodeIndefiniteMap(fields: ReadonlyMap<string, unknown>): Uint8Array {
  const entries = [...fields].flatMap(([name, value]) => [encode(name), encode(value)]);
  return concatBytes(Uint8Array.of(0xbf), ...entries, Uint8Array.of(0xff));
}
