import { createHash } from "node:crypto";

/*
 * Deployment files that the project makes itself, with expectations computed by node:crypto and by nothing under test.
 */

/** SHA-256 or SHA-384 of some parts, joined. */
export function digest(algorithm: "sha256" | "sha384", ...parts: readonly (Uint8Array | string)[]): Buffer {
  const hash = createHash(algorithm);
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/** RTMR after some digests: SHA-384(register ‖ digest), each digest padded to 48 bytes. */
export function replay(digests: readonly Uint8Array[]): Buffer {
  return digests.reduce<Buffer>(
    (register, value) => digest("sha384", register, Buffer.concat([value, Buffer.alloc(48 - value.length)])),
    Buffer.alloc(48),
  );
}

/** One event as dstack writes it. */
export interface RawEvent {
  imr: number;
  event_type: number;
  digest: string;
  event: string;
  event_payload: string;
  version?: number;
  hash_input?: string;
  [extra: string]: unknown;
}

/** The v1 preimage of a runtime event, by hand. */
export function v1Preimage(name: string, payload: Uint8Array): Buffer {
  return Buffer.concat([Buffer.from([1, 0, 0, 8]), Buffer.from(`:${name}:`), payload]);
}

/** A runtime event with its right digest. */
export function runtimeEvent(name: string, payloadHex = "", version: 1 | 2 = 1): RawEvent {
  const preimage =
    version === 1
      ? v1Preimage(name, Buffer.from(payloadHex, "hex"))
      : Buffer.from(`{"name":${JSON.stringify(name)},"payload":"${payloadHex}","type":134217729}`);
  return {
    imr: 3,
    event_type: 0x08000001,
    digest: digest("sha384", preimage).toString("hex"),
    event: name,
    event_payload: payloadHex,
    ...(version === 2 ? { version } : {}),
  };
}

/** A firmware event. */
export function bootEvent(imr: number, byte: number): RawEvent {
  return { imr, event_type: 4, digest: Buffer.alloc(48, byte).toString("hex"), event: "", event_payload: "00000000" };
}

export const APP_ID = "11".repeat(20);
export const COMPOSE_HASH = "22".repeat(32);
export const INSTANCE_ID = "33".repeat(20);
export const OS_IMAGE_HASH = "44".repeat(32);
export const KEY_PROVIDER = Buffer.from('{"name":"kms","id":"abcd"}').toString("hex");

/** A whole boot, with one event of the application after it. */
export function bootLog(version: 1 | 2 = 1): RawEvent[] {
  return [
    bootEvent(0, 0xa0),
    bootEvent(0, 0xa1),
    bootEvent(1, 0xb0),
    bootEvent(2, 0xc0),
    runtimeEvent("system-preparing", "", version),
    runtimeEvent("app-id", APP_ID, version),
    runtimeEvent("compose-hash", COMPOSE_HASH, version),
    runtimeEvent("instance-id", INSTANCE_ID, version),
    runtimeEvent("boot-mr-done", "", version),
    runtimeEvent("os-image-hash", OS_IMAGE_HASH, version),
    runtimeEvent("key-provider", KEY_PROVIDER, version),
    runtimeEvent("system-ready", "", version),
    runtimeEvent("compose-hash", "ff".repeat(32), version),
  ];
}

/** RTMR of one IMR of a log, by the digests that it states. */
export function replayRaw(log: readonly RawEvent[], imr: number): string {
  return `0x${replay(log.filter((event) => event.imr === imr).map((event) => Buffer.from(event.digest, "hex"))).toString("hex")}`;
}

/** JSON as bytes. */
export function json(value: unknown): Uint8Array {
  return utf8(JSON.stringify(value));
}

/** Text as bytes. */
export function utf8(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, "utf8"));
}

/** Launch inputs of a small machine, as publishers write them. */
export function launchInputs(changes: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return {
    ovmf_hash: "0f".repeat(48),
    ovmf_sections: [
      { gpa: 0x800000, size: 0x2000, section_type: 1 },
      { gpa: 0x80d000, size: 0x1000, section_type: 2 },
      { gpa: 0x80e000, size: 0x1000, section_type: 3 },
      { gpa: 0x80f000, size: 0x1000, section_type: 4 },
      { gpa: 0x810000, size: 0x1000, section_type: 16 },
    ],
    sev_hashes_table_gpa: 0x810c00,
    sev_es_reset_eip: 0x80b004,
    kernel_hash: "1a".repeat(32),
    initrd_hash: "2b".repeat(32),
    vcpu_type: "EPYC",
    ...changes,
  };
}

/** An entry of sev.json. */
export function snpEntry(changes: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  return { vm_type: "prod", artifacts_ver: "v1", rootfs_hash: "3c".repeat(32), ...launchInputs(), ...changes };
}

/** One row of tdx.csv. */
export interface RawRow {
  readonly size?: string;
  readonly environment?: string;
  readonly version?: string;
  readonly mrtd?: string;
  readonly rtmr0?: string;
  readonly rootfs?: string;
  readonly host?: string;
}

export const TDX_HEADER = "template_name,vm_type,artifacts_ver,mrtd,rtmr0,rtmr1,rtmr2,rootfs_data,host_id";

/** A table of some rows. */
export function tdxTable(rows: readonly RawRow[], end = "\n"): Uint8Array {
  const lines = rows.map((row) =>
    [
      row.size ?? "small",
      row.environment ?? "prod",
      row.version ?? "v1",
      row.mrtd ?? "a1".repeat(48),
      row.rtmr0 ?? "b0".repeat(48),
      "b1".repeat(48),
      "b2".repeat(48),
      row.rootfs ?? "c0".repeat(32),
      row.host ?? "h1".repeat(4),
    ].join(","),
  );
  return utf8([TDX_HEADER, ...lines].map((line) => line + end).join(""));
}

/** Offsets in the image that {@link buildOvmf} makes, and what its table says. */
export const OVMF = { size: 0x10000, metadata: 0x8000, tableEnd: 0x10000 - 32 } as const;

const GUIDS = {
  footer: "de82b596b21ff745baeaa366c55a082d",
  reset: "de71f7007e1acb4f890e68c77e2fb44e",
  hashes: "1f3755723b3a044b927b1da6efa8d454",
  metadata: "666588dc4a989847a75e5585a7bf67cc",
  paravisor: "12a689a797054b4ca49fcbb1fe9d1ddd",
} as const;

/** An OVMF image with the table and metadata of a build for SEV-SNP, and nothing that runs. */
export function buildOvmf(
  changes: { readonly without?: keyof typeof GUIDS; readonly sections?: number; readonly paravisor?: boolean } = {},
): Buffer {
  const image = Buffer.alloc(OVMF.size, 0x5a);
  const sections = [
    [0x800000, 0x2000, 1],
    [0x80d000, 0x1000, 2],
    [0x80e000, 0x1000, 3],
    [0x80f000, 0x1000, 4],
    [0x810000, 0x1000, 16],
  ];
  image.write("ASEV", OVMF.metadata, "latin1");
  image.writeUInt32LE(16 + 12 * sections.length, OVMF.metadata + 4);
  image.writeUInt32LE(1, OVMF.metadata + 8);
  image.writeUInt32LE(changes.sections ?? sections.length, OVMF.metadata + 12);
  for (const [index, fields] of sections.entries()) {
    for (const [field, value] of fields.entries())
      image.writeUInt32LE(value, OVMF.metadata + 16 + 12 * index + 4 * field);
  }
  const entries: [keyof typeof GUIDS, number][] = [
    ["metadata", OVMF.size - OVMF.metadata],
    ["hashes", 0x810c00],
    ["reset", 0x80b004],
  ];
  if (changes.paravisor) entries.push(["paravisor", 0]);
  const table = Buffer.concat([
    ...entries.flatMap(([name, value]) => {
      if (changes.without === name) return [];
      const entry = Buffer.alloc(22);
      entry.writeUInt32LE(value, 0);
      entry.writeUInt16LE(22, 4);
      entry.write(GUIDS[name], 6, "hex");
      return [entry];
    }),
    Buffer.alloc(18),
  ]);
  table.writeUInt16LE(table.length, table.length - 18);
  if (changes.without !== "footer") table.write(GUIDS.footer, table.length - 16, "hex");
  table.copy(image, OVMF.tableEnd - table.length);
  return image;
}
