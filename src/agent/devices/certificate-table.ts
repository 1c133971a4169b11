import { isZero, Reader } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import type { MachineCertificates } from "./device.ts";

/*
 * The certificate table that a SEV-SNP host hands to its guest with a report: AMD, "SEV-ES Guest-Hypervisor Communication Block Standardization" (56421),
 * section 4.1.8.1. Entries of GUID (16 bytes, in the order in which it is spelt), offset and length (u32 LE) from the start of the table; a zero GUID ends
 * them. The host wrote it: nothing in it is believed here, the node checks every certificate.
 */

const GUIDS: ReadonlyMap<string, keyof MachineCertificates> = new Map([
  ["63da758d-e664-4564-adc5-f4b93be8accd", "endorsementKey"], // VCEK
  ["a8074bc2-a25a-483e-aae6-39c045a0b8a1", "endorsementKey"], // VLEK
  ["4ab7b379-bbac-4fe4-a02f-05aef327c782", "signer"], // ASK, or ASVK beside a VLEK
  ["c0b406a4-a803-4952-9743-3fb6014cd0ae", "root"], // ARK
] as const);
const ENTRY_BYTES = 24;
/** A host gives four; a CRL and unknown entries besides. */
const MAX_ENTRIES = 64;

/**
 * Reads a certificate table. Entries that are not known are passed over.
 *
 * @throws KeysteadError `device/certificate-table`, `bytes/truncated`
 * @example
 * const { endorsementKey, signer } = parseCertificateTable(auxblob);
 */
export function parseCertificateTable(table: Uint8Array): MachineCertificates {
  const reader = new Reader(table, "certificate table");
  const found: { -readonly [K in keyof MachineCertificates]: MachineCertificates[K] } = {};
  for (let index = 0; ; index += 1) {
    if (index === MAX_ENTRIES) throw malformed(`has more than ${MAX_ENTRIES} entries`);
    const guid = reader.bytes(16, "GUID");
    const offset = reader.u32le("offset");
    const length = reader.u32le("length");
    if (isZero(guid)) return found;
    if (offset + length > table.length) throw malformed(`has an entry at ${offset} of ${length} bytes, past its end`);
    const name = GUIDS.get(spell(guid));
    if (name === undefined || length === 0) continue;
    if (offset < ENTRY_BYTES) throw malformed("has an entry that lies in the table's head");
    if (found[name] !== undefined) throw malformed(`names its ${name} twice`);
    found[name] = table.slice(offset, offset + length);
  }
}

function spell(guid: Uint8Array): string {
  return Buffer.from(guid)
    .toString("hex")
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

function malformed(what: string): KeysteadError {
  return new KeysteadError("device/certificate-table", `the host's certificate table ${what}`, {
    argument: "auxblob",
    remedy: "The host gives a broken table: give the VCEK and ASK as files instead.",
  });
}
