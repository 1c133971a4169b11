import "reflect-metadata"; // @peculiar/x509 resolves its algorithms through it, and fails to load without it
import { createHash, type KeyObject, X509Certificate as NodeCertificate, verify } from "node:crypto";
import { BasicConstraintsExtension, KeyUsageFlags, KeyUsagesExtension, X509Certificate, X509Crl } from "@peculiar/x509";
import { decodeUtf8, equalBytes, fromBase64, type Hex, toHex } from "../../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../core/errors.ts";
import {
  DER_BIT_STRING,
  DER_INTEGER,
  DER_SEQUENCE,
  type DerItem,
  encodeDerSequence,
  readDer,
  readDerList,
  readDerSerial,
} from "./der.ts";
import { checkValidity } from "./time.ts";

/*
 * Certificate chains and revocation lists, as far as TEE vendors use them (RFC 5280 §6, without policies and name constraints: a critical extension
 * other than basic constraints and key usage is refused). Fields are read with @peculiar/x509, signatures checked by OpenSSL through node:crypto,
 * which also compares names, key identifiers, and the algorithm inside with the one outside of what is signed. A chain is the exact list that the
 * vendor's specification names, leaf first, root last; there is no path building.
 */

const KNOWN_CRITICAL: ReadonlySet<string> = new Set(["2.5.29.15", "2.5.29.19"]);
const CERTIFICATE_LIMIT = 8;
/** The longest of the vendors, an AMD root, has 1,639 bytes. */
const MAX_CERTIFICATE_BYTES = 4096;

/** Whose certificates: the first part of every error code, and the one signature algorithm of the vendor. */
export type Room = "tdx" | "snp" | "nitro";
const ALGORITHMS: Readonly<Record<Room, { readonly name: string; readonly hash: string; readonly node: string }>> = {
  tdx: { name: "ECDSA", hash: "SHA-256", node: "sha256" },
  nitro: { name: "ECDSA", hash: "SHA-384", node: "sha384" },
  snp: { name: "RSA-PSS", hash: "SHA-384", node: "sha384" },
};

/** A parsed certificate. Times in seconds since 1970. */
export interface Certificate {
  readonly der: Uint8Array;
  /** SHA-256 of the DER. */
  readonly sha256: Hex;
  readonly commonName: string;
  /** The subject's name, DER. */
  readonly subject: Uint8Array;
  readonly serial: Hex;
  readonly notBefore: number;
  readonly notAfter: number;
  readonly publicKey: KeyObject;
  /** SubjectPublicKeyInfo, DER: compared in place of key objects, which is slow. */
  readonly spki: Uint8Array;
  readonly isCa: boolean;
  /** How many CAs may follow below; `undefined`: any number. */
  readonly pathLength: number | undefined;
  readonly signatureAlgorithm: { readonly name: string; readonly hash: string | undefined };
  /** OID → value, for the vendors' own extensions. */
  readonly extensions: ReadonlyMap<string, Uint8Array>;
  readonly node: NodeCertificate;
}

/** A parsed revocation list. Times in seconds since 1970. */
export interface RevocationList {
  readonly issuer: Uint8Array;
  readonly thisUpdate: number;
  readonly nextUpdate: number;
  /** Serial numbers as {@link readDerSerial} writes them. */
  readonly revoked: ReadonlySet<Hex>;
  readonly signatureAlgorithm: { readonly name: string; readonly hash: string | undefined };
}

/** On what a verdict rests. `TEST ROOT`: on a certificate that the caller supplied, so the evidence proves nothing about any hardware. */
export interface Trust {
  readonly kind: "vendor root" | "TEST ROOT";
  readonly commonName: string;
  /** SHA-256 of the root certificate's DER. */
  readonly sha256: Hex;
}

const refuse = (
  room: Room,
  code: string,
  argument: string,
  message: string,
  remedy: string,
  details: Readonly<Record<string, unknown>> = {},
) => new KeysteadError(`${room}/${code}`, message, { argument, remedy, details });

const sha256 = (bytes: Uint8Array): Hex => toHex(createHash("sha256").update(bytes).digest());
const seconds = (date: Date): number => Math.floor(date.getTime() / 1000);

/**
 * Reads one certificate, DER, strictly: nothing after it, no unknown critical extension, no extension twice.
 *
 * @throws KeysteadError `{room}/certificate-malformed`, `{room}/certificate-extension` {oid}
 * @example
 * parseCertificate(der, "snp", "VCEK").serial;
 */
export function parseCertificate(der: Uint8Array, room: Room, argument: string): Certificate {
  try {
    return readCertificate(der, room, argument);
  } catch (cause) {
    if (isKeysteadError(cause, `${room}/certificate-extension`)) throw cause;
    // The library reads some fields only when asked for them, and throws errors of its own.
    throw malformedCertificate(room, argument, cause);
  }
}

function malformedCertificate(room: Room, argument: string, cause: unknown): KeysteadError {
  return new KeysteadError(`${room}/certificate-malformed`, `${argument} is not a DER certificate`, {
    argument,
    remedy: "Give the certificate exactly as its issuer published it.",
    cause,
  });
}

function readCertificate(der: Uint8Array, room: Room, argument: string): Certificate {
  if (der.length > MAX_CERTIFICATE_BYTES) throw new RangeError(`${der.length} bytes`);
  const fields = readDerList(readDerList(readDer(der, argument), argument)[0], argument);
  const [, , , , , subject, spki] = fields;
  const parsed = new X509Certificate(new Uint8Array(der));
  const node = new NodeCertificate(der);
  if (subject === undefined || spki === undefined || !equalBytes(node.raw, der))
    throw new RangeError("not a certificate's fields");
  const extensions = new Map<string, Uint8Array>();
  for (const { type, critical, value } of parsed.extensions) {
    if (extensions.has(type) || (critical && !KNOWN_CRITICAL.has(type))) {
      throw refuse(
        room,
        "certificate-extension",
        argument,
        `${argument} has the extension ${type} ${critical ? "marked critical, and its meaning is not known here" : "twice"}`,
        "Use certificates that the TEE's vendor issued.",
        { oid: type },
      );
    }
    extensions.set(type, new Uint8Array(value));
  }
  const constraints = parsed.getExtension(BasicConstraintsExtension);
  const usage = parsed.getExtension(KeyUsagesExtension);
  return {
    der,
    sha256: sha256(der),
    commonName: parsed.subjectName.getField("CN")[0] ?? "",
    subject: subject.bytes,
    serial: readDerSerial(fields[1], argument),
    notBefore: seconds(parsed.notBefore),
    notAfter: seconds(parsed.notAfter),
    publicKey: node.publicKey,
    spki: spki.bytes,
    isCa: constraints?.ca === true && (usage === null || (usage.usages & KeyUsageFlags.keyCertSign) !== 0),
    pathLength: constraints?.pathLength,
    signatureAlgorithm: readAlgorithm(parsed.signatureAlgorithm),
    extensions,
    node,
  };
}

function readAlgorithm(algorithm: object): { readonly name: string; readonly hash: string | undefined } {
  const name = "name" in algorithm && typeof algorithm.name === "string" ? algorithm.name : "";
  const hash = "hash" in algorithm && typeof algorithm.hash === "object" ? algorithm.hash : undefined;
  return { name, hash: hash && "name" in hash && typeof hash.name === "string" ? hash.name : undefined };
}

const PEM_BLOCK = /-----BEGIN CERTIFICATE-----\n([A-Za-z0-9+/=\n]+?)\n?-----END CERTIFICATE-----\n*/y;

/**
 * Splits a PEM chain into the DER of its certificates. Only the plain form is taken (header, canonical base64 in lines, footer); CRLF counts as a
 * line end, blank lines may follow a certificate, and zero bytes the last one, since quotes carry their chain with C's terminator.
 *
 * @throws KeysteadError `{room}/chain-malformed`
 * @example
 * parsePemChain("-----BEGIN CERTIFICATE-----\n…", "tdx", "PCK chain").length;
 */
export function parsePemChain(pem: string | Uint8Array, room: Room, argument: string): readonly Uint8Array[] {
  const malformed = (cause?: unknown) =>
    new KeysteadError(`${room}/chain-malformed`, `${argument} is not a list of PEM certificates`, {
      argument,
      remedy: "Give the PEM certificates alone, leaf first, as they were published.",
      cause,
    });
  try {
    const text = (typeof pem === "string" ? pem : decodeUtf8(pem, argument))
      .replace(/\0+$/, "")
      .replaceAll("\r\n", "\n");
    if (text.length > CERTIFICATE_LIMIT * MAX_CERTIFICATE_BYTES) throw malformed();
    const chain: Uint8Array[] = [];
    PEM_BLOCK.lastIndex = 0;
    let end = 0;
    for (let match = PEM_BLOCK.exec(text); match !== null; match = PEM_BLOCK.exec(text)) {
      chain.push(fromBase64((match[1] ?? "").replaceAll("\n", ""), argument));
      end = PEM_BLOCK.lastIndex;
    }
    if (end !== text.length || chain.length === 0 || chain.length > CERTIFICATE_LIMIT) throw malformed();
    return chain;
  } catch (cause) {
    throw malformed(cause);
  }
}

/** What {@link verifyChain} needs to know. */
export interface ChainRules {
  readonly room: Room;
  /** Names the chain in errors. */
  readonly argument: string;
  /** Pinned roots, DER. */
  readonly roots: readonly Uint8Array[];
  /** Further roots that the caller takes upon itself; the result says so. */
  readonly testRoots?: readonly Uint8Array[] | undefined;
  /** How many certificates, where the specification says. */
  readonly length?: number;
}

/** A chain whose links and root hold: leaf first, root last. */
export interface VerifiedChain {
  readonly chain: readonly Certificate[];
  readonly trust: Trust;
}

/**
 * Reads a chain and checks its links and root: the last certificate is, byte for byte, a pinned root (or a test root); each other one issued and signed by
 * the next, with the vendor's algorithm; every issuer a CA. Dates and revocation are for {@link checkDates} and {@link checkRevoked}, since they depend on
 * the time. From the root down, and nothing is read that the certificate above did not sign: reading what a stranger made up takes a tenth of a second.
 *
 * @param ders DER, leaf first, root last
 * @throws KeysteadError `{room}/wrong-root` {sha256}, `{room}/chain-length` {length}, `{room}/chain` {issuer}, `{room}/certificate-algorithm`; those of
 * {@link parseCertificate}
 * @example
 * const { trust } = verifyChain([vcek, ask, ark], { room: "snp", argument: "VCEK chain", roots: [ARK_MILAN] });
 */
export function verifyChain(ders: readonly Uint8Array[], rules: ChainRules): VerifiedChain {
  const { room, argument } = rules;
  const last = ders.at(-1);
  if (last === undefined || ders.length < 2 || (rules.length !== undefined && ders.length !== rules.length)) {
    throw refuse(
      room,
      "chain-length",
      argument,
      `${argument} has ${ders.length} certificates, not ${rules.length ?? "2 or more"}`,
      "Give the whole chain, from the leaf to the vendor's root.",
      { length: ders.length },
    );
  }
  const pinned = rules.roots.some((der) => equalBytes(der, last));
  if (!pinned && !rules.testRoots?.some((der) => equalBytes(der, last))) {
    throw refuse(
      room,
      "wrong-root",
      argument,
      `${argument} ends in a certificate (SHA-256 ${sha256(last)}) that is not the vendor's root`,
      "Use evidence and collateral of real hardware; a test TEE's root must be named explicitly.",
      { sha256: sha256(last) },
    );
  }
  const chain: Certificate[] = [];
  for (const der of ders.toReversed()) {
    const [above] = chain;
    if (above !== undefined && !isSignedBy(der, above.publicKey, room, argument)) throw notIssued(rules, above);
    const certificate = parseCertificate(der, room, argument);
    // The root signed itself.
    if (above === undefined && !certificate.node.verify(certificate.publicKey)) throw notIssued(rules, certificate);
    checkLink(certificate, above ?? certificate, ders.length - 1 - chain.length, rules);
    chain.unshift(certificate);
  }
  const [root] = chain.slice(-1);
  const commonName = root?.commonName ?? "";
  return { chain, trust: { kind: pinned ? "vendor root" : "TEST ROOT", commonName, sha256: sha256(last) } };
}

/** Whether OpenSSL, which is quick about any certificate, finds this key's signature. */
export function isSignedBy(der: Uint8Array, key: KeyObject, room: Room, argument: string): boolean {
  try {
    if (der.length > MAX_CERTIFICATE_BYTES) throw new RangeError(`${der.length} bytes`);
    return new NodeCertificate(der).verify(key);
  } catch (cause) {
    throw malformedCertificate(room, argument, cause);
  }
}

/** What a signature alone does not say: the vendor's algorithm, and an issuer that may issue. */
function checkLink(certificate: Certificate, issuer: Certificate, index: number, rules: ChainRules): void {
  const { room, argument } = rules;
  const expected = ALGORITHMS[room];
  const { name, hash } = certificate.signatureAlgorithm;
  if (name !== expected.name || hash !== expected.hash) {
    throw refuse(
      room,
      "certificate-algorithm",
      argument,
      `${argument}: ${JSON.stringify(certificate.commonName)} is signed with ${name} ${hash ?? ""}, not ${expected.name} ${expected.hash}`,
      "Use certificates that the TEE's vendor issued.",
    );
  }
  // pathLength counts the CAs between an issuer and the leaf.
  const allowed =
    issuer.isCa && (issuer.pathLength === undefined || index <= issuer.pathLength || issuer === certificate);
  if (!allowed || !certificate.node.checkIssued(issuer.node)) throw notIssued(rules, issuer);
}

function notIssued({ room, argument }: ChainRules, issuer: Certificate): KeysteadError {
  return refuse(
    room,
    "chain",
    argument,
    `${argument}: what stands below ${JSON.stringify(issuer.commonName)} was not issued by it`,
    "Give the certificates that belong together, leaf first.",
    { issuer: issuer.commonName },
  );
}

/**
 * Checks that every certificate of a chain is inside its dates; the first may lie {@link CLOCK_TOLERANCE_SECONDS} ahead.
 *
 * @param atUnixSeconds the time to judge at
 * @throws KeysteadError `{room}/certificate-expired`, `{room}/certificate-not-yet-valid` {subject, notBefore, notAfter}
 * @example
 * checkDates(chain, 1_750_000_000, "tdx", "PCK chain");
 */
export function checkDates(chain: readonly Certificate[], atUnixSeconds: number, room: Room, argument: string): void {
  for (const { commonName, notBefore, notAfter } of chain) {
    checkValidity({ from: notBefore, until: notAfter }, atUnixSeconds, {
      code: `${room}/certificate`,
      argument,
      what: `${argument}: ${JSON.stringify(commonName)}`,
      remedy: "Get new evidence, and check the clock.",
      details: { subject: commonName, notBefore, notAfter },
    });
  }
}

/**
 * Checks that a certificate is not on its issuer's list.
 *
 * @throws KeysteadError `{room}/revoked` {subject, serial}
 * @example
 * checkRevoked(leaf, pckCrl, "tdx", "PCK certificate");
 */
export function checkRevoked(certificate: Certificate, list: RevocationList, room: Room, argument: string): void {
  if (!list.revoked.has(certificate.serial)) return;
  throw refuse(
    room,
    "revoked",
    argument,
    `${argument}: ${JSON.stringify(certificate.commonName)}, serial ${certificate.serial}, was revoked by its issuer`,
    "Stop using this machine: its vendor no longer vouches for its key.",
    { subject: certificate.commonName, serial: certificate.serial },
  );
}

/**
 * Reads a revocation list, DER: a full one (no delta, no partition), with a next update, issued and signed by `issuer`. Its dates are for the caller. Who
 * signed it is checked before its entries are read: a stranger's long list takes a tenth of a second.
 *
 * @throws KeysteadError `{room}/crl-malformed`, `{room}/crl-issuer`, `{room}/crl-signature`
 * @example
 * readCrl(der, pckCa, "tdx", "PCK CRL").revoked.size;
 */
export function readCrl(der: Uint8Array, issuer: Certificate, room: Room, argument: string): RevocationList {
  const parts = attemptCrl(room, argument, () => splitCrl(der, argument));
  if (!equalBytes(parts.issuer, issuer.subject)) {
    throw refuse(
      room,
      "crl-issuer",
      argument,
      `${argument} was not issued by ${JSON.stringify(issuer.commonName)}`,
      "Fetch the list of the CA that issued the certificate.",
    );
  }
  const expected = ALGORITHMS[room];
  const key = room === "snp" ? { key: issuer.publicKey, padding: 6, saltLength: 48 } : issuer.publicKey; // 6: RSA_PKCS1_PSS_PADDING
  const signed = verify(expected.node, parts.signed, key, parts.signature);
  const list = signed ? attemptCrl(room, argument, () => readEntries(parts, argument)) : undefined;
  const { name, hash } = list?.signatureAlgorithm ?? {};
  if (list === undefined || name !== expected.name || hash !== expected.hash) {
    throw refuse(
      room,
      "crl-signature",
      argument,
      `${argument} does not carry the signature of ${JSON.stringify(issuer.commonName)}`,
      "Fetch the list again from the vendor.",
    );
  }
  return list;
}

function attemptCrl<T>(room: Room, argument: string, act: () => T): T {
  try {
    return act();
  } catch (cause) {
    throw new KeysteadError(
      `${room}/crl-malformed`,
      `${argument} is not a full DER revocation list with a next update`,
      { argument, remedy: "Fetch the list again from the vendor, in DER.", cause },
    );
  }
}

interface CrlParts {
  readonly fields: readonly DerItem[];
  readonly issuer: Uint8Array;
  readonly signed: Uint8Array;
  readonly algorithm: Uint8Array;
  readonly signatureItem: Uint8Array;
  readonly signature: Uint8Array;
}

function splitCrl(der: Uint8Array, argument: string): CrlParts {
  const outer = readDerList(readDer(der, argument), argument);
  const [signed, algorithm, signature] = outer;
  const fields = readDerList(signed, argument);
  // Version 2 of the list is INTEGER 1; version 1 has no field and no extensions, and no vendor uses it.
  const [version, innerAlgorithm, issuer] = fields;
  if (outer.length !== 3 || signed === undefined || algorithm === undefined || innerAlgorithm === undefined)
    throw new RangeError("not a list's parts");
  if (version?.tag !== DER_INTEGER || version.value.length !== 1 || version.value[0] !== 1)
    throw new RangeError("not of version 2");
  if (issuer?.tag !== DER_SEQUENCE || !equalBytes(algorithm.bytes, innerAlgorithm.bytes))
    throw new RangeError("no issuer, or two algorithms");
  if (signature?.tag !== DER_BIT_STRING || signature.value[0] !== 0) throw new RangeError("no signature");
  return {
    fields,
    issuer: issuer.bytes,
    signed: signed.bytes,
    algorithm: algorithm.bytes,
    signatureItem: signature.bytes,
    signature: signature.value.subarray(1),
  };
}

function readEntries({ fields, ...parts }: CrlParts, argument: string): RevocationList {
  // After the two times: the entries, where there are any, then the extensions under [0].
  const listed = fields[5]?.tag === DER_SEQUENCE ? fields[5] : undefined;
  if (fields.length > (listed === undefined ? 6 : 7)) throw new RangeError("fields that no list has");
  // The library takes seconds for a hundred thousand entries: it reads everything but them.
  const parsed = new X509Crl(new Uint8Array(withoutEntries(fields, listed, parts)));
  const { nextUpdate } = parsed;
  if (nextUpdate === undefined || parsed.extensions.some(({ critical }) => critical))
    throw new RangeError("no next update, or a part of a list");
  const revoked = new Set<Hex>();
  for (const entry of listed === undefined ? [] : readDerList(listed, argument))
    revoked.add(readDerSerial(readDerList(entry, argument)[0], argument));
  return {
    issuer: parts.issuer,
    thisUpdate: seconds(parsed.thisUpdate),
    nextUpdate: seconds(nextUpdate),
    revoked,
    signatureAlgorithm: readAlgorithm(parsed.signatureAlgorithm),
  };
}

/** The list with the same head and extensions, and no entries. */
function withoutEntries(
  fields: readonly DerItem[],
  listed: DerItem | undefined,
  { algorithm, signatureItem }: Pick<CrlParts, "algorithm" | "signatureItem">,
): Uint8Array {
  const kept = fields.filter((field) => field !== listed).map(({ bytes }) => bytes);
  return encodeDerSequence(encodeDerSequence(...kept), algorithm, signatureItem);
}
