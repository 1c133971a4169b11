import { createChainCache } from "../../src/node/evidence/chain-cache.ts";
import { type VerifiedNitro, verifyNitroDocument } from "../../src/node/evidence/nitro.ts";
import { type SnpCertificates, type VerifiedSnp, verifySnpReport } from "../../src/node/evidence/snp.ts";
import { type VerifiedTdx, verifyTdxQuote } from "../../src/node/evidence/tdx.ts";
import {
  parseTdxCollateral,
  type VerifiedTdxCollateral,
  verifyTdxCollateral,
} from "../../src/node/evidence/tdx-collateral.ts";
import { parsePemChain } from "../../src/node/evidence/x509.ts";
import { readVector, type Vector } from "./vectors.ts";

/** Which file of a vector is the evidence, by what signed it; `undefined` where the vector is not for verifying evidence. */
export function evidenceRole(vector: Vector): "quote" | "report" | "document" | undefined {
  const roles = { tdx: "quote", "sev-snp": "report", nitro: "document" } as const;
  const role =
    vector.tee === "tdx" || vector.tee === "sev-snp" || vector.tee === "nitro" ? roles[vector.tee] : undefined;
  return role !== undefined && vector.checks.includes(role) ? role : undefined;
}

/** A certificate file's DER, whichever of the two forms it has. */
export function readCertificate(vector: Vector, ...roles: readonly string[]): Uint8Array {
  const role = roles.find((name) => vector.files[name] !== undefined) ?? "";
  const bytes = readVector(vector, role);
  const [der] = bytes[0] === 0x30 ? [bytes] : parsePemChain(bytes, "snp", role);
  if (der === undefined) throw new Error(`${vector.id}: no certificate in ${role}`);
  return der;
}

/** The certificates of a SEV-SNP vector. */
export function snpCertificates(vector: Vector): SnpCertificates {
  return {
    endorsementKey: readCertificate(vector, "vcek", "vlek"),
    signer: readCertificate(vector, "ask", "asvk"),
    root: readCertificate(vector, "ark"),
  };
}

const chains = createChainCache();
/** Verified once for each vector. */
const collaterals = new WeakMap<Vector, VerifiedTdxCollateral>();

/** Verifies a vector's evidence, or other bytes in its place, with the vector's collateral, at its time. */
export function verifyVector(
  vector: Vector,
  bytes?: Uint8Array,
  certificates?: SnpCertificates,
): VerifiedTdx | VerifiedSnp | VerifiedNitro {
  const role = evidenceRole(vector);
  if (role === undefined) throw new Error(`${vector.id} is not for verifying evidence`);
  const evidence = bytes ?? readVector(vector, role);
  const options = { atUnixSeconds: vector.verifyAtUnixSeconds ?? Number.NaN, chains };
  if (role === "quote") {
    let collateral = collaterals.get(vector);
    if (collateral === undefined) {
      const text = Buffer.from(readVector(vector, "collateral")).toString("utf8");
      collateral = verifyTdxCollateral(parseTdxCollateral(text), options);
      collaterals.set(vector, collateral);
    }
    return verifyTdxQuote(evidence, collateral, options);
  }
  if (role === "document") return verifyNitroDocument(evidence, options);
  return verifySnpReport(evidence, certificates ?? snpCertificates(vector), { ...options, allowedVmpls: [0, 1] });
}
