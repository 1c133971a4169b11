import { sha384 } from "@noble/hashes/sha2.js";
import { equalBytes, fromHex, Reader } from "../bytes.ts";
import { KeysteadError } from "../errors.ts";
import { encodeGuid, extendPage, type OvmfSection } from "./snp-launch.ts";

/*
 * What the SEV-SNP launch digest needs from an OVMF image: the digest of its own pages, and its metadata.
 *
 * The image ends at 4 GiB. A table of entries ends 32 bytes before its end and is walked backwards: entry = data ‖ LE16 length ‖ GUID, where
 * length counts all three; the first entry met (the footer) has the whole table's length. Source: edk2 OvmfPkg/ResetVector/Ia16/
 * ResetVectorVtf0.asm and OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm.
 */

/** Metadata of an OVMF image, and the launch digest after its pages. */
export interface Ovmf {
  /** 48 bytes. */
  readonly hash: Uint8Array;
  readonly sections: readonly OvmfSection[];
  readonly sevHashesTableGpa: number;
  readonly sevEsResetEip: number;
}

/** No firmware image is larger: OVMF has 2 to 16 MiB. */
export const MAX_OVMF_BYTES = 64 * 1024 * 1024;

const PAGE = 4096;
const FOUR_GIB = 0x1_0000_0000;
const TABLE_END = 32;
const ENTRY_HEADER = 18;
const FOOTER = encodeGuid("96b582de-1fb2-45f7-baea-a366c55a082d");
const RESET_BLOCK = encodeGuid("00f771de-1a7e-4fcb-890e-68c77e2fb44e");
const HASH_TABLE = encodeGuid("7255371f-3a3b-4b04-927b-1da6efa8d454");
const METADATA = encodeGuid("dc886566-984a-4798-a75e-5585a7bf67cc");
const PARAVISOR = encodeGuid("a789a612-0597-4c4b-a49f-cbb1fe9d1ddd");
const METADATA_SIGNATURE = fromHex("41534556", "ASEV");

/**
 * Reads an OVMF image built for measured direct boot (OvmfPkg/AmdSev).
 *
 * @throws KeysteadError `ovmf/malformed`, `ovmf/no-sev-metadata` where the image has no place for SEV-SNP or for the kernel's hashes, `ovmf/paravisor`
 * @example
 * const { hash, sections } = parseOvmf(bytes);
 */
export function parseOvmf(bytes: Uint8Array): Ovmf {
  if (bytes.length === 0 || bytes.length % PAGE !== 0 || bytes.length > MAX_OVMF_BYTES) {
    throw malformed(`it has ${bytes.length} bytes, which is no whole number of pages up to ${MAX_OVMF_BYTES} bytes`);
  }
  const entries = readTable(bytes);
  if (entries.some(({ guid }) => equalBytes(guid, PARAVISOR))) {
    throw new KeysteadError(
      "ovmf/paravisor",
      "the image is one of a paravisor (SVSM), which starts virtual CPUs in another way",
      {
        argument: "ovmf",
        remedy: "Take the measurement from a report of such a machine: this formula would give another value.",
      },
    );
  }
  const sevEsResetEip = number32(entry(entries, RESET_BLOCK, "SEV-ES reset block"));
  const sevHashesTableGpa = number32(entry(entries, HASH_TABLE, "table of kernel hashes"));
  const sections = readSections(bytes, number32(entry(entries, METADATA, "SEV metadata")));
  let hash: Uint8Array = new Uint8Array(48);
  for (let offset = 0; offset < bytes.length; offset += PAGE) {
    const gpa = BigInt(FOUR_GIB - bytes.length + offset);
    hash = extendPage(hash, 1, gpa, sha384(bytes.subarray(offset, offset + PAGE)));
  }
  return { hash, sections, sevHashesTableGpa, sevEsResetEip };
}

interface TableEntry {
  readonly guid: Uint8Array;
  readonly data: Uint8Array;
}

function readTable(bytes: Uint8Array): readonly TableEntry[] {
  const footer = backwards(bytes, bytes.length - TABLE_END, 0);
  if (footer === undefined || !equalBytes(footer.guid, FOOTER)) {
    throw new KeysteadError("ovmf/no-sev-metadata", "the file has no table of OVMF entries at its end", {
      argument: "ovmf",
      remedy: "Give an OVMF image built for SEV-SNP (OvmfPkg/AmdSev), not another firmware or a variable store.",
    });
  }
  const start = bytes.length - TABLE_END - footer.length;
  if (start < 0) throw malformed("its table of entries is longer than the file");
  const entries: TableEntry[] = [];
  let end = bytes.length - TABLE_END - ENTRY_HEADER;
  while (end > start) {
    const found = backwards(bytes, end, start);
    if (found === undefined || found.length < ENTRY_HEADER || end - found.length < start) {
      throw malformed("an entry of its table runs over the table's start");
    }
    entries.push({ guid: found.guid, data: bytes.subarray(end - found.length, end - ENTRY_HEADER) });
    end -= found.length;
  }
  return entries;
}

/** The entry header that ends at `end`. */
function backwards(bytes: Uint8Array, end: number, start: number): { guid: Uint8Array; length: number } | undefined {
  if (end - ENTRY_HEADER < start) return undefined;
  const reader = new Reader(bytes.subarray(end - ENTRY_HEADER, end), "ovmf");
  const length = reader.u16le();
  return { length, guid: reader.bytes(16) };
}

function entry(entries: readonly TableEntry[], guid: Uint8Array, name: string): Uint8Array {
  const found = entries.find((candidate) => equalBytes(candidate.guid, guid));
  if (found !== undefined) return found.data;
  throw new KeysteadError("ovmf/no-sev-metadata", `the OVMF image has no ${name}`, {
    argument: "ovmf",
    remedy: "Give an OVMF image built for SEV-SNP with measured direct boot (OvmfPkg/AmdSev).",
  });
}

function readSections(bytes: Uint8Array, fromEnd: number): readonly OvmfSection[] {
  if (fromEnd > bytes.length) throw malformed("its SEV metadata lies before the file's start");
  const reader = new Reader(bytes.subarray(bytes.length - fromEnd), "ovmf");
  if (!equalBytes(reader.bytes(4, "metadata signature"), METADATA_SIGNATURE))
    throw malformed("its SEV metadata is unsigned");
  reader.skip(4, "metadata length");
  const version = reader.u32le("metadata version");
  if (version !== 1) throw malformed(`its SEV metadata has version ${version}`);
  const count = reader.u32le("section count");
  if (count * 12 > reader.remaining) throw malformed("its SEV metadata lists more sections than the file holds");
  return Array.from({ length: count }, () => ({
    gpa: reader.u32le("gpa"),
    size: reader.u32le("size"),
    sectionType: reader.u32le("type"),
  }));
}

function number32(data: Uint8Array): number {
  return new Reader(data, "ovmf").u32le("entry");
}

function malformed(why: string): KeysteadError {
  return new KeysteadError("ovmf/malformed", `the OVMF image cannot be used: ${why}`, {
    argument: "ovmf",
    remedy: "Give the firmware file that the machine starts with, unchanged.",
  });
}
