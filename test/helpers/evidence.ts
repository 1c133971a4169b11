import { encode } from "cbor2";

/*
 * Structurally valid evidence that nobody signed: every field at its place, signatures filled with a marker byte. Tests run on it wherever the
 * vectors are absent. Written from the layouts, apart from the parsers, so that both can be wrong only separately.
 */

/** Bytes of one value. */
export const fill = (length: number, byte: number): Uint8Array => new Uint8Array(length).fill(byte);

const le = (bytes: number, value: number | bigint): Uint8Array => {
  const out = new Uint8Array(bytes);
  let rest = BigInt(value);
  for (let index = 0; index < bytes; index += 1, rest >>= 8n) out[index] = Number(rest & 0xffn);
  return out;
};

const join = (...parts: readonly Uint8Array[]): Uint8Array => Uint8Array.from(parts.flatMap((part) => [...part]));

/** What a synthetic quote may differ in; what is not given gets a distinct default. */
export interface TdxOptions {
  readonly version?: number;
  readonly teeType?: number;
  readonly keyType?: number;
  /** Version 5: 2 (TD 1.0), 3 (TD 1.5) or 4 (extended). Default 3. */
  readonly bodyType?: number;
  readonly bodySize?: number;
  readonly tdAttributes?: Uint8Array;
  readonly mrTd?: Uint8Array;
  readonly rtMr0?: Uint8Array;
  readonly rtMr1?: Uint8Array;
  readonly rtMr2?: Uint8Array;
  readonly rtMr3?: Uint8Array;
  readonly mrServiceTd?: Uint8Array;
  /** Type 4: the 237 bytes after a TD 1.5 body. Default: an ordinary TD's. */
  readonly extension?: Uint8Array;
  readonly reportData?: Uint8Array;
  readonly certificationType?: number;
  readonly innerCertificationType?: number;
  readonly pem?: string;
  /** Bytes inside the signature data after its last field. */
  readonly slack?: Uint8Array;
  /** Bytes after the quote. */
  readonly trailing?: Uint8Array;
}

/** SEPT_VE_DISABLE set, nothing else: what a production TD has. */
export const TD_ATTRIBUTES: Uint8Array = Uint8Array.of(0, 0, 0, 0x10, 0, 0, 0, 0);

/** A TDX quote. Default registers: MRTD 0xa0…, RTMR0 0xb0…, RTMR1 0xb1…, RTMR2 0xb2…, RTMR3 0xb3…, MRSEAM 0x05…, and so on. */
export function buildTdxQuote(options: TdxOptions = {}): Uint8Array {
  const version = options.version ?? 4;
  const bodyType = options.bodyType ?? 3;
  const body = [
    fill(16, 0x03),
    fill(48, 0x05),
    fill(48, 0x06),
    fill(8, 0),
    options.tdAttributes ?? TD_ATTRIBUTES,
    fill(8, 0xe7),
    options.mrTd ?? fill(48, 0xa0),
    fill(48, 0x07),
    fill(48, 0x08),
    fill(48, 0x09),
    options.rtMr0 ?? fill(48, 0xb0),
    options.rtMr1 ?? fill(48, 0xb1),
    options.rtMr2 ?? fill(48, 0xb2),
    options.rtMr3 ?? fill(48, 0xb3),
    options.reportData ?? fill(64, 0xdd),
  ];
  const descriptor: Uint8Array[] = [];
  if (version === 5) {
    descriptor.push(le(2, bodyType), le(4, options.bodySize ?? { 2: 584, 4: 885 }[bodyType] ?? 648));
    if (bodyType !== 2) body.push(fill(16, 0x04), options.mrServiceTd ?? fill(48, 0));
    if (bodyType === 4) body.push(options.extension ?? join(fill(1, 0), fill(32, 0x1d), fill(204, 0)));
  }
  const pem = new TextEncoder().encode(
    options.pem ?? "-----BEGIN CERTIFICATE-----\nc3ludGhldGlj\n-----END CERTIFICATE-----\n",
  );
  const qeReport = join(
    fill(16, 0x11),
    le(4, 0x12131415),
    fill(28, 0),
    fill(16, 0x16),
    fill(32, 0x17),
    fill(32, 0),
    fill(32, 0x18),
    fill(96, 0),
    le(2, 0x191a),
    le(2, 0x1b1c),
    fill(60, 0),
    fill(64, 0x1d),
  );
  const inner = join(
    qeReport,
    fill(64, 0x52),
    le(2, 32),
    fill(32, 0x53),
    le(2, options.innerCertificationType ?? 5),
    le(4, pem.length),
    pem,
  );
  const signatureData = join(
    fill(64, 0x50),
    fill(64, 0x51),
    le(2, options.certificationType ?? 6),
    le(4, inner.length),
    inner,
    options.slack ?? fill(0, 0),
  );
  return join(
    le(2, version),
    le(2, options.keyType ?? 2),
    le(4, options.teeType ?? 0x81),
    le(4, 0),
    fill(16, 0x93),
    fill(20, 0x55),
    ...descriptor,
    ...body,
    le(4, signatureData.length),
    signatureData,
    options.trailing ?? fill(0, 0),
  );
}

/** What a synthetic report may differ in. */
export interface SnpOptions {
  readonly version?: number;
  readonly policy?: bigint;
  readonly vmpl?: number;
  readonly flags?: number;
  readonly algorithm?: number;
  readonly cpuid?: readonly [family: number, model: number, stepping: number];
  readonly measurement?: Uint8Array;
  readonly hostData?: Uint8Array;
  readonly reportData?: Uint8Array;
}

/** Guest policy of a production machine: SMT allowed, and the bit that must be one. */
export const SNP_POLICY = 0x30000n;

/** A SEV-SNP report of 1184 bytes. Default registers: measurement 0xa1…, host data 0xa2…, id key 0xa3…, author key 0xa4…, family 0xa5…, image 0xa6…. */
export function buildSnpReport(options: SnpOptions = {}): Uint8Array {
  const out = new Uint8Array(1184);
  const version = options.version ?? 3;
  const put = (offset: number, bytes: Uint8Array) => out.set(bytes, offset);
  const tcb = Uint8Array.of(1, 2, 3, 4, 0, 0, 7, 8);
  put(0x00, le(4, version));
  put(0x04, le(4, 9));
  put(0x08, le(8, options.policy ?? SNP_POLICY));
  put(0x10, fill(16, 0xa5));
  put(0x20, fill(16, 0xa6));
  put(0x30, le(4, options.vmpl ?? 0));
  put(0x34, le(4, options.algorithm ?? 1));
  put(0x38, tcb);
  put(0x40, le(8, 0x25));
  put(0x48, le(4, options.flags ?? 0));
  put(0x50, options.reportData ?? fill(64, 0xdd));
  put(0x90, options.measurement ?? fill(48, 0xa1));
  put(0xc0, options.hostData ?? fill(32, 0xa2));
  put(0xe0, fill(48, 0xa3));
  put(0x110, fill(48, 0xa4));
  put(0x140, fill(32, 0xa7));
  put(0x160, fill(32, 0xff));
  put(0x180, tcb);
  if (version >= 3) put(0x188, Uint8Array.from(options.cpuid ?? [0x19, 0x11, 1]));
  put(0x1a0, fill(64, 0xa8));
  put(0x1e0, tcb);
  put(0x1e8, Uint8Array.of(5, 55, 1, 0, 4, 54, 1, 0));
  put(0x1f0, tcb);
  if (version >= 5) put(0x1f8, le(8, 0x1234n));
  if (version >= 5) put(0x200, le(8, 0x5678n));
  for (let index = 0; index < 48; index += 1) {
    out[0x2a0 + index] = index + 1; // r, little-endian
    out[0x2a0 + 72 + index] = 0x80 + index; // s
  }
  return out;
}

/** What a synthetic document may differ in; a field of `payload` set to `undefined` is left out. */
export interface NitroOptions {
  readonly pcrs?: ReadonlyMap<number, Uint8Array>;
  readonly payload?: Readonly<Record<string, unknown>>;
  /** How the payload's map is written. Default: definite, as until April 2025. */
  readonly form?: "definite" | "indefinite";
  readonly protectedHeader?: Uint8Array;
  readonly unprotected?: unknown;
  readonly signature?: Uint8Array;
  /** The payload's bytes, in place of an encoded map. */
  readonly rawPayload?: Uint8Array;
}

/** PCRs of an ordinary enclave: 0 to 2 and 4 set, 8 set, the others zero. */
export const NITRO_PCRS: ReadonlyMap<number, Uint8Array> = new Map(
  Array.from({ length: 16 }, (_, index): [number, Uint8Array] => [
    index,
    fill(48, [0, 1, 2, 4, 8].includes(index) ? 0xc0 + index : 0),
  ]),
);

/** An AWS Nitro attestation document, encoded by a CBOR library that the parser does not use. */
export function buildNitroDocument(options: NitroOptions = {}): Uint8Array {
  const fields: Record<string, unknown> = {
    module_id: "i-00000000000000000-enc0000000000000000",
    digest: "SHA384",
    timestamp: 1_700_000_000_000,
    pcrs: options.pcrs ?? NITRO_PCRS,
    certificate: fill(200, 0x30),
    cabundle: [fill(100, 0x31), fill(101, 0x32)],
    public_key: null,
    user_data: fill(64, 0xdd),
    nonce: null,
    ...options.payload,
  };
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined);
  const encoded =
    options.form === "indefinite"
      ? join(
          Uint8Array.of(0xbf),
          ...entries.flatMap(([name, value]) => [encode(name), encode(value)]),
          Uint8Array.of(0xff),
        )
      : encode(new Map(entries));
  const payload = options.rawPayload ?? encoded;
  return encode([
    options.protectedHeader ?? Uint8Array.of(0xa1, 0x01, 0x38, 0x22),
    options.unprotected ?? new Map(),
    payload,
    options.signature ?? fill(96, 0x54),
  ]);
}

/** What `nitro-cli build-enclave` prints. */
export function buildNitroPcrJson(pcrs: Readonly<Record<string, string>> = {}): string {
  const hex = (byte: number) => Buffer.from(fill(48, byte)).toString("hex");
  return `${JSON.stringify({ Measurements: { HashAlgorithm: "Sha384 { ... }", PCR0: hex(0xc0), PCR1: hex(0xc1), PCR2: hex(0xc2), ...pcrs } }, null, 2)}\n`;
}
