import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { toWireEvidence } from "../../src/agent/acquire.ts";
import { chooseCertificates, parseCertificateTable } from "../../src/agent/devices/certificate-table.ts";
import type { Device } from "../../src/agent/devices/device.ts";
import { vcekPath, withKds } from "../../src/agent/devices/kds.ts";
import { type Binding, buildReportData } from "../../src/core/binding.ts";
import { fromBase64, fromHex } from "../../src/core/bytes.ts";
import { parseSnpReport, snpFindings } from "../../src/core/evidence/snp.ts";
import { computeLaunchDigest, parseLaunchInputs, VCPU_SIGNATURES } from "../../src/core/evidence/snp-launch.ts";
import { SNP_INTERMEDIATES } from "../../src/node/evidence/intermediates.ts";
import { createSnpSignerSource } from "../../src/node/evidence/kds.ts";
import { ARKS, verifySnpReport } from "../../src/node/evidence/snp.ts";
import { isSignedBy, parseCertificate } from "../../src/node/evidence/x509.ts";
import { factsOf } from "../../src/node/facts.ts";
import { createJudge } from "../../src/node/judge.ts";
import { formatPem, type TestCertificate } from "../../src/node/test-tee/pki.ts";
import { createTestSnp, type TestSnp } from "../../src/node/test-tee/snp.ts";
import { keystead, makeFolder } from "../helpers/cli.ts";
import { json, launchInputs } from "../helpers/deployment.ts";
import { errorOf, rejectionOf } from "../helpers/errors.ts";
import { fill } from "../helpers/evidence.ts";
import { certificateTable } from "../helpers/fake-kernel.ts";
import { fieldInput } from "../helpers/field.ts";
import { evidenceRole, snpCertificates } from "../helpers/genuine.ts";
import { createTestNode, createTestTees, now, post, SERVICE } from "../helpers/node.ts";
import { loadVectors, readVector } from "../helpers/vectors.ts";
import { supports } from "./supports.ts";

const AT = 1_790_000_000;
const reportData = fill(64, 0xdd);
const SNP = "AMD SEV-SNP";
const VCEK = "63da758d-e664-4564-adc5-f4b93be8accd";
const VLEK = "a8074bc2-a25a-483e-aae6-39c045a0b8a1";
const ASK = "4ab7b379-bbac-4fe4-a02f-05aef327c782";
/** A GUID whose first three fields are little-endian. */
const swapped = (guid: string) =>
  guid
    .split("-")
    .map((field, index) => (index < 3 ? (field.match(/../g) ?? []).reverse().join("") : field))
    .join("-");

describe("field: AMD SEV-SNP", function () {
  this.timeout(240_000);
  const folder = makeFolder();
  const servers: Server[] = [];
  let milan: TestSnp;
  let turin: TestSnp;
  let vlek: TestSnp;
  before(async () => {
    milan = await createTestSnp({ atUnixSeconds: AT });
    turin = await createTestSnp({ atUnixSeconds: AT, product: "turin" });
    vlek = await createTestSnp({ atUnixSeconds: AT, endorsement: "vlek" });
  });
  after(() => {
    folder.remove();
    for (const server of servers) server.close();
  });
  const serve = async (answer: (path: string) => Uint8Array | string | number): Promise<string> => {
    const server = createServer(({ url = "" }, response) => {
      const body = answer(url);
      if (typeof body === "number") response.writeHead(body, { "retry-after": "3" }).end();
      else response.end(body);
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  };
  const pem = (...ders: Uint8Array[]) => formatPem(ders.map((der) => ({ der }) as TestCertificate));
  const deviceOf = (tee: TestSnp, certificates = {}): Device => ({
    name: "test",
    attest: async (binding: Binding) => ({
      kind: "snp",
      report: tee.issueReport({ reportData: buildReportData(binding) }),
      certificates,
    }),
  });
  const BINDING: Binding = { nonce: fill(32, 1), serviceId: SERVICE, recipientPublicKey: fill(32, 2) };

  supports(SNP, "AWS (VLEK alone)", "AMD's intermediates are known, or fetched from KDS", async () => {
    // Known: each stands under the pinned root of its product.
    for (const [product, signers] of Object.entries(SNP_INTERMEDIATES))
      for (const [kind, der] of Object.entries(signers)) {
        const root = parseCertificate(ARKS[product as keyof typeof ARKS] ?? new Uint8Array(), "snp", "ARK");
        expect(isSignedBy(der, root.publicKey, "snp", kind), `${product} ${kind}`).to.equal(true);
        const name = `${product.charAt(0).toUpperCase()}${product.slice(1)}`;
        expect(parseCertificate(der, "snp", kind).commonName).to.equal(
          kind === "vcek" ? `SEV-${name}` : `SEV-VLEK-${name}`,
        );
      }
    const { endorsementKey, signer, root } = vlek.certificates;
    const report = vlek.issueReport({ reportData });
    const options = { atUnixSeconds: AT, unsafeTestRoots: [vlek.root] };
    expect(errorOf(() => verifySnpReport(report, { endorsementKey }, options)).code).to.equal("snp/signer-missing");
    // Fetched: once, from the address of the key's product and sort, and only what AMD's root issued.
    const asked: string[] = [];
    const url = await serve((path) => {
      asked.push(path);
      return pem(signer, root);
    });
    const signers = createSnpSignerSource({ url, fetch, unsafeTestRoots: [vlek.root] });
    const [first] = await Promise.all([signers.get(endorsementKey), signers.get(endorsementKey)]);
    expect(asked).to.deep.equal(["/vlek/v1/Milan/cert_chain"]);
    expect(verifySnpReport(report, { endorsementKey, signer: first }, options).endorsement).to.equal("vlek");
    const strangers = createSnpSignerSource({ url, fetch });
    expect((await rejectionOf(strangers.get(endorsementKey))).code).to.equal("collateral/other-signer");
  });

  it("judges a genuine AWS VLEK and genuine VCEKs without their intermediates", function () {
    const vectors = loadVectors()?.filter((vector) => vector.mustVerify && evidenceRole(vector) === "report");
    if (vectors === undefined) {
      console.log("      the evidence vectors are not here: nothing genuine to try this on");
      return this.skip();
    }
    for (const vector of vectors) {
      const { endorsementKey } = snpCertificates(vector);
      const options = { atUnixSeconds: vector.verifyAtUnixSeconds ?? Number.NaN, allowedVmpls: [0, 1] };
      expect(verifySnpReport(readVector(vector, "report"), { endorsementKey }, options).trust.kind, vector.id).to.equal(
        "vendor root",
      );
    }
  });

  supports(SNP, "AWS (VLEK alone)", "a node releases to such a machine", async () => {
    const tees = await createTestTees();
    const own = await createTestSnp({ atUnixSeconds: now(), product: "genoa", endorsement: "vlek" });
    const list = await own.issueCrl();
    const kds = await serve((path) =>
      path === "/vlek/v1/Genoa/cert_chain"
        ? pem(own.certificates.signer, own.root)
        : path === "/vlek/v1/Genoa/crl"
          ? list
          : 404,
    );
    try {
      const judge = createJudge({
        ...tees.judgeOptions,
        requireSnpCrl: true,
        snpKdsUrl: kds,
        unsafeTestRoots: [own.root],
      });
      const node = await createTestNode(tees, { judge });
      const { nonce } = (await (await post(node.app, "/v1/challenge", {})).json()) as { nonce: `0x${string}` };
      const binding = { ...BINDING, nonce: fromHex(nonce, "nonce") };
      const evidence = toWireEvidence(
        await deviceOf(own, { endorsementKey: own.certificates.endorsementKey }).attest(binding),
      );
      const request = { serviceId: SERVICE, evidence, recipientPublicKey: `0x${"02".repeat(32)}`, nonce };
      const response = await post(node.app, "/v1/keys", request);
      expect(response.status, await response.clone().text()).to.equal(200);
      await node.close();
    } finally {
      tees.folder.remove();
    }
  });

  supports(
    SNP,
    "bare metal (no certificates)",
    "the agent fetches the VCEK from KDS, keeps it, and backs off at 429",
    async () => {
      const cache = mkdtempSync(join(tmpdir(), "keystead-kds-"));
      const asked: string[] = [];
      const slept: number[] = [];
      let busy = 2;
      const url = await serve((path) => {
        asked.push(path);
        busy -= 1;
        return busy >= 0 ? 429 : Buffer.from(milan.certificates.endorsementKey);
      });
      const sleep = async (ms: number) => void slept.push(ms);
      const lines: string[] = [];
      const device = withKds(deviceOf(milan), { url, cache, sleep, log: (line) => lines.push(line) });
      try {
        const evidence = await device.attest(BINDING);
        await device.attest(BINDING);
        const chip = "c1".repeat(64);
        expect(asked).to.deep.equal(Array(3).fill(`/vcek/v1/Milan/${chip}?blSPL=09&teeSPL=02&snpSPL=23&ucodeSPL=220`));
        expect(slept).to.deep.equal([3000, 3000]); // as the service asks
        expect(lines.join()).to.contain("429");
        if (evidence.kind !== "snp") throw new Error("not SEV-SNP");
        expect(evidence.certificates.endorsementKey).to.deep.equal(milan.certificates.endorsementKey);
        // Another run of the agent has it from the folder; one with a damaged file asks again.
        await withKds(deviceOf(milan), { url, cache, sleep }).attest(BINDING);
        expect(asked).to.have.length(3);
        const [file = ""] = readdirSync(cache);
        const { writeFileSync } = await import("node:fs");
        writeFileSync(join(cache, file), "<html>");
        await withKds(deviceOf(milan), { url, cache, sleep }).attest(BINDING);
        expect(asked).to.have.length(4);
      } finally {
        rmSync(cache, { recursive: true });
      }
    },
  );

  it("gives up on a service that stays busy, with a word that time may help, and at once on what is no certificate", async () => {
    const slept: number[] = [];
    const options = { sleep: async (ms: number) => void slept.push(ms) };
    const unreachable = { ...options, url: "http://127.0.0.1:1" };
    const error = await rejectionOf(withKds(deviceOf(milan), unreachable).attest(BINDING));
    expect([error.code, error.retryable]).to.deep.equal(["device/kds", true]);
    expect(slept).to.deep.equal([2000, 4000, 8000, 16_000]);
    for (const [answer, said] of [
      [404, /knows no VCEK/],
      ["<html>", /not a certificate/],
    ] as const) {
      const url = await serve(() => answer);
      const refused = await rejectionOf(withKds(deviceOf(milan), { ...options, url }).attest(BINDING));
      expect([refused.code, refused.retryable]).to.deep.equal(["device/kds", false]);
      expect(refused.message).to.match(said);
    }
    // And it does not ask where the host gives a key.
    const { endorsementKey } = milan.certificates;
    const given = await withKds(deviceOf(milan, { endorsementKey }), unreachable).attest(BINDING);
    expect(given.kind === "snp" && given.certificates.endorsementKey).to.equal(endorsementKey);
  });

  supports(SNP, "EPYC Turin on bare metal", "asked for by its short chip id and FMC", () => {
    const path = `/vcek/v1/Turin/${"c1".repeat(8)}?fmcSPL=01&blSPL=09&teeSPL=02&snpSPL=23&ucodeSPL=220`;
    for (const version of [2, 3, 4, 5])
      expect(vcekPath(parseSnpReport(turin.issueReport({ reportData, version })))).to.equal(path);
    const code = (report: Parameters<TestSnp["issueReport"]>[0], tee = milan) =>
      errorOf(() => vcekPath(parseSnpReport(tee.issueReport(report))));
    for (const error of [
      code({ reportData, chipId: fill(64, 0) }),
      code({ reportData, version: 2 }),
      code({ reportData }, vlek),
    ])
      expect(error.code).to.equal("device/no-certificates");
  });

  supports(SNP, "host certificate tables", "GUIDs in either byte order", () => {
    const { endorsementKey, signer } = milan.certificates;
    for (const spell of [(guid: string) => guid, swapped]) {
      const table = certificateTable({ [spell(VCEK)]: endorsementKey, [spell(ASK)]: signer });
      expect(parseCertificateTable(table)).to.deep.equal({ vcek: endorsementKey, signer });
    }
    const twice = certificateTable({ [VCEK]: endorsementKey, [swapped(VCEK)]: signer });
    expect(errorOf(() => parseCertificateTable(twice)).code).to.equal("device/certificate-table");
  });

  supports(SNP, "host certificate tables", "VCEK and VLEK together: the report says which counts", () => {
    const table = parseCertificateTable(
      certificateTable({
        [VCEK]: milan.certificates.endorsementKey,
        [VLEK]: vlek.certificates.endorsementKey,
        [ASK]: milan.certificates.signer,
      }),
    );
    const of = (tee: TestSnp) => chooseCertificates(parseSnpReport(tee.issueReport({ reportData })), table);
    expect(of(milan)).to.deep.equal({
      endorsementKey: milan.certificates.endorsementKey,
      signer: milan.certificates.signer,
    });
    // The table's ASK did not issue the VLEK: it is not sent along.
    expect(of(vlek)).to.deep.equal({ endorsementKey: vlek.certificates.endorsementKey });
    expect(chooseCertificates({ signingKey: "vcek" }, { vlek: vlek.certificates.endorsementKey })).to.deep.equal({});
  });

  it("reads the field's own tables", function () {
    const read = (name: string) => Object.keys(parseCertificateTable(fieldInput(this, name)));
    expect(read("03-cert-table-mixed-endian.bin")).to.include("vcek");
    expect(read("03-cert-table-vlek-only.bin")).to.deep.equal(["vlek"]);
    expect(read("03-cert-table-vcek-and-vlek.bin")).to.include.members(["vcek", "vlek"]);
  });

  supports(SNP, "MASK_CHIP_ID", "accepted; the device id is that of the certificate's chip", () => {
    const options = (tee: TestSnp) => ({ atUnixSeconds: AT, unsafeTestRoots: [tee.root] });
    for (const tee of [milan, turin]) {
      const facts = [fill(64, 0), undefined].map((chipId) => {
        const report = tee.issueReport({ reportData, ...(chipId === undefined ? {} : { chipId }) });
        return factsOf(verifySnpReport(report, tee.certificates, options(tee)), {});
      });
      expect(facts[0]?.deviceId).to.equal(facts[1]?.deviceId);
    }
    // Masked, it is still that chip's key alone that counts.
    const report = milan.issueReport({ reportData, chipId: fill(64, 0) });
    expect(errorOf(() => verifySnpReport(report, vlek.certificates, options(vlek))).code).to.equal(
      "snp/endorsement-key",
    );
    const partly = milan.issueReport({ reportData, chipId: Uint8Array.of(...fill(63, 0), 1) });
    expect(errorOf(() => verifySnpReport(partly, milan.certificates, options(milan))).code).to.equal(
      "snp/chip-id-mismatch",
    );
  });

  for (const [version, name] of [
    ["Milan behind a mask", "04-snp-masked-chip-id.json"],
    ["Turin, report version 2", "05-snp-turin-report-v2.json"],
  ] as const)
    it(`judges the field's own report (${version})`, function () {
      const input = JSON.parse(Buffer.from(fieldInput(this, name)).toString("utf8"));
      const bytes = (field: string) => fromBase64(input[field], field);
      const root = bytes("unsafeTestRoot");
      const certificates = { endorsementKey: bytes("endorsementKey"), signer: bytes("signer"), root };
      const options = { atUnixSeconds: input.atUnixSeconds, unsafeTestRoots: [root] };
      const verified = verifySnpReport(bytes("report"), certificates, options);
      expect(verified.chipId).to.not.equal(undefined);
    });

  supports(SNP, "EPYC Turin", "report versions 2 to 5; the certificate decides the TCB layout", () => {
    for (const version of [2, 3, 4, 5]) {
      const report = turin.issueReport({ reportData, version });
      const verified = verifySnpReport(report, turin.certificates, {
        atUnixSeconds: AT,
        unsafeTestRoots: [turin.root],
      });
      expect(verified.product).to.equal("turin");
      expect(verified.report.reportedTcb).to.include({ fmc: 1, bootloader: 9, tee: 2, snp: 23, microcode: 220 });
      const minimum = (snp: number) => factsOf(verified, { snpMinimumTcb: { turin: { fmc: 1, snp } } }).tcbStatus;
      expect([minimum(23), minimum(24)]).to.deep.equal(["UpToDate", "OutOfDate"]);
    }
  });

  supports(SNP, "EPYC Turin", "a CPU model for launch digests", () => {
    // QEMU target/i386/cpu.c: family 26, model 0, stepping 0.
    const digest = (vcpuType: string) =>
      computeLaunchDigest(
        parseLaunchInputs(json(launchInputs({ vcpu_type: vcpuType })), { cmdline: "console=ttyS0", vcpus: 2 }),
      );
    for (const name of ["EPYC-Turin", "EPYC-Turin-v1"]) {
      expect(VCPU_SIGNATURES.get(name)).to.equal(0xb00f00);
      expect(digest(name)).to.not.deep.equal(digest("EPYC-Genoa"));
    }
  });

  supports(
    SNP,
    "EPYC Venice",
    "parsed, measured and judged by its own TCB layout (AMD's root is not pinned yet)",
    async () => {
      const venice = await createTestSnp({ atUnixSeconds: AT, product: "venice" });
      for (const version of [2, 3, 5]) {
        const verified = verifySnpReport(venice.issueReport({ reportData, version }), venice.certificates, {
          ...{ atUnixSeconds: AT, unsafeTestRoots: [venice.root] },
        });
        expect(verified.report.reportedTcb).to.include({
          fmc: 1,
          bootloader: undefined,
          tee: 2,
          snp: 23,
          microcode: undefined,
        });
        const status = (minimum: object) => factsOf(verified, { snpMinimumTcb: { venice: minimum } }).tcbStatus;
        expect([status({ fmc: 1, snp: 23 }), status({ snp: 24 }), status({ microcode: 0 })]).to.deep.equal([
          "UpToDate",
          "OutOfDate",
          "OutOfDate",
        ]);
      }
      // Whatever else its firmware writes there is not guessed at.
      const odd = venice.issueReport({ reportData, tcb: Uint8Array.of(1, 0, 2, 23, 0, 0, 0, 220) });
      expect(errorOf(() => parseSnpReport(odd)).code).to.equal("snp/tcb-layout");
      const real = { atUnixSeconds: AT };
      expect(
        errorOf(() => verifySnpReport(venice.issueReport({ reportData }), venice.certificates, real)).code,
      ).to.equal("snp/wrong-root");
      for (const model of [0x50, 0x57, 0x90, 0xaf, 0xc0, 0xc7])
        expect(parseSnpReport(venice.issueReport({ reportData, cpuid: [0x1a, model, 0] })).product).to.equal("venice");
      for (const model of [0x12, 0x1f])
        expect(parseSnpReport(turin.issueReport({ reportData, cpuid: [0x1a, model, 0] })).product).to.equal("turin");
      expect(vcekPath(parseSnpReport(venice.issueReport({ reportData })))).to.equal(
        `/vcek/v1/Venice/${"c1".repeat(8)}?fmcSPL=01&teeSPL=02&snpSPL=23`,
      );
    },
  );

  supports(SNP, "BadRAM (AMD-SB-3015)", "a machine without ALIAS_CHECK_COMPLETE is OutOfDate, unless waived", () => {
    const options = { atUnixSeconds: AT, unsafeTestRoots: [milan.root] };
    const verified = verifySnpReport(
      milan.issueReport({ reportData, platformInfo: 0x05n }),
      milan.certificates,
      options,
    );
    const status = (minimum: object) => factsOf(verified, { snpMinimumTcb: { milan: minimum } }).tcbStatus;
    expect(status({ snp: 23 })).to.equal("OutOfDate");
    expect(status({ snp: 23, aliasCheck: false })).to.equal("UpToDate");
    expect(snpFindings(verified.report).map(({ code }) => code)).to.deep.equal(["evidence/alias-check"]);
  });

  supports(SNP, "bits without a known meaning", "refused, in policy and platform information", () => {
    const options = { atUnixSeconds: AT, unsafeTestRoots: [milan.root] };
    const code = (report: object) =>
      errorOf(() => verifySnpReport(milan.issueReport({ reportData, ...report }), milan.certificates, options)).code;
    for (let bit = 26n; bit < 64n; bit += 1n)
      expect(code({ policy: 0x30000n | (1n << bit) })).to.equal("snp/policy-unknown");
    for (const bit of [6n, ...Array.from({ length: 56 }, (_, index) => BigInt(8 + index))])
      expect(code({ platformInfo: 0x25n | (1n << bit) })).to.equal("snp/platform-unknown");
    // All that are known at once, but for debug and migration.
    const known = milan.issueReport({ reportData, policy: 0x3f3ffffn, platformInfo: 0xbfn });
    expect(verifySnpReport(known, milan.certificates, options).kind).to.equal("snp");
  });

  supports(
    "Azure confidential VMs",
    "SEV-SNP report wrapped by the vTPM (HCL)",
    "said to be unsupported, and why",
    () => {
      const blob = new Uint8Array(2600);
      blob.set(new TextEncoder().encode("HCLA"));
      blob.set(milan.issueReport({ reportData }), 32);
      for (const command of ["report", "quote", "nitro"]) {
        const run = keystead(["measure", command, folder.write("hcl.bin", blob), "--json"]);
        expect(run.code, command).to.equal(2);
        expect(run.stderr, command).to.contain("Azure").and.to.contain("not supported");
      }
      expect(errorOf(() => parseSnpReport(blob)).code).to.equal("snp/azure-hcl");
    },
  );

  it("lets nodes be asked with a key alone, and tells a machine without one what to do", async () => {
    const none = errorOf(() => toWireEvidence({ kind: "snp", report: fill(10, 1), certificates: {} }));
    expect(none.code).to.equal("device/no-certificates");
    expect(none.remedy).to.contain("--kds").and.to.contain("--vcek");
  });
});
