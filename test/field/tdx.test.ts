import { createServer as createHttp, type RequestListener, type Server } from "node:http";
import { createServer as createHttps } from "node:https";
import type { AddressInfo } from "node:net";
import { expect } from "chai";
import { buildReportData } from "../../src/core/binding.ts";
import { concatBytes, toHex } from "../../src/core/bytes.ts";
import { detectEvidence } from "../../src/core/evidence/detect.ts";
import { parseTdxQuote, tdxRegisters } from "../../src/core/evidence/tdx.ts";
import { parseMessage, problemSchema } from "../../src/core/release-wire.ts";
import { checkBinding } from "../../src/node/evidence/binding.ts";
import { createCollateralCache } from "../../src/node/evidence/collateral.ts";
import { createPccsSource } from "../../src/node/evidence/pccs.ts";
import { createFetchWithCa } from "../../src/node/evidence/request.ts";
import { verifyTdxQuote } from "../../src/node/evidence/tdx.ts";
import {
  formatTdxCollateral,
  type TdxCollateral,
  verifyTdxCollateral,
} from "../../src/node/evidence/tdx-collateral.ts";
import { parsePemChain } from "../../src/node/evidence/x509.ts";
import { createJudge } from "../../src/node/judge.ts";
import { encodeDer, formatPem, issueCertificate } from "../../src/node/test-tee/pki.ts";
import { createTestTdx, type TestTdx, type TestTdxCollateral, type TestTdxQuote } from "../../src/node/test-tee/tdx.ts";
import { jsonOf, keystead, makeFolder } from "../helpers/cli.ts";
import { errorOf, rejectionOf } from "../helpers/errors.ts";
import { fill } from "../helpers/evidence.ts";
import { fieldInput } from "../helpers/field.ts";
import { ALLOWED, createTestNode, createTestTees, honestRequest, post, SERVICE } from "../helpers/node.ts";
import { loadVectors, vectorPath } from "../helpers/vectors.ts";
import { supports } from "./supports.ts";

const AT = 1_790_000_000;
const DAY = 86_400;
const reportData = fill(64, 0xdd);
const KEY = { fmspc: "0x00806f050000", ca: "platform" } as const;
const TDX = "Intel TDX";
const PCCS = "Intel PCCS";

/** A PCCS's answers for one platform. */
function pccs(collateral: TdxCollateral, base = ""): RequestListener {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
  const json = (name: string, text: string, signature: Uint8Array) =>
    `{"${name}":${text},"signature":"${hex(signature)}"}`;
  return ({ url = "" }, response) => {
    const path = url.slice(base.length);
    const chain = (name: string, pem: string) => response.setHeader(name, encodeURIComponent(pem));
    if (path.startsWith("/tdx/certification/v4/tcb?fmspc=00806f050000")) {
      chain("TCB-Info-Issuer-Chain", collateral.tcbInfoIssuerChain);
      response.end(json("tcbInfo", collateral.tcbInfo, collateral.tcbInfoSignature));
    } else if (path.startsWith("/tdx/certification/v4/qe/identity")) {
      chain("SGX-Enclave-Identity-Issuer-Chain", collateral.qeIdentityIssuerChain);
      response.end(json("enclaveIdentity", collateral.qeIdentity, collateral.qeIdentitySignature));
    } else if (path.startsWith("/sgx/certification/v4/pckcrl?ca=platform")) {
      chain("SGX-PCK-CRL-Issuer-Chain", collateral.pckCrlIssuerChain);
      response.end(Buffer.from(collateral.pckCrl));
    } else if (path === "/sgx/certification/v4/rootcacrl") response.end(`${hex(collateral.rootCaCrl)}\n`);
    else response.writeHead(404).end();
  };
}

describe("field: Intel TDX", function () {
  this.timeout(240_000);
  const folder = makeFolder();
  const servers: Server[] = [];
  let tee: TestTdx;
  let collateral: TdxCollateral;
  before(async () => {
    tee = await createTestTdx({ atUnixSeconds: AT });
    collateral = await tee.issueCollateral();
  });
  after(() => {
    folder.remove();
    for (const server of servers) {
      server.closeAllConnections();
      server.close();
    }
  });
  const options = () => ({ atUnixSeconds: AT, unsafeTestRoots: [tee.root] });
  const verify = async (quote: Partial<TestTdxQuote> = {}, issued: TestTdxCollateral = {}) =>
    verifyTdxQuote(
      tee.issueQuote({ reportData, ...quote }),
      verifyTdxCollateral(await tee.issueCollateral(issued), options()),
      options(),
    );
  const listen = async (server: Server): Promise<number> => {
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return (server.address() as AddressInfo).port;
  };
  const serve = async (listener: RequestListener): Promise<string> =>
    `http://127.0.0.1:${await listen(createHttp(listener))}`;

  supports(TDX, "quote version 5, body type 4 (since October 2026)", "parsed, verified, bound, measured", async () => {
    const binding = { nonce: fill(32, 1), serviceId: SERVICE, recipientPublicKey: fill(32, 2) };
    const quote = {
      version: 5,
      body: "extended",
      reportData: buildReportData(binding),
      rtMr3: fill(48, 0x33),
    } as const;
    const verified = await verify(quote);
    expect(verified.quote.body).to.include({ type: "extended" });
    expect(verified.quote.body.extension?.tdId).to.deep.equal(fill(32, 0x1d));
    expect(verified.tcbStatus).to.equal("UpToDate");
    checkBinding(verified, binding);
    expect(errorOf(() => checkBinding(verified, { ...binding, nonce: fill(32, 3) })).code).to.equal("binding/mismatch");
    const file = folder.write(
      "extended.quote",
      tee.issueQuote({ mrTd: fill(48, 9), rtMr1: fill(48, 1), rtMr2: fill(48, 2), ...quote }),
    );
    const measured = jsonOf(keystead(["measure", "quote", file, "--json"]));
    expect(measured.measurement.registers.rtmr3).to.deep.include({
      value: toHex(fill(48, 0x33)),
      formula: "byte 526 of the quote",
    });
    expect(measured.measurement.facts).to.include({ vm_id: "0", td_id: toHex(fill(32, 0x1d)) });
    expect(measured.unsafe).to.equal(false);
  });

  it("reads the same registers at the same places, whatever body the quote has", () => {
    const registers = {
      mrTd: fill(48, 9),
      rtMr0: fill(48, 4),
      rtMr1: fill(48, 1),
      rtMr2: fill(48, 2),
      rtMr3: fill(48, 3),
    };
    const all = (["td1.0", "td1.5", "extended"] as const).map((body) =>
      tdxRegisters(parseTdxQuote(tee.issueQuote({ version: 5, body, reportData, ...registers }))),
    );
    expect(all[2]).to.deep.equal(all[0]);
    expect(all[2]).to.deep.equal(all[1]);
  });

  for (const [what, quote, code] of [
    ["a service TD", { mrServiceTd: fill(48, 1) }, "tdx/service-td"],
    ["a VM of a partitioned TD", { vmId: 1 }, "tdx/nested-vm"],
    ["devices in its trust", { deviceInfo: concatBytes(fill(47, 0), fill(1, 1)) }, "tdx/device-info"],
  ] as const)
    it(`refuses a quote of type 4 with ${what}`, async () => {
      expect((await rejectionOf(verify({ version: 5, body: "extended", ...quote }))).code).to.equal(code);
    });

  it("refuses a quote of type 4 with any byte set in its service TD history", async () => {
    const good = verifyTdxCollateral(collateral, options());
    for (let at = 0; at < 156; at += 1) {
      const serviceTdHistory = fill(156, 0);
      serviceTdHistory[at] = 1;
      const quote = tee.issueQuote({ version: 5, body: "extended", reportData, serviceTdHistory });
      expect(errorOf(() => verifyTdxQuote(quote, good, options())).code, `byte ${at}`).to.equal("tdx/service-td");
    }
  });

  it("parses the field's own quote of type 4", function () {
    const quote = fieldInput(this, "02-quote-v5-body-type-4.synthetic.bin");
    expect(detectEvidence(quote).format).to.equal("tdx-quote");
    const { body } = parseTdxQuote(quote);
    expect(body.type).to.equal("extended");
    expect(body.extension?.tdId).to.deep.equal(fill(32, 0xa5));
    expect(body.extension?.serviceTdHistory).to.deep.equal(fill(156, 0));
  });

  supports(
    TDX,
    "revocation lists of 100,000 entries",
    "read in a second or two and 50 MB; each entry counts",
    async () => {
      const issued = await tee.issueCollateral({ otherRevocations: 100_000, revoke: ["pck"] });
      expect(issued.pckCrl.length).to.be.greaterThan(3_500_000);
      globalThis.gc?.();
      const before = process.memoryUsage();
      const start = performance.now();
      const verified = verifyTdxCollateral(issued, options());
      const seconds = (performance.now() - start) / 1000;
      const grown = (process.memoryUsage().rss - before.rss) / 1024 / 1024;
      console.log(`      ${issued.pckCrl.length} bytes in ${seconds.toFixed(2)} s, ${Math.round(grown)} MB`);
      expect(verified.pckCrl.revoked.size).to.equal(100_001);
      // Generous, for a machine that does other things too.
      expect(seconds).to.be.lessThan(10);
      expect(grown).to.be.lessThan(400);
      const quote = tee.issueQuote({ reportData });
      expect(errorOf(() => verifyTdxQuote(quote, verified, options())).code).to.equal("tdx/revoked");
      // And through a PCCS, in binary, and as a file.
      const url = await serve(pccs(issued));
      const fetched = await createPccsSource({ url, fetch }).fetch(KEY);
      expect(fetched.pckCrl.length).to.equal(issued.pckCrl.length);
    },
  );

  describe("errors of a PCCS", () => {
    const failure = async (url: string, more: Partial<Parameters<typeof createPccsSource>[0]> = {}) =>
      await rejectionOf(createPccsSource({ url, fetch, ...more }).fetch(KEY));
    const certificateOf = async (address: string) => {
      const [a = 127, b = 0, c = 0, d = 1] = address.split(".").map(Number);
      const names = encodeDer(0x30, encodeDer(0x87, Uint8Array.of(a, b, c, d)));
      const now = Math.floor(Date.now() / 1000);
      const certificate = await issueCertificate({
        ...{ commonName: "pccs", kind: "p256", ca: false, notBefore: now - DAY, notAfter: now + DAY },
        extensions: { "2.5.29.17": names },
      });
      const key = certificate.privateKey.export({ type: "pkcs8", format: "pem" });
      return { key, cert: formatPem([certificate]) };
    };

    supports(PCCS, "with its self-signed certificate", "says so; accepted with evidence.pccs.caFile", async () => {
      const own = await certificateOf("127.0.0.1");
      const url = `https://127.0.0.1:${await listen(createHttps(own, pccs(collateral)) as unknown as Server)}`;
      const error = await failure(url);
      expect(error.code).to.equal("collateral/tls");
      expect(error.retryable).to.equal(false);
      expect(error.message).to.contain("not from a known authority");
      expect(error.remedy).to.contain("caFile");
      const trusting = createFetchWithCa(own.cert);
      expect(await createPccsSource({ url, fetch: trusting }).fetch(KEY)).to.deep.equal(collateral);
      const other = await failure(url, { fetch: createFetchWithCa((await certificateOf("127.0.0.1")).cert) });
      expect(other.code).to.equal("collateral/tls");
      const elsewhere = await certificateOf("127.0.0.9");
      const port = await listen(createHttps(elsewhere, pccs(collateral)) as unknown as Server);
      const wrong = await failure(`https://127.0.0.1:${port}`, { fetch: createFetchWithCa(elsewhere.cert) });
      expect([wrong.code, wrong.message]).to.satisfy(
        ([code, said]: string[]) => code === "collateral/tls" && /not for this host/.test(said ?? ""),
      );
      expect(await createPccsSource({ url: await serve(pccs(collateral)), fetch: trusting }).fetch(KEY)).to.deep.equal(
        collateral,
      );
    });

    it("says what else happened: DNS, refused, no answer in time, overload, and what is not there", async () => {
      const free = await listen(createHttp());
      await new Promise((resolve) => servers.pop()?.close(resolve));
      const silent = await serve(() => {});
      const busy = await serve((_, response) => response.writeHead(429, { "retry-after": "7" }).end());
      const other = await serve(pccs({ ...collateral }, "/elsewhere"));
      const cases: readonly (readonly [string, string, boolean, RegExp])[] = [
        ["http://pccs.invalid", "collateral/dns", true, /not known to DNS/],
        [`http://127.0.0.1:${free}`, "collateral/refused", true, /refused/],
        [silent, "collateral/timeout", true, /did not answer in time \(200 ms\)/],
        [busy, "collateral/busy", true, /answered 429 .* for (TCB info|identity|CRL)/],
        [
          other,
          "collateral/not-found",
          false,
          /has no (TCB info of platform family 00806f050000|identity of the TD|CRL of)/,
        ],
      ];
      for (const [url, code, retryable, said] of cases) {
        const error = await failure(url, { timeoutMs: url === silent ? 200 : 5000 });
        expect([error.code, error.retryable], url).to.deep.equal([code, retryable]);
        expect(error.message, url).to.match(said);
      }
      expect((await failure(busy)).details.retryAfterSeconds).to.equal(7);
    });

    supports(PCCS, "several", "asked in turn until one gives what counts", async () => {
      const dead = await serve((_, response) => response.writeHead(500).end());
      const stale = await serve(pccs(await tee.issueCollateral({ issuedAt: AT - 40 * DAY })));
      const good = await serve(pccs(collateral));
      const cacheOf = (...urls: string[]) =>
        createCollateralCache({
          sources: urls.map((url) => createPccsSource({ url, fetch })),
          unsafeTestRoots: [tee.root],
        });
      expect((await cacheOf(dead, stale, good).get(KEY, AT)).tcbInfo.evaluationDataNumber).to.equal(17);
      const error = await rejectionOf(cacheOf(dead, stale).get(KEY, AT));
      expect(error.code).to.equal("collateral/all-failed");
      expect(error.details.codes).to.deep.equal(["collateral/busy", "tdx/collateral-expired"]);
      for (const url of [dead, stale]) expect(error.message).to.contain(new URL(url).host);
      expect((await rejectionOf(cacheOf(dead).get(KEY, AT))).code).to.equal("collateral/busy");
    });

    supports(PCCS, "addresses as in qcnl.conf", "…/sgx/certification/v4/ is the same PCCS", async () => {
      const url = await serve(pccs(collateral));
      for (const path of ["", "/", "/sgx/certification/v4", "/sgx/certification/v4/", "/tdx/certification/v4/"])
        expect(await createPccsSource({ url: `${url}${path}`, fetch }).fetch(KEY), path).to.deep.equal(collateral);
      const below = await serve(pccs(collateral, "/pccs"));
      expect(await createPccsSource({ url: `${below}/pccs/sgx/certification/v4/`, fetch }).fetch(KEY)).to.deep.equal(
        collateral,
      );
      expect(errorOf(() => createPccsSource({ url: `${url}/sgx/certification/v3/`, fetch })).message).to.contain(
        "API v3",
      );
    });

    supports(PCCS, "lists as hex text", "read in every spelling of it", async () => {
      for (const spelling of [
        (hex: string) => hex.toUpperCase(),
        (hex: string) => `0x${hex}`,
        (hex: string) => `"${hex}"\r\n`,
      ]) {
        const usual = pccs(collateral);
        const url = await serve((request, response) => {
          if (request.url?.endsWith("rootcacrl"))
            response.end(spelling(Buffer.from(collateral.rootCaCrl).toString("hex")));
          else usual(request, response);
        });
        expect((await createPccsSource({ url, fetch }).fetch(KEY)).rootCaCrl).to.deep.equal(collateral.rootCaCrl);
      }
      const page = await serve((_, response) => response.end("<html>hello</html>"));
      expect((await failure(page)).code).to.equal("collateral/malformed");
    });
  });

  supports(TDX, "PEM chains that end in a blank line", "read as they are meant", async () => {
    const [pck, ...others] = collateral.pckCrlIssuerChain.split(/(?<=-----END CERTIFICATE-----\n)/);
    for (const chain of [
      `${pck}${others.join("")}\n`,
      `${pck}\n${others.join("\n")}\n\n`,
      `${pck}${others.join("")}\r\n\r\n\0`,
    ])
      expect(parsePemChain(chain, "tdx", "chain")).to.have.length(2);
    verifyTdxCollateral({ ...collateral, tcbInfoIssuerChain: `${collateral.tcbInfoIssuerChain}\n` }, options());
    for (const chain of ["\n\n", `x\n${pck}`, `${pck} \n`, `${pck}text\n`])
      expect(errorOf(() => parsePemChain(chain, "tdx", "chain")).code).to.equal("tdx/chain-malformed");
  });

  it("reads the field's own chain with a blank line", function () {
    const chain = fieldInput(this, "15-pem-chain-with-blank-line.pem");
    expect(parsePemChain(chain, "tdx", "chain").length).to.be.greaterThan(0);
  });

  describe("a TCB recovery", () => {
    const recovery: TestTdxCollateral = {
      sgxSvn: 2,
      evaluationDataNumber: 20,
      platformStatus: "OutOfDate",
      platformAdvisories: ["INTEL-SA-01192"],
      moduleStatus: "OutOfDate",
      editTcbInfo: (info) => {
        const [level] = info.tcbLevels as [{ tcb: { sgxtcbcomponents: object[]; tdxtcbcomponents: object[] } }];
        const sgxtcbcomponents = level.tcb.sgxtcbcomponents.map((component, index) =>
          index === 0 ? { svn: 5, category: "BIOS", type: "Early Microcode Update" } : component,
        );
        const newest = {
          tcb: { ...level.tcb, sgxtcbcomponents, pcesvn: 13 },
          tcbDate: "2026-08-13T00:00:00Z",
          tcbStatus: "UpToDate",
        };
        const [module] = info.tdxModuleIdentities as [{ tcbLevels: object[] }];
        const fixed = { tcb: { isvsvn: 7 }, tcbDate: "2026-08-13T00:00:00Z", tcbStatus: "UpToDate" };
        return {
          ...info,
          tcbLevels: [newest, level],
          tdxModuleIdentities: [{ ...module, tcbLevels: [fixed, ...module.tcbLevels] }],
        };
      },
    };

    supports(TDX, "TCB recovery", "says which part is short, by which SVN, which advisories, until when", async () => {
      const { tcb, tcbStatus } = await verify({}, recovery);
      expect(tcbStatus).to.equal("OutOfDate");
      expect(tcb.evaluation).to.equal(20);
      expect(tcb.until).to.equal(AT - 3600 + 30 * DAY);
      const [platform, module, qe] = tcb.parts;
      expect(platform).to.deep.include({ part: "platform", status: "OutOfDate", advisories: ["INTEL-SA-01192"] });
      expect(platform?.short).to.deep.equal([
        { svn: "SGX component 1 (Early Microcode Update)", have: 2, need: 5 },
        { svn: "PCE", have: 11, need: 13 },
      ]);
      expect(module?.short).to.deep.equal([{ svn: "TDX module TDX_01", have: 5, need: 7 }]);
      expect(qe).to.deep.include({ part: "qe", status: "UpToDate", short: [] });
      const below = await rejectionOf(verify({}, { sgxSvn: 3 }));
      expect(below.code).to.equal("tdx/no-tcb-level");
      expect(below.message).to.contain("SGX component 1 has 2, the good level 3");
    });

    supports(
      TDX,
      "TCB recovery",
      "in a node's refusal, log line and metrics, with Intel's early set beside",
      async () => {
        const tees = await createTestTees();
        try {
          const standard = await tees.tdx.issueCollateral({ platformStatus: "SWHardeningNeeded" });
          const early = await tees.tdx.issueCollateral(recovery);
          const [now, next] = [pccs(standard), pccs(early)];
          const url = await serve((request, response) =>
            (request.url?.includes("update=early") ? next : now)(request, response),
          );
          const judge = createJudge({
            ...tees.judgeOptions,
            collateralFiles: undefined,
            pccs: { urls: [url], early: true },
          });
          const node = await createTestNode(tees, { judge });
          const denied = { ...ALLOWED, allowed: false, decision: "ServiceTcbNotUpToDate" } as const;
          node.chain = { decide: async () => denied, decideKms: async () => denied };
          const ask = async () => await post(node.app, "/v1/keys", (await honestRequest(node)).request);
          await ask();
          await new Promise((resolve) => setTimeout(resolve, 500)); // nobody waits for the early set
          const response = await ask();
          expect(response.status).to.equal(403);
          const problem = parseMessage(problemSchema, await response.text(), "problem");
          expect(problem.tcb?.status).to.equal("SWHardeningNeeded");
          expect(problem.tcb?.early).to.deep.include({ status: "OutOfDate", evaluation: 20 });
          expect(problem.tcb?.early?.parts[0]?.short.map(({ svn }) => svn)).to.deep.equal([
            "SGX component 1 (Early Microcode Update)",
            "PCE",
          ]);
          const metrics = await (await node.app.request("/metrics")).text();
          expect(metrics).to.contain('keystead_machines{kind="tdx",set="standard",status="SWHardeningNeeded"} 1');
          expect(metrics).to.contain('keystead_machines{kind="tdx",set="early",status="OutOfDate"} 1');
          expect(metrics).to.match(
            /keystead_machines_short\{kind="tdx",set="early",part="platform",advisories="INTEL-SA-01192",svn="PCE"\} 1/,
          );
          await node.close();

          // And once the early set has become the one that counts.
          const file = tees.folder.write("recovery.json", formatTdxCollateral(early));
          const later = await createTestNode(tees, {
            judge: createJudge({ ...tees.judgeOptions, collateralFiles: [file] }),
          });
          later.chain = node.chain;
          const cut = await post(later.app, "/v1/keys", (await honestRequest(later)).request);
          const said = parseMessage(problemSchema, await cut.text(), "problem");
          expect(said.detail).to.match(
            /ServiceTcbNotUpToDate: TCB OutOfDate: platform OutOfDate .*PCE has 11 and needs 13; INTEL-SA-01192/,
          );
          expect(said.tcb?.until).to.be.a("number");
          expect(later.logged.join("\n")).to.match(/"tcb":"TCB OutOfDate: platform OutOfDate/);
          expect(await (await later.app.request("/metrics")).text()).to.contain(
            'keystead_machines_short{kind="tdx",set="standard",part="module",advisories="",svn="TDX module TDX_01"} 1',
          );
          await later.close();
        } finally {
          tees.folder.remove();
        }
      },
    );

    it("is no excuse: a machine is judged by the standard set alone", async () => {
      const { tcbStatus, tcb } = await verify();
      expect(tcbStatus).to.equal("UpToDate");
      expect(tcb.early).to.equal(undefined);
    });
  });

  supports(
    "keystead measure quote",
    "--collateral FILE --at TIME",
    "says whether it is genuine, and what its TCB lacks",
    () => {
      const vector = loadVectors()?.find(({ id }) => id === "tdx-v4-kms-outofdate-2026-08");
      if (vector === undefined) {
        console.log("      the evidence vectors are not here: only refusals are tried");
      } else {
        const at = String(vector.verifyAtUnixSeconds);
        const args = [
          "measure",
          "quote",
          vectorPath(vector, "quote"),
          "--collateral",
          vectorPath(vector, "collateral"),
        ];
        const judged = keystead([...args, "--at", at, "--json"]);
        const { facts, findings } = jsonOf(judged).measurement;
        expect(facts.tcb_status).to.equal("OutOfDate");
        expect(facts.tcb_platform).to.contain("OutOfDate");
        expect(facts).to.include.keys("tcb_evaluation", "tcb_good_until", "judged_at", "tcb_qe");
        expect(findings.map(({ code }: { code: string }) => code)).to.include("evidence/tcb");
        const late = keystead([...args, "--at", "2036-01-01T00:00:00Z", "--json"]);
        expect(late.code).to.equal(1);
        expect(jsonOf(late).measurement.findings.at(-1)).to.include({
          code: "evidence/not-genuine",
          severity: "unsafe",
        });
      }
      const quote = folder.write("own.quote", tee.issueQuote({ reportData, rtMr3: fill(48, 3) }));
      const file = folder.write("own.json", formatTdxCollateral(collateral));
      // A test root is nothing that measure takes.
      const run = keystead(["measure", "quote", quote, "--collateral", file, "--at", String(AT)]);
      expect(run.code).to.equal(1);
      expect(run.stdout).to.contain("not the vendor's root");
      for (const [options, code] of [
        [["--at", "2026-01-01"], "usage/at-without-collateral"],
        [["--collateral", file, "--at", "tomorrow"], "usage/time"],
      ] as const)
        expect(keystead(["measure", "quote", quote, ...options, "--json"]).stderr, options.join(" ")).to.contain(code);
    },
  );

  supports("Evidence as text", "hex in quotes, base64url", "read; other text never reaches a parser", () => {
    const quote = tee.issueQuote({ reportData, rtMr3: fill(48, 3) });
    const hex = Buffer.from(quote).toString("hex");
    for (const text of [
      `"${hex}"\n`,
      `'0x${hex}'`,
      Buffer.from(quote).toString("base64url"),
      `${Buffer.from(quote).toString("base64")}\n`,
    ]) {
      const detected = detectEvidence(new TextEncoder().encode(text));
      expect(detected.format).to.equal("tdx-quote");
      expect(detected.bytes).to.deep.equal(quote);
    }
    for (const [text, command] of [
      ["<!doctype html><html><body>café</body></html>", "quote"],
      ['{"quote": "0400"}', "quote"],
      [`${hex} and more`, "quote"],
      ["not evidence at all", "report"],
      ["not evidence at all", "nitro"],
    ] as const) {
      const run = keystead(["measure", command, folder.write("text.txt", text), "--json"]);
      expect(run.code, text.slice(0, 20)).to.equal(2);
      // a web page is told apart from other text
      expect(run.stderr, text.slice(0, 20)).to.match(/text\/not-bytes|input\/page/);
    }
  });

  it("reads the field's own spellings of a quote", function () {
    for (const name of ["13-quote-hex-in-quotes.txt", "13-quote-base64url.txt"])
      expect(detectEvidence(fieldInput(this, name)).format, name).to.equal("tdx-quote");
  });
});
