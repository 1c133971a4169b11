import { createHash } from "node:crypto";
import { expect } from "chai";
import * as roots from "../../../src/node/evidence/roots.ts";
import { parseCertificate } from "../../../src/node/evidence/x509.ts";

/** SHA-256 of each root's DER, as its vendor publishes it. */
const PINNED: Readonly<Record<string, readonly [sha256: string, commonName: string]>> = {
  INTEL_SGX_ROOT_CA: ["44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3", "Intel SGX Root CA"],
  ARK_MILAN: ["69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd", "ARK-Milan"],
  ARK_GENOA: ["4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1", "ARK-Genoa"],
  ARK_TURIN: ["1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a", "ARK-Turin"],
  AWS_NITRO_ROOT_G1: ["641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b", "aws.nitro-enclaves"],
};

describe("pinned roots", () => {
  it("are exactly the vendors' five, byte for byte", () => {
    const found = Object.entries(roots).map(([name, der]) => [
      name,
      [createHash("sha256").update(der).digest("hex"), parseCertificate(der, "tdx", name).commonName],
    ]);
    expect(Object.fromEntries(found)).to.deep.equal(PINNED);
  });
});
