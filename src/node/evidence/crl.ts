import "reflect-metadata"; // @peculiar/x509 needs it before it loads
import { verify } from "node:crypto";
import { X509Crl } from "@peculiar/x509";
import { equalBytes, type Hex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
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
import { ALGORITHMS, type Certificate, type Room, readAlgorithm, refuseCertificate, unixSeconds } from "./x509.ts";

/*
 * Revocation lists (RFC 5280 §5), as far as TEE vendors use them: full ones, signed by the issuer of the certificates. Intel's can have a hundred
 * thousand entries, so that they are read one by one, without an object each.
 */

/** A parsed revocation list. Times in seconds since 1970. */
export interface RevocationList {
  readonly issuer: Uint8Array;
  readonly thisUpdate: number;
  readonly nextUpdate: number;
  /** Serial numbers as {@link readDerSerial} writes them. */
  readonly revoked: ReadonlySet<Hex>;
  readonly signatureAlgorithm: { readonly name: string; readonly hash: string | undefined };
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
  throw refuseCertificate(
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
    throw refuseCertificate(
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
    throw refuseCertificate(
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
    thisUpdate: unixSeconds(parsed.thisUpdate),
    nextUpdate: unixSeconds(nextUpdate),
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
