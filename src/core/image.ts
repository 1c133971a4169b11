import { keccak_256 } from "@noble/hashes/sha3.js";
import { fromHex, type Hex, isZero, toHex } from "./bytes.ts";
import { KeysteadError } from "./errors.ts";

/*
 * A measured image in its three spellings: registers by name, canonical bytes, text. The bytes are what contracts/registry/ImageCodec.sol
 * checks and hashes; the tables below, the order of the checks and their reasons are the same on both sides, and
 * test/core/image.differential.test.ts holds them together.
 *
 *   image = version:u8 = 1 ‖ kind:u8 ‖ mask:u32 BE ‖ one 48-byte value per set bit, ascending, right-padded with zeros
 */

/** The kinds of trusted hardware (or, for dstack, of measured stack) an image can be of. */
export type TeeKind = "tdx" | "snp" | "nitro" | "dstack";

/** What an image is registered as: for an upgradeable service, for a service that is not (`sealed`), as a platform (firmware and OS), as a KMS node. */
export type ImageUse = "service" | "sealed" | "platform" | "kms";
/** The uses in the order of the contract's table. */
export const IMAGE_USES: readonly ImageUse[] = ["service", "sealed", "platform", "kms"];

/** A measured image: a register left out matches anything. */
export interface Image {
  readonly kind: TeeKind;
  /** Register name → value at the register's natural width, lower-case hex. */
  readonly registers: Readonly<Record<string, Hex>>;
}

/** One register of a kind. */
export interface RegisterSpec {
  readonly name: string;
  /** Its bit in the mask. */
  readonly bit: number;
  /** Its natural width in bytes. */
  readonly width: number;
  /** Whether an all-zero value is refused wherever the register is present. */
  readonly neverZero: boolean;
}

/** One kind: its number in the canonical bytes, its registers by ascending bit, and what each use requires. */
export interface KindSpec {
  readonly kind: TeeKind;
  readonly byte: number;
  readonly registers: readonly RegisterSpec[];
  readonly required: Readonly<Record<ImageUse, readonly string[]>>;
  /** What does as well, where a use has two choices: all of these in place of all of `required`. */
  readonly otherwise?: Readonly<Partial<Record<ImageUse, readonly string[]>>>;
}

/** The only version of the encoding. */
export const IMAGE_VERSION = 1;
/** Bytes before the first register value. */
export const IMAGE_HEADER_BYTES = 6;
/** PCRs of a Nitro enclave: pcr0 to pcr31. */
export const NITRO_PCRS = 32;
/** Bytes that one register value takes. */
export const REGISTER_BYTES = 48;

const register = (bit: number, name: string, width: number, neverZero = false): RegisterSpec => ({
  name,
  bit,
  width,
  neverZero,
});

/** Every kind, register, width and requirement as data: the table in ImageCodec.sol, by the same numbers. */
export const IMAGE_KINDS: Readonly<Record<TeeKind, KindSpec>> = {
  tdx: {
    kind: "tdx",
    byte: 1,
    registers: [
      register(0, "mrtd", 48, true),
      register(1, "rtmr0", 48),
      register(2, "rtmr1", 48, true),
      register(3, "rtmr2", 48, true),
      register(4, "rtmr3", 48, true),
      register(5, "mr_seam", 48),
      register(6, "mr_signer_seam", 48),
      register(7, "mr_config_id", 48),
      register(8, "mr_owner", 48),
      register(9, "mr_owner_config", 48),
    ],
    required: {
      service: ["mrtd", "rtmr1", "rtmr2", "rtmr3"],
      sealed: ["mrtd", "rtmr1", "rtmr2", "rtmr3"],
      platform: ["mrtd"],
      kms: ["mrtd", "rtmr1", "rtmr2", "rtmr3"],
    },
  },
  snp: {
    kind: "snp",
    byte: 2,
    registers: [
      register(0, "measurement", 48, true),
      register(1, "host_data", 32),
      register(2, "id_key_digest", 48, true),
      register(3, "author_key_digest", 48),
      register(4, "family_id", 16),
      register(5, "image_id", 16),
    ],
    required: {
      service: ["measurement"],
      sealed: ["measurement", "host_data"],
      platform: ["measurement"],
      kms: ["measurement", "host_data"],
    },
    otherwise: { sealed: ["measurement", "id_key_digest"], kms: ["measurement", "id_key_digest"] },
  },
  nitro: {
    kind: "nitro",
    byte: 3,
    registers: [
      register(0, "pcr0", 48, true),
      register(1, "pcr1", 48, true),
      register(2, "pcr2", 48, true),
      ...Array.from({ length: NITRO_PCRS - 3 }, (_, index) => register(index + 3, `pcr${index + 3}`, 48)),
    ],
    required: {
      service: ["pcr0", "pcr1", "pcr2"],
      sealed: ["pcr0", "pcr1", "pcr2"],
      platform: ["pcr1"],
      kms: ["pcr0", "pcr1", "pcr2"],
    },
  },
  dstack: {
    kind: "dstack",
    byte: 4,
    registers: [
      register(0, "os_image_hash", 32, true),
      register(1, "compose_hash", 32, true),
      register(2, "mr_aggregated", 32, true),
      register(3, "mr_system", 32),
    ],
    required: {
      service: ["compose_hash"],
      sealed: ["os_image_hash", "compose_hash"],
      platform: ["os_image_hash"],
      kms: ["os_image_hash", "compose_hash"],
    },
    otherwise: { kms: ["mr_aggregated"] },
  },
};

/** The kinds in the order of their numbers. */
export const TEE_KINDS: readonly TeeKind[] = ["tdx", "snp", "nitro", "dstack"];
const SPEC_BY_BYTE = new Map(TEE_KINDS.map((kind) => [IMAGE_KINDS[kind].byte, IMAGE_KINDS[kind]]));

/**
 * The mask of these registers, an unsigned 32-bit number.
 *
 * @example
 * registerMask([{ bit: 0 }, { bit: 31 }]); // 0x80000001
 */
export function registerMask(registers: readonly { readonly bit: number }[]): number {
  return registers.reduce((mask, { bit }) => (mask | (1 << bit)) >>> 0, 0);
}

const maskOf = (spec: KindSpec, names: readonly string[]): number =>
  registerMask(spec.registers.filter(({ name }) => names.includes(name)));
const KNOWN_MASK = new Map(
  TEE_KINDS.map((kind) => [
    kind,
    maskOf(
      IMAGE_KINDS[kind],
      IMAGE_KINDS[kind].registers.map(({ name }) => name),
    ),
  ]),
);
const namesOf = (spec: KindSpec, bits: number): string =>
  spec.registers
    .filter(({ bit }) => (bits >>> bit) & 1)
    .map(({ name }) => name)
    .join(", ");
const popcount = (bits: number): number => {
  let count = 0;
  for (let rest = bits; rest !== 0; rest >>>= 1) count += rest & 1;
  return count;
};

/** What of a use's requirements the mask lacks; nothing if it has all that does as well. */
function missingRegisters(spec: KindSpec, mask: number, use: ImageUse): number {
  const missing = (maskOf(spec, spec.required[use]) & ~mask) >>> 0;
  const otherwise = spec.otherwise?.[use];
  return otherwise !== undefined && (maskOf(spec, otherwise) & ~mask) === 0 ? 0 : missing;
}

const alternative = (spec: KindSpec, use: ImageUse): string => {
  const otherwise = spec.otherwise?.[use];
  return otherwise === undefined ? "" : `, or else ${otherwise.join(" and ")}`;
};

const refuse = (code: string, message: string, remedy: string, details: Readonly<Record<string, unknown>>) =>
  new KeysteadError(`image/${code}`, message, { argument: "image", remedy, details });

/** Walks the bytes as the contract does, in its order; gives what was found in them. */
function readImage(bytes: Uint8Array, use: ImageUse): Image {
  const actual = bytes.length;
  const [version, kind] = bytes;
  if (version === undefined || kind === undefined || actual < IMAGE_HEADER_BYTES) {
    throw refuse(
      "wrong-length",
      `the image has ${actual} bytes and its header alone takes ${IMAGE_HEADER_BYTES}`,
      "Give the whole image.",
      {
        expected: IMAGE_HEADER_BYTES,
        actual,
      },
    );
  }
  if (version !== IMAGE_VERSION) {
    throw refuse("wrong-version", `image version ${version} is not known`, "Encode the image with version 1.", {
      version,
    });
  }
  const spec = SPEC_BY_BYTE.get(kind);
  if (spec === undefined) {
    throw refuse(
      "unknown-kind",
      `TEE kind ${kind} is not known`,
      "Use 1 (TDX), 2 (SEV-SNP), 3 (Nitro) or 4 (dstack).",
      {
        kind,
      },
    );
  }
  const mask = new DataView(bytes.buffer, bytes.byteOffset).getUint32(2);
  const unknown = (mask & ~(KNOWN_MASK.get(spec.kind) ?? 0)) >>> 0;
  if (unknown !== 0) {
    throw refuse(
      "unknown-registers",
      `${spec.kind} has no registers at bits 0x${unknown.toString(16)}`,
      "Leave them out.",
      {
        kind,
        bits: unknown,
      },
    );
  }
  const missing = missingRegisters(spec, mask, use);
  if (missing !== 0) {
    throw refuse(
      "missing-registers",
      `a ${spec.kind} image for use as ${use} must have ${namesOf(spec, missing)}${alternative(spec, use)}`,
      "Add the registers: an image without them would match workloads it does not describe.",
      { kind, bits: missing },
    );
  }
  const expected = IMAGE_HEADER_BYTES + REGISTER_BYTES * popcount(mask);
  if (actual !== expected) {
    throw refuse(
      "wrong-length",
      `the image has ${actual} bytes and its mask says ${expected}`,
      "Give exactly those bytes.",
      {
        expected,
        actual,
      },
    );
  }
  const registers: Record<string, Hex> = {};
  let offset = IMAGE_HEADER_BYTES;
  for (const { name, bit, width, neverZero } of spec.registers) {
    if (((mask >>> bit) & 1) === 0) continue;
    const value = bytes.subarray(offset, offset + width);
    if (!isZero(bytes.subarray(offset + width, offset + REGISTER_BYTES))) {
      throw refuse(
        "non-zero-padding",
        `${name} is ${width} bytes wide and what follows is not zero`,
        "Pad with zeros.",
        {
          kind,
          register: bit,
        },
      );
    }
    if (neverZero && isZero(value)) {
      throw refuse(
        "zero-register",
        `${name} is all zeros: nothing was measured into it`,
        "Measure a production machine: debug mode and workloads that extend nothing leave the register empty.",
        { kind, register: bit },
      );
    }
    registers[name] = toHex(value);
    offset += REGISTER_BYTES;
  }
  return { kind: spec.kind, registers };
}

/**
 * Checks canonical bytes for a use, exactly as ImageCodec.sol does: same order, same reasons, same values in `details`.
 *
 * @throws KeysteadError `image/wrong-length` {expected, actual}, `image/wrong-version` {version}, `image/unknown-kind` {kind},
 * `image/unknown-registers` {kind, bits}, `image/missing-registers` {kind, bits}, `image/non-zero-padding` {kind, register},
 * `image/zero-register` {kind, register}; kind is the number in the bytes, register the bit
 * @example
 * checkImage(encodeImage(image), "sealed");
 */
export function checkImage(bytes: Uint8Array, use: ImageUse): void {
  readImage(bytes, use);
}

/**
 * Canonical bytes, checked for a use, as registers.
 *
 * @throws KeysteadError as {@link checkImage}
 * @example
 * decodeImage(bytes, "service").registers.mrtd;
 */
export function decodeImage(bytes: Uint8Array, use: ImageUse): Image {
  return readImage(bytes, use);
}

/**
 * The canonical bytes of an image. Whether they may be registered is {@link checkImage}'s to say.
 *
 * @throws KeysteadError `image/unknown-kind` {kind}, `image/unknown-register` {kind, name}, `image/register-value` {kind, name} unless a
 * value is lower-case hex of exactly the register's width
 * @example
 * encodeImage({ kind: "dstack", registers: { compose_hash: "0x…" } }); // 54 bytes
 */
export function encodeImage(image: Image): Uint8Array {
  const spec = specOf(image.kind);
  const present = spec.registers.filter(({ name }) => Object.hasOwn(image.registers, name));
  for (const name of Object.keys(image.registers)) {
    if (!present.some((known) => known.name === name)) throw unknownRegister(spec, name);
  }
  const bytes = new Uint8Array(IMAGE_HEADER_BYTES + REGISTER_BYTES * present.length);
  bytes.set([IMAGE_VERSION, spec.byte]);
  new DataView(bytes.buffer).setUint32(2, registerMask(present));
  present.forEach(({ name, width }, index) => {
    bytes.set(registerBytes(spec, name, width, image.registers[name]), IMAGE_HEADER_BYTES + REGISTER_BYTES * index);
  });
  return bytes;
}

/**
 * The id of an image: keccak-256 of its canonical bytes, as the contract computes it.
 *
 * @example
 * imageId(encodeImage(image)); // "0x…", 32 bytes
 */
export function imageId(bytes: Uint8Array): Hex {
  return toHex(keccak_256(bytes));
}

/**
 * The text form: `kind:register=hex,register=hex`, registers by ascending bit, lower-case hex without `0x`.
 *
 * @throws KeysteadError as {@link encodeImage}
 * @example
 * formatImage(image); // "dstack:compose_hash=6b0f…"
 */
export function formatImage(image: Image): string {
  encodeImage(image);
  const parts = specOf(image.kind).registers.flatMap(({ name }) => {
    const value = image.registers[name];
    return value === undefined ? [] : [`${name}=${value.slice(2)}`];
  });
  return `${image.kind}:${parts.join(",")}`;
}

/**
 * Reads the text form back. Strict, so that one image has one spelling: known registers only, each once, by ascending bit, lower-case hex at
 * full width, no white space. With `use`, what the contract would refuse is refused with the contract's reason.
 *
 * @throws KeysteadError `image/malformed-text` {position}; `image/unknown-kind`, `image/unknown-register`, `image/register-value` as
 * {@link encodeImage}; with `use` also as {@link checkImage}
 * @example
 * parseImage("dstack:compose_hash=6b0f…", "service");
 */
export function parseImage(text: string, use?: ImageUse): Image {
  const malformed = (position: number, why: string) =>
    new KeysteadError("image/malformed-text", `the image text is malformed at character ${position}: ${why}`, {
      argument: "image",
      remedy: "Write kind:register=hex,… in the order of the register table, lower-case, without spaces.",
      details: { position },
    });
  const colon = text.indexOf(":");
  if (colon < 0) throw malformed(0, "no kind before a colon");
  const spec = specOf(text.slice(0, colon));
  const registers: Record<string, Hex> = {};
  let position = colon + 1;
  let lastBit = -1;
  const parts = position === text.length ? [] : text.slice(position).split(",");
  for (const part of parts) {
    const equals = part.indexOf("=");
    if (equals < 0) throw malformed(position, "no register=value");
    const name = part.slice(0, equals);
    const known = spec.registers.find((candidate) => candidate.name === name);
    if (known === undefined) throw unknownRegister(spec, name);
    if (known.bit === lastBit) throw malformed(position, `${name} is there twice`);
    if (known.bit < lastBit) throw malformed(position, `${name} is out of order`);
    lastBit = known.bit;
    const value: Hex = `0x${part.slice(equals + 1)}`;
    registerBytes(spec, name, known.width, value);
    registers[name] = value;
    position += part.length + 1;
  }
  const image: Image = { kind: spec.kind, registers };
  if (use !== undefined) checkImage(encodeImage(image), use);
  return image;
}

function specOf(kind: string): KindSpec {
  const known = TEE_KINDS.find((candidate) => candidate === kind);
  if (known === undefined) {
    throw refuse("unknown-kind", `TEE kind ${JSON.stringify(kind)} is not known`, `Use ${TEE_KINDS.join(", ")}.`, {
      kind,
    });
  }
  return IMAGE_KINDS[known];
}

function unknownRegister(spec: KindSpec, name: string): KeysteadError {
  const known = spec.registers.map((candidate) => candidate.name).join(", ");
  return refuse("unknown-register", `${spec.kind} has no register ${JSON.stringify(name)}`, `Use ${known}.`, {
    kind: spec.kind,
    name,
  });
}

function registerBytes(spec: KindSpec, name: string, width: number, value: unknown): Uint8Array {
  if (typeof value !== "string" || value.length !== 2 + 2 * width || !/^0x[0-9a-f]*$/.test(value)) {
    throw refuse(
      "register-value",
      `${name} is not ${width} bytes of lower-case hex`,
      `Give exactly ${2 * width} lower-case hex digits.`,
      { kind: spec.kind, name },
    );
  }
  return fromHex(value, name);
}
