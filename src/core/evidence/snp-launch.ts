import { sha256, sha384 } from "@noble/hashes/sha2.js";
import { concatBytes, decodeUtf8, fromHex, type Hex, isZero, toHex } from "../bytes.ts";
import { KeysteadError } from "../errors.ts";
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from "../json.ts";

/*
 * The SEV-SNP launch digest (MEASUREMENT of an attestation report), recomputed from what a virtual machine is started with.
 *
 *   ld' = SHA-384(PAGE_INFO), PAGE_INFO = ld(48) ‖ contents(48) ‖ LE16 0x70 ‖ page type ‖ 5 zero bytes ‖ LE64 guest address
 *
 * over, in this order: the firmware's pages (whose digest is given as the OVMF hash), the pages that its metadata asks for, and one VMSA page
 * per virtual CPU. Sources: AMD "SEV Secure Nested Paging Firmware ABI" (56860) §8.17.2 for PAGE_INFO and page types, AMD APM vol. 2
 * appendix B for the VMSA layout; edk2 OvmfPkg for section types and the table of hashes; QEMU target/i386/sev.c for reset state and for
 * that table. It models QEMU with direct kernel boot; other hypervisors start virtual CPUs in another state.
 */

/** One section of the firmware's SEV metadata. */
export interface OvmfSection {
  /** Guest physical address, a multiple of 4096. */
  readonly gpa: number;
  /** Bytes, a multiple of 4096. */
  readonly size: number;
  /** 1 zero-filled memory, 2 secrets, 3 CPUID, 4 SVSM calling area, 16 kernel hashes. */
  readonly sectionType: number;
}

/** All that the launch digest depends on. */
export interface SnpLaunchInputs {
  /** Launch digest after the firmware's own pages, 48 bytes. */
  readonly ovmfHash: Uint8Array;
  readonly ovmfSections: readonly OvmfSection[];
  /** Where the firmware looks for the table of hashes. */
  readonly sevHashesTableGpa: number;
  /** Where virtual CPUs other than the first start. */
  readonly sevEsResetEip: number;
  /** SHA-256 of the kernel, 32 bytes. */
  readonly kernelHash: Uint8Array;
  /** SHA-256 of the initial RAM disk, 32 bytes; of nothing where there is none. */
  readonly initrdHash: Uint8Array;
  /** Kernel command line, without the final zero byte. */
  readonly cmdline: string;
  /** Number of virtual CPUs. */
  readonly vcpus: number;
  /** A name in {@link VCPU_SIGNATURES}, or the CPUID signature itself. */
  readonly vcpuType: string | number;
  /** SEV_FEATURES of the guest; 1 is SNP alone. */
  readonly guestFeatures: bigint;
}

/** Most virtual CPUs a digest is computed for: KVM's own limit is 4096. */
export const MAX_VCPUS = 4096;
/** Most bytes of all metadata sections: real ones have under 1 MiB, and every page costs a hash. */
export const MAX_SECTION_BYTES = 16 * 1024 * 1024;

const PAGE = 4096;
const MAX_SECTIONS = 64;
const BSP_RESET_EIP = 0xfffffff0;
const VMSA_GPA = 0xfffffffff000n;
const PAGE_TYPE = { normal: 1, vmsa: 2, zero: 3, secrets: 5, cpuid: 6 } as const;
const SECTION = { memory: 1, secrets: 2, cpuid: 3, svsmCallingArea: 4, kernelHashes: 0x10 } as const;
const ONE_PAGE: readonly number[] = [SECTION.secrets, SECTION.cpuid, SECTION.kernelHashes];

/** The value of CPUID Fn0000_0001_EAX for a family, model and stepping (AMD APM vol. 3 appendix E). */
function cpuSignature(family: number, model: number, stepping: number): number {
  const extended = Math.max(0, family - 0xf);
  return (extended << 20) | ((model >> 4) << 16) | (Math.min(family, 0xf) << 8) | ((model & 0xf) << 4) | stepping;
}

const SIGNATURES: readonly (readonly [number, readonly string[]])[] = [
  [cpuSignature(23, 1, 2), ["EPYC", "EPYC-v1", "EPYC-v2", "EPYC-IBPB", "EPYC-v3", "EPYC-v4", "EPYC-v5"]],
  [
    cpuSignature(23, 49, 0),
    ["EPYC-Rome", "EPYC-Rome-v1", "EPYC-Rome-v2", "EPYC-Rome-v3", "EPYC-Rome-v4", "EPYC-Rome-v5"],
  ],
  [cpuSignature(25, 1, 1), ["EPYC-Milan", "EPYC-Milan-v1", "EPYC-Milan-v2", "EPYC-Milan-v3"]],
  [cpuSignature(25, 17, 0), ["EPYC-Genoa", "EPYC-Genoa-v1", "EPYC-Genoa-v2"]],
  [cpuSignature(26, 0, 0), ["EPYC-Turin", "EPYC-Turin-v1"]],
];

/** CPUID signatures by QEMU's CPU model names (target/i386/cpu.c). */
export const VCPU_SIGNATURES: ReadonlyMap<string, number> = new Map(
  SIGNATURES.flatMap(([signature, names]) => names.map((name) => [name, signature] as const)),
);

/**
 * The MEASUREMENT that a machine started with these inputs reports.
 *
 * @returns 48 bytes
 * @throws KeysteadError `snp-launch/input` {field} when an input has the wrong width, alignment or range; `snp-launch/unknown-section` {type};
 * `snp-launch/unknown-vcpu-type`; `snp-launch/no-hashes-section` when the firmware has no place for the kernel's hashes, so that they would not
 * be measured
 * @example
 * toHex(computeLaunchDigest(inputs)); // "0x7f51e1…"
 */
export function computeLaunchDigest(inputs: SnpLaunchInputs): Uint8Array {
  checkInputs(inputs);
  let digest = inputs.ovmfHash;
  let hashesMeasured = false;
  for (const { gpa, size, sectionType } of inputs.ovmfSections) {
    switch (sectionType) {
      case SECTION.memory:
      case SECTION.svsmCallingArea:
        for (let offset = 0; offset < size; offset += PAGE) {
          digest = extendPage(digest, PAGE_TYPE.zero, BigInt(gpa + offset), undefined);
        }
        break;
      case SECTION.secrets:
        digest = extendPage(digest, PAGE_TYPE.secrets, BigInt(gpa), undefined);
        break;
      case SECTION.cpuid:
        digest = extendPage(digest, PAGE_TYPE.cpuid, BigInt(gpa), undefined);
        break;
      case SECTION.kernelHashes:
        if (inputs.sevHashesTableGpa < gpa || inputs.sevHashesTableGpa >= gpa + PAGE) {
          throw inputError("sevHashesTableGpa", "lies outside the section of kernel hashes");
        }
        digest = extendPage(digest, PAGE_TYPE.normal, BigInt(gpa), sha384(buildHashesPage(inputs)));
        hashesMeasured = true;
        break;
      default:
        throw new KeysteadError(
          "snp-launch/unknown-section",
          `the firmware has a section of unknown type ${sectionType}`,
          {
            argument: "ovmfSections",
            remedy: "Upgrade keystead: leaving the section out would give a wrong measurement.",
            details: { type: sectionType },
          },
        );
    }
  }
  if (!hashesMeasured) {
    throw new KeysteadError("snp-launch/no-hashes-section", "the firmware has no section of kernel hashes", {
      argument: "ovmfSections",
      remedy:
        "Use an OVMF built for measured direct boot (AmdSev): otherwise kernel, initrd and command line are not measured.",
    });
  }
  const signature = vcpuSignature(inputs.vcpuType);
  const first = sha384(buildVmsaPage(BSP_RESET_EIP, signature, inputs.guestFeatures));
  const others = sha384(buildVmsaPage(inputs.sevEsResetEip, signature, inputs.guestFeatures));
  for (let vcpu = 0; vcpu < inputs.vcpus; vcpu++) {
    digest = extendPage(digest, PAGE_TYPE.vmsa, VMSA_GPA, vcpu === 0 ? first : others);
  }
  return digest;
}

/** What a file of launch inputs may leave open. */
export interface LaunchExtras {
  /** SHA-256 of the kernel. */
  readonly kernelHash?: Hex | undefined;
  /** SHA-256 of the initial RAM disk. */
  readonly initrdHash?: Hex | undefined;
  readonly cmdline?: string | undefined;
  readonly vcpus?: number | undefined;
  readonly vcpuType?: string | number | undefined;
  readonly guestFeatures?: bigint | undefined;
}

/**
 * Reads the launch inputs that dstack and SecretVM publish: a JSON object with ovmf_hash, ovmf_sections, sev_hashes_table_gpa,
 * sev_es_reset_eip, kernel_hash, initrd_hash, vcpu_type, and, where the file has them, base_cmdline, vcpus and guest_features. What the
 * file lacks comes from `extra`; where both say something, they must say the same. Other fields are left alone.
 *
 * @throws KeysteadError `text/not-utf8`, `json/*`, `snp-launch/input` {field}
 * @example
 * computeLaunchDigest(parseLaunchInputs(bytes));
 */
export function parseLaunchInputs(bytes: Uint8Array, extra: LaunchExtras = {}): SnpLaunchInputs {
  const value = parseJson(decodeUtf8(bytes, "launch inputs"), "launch inputs");
  if (!isJsonObject(value)) throw inputError("launch inputs", "is not a JSON object");
  return readLaunchInputs(value, extra);
}

/**
 * As {@link parseLaunchInputs}, from parsed JSON.
 *
 * @throws KeysteadError `snp-launch/input` {field}
 * @example
 * readLaunchInputs(entry, { cmdline, vcpus: 1 });
 */
export function readLaunchInputs(value: JsonObject, extra: LaunchExtras = {}): SnpLaunchInputs {
  const features = optional(value, "guest_features", jsonInteger);
  const inputs: SnpLaunchInputs = {
    ovmfHash: jsonHex(value, "ovmf_hash", 48),
    ovmfSections: readSections(value.ovmf_sections),
    sevHashesTableGpa: jsonInteger(value, "sev_hashes_table_gpa"),
    sevEsResetEip: jsonInteger(value, "sev_es_reset_eip"),
    kernelHash: fromHex(once("kernel_hash", optional(value, "kernel_hash", hash32), extra.kernelHash), "kernel_hash"),
    initrdHash: fromHex(
      once("initrd_hash", optional(value, "initrd_hash", initrdHash), extra.initrdHash),
      "initrd_hash",
    ),
    cmdline: once("cmdline", optional(value, "base_cmdline", jsonText), extra.cmdline),
    vcpus: once("vcpus", optional(value, "vcpus", jsonInteger), extra.vcpus),
    vcpuType: once<string | number>("vcpu_type", optional(value, "vcpu_type", jsonText), extra.vcpuType),
    guestFeatures: once(
      "guest_features",
      features === undefined ? undefined : BigInt(features),
      extra.guestFeatures,
      1n,
    ),
  };
  checkInputs(inputs);
  return inputs;
}

/**
 * The page that firmware checks kernel, initial RAM disk and command line against: zeros but for the table of their hashes.
 *
 * @returns 4096 bytes
 * @throws KeysteadError `snp-launch/input` where the table would run over the page's end
 * @example
 * buildHashesPage(inputs);
 */
export function buildHashesPage(
  inputs: Pick<SnpLaunchInputs, "kernelHash" | "initrdHash" | "cmdline" | "sevHashesTableGpa">,
): Uint8Array {
  const cmdlineHash = sha256(new TextEncoder().encode(`${inputs.cmdline}\0`));
  const entry = (guid: string, hash: Uint8Array) => concatBytes(encodeGuid(guid), Uint8Array.of(50, 0), hash);
  const table = concatBytes(
    encodeGuid("9438d606-4f22-4cc9-b479-a793d411fd21"),
    Uint8Array.of(168, 0),
    entry("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", cmdlineHash),
    entry("44baf731-3a2f-4bd7-9af1-41e29169781d", inputs.initrdHash),
    entry("4de79437-abd2-427f-b835-d5b172d2045b", inputs.kernelHash),
  );
  const offset = inputs.sevHashesTableGpa % PAGE;
  if (offset + table.length > PAGE) throw inputError("sevHashesTableGpa", "leaves no room for the table on its page");
  const page = new Uint8Array(PAGE);
  page.set(table, offset);
  return page;
}

/**
 * The saved state that a virtual CPU starts from, as QEMU sets it up for SEV-SNP.
 *
 * @param eip where it starts; code segment base and instruction pointer are its upper and lower half
 * @param signature CPUID Fn0000_0001_EAX, which reset leaves in RDX
 * @param guestFeatures SEV_FEATURES
 * @returns 4096 bytes
 * @example
 * buildVmsaPage(0xfffffff0, 0x800f12, 1n);
 */
export function buildVmsaPage(eip: number, signature: number, guestFeatures: bigint): Uint8Array {
  const page = new Uint8Array(PAGE);
  const view = new DataView(page.buffer);
  const segment = (offset: number, attributes: number, selector = 0, base = 0) => {
    view.setUint16(offset, selector, true);
    view.setUint16(offset + 2, attributes, true);
    view.setUint32(offset + 4, 0xffff, true);
    view.setBigUint64(offset + 8, BigInt(base), true);
  };
  const quad = (offset: number, value: bigint) => view.setBigUint64(offset, value, true);
  segment(0x000, 0x93); // es
  segment(0x010, 0x9b, 0xf000, (eip & 0xffff0000) >>> 0); // cs
  for (const offset of [0x020, 0x030, 0x040, 0x050]) segment(offset, 0x93); // ss ds fs gs
  segment(0x060, 0); // gdtr
  segment(0x070, 0x82); // ldtr
  segment(0x080, 0); // idtr
  segment(0x090, 0x8b); // tr
  quad(0x0d0, 0x1000n); // efer: SVME
  quad(0x148, 0x40n); // cr4: MCE
  quad(0x158, 0x10n); // cr0: ET
  quad(0x160, 0x400n); // dr7
  quad(0x168, 0xffff0ff0n); // dr6
  quad(0x170, 0x2n); // rflags
  quad(0x178, BigInt(eip & 0xffff)); // rip
  quad(0x268, 0x0007040600070406n); // g_pat
  quad(0x310, BigInt(signature)); // rdx
  quad(0x3b0, guestFeatures); // sev_features
  quad(0x3e8, 1n); // xcr0
  view.setUint32(0x408, 0x1f80, true); // mxcsr
  view.setUint16(0x410, 0x037f, true); // x87_fcw
  return page;
}

/**
 * Extends a launch digest by one page.
 *
 * @param type 1 normal, 2 VMSA, 3 zero, 5 secrets, 6 CPUID
 * @param contents SHA-384 of the page's contents; none for pages whose contents are not measured
 * @returns 48 bytes
 * @example
 * extendPage(digest, 1, 0xff000000n, sha384(page));
 */
export function extendPage(
  digest: Uint8Array,
  type: number,
  gpa: bigint,
  contents: Uint8Array | undefined,
): Uint8Array {
  const info = new Uint8Array(0x70);
  info.set(digest);
  if (contents !== undefined) info.set(contents, 48);
  const view = new DataView(info.buffer);
  view.setUint16(96, 0x70, true);
  view.setUint8(98, type);
  view.setBigUint64(104, gpa, true);
  return sha384(info);
}

/**
 * A GUID in the byte order that firmware stores it in.
 *
 * @returns 16 bytes
 * @example
 * encodeGuid("9438d606-4f22-4cc9-b479-a793d411fd21");
 */
export function encodeGuid(guid: string): Uint8Array {
  const bytes = fromHex(guid.replaceAll("-", ""), "guid");
  // Microsoft's mixed order: the first three fields little-endian.
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

function vcpuSignature(type: string | number): number {
  const signature = typeof type === "number" ? type : VCPU_SIGNATURES.get(type);
  if (signature === undefined) {
    throw new KeysteadError("snp-launch/unknown-vcpu-type", `the CPU model ${JSON.stringify(type)} is not known`, {
      argument: "vcpuType",
      remedy: `Use ${[...VCPU_SIGNATURES.keys()].join(", ")}, or give the CPUID signature as a number.`,
      details: { type },
    });
  }
  return signature;
}

function checkInputs(inputs: SnpLaunchInputs): void {
  const check = (holds: boolean, field: string, why: string) => {
    if (!holds) throw inputError(field, why);
  };
  const uint32 = (value: number) => Number.isInteger(value) && value >= 0 && value <= 0xffffffff;
  const pages = (value: number) => uint32(value) && value % PAGE === 0;
  check(inputs.ovmfHash.length === 48 && !isZero(inputs.ovmfHash), "ovmfHash", "is not a digest of 48 bytes");
  check(inputs.kernelHash.length === 32, "kernelHash", "is not 32 bytes");
  check(inputs.initrdHash.length === 32, "initrdHash", "is not 32 bytes");
  check(!inputs.cmdline.includes("\0") && inputs.cmdline.isWellFormed(), "cmdline", "holds a zero byte or is no text");
  check(
    Number.isInteger(inputs.vcpus) && inputs.vcpus >= 1 && inputs.vcpus <= MAX_VCPUS,
    "vcpus",
    `is not a whole number from 1 to ${MAX_VCPUS}`,
  );
  check(uint32(inputs.sevHashesTableGpa), "sevHashesTableGpa", "is not a 32-bit address");
  check(uint32(inputs.sevEsResetEip), "sevEsResetEip", "is not a 32-bit address");
  check(inputs.guestFeatures >= 0n && inputs.guestFeatures < 1n << 64n, "guestFeatures", "is not a 64-bit number");
  check(typeof inputs.vcpuType === "string" || uint32(inputs.vcpuType), "vcpuType", "is not a 32-bit signature");
  check(inputs.ovmfSections.length <= MAX_SECTIONS, "ovmfSections", `has more than ${MAX_SECTIONS} entries`);
  const total = inputs.ovmfSections.reduce((sum, { size }) => sum + size, 0);
  check(total <= MAX_SECTION_BYTES, "ovmfSections", `has more than ${MAX_SECTION_BYTES} bytes in all`);
  for (const { gpa, size, sectionType } of inputs.ovmfSections) {
    check(pages(gpa), "ovmfSections", "has an address that no page starts at");
    check(pages(size) && size > 0, "ovmfSections", "has a size that is no whole number of pages");
    check(
      size === PAGE || !ONE_PAGE.includes(sectionType),
      "ovmfSections",
      `has more than a page of type ${sectionType}`,
    );
  }
}

function readSections(value: JsonValue | undefined): readonly OvmfSection[] {
  if (!isJsonArray(value)) throw inputError("ovmf_sections", "is not an array");
  return value.map((item) => {
    if (!isJsonObject(item)) throw inputError("ovmf_sections", "has an entry that is not an object");
    return {
      gpa: jsonInteger(item, "gpa"),
      size: jsonInteger(item, "size"),
      sectionType: jsonInteger(item, "section_type"),
    };
  });
}

function once<T>(field: string, stated: T | undefined, given: T | undefined, fallback?: T): T {
  if (stated !== undefined && given !== undefined && stated !== given) {
    throw inputError(field, "is given twice, with different values");
  }
  const chosen = given ?? stated ?? fallback;
  if (chosen === undefined) throw inputError(field, "is missing");
  return chosen;
}

function optional<T>(object: JsonObject, key: string, read: (object: JsonObject, key: string) => T): T | undefined {
  return object[key] === undefined ? undefined : read(object, key);
}

function jsonInteger(object: JsonObject, key: string): number {
  const value = object[key];
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return value;
  throw inputError(key, "is not a whole number");
}

function jsonText(object: JsonObject, key: string): string {
  const value = object[key];
  if (typeof value === "string") return value;
  throw inputError(key, "is not a string");
}

function jsonHex(object: JsonObject, key: string, width: number): Uint8Array {
  const value = jsonText(object, key);
  if (/^[0-9a-f]*$/.test(value) && value.length === 2 * width) return fromHex(value, key);
  throw inputError(key, `is not ${width} bytes of lower-case hex`);
}

const hash32 = (object: JsonObject, key: string): Hex => toHex(jsonHex(object, key, 32));

/** An empty string stands for no initial RAM disk: QEMU then measures the hash of nothing. */
const initrdHash = (object: JsonObject, key: string): Hex =>
  object[key] === "" ? toHex(sha256(new Uint8Array())) : hash32(object, key);

function inputError(field: string, why: string): KeysteadError {
  return new KeysteadError("snp-launch/input", `${field} ${why}`, {
    argument: field,
    remedy: "Give the launch inputs as the image's publisher states them.",
    details: { field },
  });
}
