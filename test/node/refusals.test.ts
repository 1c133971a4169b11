import { expect } from "chai";
import { type Binding, buildReportData } from "../../src/core/binding.ts";
import { fromHex, toHex } from "../../src/core/bytes.ts";
import { parseMessage, problemSchema, type WireEvidence } from "../../src/core/release-wire.ts";
import { generateSealKeyPair } from "../../src/core/seal.ts";
import { formatTdxCollateral } from "../../src/node/evidence/tdx-collateral.ts";
import { createJudge, type JudgeOptions } from "../../src/node/judge.ts";
import { createTestNitro, type TestNitro, type TestNitroDocument } from "../../src/node/test-tee/nitro.ts";
import { createTestSnp, type TestSnp, type TestSnpReport } from "../../src/node/test-tee/snp.ts";
import { createTestTdx, type TestTdx, type TestTdxCollateral, type TestTdxQuote } from "../../src/node/test-tee/tdx.ts";
import { fill } from "../helpers/evidence.ts";
import {
  challenge,
  createTestNode,
  createTestTees,
  now,
  post,
  SERVICE,
  type TestNode,
  type TestTees,
} from "../helpers/node.ts";

/* What a whole node refuses, by TEE: evidence travels as it does from a machine, and nothing but the chain is pretended. */

const DAY = 86_400;
const YEAR = 365 * DAY;
const PCRS = { 0: fill(48, 1), 1: fill(48, 2), 2: fill(48, 3) };
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
const attributes = (hex: string) => new Uint8Array(Buffer.from(hex, "hex"));

/** Makes evidence for a binding. */
type Attest = (binding: Binding) => WireEvidence;
/** A node whose judge is told something else, and the evidence that it gets. */
interface Scene {
  readonly attest: Attest;
  readonly judge?: Partial<JudgeOptions>;
  /** What the evidence is made for in place of this request's. */
  readonly bind?: Partial<Binding>;
}
type Row = readonly [what: string, scene: () => Scene | Promise<Scene>, status: 401 | 503, reason: string | undefined];

const OTHER_BINDINGS: readonly (readonly [string, Partial<Binding>])[] = [
  ["nonce", { nonce: fill(32, 9) }],
  ["service", { serviceId: toHex(fill(20, 9)) }],
  ["key", { recipientPublicKey: fill(32, 9) }],
];

describe("node: what is refused, and by which code", function () {
  this.timeout(120_000);
  let tees: TestTees;
  before(async () => {
    tees = await createTestTees();
  });
  after(() => tees.folder.remove());

  const tdx =
    (tee: () => TestTdx = () => tees.tdx, quote: Partial<TestTdxQuote> = {}): Attest =>
    (binding) => ({ kind: "tdx", quote: base64(tee().issueQuote({ reportData: buildReportData(binding), ...quote })) });
  const snp =
    (tee: () => TestSnp = () => tees.snp, report: Partial<TestSnpReport> = {}): Attest =>
    (binding) => {
      const { root, certificates, issueReport } = tee();
      const { endorsementKey, signer } = certificates;
      return {
        kind: "snp",
        report: base64(issueReport({ reportData: buildReportData(binding), ...report })),
        certificates: { endorsementKey: base64(endorsementKey), signer: base64(signer), root: base64(root) },
      };
    };
  const nitro =
    (tee: () => TestNitro = () => tees.nitro, document: Partial<TestNitroDocument> = {}): Attest =>
    (binding) => {
      const { nonce, recipientPublicKey: publicKey } = binding;
      const userData = buildReportData(binding);
      const timestampMs = now() * 1000;
      return {
        kind: "nitro",
        document: base64(tee().issueDocument({ pcrs: PCRS, userData, nonce, publicKey, timestampMs, ...document })),
      };
    };

  /** Collateral of the test platform, different in one thing, as the node's file. */
  const collateral = async (name: string, changes: TestTdxCollateral): Promise<Partial<JudgeOptions>> => {
    const text = formatTdxCollateral(await tees.tdx.issueCollateral(changes));
    return { collateralFiles: [tees.folder.write(`${name}.json`, text)] };
  };
  const crl = async (name: string, options: Parameters<TestSnp["issueCrl"]>[0]): Promise<Partial<JudgeOptions>> => ({
    snpCrlFiles: { milan: tees.folder.write(`${name}.crl`, await tees.snp.issueCrl(options)) },
  });

  async function refusal({ attest, judge, bind = {} }: Scene) {
    const options = { ...tees.judgeOptions, ...judge };
    const node: TestNode = await createTestNode(tees, { judge: createJudge(options) });
    try {
      const nonce = await challenge(node.app);
      const { publicKey } = await generateSealKeyPair();
      const binding = { nonce: fromHex(nonce, "nonce"), serviceId: SERVICE, recipientPublicKey: publicKey, ...bind };
      const request = { serviceId: SERVICE, evidence: attest(binding), recipientPublicKey: toHex(publicKey), nonce };
      const response = await post(node.app, "/v1/keys", request);
      const text = await response.text();
      const left = { receipts: node.receipts.count(), asked: node.asked.length };
      if (response.status === 200) return { status: 200, code: undefined, reason: undefined, left };
      const { status, code, reason } = parseMessage(problemSchema, text, "problem");
      return { status, code, reason, left };
    } finally {
      await node.close();
    }
  }

  const rows: Readonly<Record<string, readonly Row[]>> = {
    tdx: [
      [
        "expired collateral",
        async () => ({ attest: tdx(), judge: await collateral("expired", { issuedAt: now() - 40 * DAY }) }),
        503,
        "tdx/collateral-expired",
      ],
      [
        "an expired revocation list",
        async () => ({ attest: tdx(), judge: await collateral("crl", { pckCrlNextUpdate: now() - 60 }) }),
        503,
        "tdx/crl-expired",
      ],
      [
        "a revoked PCK certificate",
        async () => ({ attest: tdx(), judge: await collateral("pck", { revoke: ["pck"] }) }),
        401,
        "tdx/revoked",
      ],
      [
        "a revoked TCB signer",
        async () => ({ attest: tdx(), judge: await collateral("signer", { revoke: ["tcb-signing"] }) }),
        503,
        "tdx/revoked",
      ],
      [
        "a revoked TCB level",
        async () => ({ attest: tdx(), judge: await collateral("level", { platformStatus: "Revoked" }) }),
        401,
        "tdx/tcb-revoked",
      ],
      [
        "an expired PCK certificate",
        async () => {
          const tee = await createTestTdx({ atUnixSeconds: now() - 2 * DAY, pckLifetimeSeconds: 60 });
          const file = tees.folder.write("brief.json", formatTdxCollateral(await tee.issueCollateral()));
          return { attest: tdx(() => tee), judge: { collateralFiles: [file], unsafeTestRoots: [tee.root] } };
        },
        401,
        "tdx/certificate-expired",
      ],
      [
        "another root",
        async () => {
          const tee = await createTestTdx({ atUnixSeconds: now() });
          return { attest: tdx(() => tee) };
        },
        401,
        "tdx/wrong-root",
      ],
      ["debug", () => ({ attest: tdx(undefined, { tdAttributes: attributes("0100001000000000") }) }), 401, "tdx/debug"],
    ],
    snp: [
      [
        "expired certificates",
        async () => {
          const tee = await createTestSnp({ atUnixSeconds: now() - 2 * YEAR });
          return { attest: snp(() => tee), judge: { unsafeTestRoots: [tee.root] } };
        },
        401,
        "snp/certificate-expired",
      ],
      [
        "an expired revocation list",
        async () => ({ attest: snp(), judge: await crl("old", { nextUpdate: now() - 60 }) }),
        401,
        "snp/crl-expired",
      ],
      [
        "no revocation list where one is demanded",
        () => ({ attest: snp(), judge: { requireSnpCrl: true } }),
        401,
        "snp/crl-missing",
      ],
      [
        "a revoked signing key",
        async () => ({ attest: snp(), judge: await crl("revoked", { revoked: true }) }),
        401,
        "snp/revoked",
      ],
      [
        "another root",
        async () => {
          const tee = await createTestSnp({ atUnixSeconds: now() });
          return { attest: snp(() => tee) };
        },
        401,
        "snp/wrong-root",
      ],
      ["debug", () => ({ attest: snp(undefined, { policy: 0xb0000n }) }), 401, "snp/debug"],
      ["a privilege level that may not ask", () => ({ attest: snp(undefined, { vmpl: 1 }) }), 401, "snp/vmpl"],
    ],
    nitro: [
      [
        "expired certificates",
        async () => {
          const tee = await createTestNitro({ atUnixSeconds: now() - DAY });
          return {
            attest: nitro(() => tee, { timestampMs: (now() - DAY) * 1000 }),
            judge: { unsafeTestRoots: [tee.root] },
          };
        },
        401,
        "nitro/certificate-expired",
      ],
      [
        "an old document",
        async () => {
          const tee = await createTestNitro({ atUnixSeconds: now() - 3600 });
          return {
            attest: nitro(() => tee, { timestampMs: (now() - 3600) * 1000 }),
            judge: { unsafeTestRoots: [tee.root] },
          };
        },
        401,
        "nitro/too-old",
      ],
      [
        "another root",
        async () => {
          const tee = await createTestNitro({ atUnixSeconds: now() });
          return { attest: nitro(() => tee) };
        },
        401,
        "nitro/wrong-root",
      ],
      ["debug", () => ({ attest: nitro(undefined, { pcrs: {} }) }), 401, "nitro/debug"],
    ],
  };

  for (const [kind, attest] of [
    ["tdx", tdx()],
    ["snp", snp()],
    ["nitro", nitro()],
  ] as const) {
    describe(`given ${kind} evidence`, () => {
      it("releases where nothing is wrong: the rows below differ from this in one thing", async () => {
        expect(await refusal({ attest })).to.deep.equal({
          status: 200,
          code: undefined,
          reason: undefined,
          left: { receipts: 1, asked: 1 },
        });
      });

      for (const [what, scene, status, reason] of rows[kind] ?? [])
        it(`refuses ${what}, asks no chain and writes no receipt`, async () => {
          const code = status === 503 ? "collateral/unavailable" : "evidence/not-genuine";
          expect(await refusal(await scene())).to.deep.equal({ status, code, reason, left: { receipts: 0, asked: 0 } });
        });

      for (const [what, bind] of OTHER_BINDINGS)
        it(`refuses report data of another ${what}`, async () => {
          const left = { receipts: 0, asked: 0 };
          const wanted = { status: 401, code: "evidence/not-genuine", reason: "binding/mismatch", left };
          expect(await refusal({ attest, bind })).to.deep.equal(wanted);
        });
    });
  }

  it("gives each wrong thing of a kind a code of its own", () => {
    for (const list of Object.values(rows)) {
      const codes = list.map(([, , status, reason]) => `${status} ${reason}`);
      expect(new Set(codes).size).to.equal(codes.length);
    }
  });
});
