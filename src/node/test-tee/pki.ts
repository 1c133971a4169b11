import "reflect-metadata"; // @peculiar/x509 needs it before it loads
import { KeyObject, randomBytes, sign, type webcrypto } from "node:crypto";
import {
  BasicConstraintsExtension,
  Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  X509CertificateGenerator,
  X509CrlGenerator,
} from "@peculiar/x509";
import { concatBytes, joinBytes } from "../../core/bytes.ts";
import { readDer, readDerList } from "../evidence/der.ts";

/*
 * A certificate authority for the test TEE: keys live in this process alone and die with it. Nothing here is used to verify anything.
 */

/** The vendors' kinds of key. */
export type KeyKind = "p256" | "p384" | "rsa-pss";

/** A key pair and the certificate that names it. */
export interface TestCertificate {
  readonly der: Uint8Array;
  readonly name: string;
  readonly serial: string;
  readonly privateKey: KeyObject;
  readonly keys: webcrypto.CryptoKeyPair;
  readonly kind: KeyKind;
}

const KEY: Readonly<Record<KeyKind, webcrypto.EcKeyGenParams | webcrypto.RsaHashedKeyGenParams>> = {
  p256: { name: "ECDSA", namedCurve: "P-256" },
  p384: { name: "ECDSA", namedCurve: "P-384" },
  // Half the vendor's length: a test's keys are made anew in every run.
  "rsa-pss": { name: "RSA-PSS", hash: "SHA-384", modulusLength: 2048, publicExponent: Uint8Array.of(1, 0, 1) },
};
const SIGN: Readonly<Record<KeyKind, webcrypto.EcdsaParams & { readonly saltLength?: number }>> = {
  p256: { name: "ECDSA", hash: "SHA-256" },
  p384: { name: "ECDSA", hash: "SHA-384" },
  "rsa-pss": { name: "RSA-PSS", hash: "SHA-384", saltLength: 48 },
};

/** What a certificate is to say. Times in seconds since 1970. */
export interface CertificateRequest {
  readonly commonName: string;
  readonly kind: KeyKind;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly ca: boolean;
  /** How many CAs may follow below. */
  readonly pathLength?: number;
  /** Key usage; default: that of a CA where `ca`. */
  readonly signsCertificates?: boolean;
  /** `undefined`: self-signed. */
  readonly issuer?: TestCertificate | undefined;
  /** Extension values by OID, not critical. */
  readonly extensions?: Readonly<Record<string, Uint8Array>>;
  readonly criticalExtensions?: Readonly<Record<string, Uint8Array>>;
}

/**
 * Makes a key pair and its certificate.
 *
 * @example
 * const root = await issueCertificate({ commonName: "Intel SGX Root CA", kind: "p256", notBefore, notAfter, ca: true });
 */
export async function issueCertificate(request: CertificateRequest): Promise<TestCertificate> {
  const { commonName, kind, issuer } = request;
  const keys = await generate(kind);
  const serial = `01${randomBytes(15).toString("hex")}`;
  const name = `CN=${commonName}`;
  const custom = (values: Readonly<Record<string, Uint8Array>> | undefined, critical: boolean) =>
    Object.entries(values ?? {}).map(([oid, value]) => new Extension(oid, critical, new Uint8Array(value)));
  const certificate = await X509CertificateGenerator.create({
    serialNumber: serial,
    subject: name,
    issuer: issuer?.name ?? name,
    notBefore: new Date(request.notBefore * 1000),
    notAfter: new Date(request.notAfter * 1000),
    signingAlgorithm: SIGN[issuer?.kind ?? kind],
    publicKey: keys.publicKey,
    signingKey: (issuer?.keys ?? keys).privateKey,
    extensions: [
      new BasicConstraintsExtension(request.ca, request.pathLength, true),
      new KeyUsagesExtension(
        (request.signsCertificates ?? request.ca)
          ? KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign
          : KeyUsageFlags.digitalSignature,
        true,
      ),
      ...custom(request.extensions, false),
      ...custom(request.criticalExtensions, true),
    ],
  });
  const der = new Uint8Array(certificate.rawData);
  return { der, name, serial, keys, kind, privateKey: KeyObject.from(keys.privateKey) };
}

async function generate(kind: KeyKind): Promise<webcrypto.CryptoKeyPair> {
  const keys = await crypto.subtle.generateKey(KEY[kind], true, ["sign", "verify"]);
  if ("privateKey" in keys) return keys;
  throw new TypeError("a key pair was asked for");
}

/** What a revocation list is to say. Times in seconds since 1970. */
export interface CrlRequest {
  readonly issuer: TestCertificate;
  readonly thisUpdate: number;
  readonly nextUpdate: number;
  readonly revoked?: readonly TestCertificate[];
  /** Further serial numbers, hex. */
  readonly serials?: readonly string[];
  /** Signs in the issuer's place. */
  readonly signer?: TestCertificate | undefined;
}

/**
 * Makes a revocation list, DER.
 *
 * @example
 * const der = await issueCrl({ issuer: root, thisUpdate, nextUpdate, revoked: [leaf] });
 */
export async function issueCrl({
  issuer,
  thisUpdate,
  nextUpdate,
  revoked = [],
  serials = [],
  signer,
}: CrlRequest): Promise<Uint8Array> {
  const by = signer ?? issuer;
  const crl = await X509CrlGenerator.create({
    issuer: issuer.name,
    thisUpdate: new Date(thisUpdate * 1000),
    nextUpdate: new Date(nextUpdate * 1000),
    signingAlgorithm: SIGN[issuer.kind],
    signingKey: by.keys.privateKey,
    entries: [],
  });
  const empty = new Uint8Array(crl.rawData);
  const all = [...revoked.map(({ serial }) => serial), ...serials];
  return all.length === 0 ? empty : withEntries(empty, all, by);
}

/** RFC 5280 §5.1: the list's head, the entries (serial number, date), what follows; signed again. The library takes minutes for a hundred thousand. */
function withEntries(empty: Uint8Array, serials: readonly string[], signer: TestCertificate): Uint8Array {
  const [tbs, algorithm] = readDerList(readDer(empty, "CRL"), "CRL");
  if (tbs === undefined || algorithm === undefined) throw new TypeError("a list has three parts");
  const fields = readDerList(tbs, "CRL");
  const date = fields[3]?.bytes ?? new Uint8Array();
  const entries = serials.map((serial) => {
    const digits = new Uint8Array(Buffer.from(serial.length % 2 === 0 ? serial : `0${serial}`, "hex"));
    const unsigned = (digits[0] ?? 0) >= 0x80 ? concatBytes(Uint8Array.of(0), digits) : digits;
    return encodeDer(0x30, encodeDer(0x02, unsigned), date);
  });
  // Version, algorithm, issuer and two dates come before the entries, extensions after them.
  const parts = fields.map(({ bytes }) => bytes);
  const signed = encodeDer(0x30, ...parts.slice(0, 5), encodeDer(0x30, joinBytes(entries)), ...parts.slice(5));
  const { privateKey, kind } = signer;
  const key = kind === "rsa-pss" ? { key: privateKey, padding: 6, saltLength: 48 } : privateKey; // 6: RSA_PKCS1_PSS_PADDING
  const signature = sign(kind === "p256" ? "sha256" : "sha384", signed, key);
  return encodeDer(0x30, signed, algorithm.bytes, encodeDer(0x03, concatBytes(Uint8Array.of(0), signature)));
}

/**
 * Certificates as one PEM text, in the order given.
 *
 * @example
 * formatPem([leaf, root]);
 */
export function formatPem(chain: readonly TestCertificate[]): string {
  const block = ({ der }: TestCertificate) => {
    const lines =
      Buffer.from(der)
        .toString("base64")
        .match(/.{1,64}/g) ?? [];
    return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
  };
  return chain.map(block).join("");
}

/**
 * One DER element.
 *
 * @example
 * encodeDer(0x02, Uint8Array.of(5)); // 02 01 05
 */
export function encodeDer(tag: number, ...parts: readonly Uint8Array[]): Uint8Array {
  const value = concatBytes(...parts);
  const { length } = value;
  const long = length < 0x1_0000 ? [0x82, length >> 8] : [0x83, length >> 16, (length >> 8) & 0xff];
  const head = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [...long, length & 0xff];
  return concatBytes(Uint8Array.of(tag, ...head), value);
}

/**
 * A DER INTEGER of a number from 0 to 65535.
 *
 * @example
 * encodeDerUint(220); // 02 02 00 dc
 */
export function encodeDerUint(value: number): Uint8Array {
  const bytes =
    value < 0x80
      ? [value]
      : value < 0x100
        ? [0, value]
        : value < 0x8000
          ? [value >> 8, value & 0xff]
          : [0, value >> 8, value & 0xff];
  return encodeDer(0x02, Uint8Array.from(bytes));
}

/**
 * A DER OBJECT IDENTIFIER from its dotted form.
 *
 * @example
 * encodeDerOid("2.5.29.20");
 */
export function encodeDerOid(dotted: string): Uint8Array {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  const bytes = [40 * first + second, ...rest].flatMap((arc) => {
    const groups = [arc & 0x7f];
    for (let left = Math.floor(arc / 128); left > 0; left = Math.floor(left / 128))
      groups.unshift((left & 0x7f) | 0x80);
    return groups;
  });
  return encodeDer(0x06, Uint8Array.from(bytes));
}

/**
 * A little-endian number of `length` bytes.
 *
 * @example
 * encodeLe(2, 4); // 04 00
 */
export function encodeLe(length: number, value: number | bigint): Uint8Array {
  const out = new Uint8Array(length);
  let rest = BigInt(value);
  for (let index = 0; index < length; index += 1, rest >>= 8n) out[index] = Number(rest & 0xffn);
  return out;
}
