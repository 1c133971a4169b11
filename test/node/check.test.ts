import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect } from "chai";
import { getAddress } from "ethers";
import { stringify } from "yaml";
import { formatDeployment } from "../../src/chain/deployment.ts";
import { checkNode } from "../../src/node/check.ts";
import { parseNodeConfig } from "../../src/node/config.ts";
import { formatTdxCollateral } from "../../src/node/evidence/tdx-collateral.ts";
import { createFileRootStore } from "../../src/node/keys.ts";
import { createTestTees, now, type TestTees } from "../helpers/node.ts";
import { deploymentRecord } from "../helpers/record.ts";

const REGISTRY = `0x${"ab".repeat(20)}`;
const POLICY = `0x${"ac".repeat(20)}`;
const PASSPHRASE = "a passphrase of the tests, long enough";

describe("keystead node check", function () {
  this.timeout(120_000);
  let tees: TestTees;
  const server = createServer((_request, response) => response.writeHead(404).end());
  const write = (name: string, content: string | Uint8Array) => tees.folder.write(name, content);
  let good: Record<string, unknown>;
  let port: number;

  /** What a check of the good configuration with these changes finds, by its name: state, code, detail. */
  const check = async (changes: Record<string, unknown> = {}) => {
    const config = parseNodeConfig(stringify({ ...good, ...changes }), {}, tees.folder.path);
    const findings = await checkNode(config, { passphrase: PASSPHRASE });
    return new Map(findings.map(({ check: name, state, code, detail }) => [name, { state, code, detail }]));
  };

  before(async () => {
    tees = await createTestTees();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    port = (server.address() as AddressInfo).port;
    await createFileRootStore(`${tees.folder.path}/root.json`, Buffer.from(PASSPHRASE)).create();
    good = {
      listen: { port: 0 },
      deployment: write(
        "record.json",
        formatDeployment(deploymentRecord(getAddress(REGISTRY), getAddress(POLICY), 31337n)),
      ),
      // nothing of a chain answers there
      chain: { endpoints: [{ name: "own", url: `http://127.0.0.1:${port}` }], quorum: 1 },
      root: { store: "file", path: "root.json" },
      receipts: "receipts.jsonl",
      evidence: {
        collateralFiles: tees.judgeOptions.collateralFiles,
        snpCrlFiles: { milan: write("milan.crl", await tees.snp.issueCrl()) },
      },
      unsafeTestTee: { roots: [write("tdx.der", tees.tdx.root), write("snp.der", tees.snp.root)] },
      allowCoreDumps: true,
    };
  });
  after(() => {
    server.close();
    tees.folder.remove();
  });

  it("given all but a chain, is content with the rest, and says which endpoint fails", async () => {
    const found = await check();
    const failed = [...found].filter(([, { state }]) => state === "failed").map(([name]) => name);
    expect(failed).to.deep.equal(["chain"]);
    expect(found.get("chain")?.code).to.match(/^chain\//);
    expect(found.get("endpoint own")).to.include({ state: "warning" });
    expect(found.get("receipts")?.detail).to.contain("can be made");
    expect(found.get("TDX collateral collateral.json")?.detail).to.match(/^0x[0-9a-f]{12}, good until 2/);
    expect(found.get("AMD's CRL, milan")).to.include({ state: "ok" });
    expect(found.get("AMD's CRL")?.detail).to.contain("genoa, turin");
  });

  it("given no record, says of what needs it that it was not checked", async () => {
    const found = await check({ deployment: "no-such.json" });
    expect(found.get("deployment")).to.include({ state: "failed", code: "config/invalid" });
    for (const name of ["root", "chain"])
      expect(found.get(name), name).to.include({ state: "failed", code: "check/not-checked" });
  });

  it("given no root file: fails, and names the ways to one; with join configured, says that it will join", async () => {
    const root = { store: "file", path: "none.json" };
    const alone = (await check({ root })).get("root");
    expect(alone).to.include({ state: "failed", code: "root/not-found" });
    expect(alone?.detail).to.contain("node init").and.contain("node join");
    const join = {
      url: "https://kms-1.example",
      environmentKey: `0x${"11".repeat(32)}`,
      receiptSigner: `0x${"22".repeat(20)}`,
    };
    expect((await check({ root, join })).get("root")).to.include({ state: "ok" });
    // a root file that does not open is no missing one
    const wrong = { store: "file", path: "root.json", passphraseFile: write("other", "some other passphrase") };
    expect((await check({ root: wrong, join })).get("root")).to.include({ state: "failed", code: "root/not-opened" });
  });

  it("given a port in use, warns; given an address that is not this machine's, fails", async () => {
    expect((await check({ listen: { port } })).get("listen")).to.include({ state: "warning" });
    const elsewhere = (await check({ listen: { host: "192.0.2.1", port: 0 } })).get("listen");
    expect(elsewhere).to.include({ state: "failed", code: "node/not-listening" });
  });

  it("given collateral that is missing, out of date or under roots that are not taken, fails for each file", async () => {
    const [file] = tees.judgeOptions.collateralFiles ?? [];
    const expired = await tees.tdx.issueCollateral({ issuedAt: now() - 90 * 86_400, nextUpdate: now() - 86_400 });
    const collateralFiles = [
      file,
      "gone.json",
      write("old.json", formatTdxCollateral(expired)),
      write("no.json", "{}"),
    ];
    const found = await check({ evidence: { collateralFiles } });
    expect(found.get("TDX collateral collateral.json")).to.include({ state: "ok" });
    for (const name of ["gone.json", "old.json", "no.json"])
      expect(found.get(`TDX collateral ${name}`), name).to.include({ state: "failed" });
    const untrusted = await check({ unsafeTestTee: undefined });
    expect(untrusted.get("TDX collateral collateral.json")).to.include({ state: "failed" });
    expect((await check({ evidence: {} })).get("TDX collateral")).to.include({ state: "warning" });
  });

  it("given a PCCS that does not answer as one, fails", async () => {
    const found = await check({ evidence: { pccs: { url: `http://127.0.0.1:${port}` } } });
    expect(found.get("TDX collateral")).to.include({ state: "failed", code: "collateral/not-found" });
  });

  it("given AMD's list missing, not one, or out of date, fails; given that none is required, warns", async () => {
    const old = await tees.snp.issueCrl({ nextUpdate: now() - 10 });
    const found = await check({
      evidence: { snpCrlFiles: { milan: write("old.crl", old), genoa: "gone.crl", turin: write("no.crl", "x") } },
    });
    expect(found.get("AMD's CRL, milan")).to.include({ state: "failed", code: "snp/crl-expired" });
    expect(found.get("AMD's CRL, genoa")).to.include({ state: "failed", code: "config/invalid" });
    expect(found.get("AMD's CRL, turin")).to.include({ state: "failed" });
    expect((await check({ evidence: { requireSnpCrl: false } })).get("AMD's CRL")).to.include({ state: "warning" });
  });

  it("given receipts that were edited, fails and changes nothing", async () => {
    expect((await check({ receipts: write("edited.jsonl", "{}\n") })).get("receipts")).to.include({
      state: "failed",
      code: "receipts/corrupt",
    });
  });
});
