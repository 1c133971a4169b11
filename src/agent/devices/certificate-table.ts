import { X509Certificate } from "node:crypto";
import { isZero, Reader } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import type { SnpReport } from "../../core/evidence/snp.ts";
import type { MachineCertificates } from "./device.ts";

/*
 * The certificate table that a SEV-SNP host hands to its guest with a report: AMD, "SEV-ES Guest-Hypervisor Communication Block Standardization" (56421),
 * section 4.1.8.1. Entries of GUID (16 bytes), offset and length (u32 LE) from the start of the table; a zero GUID ends them. The specification has GUIDs
 * in the order in which they are spelt; hosts exist that write the first three fields little-endian, as UEFI does. The host wrote it: nothing in it is
 * believed here, the node checks every certificate.
 */

/** What a host may give. DER. */
export interface CertificateTable {
  readonly vcek?: Uint8Array;
  readonly vlek?: Uint8Array;
  /** The ASK, or beside a VLEK the ASVK: the table has one name for both. */
  readonly signer?: Uint8Array;
  readonly root?: Uint8Array;
}

const GUIDS: readonly (readonly [guid: string, name: keyof CertificateTable])[] = [
  ["63da758d-e664-4564-adc5-f4b93be8accd", "vcek"],
  ["a8074bc2-a25a-483e-aae6-39c045a0b8a1", "vlek"],
  ["4ab7b379-bbac-4fe4-a02f-05aef327c782", "signer"],
  ["c0b406a4-a803-4952-9743-3fb6014cd0ae", "root"],
];
/** GUID in hex, in either order of bytes. */
const NAMES: ReadonlyMap<string, keyof CertificateTable> = new Map(
  GUIDS.flatMap(([guid, name]) => {
    const spelt = guid.replaceAll("-", "");
    const fields = guid.split("-");
    const swapped = fields.map((field, index) => (index < 3 ? (field.match(/../g) ?? []).reverse().join("") : field));
    return [
      [spelt, name],
      [swapped.join(""), name],
    ] as const;
  }),
);
const ENTRY_BYTES = 24;
/** A host gives four; a CRL and unknown entries besides. */
const MAX_ENTRIES = 64;

/**
 * Reads a certificate table. Entries that are not known are passed over.
 *
 * @throws KeysteadError `device/certificate-table`, `bytes/truncated`
 * @example
 * const { vcek, signer } = parseCertificateTable(auxblob);
 */
export function parseCertificateTable(table: Uint8Array): CertificateTable {
  const reader = new Reader(table, "certificate table");
  const found: { -readonly [K in keyof CertificateTable]: CertificateTable[K] } = {};
  for (let index = 0; ; index += 1) {
    if (index === MAX_ENTRIES) throw malformed(`has more than ${MAX_ENTRIES} entries`);
    const guid = reader.bytes(16, "GUID");
    const offset = reader.u32le("offset");
    const length = reader.u32le("length");
    if (isZero(guid)) return found;
    if (offset + length > table.length) throw malformed(`has an entry at ${offset} of ${length} bytes, past its end`);
    const name = NAMES.get(Buffer.from(guid).toString("hex"));
    if (name === undefined || length === 0) continue;
    if (offset < ENTRY_BYTES) throw malformed("has an entry that lies in the table's head");
    if (found[name] !== undefined) throw malformed(`names its ${name} twice`);
    found[name] = table.slice(offset, offset + length);
  }
}

/**
 * The certificates that go with a report: a table may hold a VCEK and a VLEK, and the report says which of them signed. A signer or root that did not
 * issue what stands below it is left out, since the table may mean the other key's; nodes know AMD's own.
 *
 * @example
 * const certificates = chooseCertificates(parseSnpReport(outblob), parseCertificateTable(auxblob));
 */
export function chooseCertificates(
  { signingKey }: Pick<SnpReport, "signingKey">,
  { vcek, vlek, signer, root }: CertificateTable,
): MachineCertificates {
  const endorsementKey = signingKey === "vlek" ? vlek : vcek;
  if (endorsementKey === undefined) return {};
  if (!issued(signer, endorsementKey)) return { endorsementKey };
  return issued(root, signer) ? { endorsementKey, signer, root } : { endorsementKey, signer };
}

/** What is no certificate issued nothing. */
function issued(issuer: Uint8Array | undefined, subject: Uint8Array | undefined): issuer is Uint8Array {
  if (issuer === undefined || subject === undefined) return false;
  try {
    return new X509Certificate(subject).verify(new X509Certificate(issuer).publicKey);
  } catch {
    return false;
  }
}

function malformed(what: string): KeysteadError {
  return new KeysteadError("device/certificate-table", `the host's certificate table ${what}`, {
    argument: "auxblob",
    remedy: "The host gives a broken table: give the VCEK and ASK as files instead.",
  });
}
