import { createHash } from "node:crypto";
import type { Binding } from "../core/binding.ts";
import { fromBase64, fromHex, type Hex } from "../core/bytes.ts";
import { encodeParts, encodeUint, hashForReceipt, KMS_SUBJECT } from "../core/release.ts";
import type { WireEvidence } from "../core/release-wire.ts";
import type { KeyRing } from "./keys.ts";

/**
 * What evidence of a node's identity must be bound to: the KMS as subject, its environment key as key, and as nonce SHA-256 of
 * enc("identity", chainId, registry, rootEpoch, environmentKey, receiptSigner). Anyone can compute it from what the policy publishes, and so check the
 * evidence whose hash stands beside it.
 *
 * @example
 * const evidence = await attest(buildIdentityBinding(ring));
 */
export function buildIdentityBinding(
  ring: Pick<KeyRing, "deployment" | "rootEpoch" | "environmentKey" | "receiptSigner">,
): Binding {
  const { deployment, rootEpoch, environmentKey, receiptSigner } = ring;
  const key = fromHex(environmentKey, "environmentKey");
  const parts = encodeParts(
    Buffer.from("identity"),
    encodeUint(deployment.chainId, 32),
    fromHex(deployment.registry, "registry"),
    encodeUint(rootEpoch, 2),
    key,
    fromHex(receiptSigner, "receiptSigner"),
  );
  const nonce = new Uint8Array(createHash("sha256").update(parts).digest());
  return { nonce, serviceId: KMS_SUBJECT, recipientPublicKey: key };
}

/**
 * keccak-256 of the quote, report or document: the `evidenceHash` of receipts and of the published identity.
 *
 * @throws KeysteadError `base64/malformed`
 * @example
 * hashEvidence({ kind: "tdx", quote });
 */
export function hashEvidence(evidence: WireEvidence): Hex {
  const part = evidence.kind === "tdx" ? evidence.quote : evidence.kind === "snp" ? evidence.report : evidence.document;
  return hashForReceipt(fromBase64(part, "evidence"));
}
