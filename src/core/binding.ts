import { sha512 } from "@noble/hashes/sha2.js";
import { concatBytes, fromHex, type Hex } from "./bytes.ts";
import { KeysteadError } from "./errors.ts";

/*
 * What ties evidence to one request: the machine puts a hash of the node's nonce, the service and its own public key where its TEE signs it. So evidence
 * cannot be used twice, for another service, or to have keys sealed to somebody else. Release protocol version 1. The machine builds it, the node checks it.
 */

const DOMAIN = "keystead/v1/report";
const NONCE_BYTES = 32;
const SERVICE_ID_BYTES = 20;
const X25519_KEY_BYTES = 32;

/** What evidence must be bound to. */
export interface Binding {
  /** The node's challenge, 32 bytes. */
  readonly nonce: Uint8Array;
  /** The service, 20 bytes in hex. */
  readonly serviceId: Hex;
  /** The machine's X25519 public key, 32 bytes. */
  readonly recipientPublicKey: Uint8Array;
}

/**
 * The 64 bytes that evidence must carry: SHA-512("keystead/v1/report" ‖ nonce ‖ serviceId ‖ recipientPublicKey). The parts have fixed lengths, so
 * no two different bindings give the same bytes.
 *
 * @throws KeysteadError `binding/wrong-length` {field, expected, actual}, `hex/malformed`
 * @example
 * const reportData = buildReportData({ nonce, serviceId, recipientPublicKey }); // 64 bytes
 */
export function buildReportData({ nonce, serviceId, recipientPublicKey }: Binding): Uint8Array {
  const service = fromHex(serviceId, "serviceId");
  checkLength("nonce", nonce, NONCE_BYTES);
  checkLength("serviceId", service, SERVICE_ID_BYTES);
  checkLength("recipientPublicKey", recipientPublicKey, X25519_KEY_BYTES);
  return sha512(concatBytes(new TextEncoder().encode(DOMAIN), nonce, service, recipientPublicKey));
}

function checkLength(field: string, bytes: Uint8Array, expected: number): void {
  if (bytes.length === expected) return;
  throw new KeysteadError("binding/wrong-length", `${field} has ${bytes.length} bytes, not ${expected}`, {
    argument: field,
    remedy: `Give ${expected} bytes.`,
    details: { field, expected, actual: bytes.length },
  });
}
