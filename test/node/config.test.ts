import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { stringify } from "yaml";
import { checkTestTee, parseNodeConfig, writesCoreDumps } from "../../src/node/config.ts";
import { errorOf } from "../helpers/errors.ts";

const README = readFileSync(join(import.meta.dirname, "..", "..", "src", "node", "README.md"), "utf8");
const MINIMAL = {
  deployment: "record.json",
  chain: { endpoints: [{ name: "own", url: "http://127.0.0.1:8545" }], quorum: 1 },
  root: { store: "file", path: "root.json" },
  receipts: "receipts.jsonl",
};
const parse = (changes: object = {}, env: Record<string, string> = {}) =>
  parseNodeConfig(stringify({ ...MINIMAL, ...changes }), env, "/etc/keystead");

describe("node configuration", () => {
  it("given the least there must be, fills in the rest, with every path absolute", () => {
    const config = parse();
    expect(config).to.deep.include({
      deployment: "/etc/keystead/record.json",
      receipts: "/etc/keystead/receipts.jsonl",
      root: { store: "file", path: "/etc/keystead/root.json" },
      listen: { host: "127.0.0.1", port: 8700 },
      allowCoreDumps: false,
      shareRoot: true,
    });
    expect(config.unsafeTestTee).to.equal(undefined);
    expect(config.evidence).to.deep.include({ requireSnpCrl: true, snpVmpls: [0] });
  });

  it("reads the README's example", () => {
    const example = /```yaml\n([\s\S]*?)```/.exec(README)?.[1] ?? "";
    const config = parseNodeConfig(example, {}, "/etc/keystead");
    expect(config.chain.endpoints).to.have.length(3);
    expect(config.chain.endpoints[1]?.urlFile).to.equal("/etc/keystead/other.url");
  });

  it("lets the environment stand before the file, by names without regard to case", () => {
    const config = parse(
      { listen: { port: 1 } },
      {
        KEYSTEAD_NODE__LISTEN__PORT: "8701",
        KEYSTEAD_NODE__CHAIN__MAX_AGE_SECONDS: "60",
        KEYSTEAD_NODE__ALLOWCOREDUMPS: "true",
        KEYSTEAD_NODE__ROOT__PASSPHRASEFILE: "secret",
        KEYSTEAD_NODE__EVIDENCE__PCCS__URL: "https://pccs.example",
        KEYSTEAD_NODE_CONFIG: "not a setting",
      },
    );
    expect(config.listen.port).to.equal(8701);
    expect(config.chain.maxAgeSeconds).to.equal(60);
    expect(config.allowCoreDumps).to.equal(true);
    expect(config.root).to.include({ passphraseFile: "/etc/keystead/secret" });
    expect(config.evidence.pccs?.url).to.equal("https://pccs.example");
  });

  it("given what is wrong, names it", () => {
    const cases: readonly [object, string][] = [
      [{ unknown: 1 }, "config"],
      [{ chain: { ...MINIMAL.chain, endpoints: [{ name: "own", url: "http://x", key: 1 }] } }, "chain.endpoints.0"],
      [{ listen: { port: 70_000 } }, "listen.port"],
      [{ listen: { prot: 1 } }, "listen"],
      [{ receipts: undefined }, "receipts"],
      [{ chain: { ...MINIMAL.chain, endpoints: [] } }, "chain.endpoints"],
      [{ chain: { ...MINIMAL.chain, endpoints: [{ name: "own" }] } }, "chain.endpoints.0"],
      [{ chain: { ...MINIMAL.chain, endpoints: [{ name: "own", url: "ftp://x" }] } }, "chain.endpoints.0.url"],
      [{ root: { store: "paper" } }, "root.store"],
      [
        { join: { url: "http://x", environmentKey: "0x12", receiptSigner: `0x${"1".repeat(40)}` } },
        "join.environmentKey",
      ],
      [{ unsafeTestTee: { roots: [] } }, "unsafeTestTee.roots"],
      [{ unsafeTestTee: true }, "unsafeTestTee"],
      [{ evidence: { snpVmpls: [4] } }, "evidence.snpVmpls.0"],
      [{ evidence: { snpMinimumTcb: { milan: {} } } }, "evidence.snpMinimumTcb.milan"],
    ];
    for (const [changes, argument] of cases) {
      const error = errorOf(() => parse(changes));
      expect([error.code, error.argument], JSON.stringify(changes)).to.deep.equal(["config/invalid", argument]);
    }
    for (const text of ["a: [", "a: 1\na: 2", "!!js/function x", "[]", "", "just text"])
      expect(errorOf(() => parseNodeConfig(text, {}, "/")).code, text).to.equal("config/invalid");
    const misspelt = errorOf(() => parse({}, { KEYSTEAD_NODE__LISTEN__PROT: "1" }));
    expect([misspelt.code, misspelt.argument]).to.deep.equal(["config/invalid", "KEYSTEAD_NODE__LISTEN__PROT"]);
    const oneUnderscore = errorOf(() => parse({}, { KEYSTEAD_NODE_LISTEN_PORT: "1" }));
    expect([oneUnderscore.code, oneUnderscore.argument]).to.deep.equal(["config/invalid", "KEYSTEAD_NODE_LISTEN_PORT"]);
  });

  it("given a setting that there is not, says which there are; given a variable's value that is wrong, names the variable", () => {
    expect(errorOf(() => parse({ listen: { prot: 1 } })).message).to.match(/"prot".*host, port/);
    expect(errorOf(() => parse({ recipts: "x" })).message).to.match(/"recipts".*receipts/);
    const fromOutside = errorOf(() =>
      parse({}, { KEYSTEAD_NODE__LISTEN__PORT: "x", KEYSTEAD_NODE__CHAIN__QUORUM: "1" }),
    );
    expect(fromOutside.argument).to.equal("listen.port");
    expect(fromOutside.message).to.contain("KEYSTEAD_NODE__LISTEN__PORT").and.not.to.contain("QUORUM");
  });

  it("given test roots, refuses every chain that is not a development chain", () => {
    const config = parse({ unsafeTestTee: { roots: ["root.der"] } });
    for (const chainId of [1n, 10n, 137n, 8453n, 17_000n, 42_161n, 11_155_111n, 2n ** 64n])
      expect(errorOf(() => checkTestTee(config, chainId)).code).to.equal("config/test-tee-on-public-chain");
    for (const chainId of [31_337n, 1337n]) checkTestTee(config, chainId);
    checkTestTee(parse(), 1n);
  });

  it("knows from the kernel's table whether core dumps are written", () => {
    const limits = (soft: string) =>
      `Limit   Soft Limit   Hard Limit   Units\nMax core file size        ${soft}      unlimited            bytes\n`;
    expect(writesCoreDumps(limits("0"))).to.equal(false);
    for (const soft of ["unlimited", "1", "1024"]) expect(writesCoreDumps(limits(soft))).to.equal(true);
    expect(writesCoreDumps("")).to.equal(false);
  });
});
