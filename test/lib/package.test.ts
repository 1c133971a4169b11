import { spawn, spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { decodeImage, formatImage } from "../../src/core/image.ts";
import { type Chain, startChain } from "../deploy/chains.ts";
import { makeFolder } from "../helpers/cli.ts";
import { measured, tdxImage } from "../helpers/images.ts";
import { type ProxyEndpoint, startProxy } from "../helpers/proxy.ts";
import { deploySuite } from "../helpers/suite.ts";

const ROOT = join(import.meta.dirname, "..", "..");
const text = (bytes: string) => formatImage(decodeImage(Buffer.from(bytes.slice(2), "hex"), "service"));

/** Runs a program and waits for it, showing what it said when it failed. */
function runIn(cwd: string, program: string, args: readonly string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { cwd, encoding: "utf8", timeout: 240_000 });
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${stdout}${stderr}`);
  return stdout;
}

describe("the package", () => {
  const folder = makeFolder();
  const installed = join(folder.path, "node_modules", "keystead");
  let chain: Chain;
  let proxy: ProxyEndpoint;
  let args: string[];

  before(async function () {
    this.timeout(300_000);
    runIn(ROOT, process.execPath, [join(ROOT, "node_modules/typescript/bin/tsc"), "-p", "tsconfig.lib.json"]);
    const packed = runIn(ROOT, "npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", folder.path]);
    const [{ filename } = { filename: "" }] = Object.values(JSON.parse(packed)) as { filename: string }[];
    mkdirSync(installed, { recursive: true });
    runIn(folder.path, "tar", ["xzf", filename, "-C", installed, "--strip-components=1"]);
    // its dependencies, as an installation would put them beside it
    for (const name of readdirSync(join(ROOT, "node_modules"))) {
      if (name.startsWith(".") || name === "keystead") continue;
      symlinkSync(join(ROOT, "node_modules", name), join(folder.path, "node_modules", name));
    }
    folder.write("package.json", JSON.stringify({ name: "wallet", private: true, type: "module" }));
    copyFileSync(join(ROOT, "examples", "wallet-check.ts"), join(folder.path, "wallet-check.ts"));

    chain = await startChain("anvil");
    const suite = await deploySuite(chain.connection);
    const own = suite.registry.connect(suite.admin);
    const config = {
      admin: suite.admin.address,
      noticePeriod: 60,
      description: "",
      devices: [],
      requireUpToDateTcb: false,
    };
    const id = await own.serviceIdFor(suite.admin.address, measured("lib", 32));
    await (await own.createServiceWithImage(config, measured("lib", 32), tdxImage("v1"), "first")).wait();
    await (await own.addImageToService(id, tdxImage("v2"), "second")).wait();
    proxy = await startProxy(chain.anvil?.url ?? "");
    args = [proxy.url, await suite.registry.getAddress(), id];
  });
  after(async () => {
    folder.remove();
    await proxy?.stop();
    await chain?.stop();
  });
  beforeEach(() => {
    proxy.change = (_method, answer) => answer;
  });

  const run = (cwd: string, ...command: string[]) =>
    new Promise<{ code: number | null; said: string }>((resolve) => {
      const child = spawn(process.execPath, command, { cwd, env: { PATH: process.env.PATH ?? "" } });
      let said = "";
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding("utf8").on("data", (chunk: string) => {
          said += chunk;
        });
      }
      child.once("close", (code) => resolve({ code, said }));
    });
  const example = (...more: string[]) => run(folder.path, "wallet-check.ts", ...args, ...more);

  it("holds what its exports name, the contracts, and no sources, tests or mocks", () => {
    const { exports } = JSON.parse(readFileSync(join(installed, "package.json"), "utf8"));
    for (const [name, target] of Object.entries<string | Record<string, string>>(exports)) {
      if (typeof target === "string") continue;
      for (const condition of ["types", "default"]) {
        expect(existsSync(join(installed, target[condition] ?? "")), `${name} ${condition}`).to.equal(true);
      }
      expect(existsSync(join(ROOT, target["keystead-source"] ?? "")), name).to.equal(true);
    }
    expect(existsSync(join(installed, "contracts/registry/IKmsRegistry.sol"))).to.equal(true);
    for (const absent of ["src/core", "test", "contracts/mocks", "deploy"])
      expect(existsSync(join(installed, absent)), absent).to.equal(false);
  });

  it("is typed: a strict program with all its entries compiles, its declarations included", () => {
    folder.write(
      "all.ts",
      [
        'import { connect, type Client } from "keystead";',
        'import { auditSuite, type SuiteAudit, watch } from "keystead/audit";',
        'import { KMS_REGISTRY_ABI } from "keystead/abi";',
        'import { connectContracts, type KmsRegistry } from "keystead/contracts";',
        'import { diffMeasurements, parseTdxQuote } from "keystead/images";',
        "export const lines: readonly string[] = KMS_REGISTRY_ABI;",
        "export const all = [connect, auditSuite, watch, connectContracts, diffMeasurements, parseTdxQuote];",
        "export type All = [Client, SuiteAudit, KmsRegistry];",
        "// @ts-expect-error a service is no number: were the types lost, this would compile",
        "export const wrong = (client: Client): unknown => auditSuite(client, { registry: 7 });",
      ].join("\n"),
    );
    const options = {
      module: "nodenext",
      target: "es2024",
      lib: ["es2024"],
      types: ["node"],
      strict: true,
      noEmit: true,
    };
    const compilerOptions = { ...options, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true };
    folder.write("tsconfig.json", JSON.stringify({ compilerOptions, files: ["all.ts", "wallet-check.ts"] }));
    const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
    const { stdout } = spawnSync(process.execPath, [tsc, "-p", "."], { cwd: folder.path, encoding: "utf8" });
    // other packages' declarations are theirs to mend
    const ours = stdout.split("\n").filter((line) => /error/.test(line) && !/node_modules\/(?!keystead)/.test(line));
    expect(ours).to.deep.equal([]);
  }).timeout(120_000);

  it("every entry loads, with what it promises", async () => {
    folder.write(
      "load.mjs",
      [
        'import * as main from "keystead"; import * as audit from "keystead/audit"; import * as images from "keystead/images";',
        'import * as contracts from "keystead/contracts"; import * as abi from "keystead/abi"; import { Interface } from "ethers";',
        "const events = new Interface(abi.KMS_REGISTRY_ABI).fragments.filter(({ type }) => type === 'event').length;",
        "console.log(JSON.stringify({ events, factory: contracts.KmsRegistry__factory.bytecode.length > 1000,",
        "  functions: [main.connect, audit.auditSuite, audit.createVmUpdatesApp, images.parseImage].every((f) => typeof f === 'function') }));",
      ].join("\n"),
    );
    const { code, said } = await run(folder.path, "load.mjs");
    expect(code, said).to.equal(0);
    const loaded = JSON.parse(said);
    expect(loaded).to.deep.include({ factory: true, functions: true });
    expect(loaded.events).to.be.greaterThan(13);
  });

  describe("the example, from the installed package", () => {
    it("proves who can change what runs, and that the image that runs may have keys: exit 0", async () => {
      const { code, said } = await example(text(tdxImage("v1")));
      expect(code, said).to.equal(0);
      expect(said).to.match(/^Proven at block \d+: 3 events, none missing\.$/m);
      expect(said).to.match(/can add images, 60 s ahead/);
      expect(said)
        .to.match(/^pending +0x/m)
        .and.to.contain("The image that runs is active.");
    });

    it("an image that is pending, or unknown, may not: exit 1", async () => {
      expect(await example(text(tdxImage("v2")))).to.deep.include({ code: 1 });
      const { code, said } = await example(text(tdxImage("v3")));
      expect([code, said.includes("is unknown")]).to.deep.equal([1, true]);
    });

    it("a history that lacks a log is broken: exit 1; no proof or no chain is exit 2", async () => {
      proxy.change = (method, answer) => (method === "eth_getLogs" ? [] : answer);
      const broken = await example();
      expect([broken.code, broken.said.includes("broken: dropped")]).to.deep.equal([1, true]);
      proxy.change = (method, answer) => {
        if (method === "eth_getProof") throw { code: -32601, message: "does not exist" };
        return answer;
      };
      expect((await example()).code).to.equal(2);
      proxy.change = () => {
        throw { code: -32603, message: "no" };
      };
      expect((await example()).code).to.equal(2);
    });

    it("runs from a clone, without a build, on the sources", async () => {
      const { code, said } = await run(ROOT, "--conditions=keystead-source", "examples/wallet-check.ts", ...args);
      expect(code, said).to.equal(0);
    });
  });
});
