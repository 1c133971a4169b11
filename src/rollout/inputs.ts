import { getAddress, isAddress } from "ethers";
import { z } from "zod";
import type { Hex } from "../core/bytes.ts";
import { encodeImage, imageId, parseImage } from "../core/image.ts";

/* Everything that a rollout is derived from, as the plan file holds it. Times are seconds since 1970, durations seconds. */

const isHex = (text: string, bytes: number): text is Hex => text.length === 2 + 2 * bytes && /^0x[0-9a-f]*$/.test(text);

const hex = (bytes: number) =>
  z.custom<Hex>(
    (value) => typeof value === "string" && isHex(value, bytes),
    `must be ${bytes} bytes of lower-case hex`,
  );
const address = z
  .string()
  .refine((text) => isAddress(text) && getAddress(text) === text, "must be an address with its checksum");
const seconds = z.int().min(0).max(0xff_ffff_ffff);
const line = z.string().regex(/^[^\p{Cc}\p{Cf}\u2028\u2029]{1,1000}$/u, "must be one line of text");
const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,39}$/, "must be lower-case letters, digits and hyphens");
const url = z
  .url({ protocol: /^https?$/, error: "must be a http or https URL" })
  .refine((text) => new URL(text).username === "" && new URL(text).password === "", "must not hold a password");

/** How to measure something again: the reader of `keystead measure`, its inputs and its options. */
export const measuringSchema = z.strictObject({
  as: name,
  inputs: z.array(line).min(1).max(8),
  options: z.record(z.string().regex(/^[a-zA-Z]{1,40}$/), z.union([line, z.boolean()])).default({}),
  include: z.array(z.string().regex(/^[a-z0-9_]+$/)).default([]),
  exclude: z.array(z.string().regex(/^[a-z0-9_]+$/)).default([]),
});

/** A KMS identity, as `publishKmsIdentity` takes it. */
const identitySchema = z.strictObject({
  rootEpoch: z.int().min(0).max(0xffff),
  environmentKey: hex(32),
  receiptSigner: address,
  evidenceHash: hex(32),
});

/** A canonical image in both spellings. */
const imageSchema = z
  .strictObject({ id: hex(32), text: z.string().max(2000) })
  .refine(({ id, text }) => idOf(text) === id, "the id must be that of the text");

/** A canonical image and what it was measured from. */
const measuredSchema = z.strictObject({
  measuring: measuringSchema,
  image: imageSchema,
  /** The platform (firmware and OS) that the same input says; null where it says none. */
  platform: imageSchema.nullable(),
  sources: z.array(z.strictObject({ name: line, sha256: hex(32) })).max(32),
});

/** A node of the KMS. */
export const nodeSchema = z.strictObject({
  name,
  url,
  /** Commands of the operator, printed and never run by this project: what takes the running node out, and what starts the new one. */
  stop: line,
  start: line,
  /** What starts the old one again. */
  restore: line,
  /** On AWS Nitro: the command that starts the VSOCK proxy on the parent instance, which must be up before the enclave. */
  vsockProxy: line.nullable().default(null),
});

/** A machine of the application. */
export const machineSchema = z.strictObject({
  name,
  runs: z.enum(["old", "new"]),
  /** Where it serves `/vm_updates`, without the path; null: nothing to ask. */
  updates: url.nullable().default(null),
  /** Where its quote can be fetched, or a file that holds one; null: nothing to compare. */
  quote: line.nullable().default(null),
  /**
   * A program and its arguments that gives the machine's evidence for a request, as `keystead agent --device command` runs it; no shell reads it. Null:
   * receipts at the nodes must show the delivery.
   */
  evidence: z.array(line).min(1).max(20).nullable().default(null),
  start: line.nullable().default(null),
  stop: line.nullable().default(null),
});

const cleanupSchema = z.strictObject({
  image: z.enum(["retire", "remove", "keep"]).default("retire"),
  /** How long a retired image still receives keys. */
  graceSeconds: z.int().min(0).max(31_536_000).default(86_400),
  /** A platform serves every service: revoke it only where nothing else runs on it. */
  platform: z.enum(["revoke", "keep"]).default("keep"),
  kmsImage: z.enum(["revoke", "keep"]).default("revoke"),
});

const teeSchema = z.enum(["tdx", "snp", "nitro", "dstack"]);
/** TCB statuses to be accepted of a TEE kind that is not enabled yet, with commas between them. */
const tcbSchema = z.partialRecord(teeSchema, z.string().regex(/^[A-Za-z]+(,[A-Za-z]+)*$/));

/** What a rollout is about, written by hand (YAML or JSON): `keystead rollout plan` makes the plan file of it. */
export const definitionSchema = z.strictObject({
  id: name,
  deployment: line,
  plannedFor: z.iso.datetime({ offset: true }).nullable().default(null),
  service: hex(20),
  application: z.strictObject({ old: measuringSchema.nullable().default(null), new: measuringSchema }).nullable(),
  kms: z
    .strictObject({
      old: measuringSchema.nullable().default(null),
      new: measuringSchema,
      /** What a new root secret is published as; null: the nodes get the root that is there. */
      identity: identitySchema.nullable().default(null),
    })
    .nullable()
    .default(null),
  contracts: z.strictObject({ policy: address.optional(), registry: address.optional() }).default({}),
  nodes: z.array(nodeSchema).max(32),
  machines: z.array(machineSchema).max(200),
  backup: z.strictObject({ folder: line, files: z.array(line).min(1).max(100) }),
  signers: z.strictObject({ governance: z.array(address).max(50), guardian: z.array(address).max(50) }),
  proposals: z
    .strictObject({ folder: line, first: z.int().min(0).max(990) })
    .default({ folder: "deploy/proposals", first: 1 }),
  tcb: tcbSchema.default({}),
  cleanup: cleanupSchema.default({ image: "retire", graceSeconds: 86_400, platform: "keep", kmsImage: "revoke" }),
});

/** The definition with everything looked up: what steps are derived from. */
export const inputsSchema = z.strictObject({
  id: name,
  created: seconds,
  plannedFor: seconds.nullable(),
  deployment: z.strictObject({
    file: line,
    network: z.string().regex(/^[\w-]{1,60}$/),
    chainId: z.string().regex(/^[1-9]\d{0,77}$/),
    fromBlock: z.int().min(0),
    registry: address,
    policy: address,
    timelock: address,
    governance: address,
    guardian: address,
    /** The timelock's minimum delay when the plan was made. */
    delaySeconds: z.int().min(0),
  }),
  service: z.strictObject({
    id: hex(20),
    admin: address,
    /** `timelock`: a contract that is no Safe; who proposes to it is the operator's knowledge. */
    adminKind: z.enum(["account", "safe", "timelock"]),
    noticePeriod: z.int().min(0),
    upgradeable: z.boolean(),
    /** Whether no image was ever listed: the first is active at once. */
    empty: z.boolean(),
  }),
  application: z.strictObject({ old: measuredSchema.nullable(), new: measuredSchema }).nullable(),
  kms: z
    .strictObject({ old: measuredSchema.nullable(), new: measuredSchema, identity: identitySchema.nullable() })
    .nullable(),
  contracts: z
    .array(z.strictObject({ contract: z.enum(["policy", "registry"]), from: address, to: address, codeHash: hex(32) }))
    .max(2),
  nodes: z.array(nodeSchema).max(32),
  machines: z.array(machineSchema).max(200),
  backup: z.strictObject({
    folder: line,
    files: z.array(z.strictObject({ path: line, sha256: hex(32) })).max(100),
  }),
  signers: z.strictObject({ governance: z.array(address).max(50), guardian: z.array(address).max(50) }),
  proposals: z.strictObject({ folder: line, first: z.int().min(0).max(990) }),
  tcb: tcbSchema,
  cleanup: cleanupSchema,
  /** What was already allowed when the plan was made: steps for these are left out. */
  already: z.strictObject({
    platforms: z.array(hex(32)).max(4),
    tees: z.array(teeSchema).max(4),
    kmsImage: z.boolean(),
    image: z.boolean(),
    identity: z.boolean(),
  }),
});

export type Measuring = z.infer<typeof measuringSchema>;
export type Measured = z.infer<typeof measuredSchema>;
export type RolloutNode = z.infer<typeof nodeSchema>;
export type Machine = z.infer<typeof machineSchema>;
/** What a person writes. */
export type Definition = z.infer<typeof definitionSchema>;
/** What a plan is derived from. */
export type Inputs = z.infer<typeof inputsSchema>;

/** The id of an image by its text, or nothing where the text is no image. */
function idOf(text: string): Hex | undefined {
  try {
    return imageId(encodeImage(parseImage(text)));
  } catch {
    return undefined;
  }
}
