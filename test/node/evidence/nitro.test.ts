import { expect } from "chai";
import { createChainCache } from "../../../src/node/evidence/chain-cache.ts";
import { type NitroOptions, verifyNitroDocument } from "../../../src/node/evidence/nitro.ts";
import { createTestNitro, type TestNitro, type TestNitroDocument } from "../../../src/node/test-tee/nitro.ts";
import { errorOf } from "../../helpers/errors.ts";
import { fill } from "../../helpers/evidence.ts";

const AT = 1_750_000_000;
const PCRS = { 0: fill(48, 1), 1: fill(48, 2), 2: fill(48, 3) };

describe("verifyNitroDocument", () => {
  let tee: TestNitro;
  before(async () => {
    tee = await createTestNitro({ atUnixSeconds: AT });
  });
  const verify = (document: Partial<TestNitroDocument> = {}, options: NitroOptions = {}) =>
    verifyNitroDocument(tee.issueDocument({ pcrs: PCRS, ...document }), { unsafeTestRoots: [tee.root], ...options });

  it("accepts a document at its own time or a given one, and says loudly that the root is a test's", () => {
    const large = { userData: fill(512, 1), publicKey: fill(1024, 2), nonce: fill(512, 3) };
    for (const verified of [verify(), verify({}, { atUnixSeconds: AT + 3600 }), verify(large)]) {
      expect(verified.trust.kind).to.equal("TEST ROOT");
      expect(verified.documentUnixSeconds).to.equal(AT);
    }
  });

  it("refuses a test root without the explicit option, a kept one too", () => {
    const chains = createChainCache();
    verify({}, { chains });
    expect(errorOf(() => verify({}, { unsafeTestRoots: undefined, chains })).code).to.equal("nitro/wrong-root");
  });

  for (const index of [0, 1, 2]) {
    it(`refuses an enclave whose PCR${index} is zero, or not there`, () => {
      expect(errorOf(() => verify({ pcrs: { ...PCRS, [index]: fill(48, 0) } })).code).to.equal("nitro/debug");
      expect(errorOf(() => verify({ without: index })).code).to.equal("nitro/pcr-missing");
    });
  }

  it("refuses a document that a CA's own certificate signed", async () => {
    const ca = await createTestNitro({ atUnixSeconds: AT, leafIsCa: true });
    const document = ca.issueDocument({ pcrs: PCRS });
    expect(errorOf(() => verifyNitroDocument(document, { unsafeTestRoots: [ca.root] })).code).to.equal(
      "nitro/leaf-certificate",
    );
  });

  it("refuses a document after its leaf expired, before it was made, and past the age that is allowed", () => {
    const code = (options: NitroOptions, document: Partial<TestNitroDocument> = {}) =>
      errorOf(() => verify(document, options)).code;
    expect(code({ atUnixSeconds: AT + 3 * 3600 + 1 })).to.equal("nitro/certificate-expired");
    expect(code({ atUnixSeconds: AT - 3600 })).to.equal("nitro/certificate-not-yet-valid");
    expect(code({ atUnixSeconds: AT }, { timestampMs: (AT + 120) * 1000 })).to.equal("nitro/from-the-future");
    expect(code({ atUnixSeconds: AT + 301, maxAgeSeconds: 300 })).to.equal("nitro/too-old");
    expect(code({ atUnixSeconds: AT }, { timestampMs: (AT - 3600) * 1000 })).to.equal(
      "nitro/certificate-not-yet-valid",
    );
    verify({}, { atUnixSeconds: AT + 300, maxAgeSeconds: 300 });
  });
});
