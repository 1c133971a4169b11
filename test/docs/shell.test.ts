import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { encryptKeystoreJson } from "ethers";
import { fromHex, toHex } from "../../src/core/bytes.ts";
import { encodeImage, parseImage } from "../../src/core/image.ts";
import { createTestTdx } from "../../src/node/test-tee/tdx.ts";
import { KmsRegistry__factory } from "../../typechain-types/index.ts";
import { PROGRAM_ENVIRONMENT } from "../helpers/environment.ts";
import { type GovernedChain, type Person, startGovernedChain, WHO } from "../helpers/governed-chain.ts";
import {
  type CodeBlock,
  commandLines,
  type Document,
  ROOT,
  readDocument,
  repositoryFiles,
} from "../helpers/markdown.ts";
import { config } from "../helpers/registry.ts";
import { APP_V1, APP_V2 } from "../helpers/rollout.ts";

/*
 * Every block of every document that is marked as shell is run: the commands of one file in one shell, in order, in a folder of their own, against one chain.
 * The comment `# 48 hours later` lets that time pass. Commands that are gates of .ci/run are run there, and not a second time here.
 */

const SHELL = new Set(["sh", "bash", "shell", "console", "zsh"]);
const GATES = readFileSync(join(ROOT, ".ci", "run"), "utf8");
/** `npm test` and `npm run demo` are gates, whatever options a gate adds. */
const isGate = (line: string) => {
  const command = line.replace(/^npm run /, "npm run --silent ");
  return GATES.split("\n").some((gate) => `${gate.replace(/^(gate|begin) +"[^"]+" +/, "")} `.startsWith(`${command} `));
};
const DOCUMENTS = repositoryFiles()
  .filter((file) => file.endsWith(".md"))
  .map(readDocument)
  .map((document) => ({ document, blocks: document.blocks.filter(({ language }) => SHELL.has(language)) }))
  .filter(({ blocks }) => blocks.length > 0);

/** Registers of a machine, for a quote under a root that the test made. */
async function quotes(): Promise<{ old: Uint8Array; now: Uint8Array }> {
  const tee = await createTestTdx({ atUnixSeconds: Math.floor(Date.now() / 1000) });
  const of = (text: string) => {
    const { registers } = parseImage(text);
    const bytes = (name: string) => fromHex(registers[name] ?? "0x", name);
    return tee.issueQuote({
      reportData: new Uint8Array(64),
      mrTd: bytes("mrtd"),
      rtMr0: bytes("rtmr0"),
      rtMr1: bytes("rtmr1"),
      rtMr2: bytes("rtmr2"),
      rtMr3: bytes("rtmr3"),
    });
  };
  return { old: of(APP_V1.image.text), now: of(APP_V2.image.text) };
}

/** The people's encrypted key files, by the names that the runbooks give them; of little work, for a test's patience. */
async function keyFiles(folder: string): Promise<Record<string, string>> {
  const password = "a password of the tests";
  writeFileSync(join(folder, "password.txt"), `${password}\n`);
  const people: Readonly<Record<string, Person>> = {
    ...{ OWNER_1: "alice", OWNER_2: "bob", GUARDIAN_1: "dave", GUARDIAN_2: "erin", RELAYER: "relayer" },
  };
  const files: Record<string, string> = { PASSWORD: join(folder, "password.txt") };
  for (const [name, person] of Object.entries(people)) {
    const { address, key: privateKey } = WHO[person];
    const file = join(folder, `${person}.json`);
    writeFileSync(file, await encryptKeystoreJson({ address, privateKey }, password, { scrypt: { N: 1024 } }));
    files[name] = file;
  }
  return files;
}

/**
 * A command as it is run: its exit code is 0, or the one that its comment says, e.g. `# exit 1: they differ`. A document that let any other pass would hide a
 * command that is broken.
 */
function expecting(line: string): string {
  const [, command = line, code = "0"] = /^(.*?)\s+# exit ([12])(?:: .*)?$/.exec(line) ?? [];
  if (code === "0") return line;
  const quoted = `'${command.replaceAll("'", `'\\''`)}'`;
  return `code=0; { ${command}; } || code=$?; [ "$code" = ${code} ] || { echo "exit $code where the document says ${code}:" ${quoted}; exit 1; }`;
}

/** What would let a command fail without anybody noticing. */
const HIDES = /\|\||;\s*true\b|\bset \+e\b|\btest \$\?|(?:^|[^&])&\s*$/;

function runShell(
  script: string,
  cwd: string,
  env: Readonly<Record<string, string>>,
): Promise<{ code: number | null; output: string }> {
  const child = spawn("bash", ["-c", script], { cwd, env, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => (output += text));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, output }));
  });
}

describe("shell blocks of Markdown files", function () {
  this.timeout(900_000);
  let chain: GovernedChain;
  let folder: string;
  let env: Record<string, string>;
  before(async () => {
    chain = await startGovernedChain("anvil");
    folder = mkdtempSync(join(tmpdir(), "keystead-docs-"));
    const { ethers } = chain.connection;
    const admin = await ethers.getSigner(WHO.frank.address);
    const { contracts, safes } = chain.deployment;
    const registry = KmsRegistry__factory.connect(contracts.registry.address, admin);
    const salt = `0x${"01".repeat(32)}`;
    await (await registry.createService(config(admin.address), salt)).wait();
    const service = (await registry.serviceIdFor(admin.address, salt)).toLowerCase();
    await (await registry.addImageToService(service, toHex(encodeImage(parseImage(APP_V1.image.text))), "1.0")).wait();
    const policy = await ethers.deployContract("PlatformPolicyV2");
    await policy.waitForDeployment();
    const next = await ethers.deployContract("KmsRegistryV2", [contracts.policy.address]);
    await next.waitForDeployment();
    const upgrade = (contract: string, implementation: string, previous: string) => ({
      intent: "upgrade",
      arguments: { contract, implementation, previous },
    });
    const upgrades = [
      upgrade("policy", await policy.getAddress(), contracts.policyImplementation.address),
      upgrade("registry", await next.getAddress(), contracts.registryImplementation.address),
    ];
    writeFileSync(join(folder, "upgrades.json"), JSON.stringify(upgrades));
    const { old, now } = await quotes();
    writeFileSync(join(folder, "old-quote.bin"), old);
    writeFileSync(join(folder, "quote.bin"), now);
    writeFileSync(join(folder, "image.txt"), `${APP_V2.image.text}\n`);
    writeFileSync(join(folder, "app.json"), "{}");
    const definition = {
      ...{ id: "v2", deployment: chain.record, service, nodes: [], machines: [] },
      application: { old: { as: "quote", inputs: ["old-quote.bin"] }, new: { as: "quote", inputs: ["quote.bin"] } },
      backup: { folder: "backup-v2", files: ["app.json"] },
      signers: { governance: [WHO.alice.address, WHO.bob.address], guardian: [WHO.dave.address, WHO.erin.address] },
      ...{ tcb: { tdx: "UpToDate" }, proposals: { folder: "proposals", first: 200 } },
    };
    writeFileSync(join(folder, "definition.yaml"), JSON.stringify(definition));
    env = {
      ...PROGRAM_ENVIRONMENT,
      ...{ NO_COLOR: "1", KEYSTEAD_RPC_URL: chain.url, DEPLOYMENT: chain.record, SERVICE: service },
      ...(await keyFiles(folder)),
      GUARDIAN: safes.guardian.address,
    };
  });
  after(async () => {
    await chain?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  /** One shell for a file: it stops at the first command that fails, and says which. */
  const scriptOf = (document: Document, blocks: readonly CodeBlock[]): string =>
    [
      "set -euo pipefail",
      `keystead() { "${process.execPath}" "${join(ROOT, "src", "cli", "main.ts")}" "$@"; }`,
      `rpc() { curl -sf -H "content-type: application/json" -d "{\\"jsonrpc\\":\\"2.0\\",\\"id\\":1,\\"method\\":\\"$1\\",\\"params\\":$2}" "$KEYSTEAD_RPC_URL" > /dev/null; }`,
      `npm() { (cd "${ROOT}" && command npm "$@"); }`,
      ...blocks.flatMap((block) => {
        const later = block.text.includes("# 48 hours later")
          ? [`rpc evm_increaseTime "[172801]"; rpc evm_mine "[]"`]
          : [];
        const lines = commandLines(block)
          .filter((line) => !isGate(line))
          .map(expecting);
        return [`echo "── ${document.path}:${block.line}"`, ...later, ...lines];
      }),
    ].join("\n");

  it("are held to the exit code that they say, and to 0 where they say none", async () => {
    const ends = async (line: string) => {
      const { code } = await runShell(`set -euo pipefail\n${expecting(line)}\ntrue`, folder, env);
      return code === 0;
    };
    const held = [];
    for (const line of ["true", "(exit 1)   # exit 1: because", "(exit 2) # exit 2"]) held.push(await ends(line));
    expect(held).to.deep.equal([true, true, true]);
    const caught = ["false", "true   # exit 1", "(exit 2)   # exit 1: because", "nonsense   # exit 1"];
    for (const line of caught) expect(await ends(line), line).to.equal(false);
    for (const line of ["a || b", "a || test $? -ne 2", "a; true", "a &"])
      expect(HIDES.test(line), line).to.equal(true);
  });

  for (const { document, blocks } of DOCUMENTS) {
    it(`${document.path} hides no exit code`, () => {
      expect(blocks.flatMap(commandLines).filter((line) => HIDES.test(line))).to.deep.equal([]);
    });
  }

  // what is rolled back must have been registered before; and once time has passed, the chain is ahead of this machine's clock
  const order = ["register-a-measurement", "roll-back"];
  const place = (path: string) => order.findIndex((name) => path.includes(name));
  for (const { document, blocks } of [...DOCUMENTS].sort((a, b) => place(a.document.path) - place(b.document.path))) {
    it(`${document.path} runs`, async () => {
      const { code, output } = await runShell(scriptOf(document, blocks), folder, env);
      expect(code, output.slice(-4000)).to.equal(0);
    });
  }
});
