import { QuoteVerifier } from "@phala/dcap-qvl";
import { expect } from "chai";
import { isKeysteadError } from "../../../src/core/errors.ts";
import { verifyTdxQuote } from "../../../src/node/evidence/tdx.ts";
import {
  formatTdxCollateral,
  type TdxCollateral,
  verifyTdxCollateral,
} from "../../../src/node/evidence/tdx-collateral.ts";
import {
  createTestTdx,
  type TestTdx,
  type TestTdxCollateral,
  type TestTdxQuote,
} from "../../../src/node/test-tee/tdx.ts";
import { fill } from "../../helpers/evidence.ts";
import { evidenceRole, verifyVector } from "../../helpers/genuine.ts";
import { loadVectors, NO_VECTORS, readVector } from "../../helpers/vectors.ts";

/*
 * The same quotes and collateral through @phala/dcap-qvl 0.3.9. Both agree on everything but the rows below; a row that no longer holds fails too.
 * Where they disagree on accepting, this project is the one that refuses, but for the module's components and the tolerance for clocks.
 */

const AT = 1_750_000_000;
const DAY = 86_400;
const reportData = fill(64, 0xdd);

/** Case → [our answer, the library's, why]. Answers: a TCB status, or `refused`. */
const DISAGREEMENTS: Readonly<Record<string, readonly [ours: string, theirs: string, why: string]>> = {
  "PCK CRL expired": ["refused", "UpToDate", "the library reads serial numbers from lists and not their dates"],
  "root CRL expired": ["refused", "UpToDate", "as above"],
  "PCK CRL forged": ["refused", "UpToDate", "the library does not check a list's signature"],
  "root CRL forged": ["refused", "UpToDate", "as above"],
  "PCK CRL of the wrong issuer": [
    "refused",
    "UpToDate",
    "the library does not compare a list's issuer with the certificate's",
  ],
  "collateral of a moment ahead": [
    "UpToDate",
    "refused",
    "60 s of clock difference are tolerated here, and none by the library",
  ],
  "PCK CRL that is no list": ["refused", "UpToDate", "the library passes over a list that it cannot parse"],
  "trailing bytes": ["refused", "UpToDate", "the library ignores what follows the quote"],
  "module out of date": ["OutOfDate", "UpToDate", "the library ignores tdxModuleIdentities"],
  "module revoked": ["refused", "UpToDate", "as above"],
  "module unknown": ["refused", "UpToDate", "as above"],
  "module signer": ["refused", "UpToDate", "as above: MRSIGNERSEAM is not compared"],
  "module components above": [
    "UpToDate",
    "refused",
    "Intel leaves TDX components 0 and 1 to the module's identity where TEE_TCB_SVN[1] is not 0; the library compares all 16",
  ],
  "other PCE": ["refused", "UpToDate", "the library does not compare the PCE id"],
  "tdx-v4-padded-8000-2025-07": ["UpToDate", "OutOfDate", 'components 0 and 1, as for "module components above"'],
  "tdx-neg-pck-crl-expired": ["refused", "UpToDate", "the library reads serial numbers from lists and not their dates"],
  "tdx-neg-trailing": ["refused", "UpToDate", "the library ignores what follows the quote"],
};

const theirs = (quote: Uint8Array, collateral: string, at: number, root?: Uint8Array): string => {
  const verifier = root === undefined ? QuoteVerifier.newProd() : QuoteVerifier.newWithRootCa(Buffer.from(root));
  try {
    return String(verifier.verify(Buffer.from(quote), JSON.parse(collateral), at).status);
  } catch {
    return "refused";
  }
};
const ours = (verify: () => { readonly tcbStatus: string }): string => {
  try {
    return verify().tcbStatus;
  } catch (error) {
    if (isKeysteadError(error)) return "refused";
    throw error;
  }
};

function compare(name: string, mine: string, library: string): void {
  const known = DISAGREEMENTS[name];
  if (known !== undefined) expect([mine, library], `${name}: ${known[2]}`).to.deep.equal([known[0], known[1]]);
  else expect(mine, `${name}: a disagreement that the table does not explain`).to.equal(library);
}

describe("verifyTdxQuote against @phala/dcap-qvl", () => {
  const cases: readonly [string, Partial<TestTdxQuote>, TestTdxCollateral][] = [
    ["version 4", {}, {}],
    ["version 5, TD 1.5", { version: 5 }, {}],
    ["version 5, TD 1.0", { version: 5, body: "td1.0" }, {}],
    ["padding", { padding: 70 }, {}],
    ["platform out of date", {}, { platformStatus: "OutOfDate" }],
    ["platform needs configuration", {}, { platformStatus: "ConfigurationNeeded" }],
    ["platform revoked", {}, { platformStatus: "Revoked" }],
    ["QE out of date", {}, { qeStatus: "OutOfDate" }],
    ["QE revoked", {}, { qeStatus: "Revoked" }],
    ["QE below every level", { qeIsvSvn: 1 }, {}],
    ["QE of another signer", { qeMrSigner: fill(32, 1) }, {}],
    ["QE report of another key", { boundKey: fill(64, 1) }, {}],
    ["debug", { tdAttributes: Uint8Array.of(1, 0, 0, 0x10, 0, 0, 0, 0) }, {}],
    ["MIGRATABLE", { tdAttributes: Uint8Array.of(0, 0, 0, 0x30, 0, 0, 0, 0) }, {}],
    ["no SEPT_VE_DISABLE", { tdAttributes: fill(8, 0) }, {}],
    ["service TD", { version: 5, mrServiceTd: fill(48, 1) }, {}],
    ["below every level", {}, { sgxSvn: 3 }],
    ["collateral expired", {}, { issuedAt: AT - 40 * DAY }],
    ["collateral from the future", {}, { issuedAt: AT + 61 }],
    ["collateral of a moment ahead", {}, { issuedAt: AT + 60 }],
    ["TCB info forged", {}, { forge: ["tcb-info"] }],
    ["QE identity forged", {}, { forge: ["qe-identity"] }],
    ["PCK revoked", {}, { revoke: ["pck"] }],
    ["PCK CA revoked", {}, { revoke: ["pck-ca"] }],
    ["TCB signing revoked", {}, { revoke: ["tcb-signing"] }],
    ["other FMSPC", {}, { fmspc: "b0c06f000000" }],
    ["other PCE", {}, { pceId: "0001" }],
    ["PCK CRL expired", {}, { pckCrlNextUpdate: AT - 1 }],
    ["root CRL expired", {}, { rootCrlNextUpdate: AT - 1 }],
    ["PCK CRL forged", {}, { forge: ["pck-crl"] }],
    ["root CRL forged", {}, { forge: ["root-crl"] }],
    ["TCB info signed by the PCK CA", {}, { tcbSignedByPckCa: true }],
    ["module out of date", {}, { moduleStatus: "OutOfDate" }],
    ["module revoked", {}, { moduleStatus: "Revoked" }],
    ["module unknown", { teeTcbSvn: Uint8Array.of(5, 9, 2, ...fill(13, 0)) }, {}],
    ["module signer", { mrSignerSeam: fill(48, 1) }, {}],
    ["module components above", {}, { tdxSvns: [9, 1, 2, ...fill(13, 0)] }],
  ];

  it("agrees on synthetic evidence, but for what the table explains", async () => {
    const tee = await createTestTdx({ atUnixSeconds: AT });
    const check = (name: string, quote: Uint8Array, collateral: TdxCollateral) => {
      const options = { atUnixSeconds: AT, unsafeTestRoots: [tee.root] };
      const mine = ours(() => verifyTdxQuote(quote, verifyTdxCollateral(collateral, options), options));
      compare(name, mine, theirs(quote, formatTdxCollateral(collateral), AT, tee.root));
    };
    for (const [name, quote, what] of cases)
      check(name, tee.issueQuote({ reportData, ...quote }), await tee.issueCollateral(what));
    const quote = tee.issueQuote({ reportData });
    const collateral = await tee.issueCollateral();
    check("trailing bytes", Uint8Array.from([...quote, 1]), collateral);
    check("PCK CRL that is no list", quote, { ...collateral, pckCrl: fill(40, 1) });
    const other: TestTdx = await createTestTdx({ atUnixSeconds: AT, ca: "processor" });
    check("PCK CRL of the wrong issuer", quote, { ...collateral, pckCrl: (await other.issueCollateral()).pckCrl });
  });

  it("agrees on real evidence, but for what the table explains", function () {
    const vectors = loadVectors()?.filter((vector) => vector.tee === "tdx" && evidenceRole(vector) !== undefined);
    if (vectors === undefined) {
      console.log(`      ${NO_VECTORS}`);
      return this.skip();
    }
    for (const vector of vectors) {
      const collateral = Buffer.from(readVector(vector, "collateral")).toString("utf8");
      const library = theirs(readVector(vector, "quote"), collateral, vector.verifyAtUnixSeconds ?? Number.NaN);
      const mine = ours(() => {
        const verified = verifyVector(vector);
        return verified.kind === "tdx" ? verified : expect.fail(vector.id);
      });
      compare(vector.id, mine, library);
    }
  });
});
