import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { INTENTS } from "../../src/governance/intents.ts";
import { errorCodeOf, type Folder, jsonOf, keystead, makeFolder } from "../helpers/cli.ts";
import { addressOf, PARTIES, SERVICE, savedMeasurement } from "../helpers/governance.ts";
import { measured } from "../helpers/images.ts";

const COMPOSE = new TextEncoder().encode("services: {}\n");
const OS = measured("os image", 32);

describe("keystead propose, verify, decode", () => {
  let folder: Folder;
  let record: string;
  let out: string;
  before(() => {
    folder = makeFolder();
    out = join(folder.path, "proposals");
    const contract = (number: number) => ({
      ...{ address: addressOf(number), source: "a.sol:A", codeHash: `0x${"00".repeat(32)}` },
      ...{ transaction: `0x${"00".repeat(32)}`, block: 1, constructorArguments: [] },
    });
    const safe = (address: string, version: string) => ({ address, version, owners: [addressOf(50)], threshold: 1 });
    record = folder.write(
      "deployment.json",
      JSON.stringify({
        ...{ schema: 1, network: "mainnet", chainId: "1", block: 1, delaySeconds: 172800, roles: [] },
        safes: {
          governance: safe(PARTIES.governance.address, "1.5.0"),
          guardian: safe(PARTIES.guardian.address, "1.4.1"),
        },
        contracts: {
          ...{ policy: contract(1), registry: contract(2), timelock: contract(3), dstackAuth: contract(4) },
          ...{ policyImplementation: contract(5), registryImplementation: contract(6) },
        },
      }),
    );
  });
  after(() => folder.remove());

  const common = (id: string) => ["--id", id, "--deployment", record, "--out", out, "--json"];
  const nonces = ["--nonce", "5", "--guardian-nonce", "7"];
  const verify = (id: string) => keystead(["verify", join(out, id), "--deployment", record, "--json"]);

  it("proposes a measured platform, verifies it, and gives the same bytes when asked again", () => {
    const saved = folder.write("saved.json", savedMeasurement("dstack", { os_image_hash: OS }, COMPOSE));
    const compose = folder.write("docker-compose.yaml", COMPOSE);
    const args = [
      "propose",
      "allow-platform",
      "--measurement",
      saved,
      "--source",
      compose,
      "--description",
      "v2",
      ...common("001-os"),
      ...nonces,
    ];
    const first = keystead(args);
    expect([first.code, first.stderr]).to.deep.equal([0, ""]);
    expect(jsonOf(first).headline).to.match(/^GRANT 1 dstack platform · delay 48 h · earliest /);
    expect(jsonOf(first).written).to.include.members([
      "operation.json",
      "REPORT.md",
      "rollback.safe.json",
      "measurements/measurement.json",
    ]);
    const again = keystead(args);
    expect([again.code, jsonOf(again).written]).to.deep.equal([0, []]);
    const found = verify("001-os");
    expect([found.code, jsonOf(found).ok, jsonOf(found).differences]).to.deep.equal([0, true, []]);
    const text = keystead(["verify", join(out, "001-os")]).stdout;
    expect(text).to.include("DERIVED AS PROPOSED").and.to.include("domain hash");
    expect(text.indexOf("domain hash")).to.be.lessThan(text.indexOf("safeTxHash"));
    expect(readFileSync(join(out, "001-os", "REPORT.md"), "utf8"))
      .to.include("SHA-256 of the file")
      .and.to.include("docker-compose.yaml");
    const other = keystead([...args, "--timelock-delay", "3d"]);
    expect([other.code, errorCodeOf(other)]).to.deep.equal([2, "proposal/exists"]);
  });

  it("exits 1 and names what was changed, 2 where there is nothing to check", () => {
    const file = join(out, "001-os", "schedule.safe.json");
    const good = readFileSync(file, "utf8");
    writeFileSync(file, good.replace('"delay": "172800"', '"delay": "0"'));
    const found = verify("001-os");
    expect(found.code).to.equal(1);
    expect(JSON.stringify(jsonOf(found).differences)).to.include("contractInputsValues.delay");
    writeFileSync(file, good);
    expect(verify("001-os").code).to.equal(0);
    const nothing = verify("999-none");
    expect([nothing.code, errorCodeOf(nothing)]).to.deep.equal([2, "proposal/not-found"]);
  });

  it("refuses an image that was not measured, and a source that was not measured", () => {
    const saved = folder.write("saved2.json", savedMeasurement("dstack", { os_image_hash: OS }, COMPOSE));
    const stranger = folder.write("other.yaml", "services: {y: {}}\n");
    const image = `dstack:os_image_hash=${measured("another", 32).slice(2)}`;
    for (const [more, code] of [
      [["--image", image], "provenance/other-image"],
      [["--source", stranger], "provenance/other-source"],
    ] as const) {
      const run = keystead([
        "propose",
        "allow-platform",
        "--measurement",
        saved,
        "--description",
        "",
        ...more,
        ...common("002-os"),
        ...nonces,
      ]);
      expect([run.code, errorCodeOf(run)]).to.deep.equal([2, code]);
    }
  });

  it("wants the nonces that hashes depend on, and no others", () => {
    const args = ["propose", "suspend-tee", "--kind", "tdx", "--reason", "broken", ...common("003-tdx")];
    // its rollback goes from the governance Safe
    expect(errorCodeOf(keystead([...args, "--guardian-nonce", "7"]))).to.equal("propose/bad-option");
    expect(keystead([...args, ...nonces]).code).to.equal(0);
    expect(jsonOf(verify("003-tdx")).headline).to.match(/^REVOKE 1 TEE kind · at once/);
    const veto = [
      "propose",
      "veto",
      "--operation",
      `0x${"77".repeat(32)}`,
      ...common("004-veto"),
      "--guardian-nonce",
      "7",
    ];
    expect(keystead(veto).code).to.equal(0);
  });

  it("proposes several intents at once, and a service's own", () => {
    const upgrade = (contract: string, n: number) => ({
      intent: "upgrade",
      arguments: { contract, implementation: addressOf(n), previous: addressOf(n + 10) },
    });
    const intents = folder.write("intents.json", JSON.stringify([upgrade("policy", 30), upgrade("registry", 31)]));
    expect(keystead(["propose", "batch", intents, ...common("005-v2"), ...nonces]).code).to.equal(0);
    expect(jsonOf(verify("005-v2")).headline).to.match(/^UPGRADE 2 upgrades · delay 48 h/);
    const own = ["--safe", addressOf(20), "--safe-version", "1.3.0", "--safe-nonce", "0"];
    const rotate = keystead(["propose", "rotate-key", "--service", SERVICE, ...own, ...common("006-rotate")]);
    expect([rotate.code, rotate.stderr]).to.deep.equal([0, ""]);
    expect(verify("006-rotate").code).to.equal(0);
  });

  it("shows an arbitrary call as what it is, and exits 2 since it could not read it", () => {
    const run = keystead([
      "propose",
      "call",
      "--to",
      addressOf(60),
      "--data",
      "0xdeadbeef",
      ...common("007-call"),
      ...nonces,
    ]);
    expect([run.code, jsonOf(run).headline]).to.satisfy(
      ([code, line]: [number, string]) => code === 0 && line.includes("1 WARNING"),
    );
    const found = verify("007-call");
    expect([found.code, jsonOf(found).ok]).to.deep.equal([2, true]);
  });

  it("decodes calldata and batch files", () => {
    const file = join(out, "005-v2", "schedule.safe.json");
    const run = keystead(["decode", file, "--deployment", record]);
    expect([run.code, run.stderr]).to.deep.equal([0, ""]);
    expect(run.stdout).to.include("schedule the calls below, to be executed after 48 h").and.to.include(addressOf(31));
    expect(keystead(["decode", "0xdeadbeef"]).code).to.equal(2);
    expect(errorCodeOf(keystead(["decode", "0xabc", "--json"]))).to.equal("hex/malformed");
    const bare = keystead(["decode", "--json", "-"], { input: readFileSync(file) });
    // without a deployment's record nobody knows whose timelock it is
    expect([bare.code, jsonOf(bare).calls[0].words.noun]).to.deep.equal([2, "scheduling"]);
  });

  it("has a subcommand for every intent", () => {
    const help = keystead(["propose", "--help"]).stdout;
    for (const name of [...Object.keys(INTENTS), "call", "batch"])
      expect(help).to.match(new RegExp(`^ {2}${name} `, "m"));
  });
});
