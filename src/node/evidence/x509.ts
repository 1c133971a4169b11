import "reflect-metadata"; // @peculiar/x509 resolves its algorithms through it, and fails to load without it
import { createHash, type KeyObject, X509Certificate as NodeCertificate } from "node:crypto";
import { BasicConstraintsExtension, KeyUsageFlags, KeyUsagesExtension, X509Certificate } from "@peculiar/x509";
import { decodeUtf8, equalBytes, fromBase64, type Hex, toHex } from "../../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../core/errors.ts";
import { readDer, readDerList, readDerSerial } from "./der.ts";
import { checkValidity } from "./time.ts";

/*
 * Certificate chains, as far as TEE vendors use them (RFC 5280 §6, without policies and name constraints: a critical extension
 * other than basic constraints and key usage is refused). Fields are read with @peculiar/x509, signatures checked by OpenSSL through node:crypto,
 * which also compares names, key identifiers, and the algorithm inside with the one outside of what is signed. A chain is the exact list that the
 * vendor's specification names, leaf first, root last; there is no path building.
 */

const KNOWN_CRITICAL: ReadonlySet<string> = new Set(["2.5.29.15", "2.5.29.19"]);
const CERTIFICATE_LIMIT = 8;
/** The longest of the vendors, an AMD root, has 1,639 bytes. */
const MAX_CERTIFICATE_BYTES = 4096;

/** Whose certificates: the first part of every error code. */
export type Room = "tdx" | "snp" | "nitro";
/** The one signature algorithm of each vendor. */
export const ALGORITHMS: Readonly<
  Record<Room, { readonly name: string; readonly hash: string; readonly node: string }>
> = {
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

/** On what a verdict rests. `TEST ROOT`: on a certificate that the caller supplied, so the evidence proves nothing about any hardware. */
export interface Trust {
  readonly kind: "vendor root" | "TEST ROOT";
  readonly commonName: string;
  /** SHA-256 of the root certificate's DER. */
  readonly sha256: Hex;
}

/** An error of a vendor's certificates. */
export const refuseCertificate = (
  room: Room,
  code: string,
  argument: string,
  message: string,
  remedy: string,
  details: Readonly<Record<string, unknown>> = {},
) => new KeysteadError(`${room}/${code}`, message, { argument, remedy, details });

const sha256 = (bytes: Uint8Array): Hex => toHex(createHash("sha256").update(bytes).digest());
/** A date in seconds since 1970. */
export const unixSeconds = (date: Date): number => Math.floor(date.getTime() / 1000);

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
      throw refuseCertificate(
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
    notBefore: unixSeconds(parsed.notBefore),
    notAfter: unixSeconds(parsed.notAfter),
    publicKey: node.publicKey,
    spki: spki.bytes,
    isCa: constraints?.ca === true && (usage === null || (usage.usages & KeyUsageFlags.keyCertSign) !== 0),
    pathLength: constraints?.pathLength,
    signatureAlgorithm: readAlgorithm(parsed.signatureAlgorithm),
    extensions,
    node,
  };
}

/** What the library says of a signature's algorithm. */
export function readAlgorithm(algorithm: object): { readonly name: string; readonly hash: string | undefined } {
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
    throw refuseCertificate(
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
    throw refuseCertificate(
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

/**
 * The issuer that a certificate names, one part a line, read by OpenSSL alone.
 *
 * @throws KeysteadError `{room}/certificate-malformed`
 * @example
 * readIssuer(vlek, "snp", "VLEK"); // "OU=Engineering\n…\nCN=SEV-VLEK-Milan"
 */
export function readIssuer(der: Uint8Array, room: Room, argument: string): string {
  try {
    if (der.length > MAX_CERTIFICATE_BYTES) throw new RangeError(`${der.length} bytes`);
    return new NodeCertificate(der).issuer;
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
    throw refuseCertificate(
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
  return refuseCertificate(
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
