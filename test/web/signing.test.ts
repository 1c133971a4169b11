import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import type { AxeResults } from "axe-core";
import { expect } from "chai";
import { Wallet } from "ethers";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { createExplorerApp } from "../../src/cli/explorer/app.ts";
import { loadExplorer } from "../../src/cli/explorer/build.ts";
import { type Serving, serveApp } from "../../src/cli/serve.ts";
import { jsonOf } from "../helpers/cli.ts";
import { type GovernedChain, startGovernedChain, WHO } from "../helpers/governed-chain.ts";
import { BROWSER_TESTS, launch, openTab, shoot, type Tab } from "./browser.ts";
import { overflow } from "./stage.ts";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SIZES: Readonly<Record<string, BrowserContextOptions>> = {
  desktop: { viewport: { width: 1280, height: 900 } },
  phone: { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true },
};

/** How an imitated wallet behaves. */
interface Behaviour {
  readonly key: string;
  readonly chainId?: string;
  /** Signs something else than it is asked, or declines. */
  readonly turns?: "other nonce" | "declines" | "garbage";
}

describe("the signing page in Chromium", function () {
  this.timeout(300_000);
  let chain: GovernedChain;
  let browser: Browser;
  let server: Serving;
  let folder: string;
  let tab: Tab;

  before(async function () {
    if (!BROWSER_TESTS) this.skip();
    chain = await startGovernedChain("anvil");
    const where = [
      "--id",
      "001-tdx",
      "--deployment",
      chain.record,
      "--out",
      chain.proposals,
      "--rpc",
      chain.url,
      "--json",
    ];
    const proposed = await chain.run(undefined, ["propose", "enable-tee", "--kind", "tdx", ...where]);
    expect(proposed.code, proposed.stderr).to.equal(0);
    folder = join(chain.proposals, "001-tdx");
    browser = await launch();
    const files = await loadExplorer(() => {});
    server = await serveApp(createExplorerApp(files, []), { host: "127.0.0.1", port: 0 });
  });
  after(async () => {
    await browser?.close();
    await server?.close();
    await chain?.stop();
  });
  afterEach(() => tab?.close());

  /** Opens the page with a wallet that announces itself as EIP-6963 has it, and answers from this process. */
  async function open(behaviour: Behaviour, context: BrowserContextOptions = {}): Promise<Page> {
    tab = await openTab(browser, { ...context, acceptDownloads: true });
    const { page } = tab;
    const wallet = new Wallet(behaviour.key);
    await page.exposeFunction("answerWallet", async (method: string, params: unknown[]) => {
      if (method === "eth_requestAccounts") return { result: [wallet.address.toLowerCase()] };
      if (method === "eth_chainId") return { result: behaviour.chainId ?? "0x7a69" };
      if (method === "wallet_switchEthereumChain") return { result: null };
      if (method === "eth_signTypedData_v4") {
        if (behaviour.turns === "declines") return { error: { code: 4001, message: "User rejected" } };
        if (behaviour.turns === "garbage") return { result: "0x1234" };
        const { domain, types, primaryType, message } = JSON.parse(String(params[1]));
        expect([params[0], primaryType]).to.deep.equal([wallet.address.toLowerCase(), "SafeTx"]);
        const { EIP712Domain: _, ...rest } = types;
        const meant = behaviour.turns === "other nonce" ? { ...message, nonce: "99" } : message;
        return { result: await wallet.signTypedData(domain, rest, meant) };
      }
      return { result: await chain.connection.provider.request({ method, params }) };
    });
    await page.addInitScript(`
      const provider = { request: async ({ method, params = [] }) => {
        const { result, error } = await window.answerWallet(method, params);
        if (error) throw error;
        return result;
      } };
      const announce = () => window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail: Object.freeze({
        info: { uuid: "350670db-19fa-4704-a166-e52e178b59d2", name: "Imitated <b>wallet</b>", icon: "data:,", rdns: "example.imitated" },
        provider,
      }) }));
      window.addEventListener("eip6963:requestProvider", announce);
      announce();
    `);
    await page.goto(`${server.url}/#/sign`);
    await page.getByRole("heading", { name: "Sign a proposal" }).waitFor();
    return page;
  }

  const choose = async (page: Page, directory = folder) => {
    await page.getByLabel("The deployment's record").setInputFiles(chain.record);
    await page.getByLabel("The proposal's folder").setInputFiles(directory);
    await page.locator(".results").waitFor();
  };

  /** Moves the focus by the keyboard alone until something with this text has it. */
  const tabTo = async (page: Page, text: RegExp) => {
    for (let presses = 0; presses < 60; presses++) {
      await page.keyboard.press("Tab");
      const focused = String(await page.evaluate("document.activeElement?.textContent ?? ''"));
      if (text.test(focused)) return;
    }
    throw new Error(`no ${text} is reached by the keyboard`);
  };

  const violations = async (page: Page) => {
    await page.evaluate(AXE);
    const { violations: found } = (await page.evaluate("axe.run(document)")) as AxeResults;
    return found.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(" | ")}`);
  };

  for (const [name, context] of Object.entries(SIZES)) {
    it(`on a ${name}, by keyboard alone: verifies, connects, signs, and gives a file that the command line counts`, async () => {
      const person = name === "phone" ? "bob" : "alice";
      const page = await open({ key: WHO[person].key }, context);
      await choose(page);
      expect(await page.locator(".results .lead").first().innerText()).to.include("Derived as proposed");
      await tabTo(page, /^Connect Imitated <b>wallet<\/b>$/);
      await page.keyboard.press("Enter");
      await page.getByRole("button", { name: "Yes, sign schedule" }).waitFor();
      const text = (await page.locator("main").innerText()).replaceAll(/\s+/g, " ");
      expect(text)
        .to.match(/governance Safe, owner [12] of 3/)
        .and.include("Puts the proposal into the timelock");
      expect(text).to.match(/LOOSENS: let keys be released to TDX machines/);
      expect(text).to.match(/Until it is executed, at the earliest .* by the governance Safe or the guardian Safe/);
      const { transactions } = jsonOf(await chain.run(undefined, ["verify", folder, "--json"]));
      for (const hash of [transactions[0].domainHash, transactions[0].messageHash]) expect(text).to.include(hash);
      await shoot(page, `sign-${name}`);
      expect(await violations(page)).to.deep.equal([]);
      expect(await overflow(page)).to.be.at.most(0);

      await tabTo(page, /^Yes, sign schedule$/);
      await page.keyboard.press("Enter");
      await page.getByText("Download the signature").waitFor();
      const download = page.waitForEvent("download");
      await tabTo(page, /^Download the signature$/);
      await page.keyboard.press("Enter");
      const file = await download;
      expect(file.suggestedFilename()).to.equal(`${WHO[person].address}.json`);
      await shoot(page, `sign-${name}-signed`);
      expect(await violations(page)).to.deep.equal([]);

      // put where the page says, it counts
      const copy = mkdtempSync(join(tmpdir(), "keystead-sign-"));
      const at = join(copy, "001-tdx");
      cpSync(folder, at, { recursive: true });
      const path = (await page.locator(".panel.ok code").innerText()).trim();
      await file.saveAs(join(at, path));
      const verified = jsonOf(await chain.run(undefined, ["verify", at, "--deployment", chain.record, "--json"]));
      expect([verified.ok, verified.differences]).to.deep.equal([true, []]);
      const again = await chain.run(person, ["sign", at, "--step", "schedule", "--yes", "--json"]);
      expect([again.code, jsonOf(again).written], "signed already").to.deep.equal([0, false]);
      rmSync(copy, { recursive: true });
      expect(tab.problems).to.deep.equal([]);
    });
  }

  it("takes a folder's files one by one, as a phone chooses them, and nothing leaves the page", async () => {
    const page = await open({ key: WHO.alice.key }, SIZES.phone);
    const names = [
      "operation.json",
      "schedule.safe.json",
      "execute.safe.json",
      "cancel.safe.json",
      "rollback.safe.json",
    ];
    const paths = [...names, "hashes.json", "expected-state.json", "REPORT.md"].map((file) => join(folder, file));
    await page.getByLabel("…or all of its files").setInputFiles(paths);
    await page.locator(".results").waitFor();
    expect(await page.locator(".results .lead").first().innerText()).to.include("Derived as proposed");
    expect(tab.requests.filter((url) => !url.startsWith(server.url) && !url.startsWith("blob:"))).to.deep.equal([]);
  });

  it("offers nothing to sign of a folder that was changed, and of one for another deployment", async () => {
    const copy = mkdtempSync(join(tmpdir(), "keystead-sign-"));
    const at = join(copy, "001-tdx");
    cpSync(folder, at, { recursive: true });
    const report = join(at, "REPORT.md");
    writeFileSync(report, readFileSync(report, "utf8").replace("LOOSENS", "TIGHTENS"));
    const page = await open({ key: WHO.alice.key });
    await choose(page, at);
    expect(await page.locator(".results .lead").first().innerText()).to.include("Do not sign");
    expect(await page.locator(".results").innerText()).to.include("REPORT.md");
    expect(await page.getByRole("button", { name: /Connect|Yes, sign/ }).count()).to.equal(0);
    await shoot(page, "sign-changed");
    const other = JSON.parse(readFileSync(chain.record, "utf8"));
    other.contracts.policy.address = WHO.frank.address;
    const record = join(copy, "other.json");
    writeFileSync(record, JSON.stringify(other));
    await page.getByLabel(/^Record/).setInputFiles(record);
    await page.getByText("the deployment's record").first().waitFor();
    await page.getByLabel("The proposal's folder").setInputFiles(folder);
    await page.getByText("contracts.policy").waitFor();
    expect(await page.getByRole("button", { name: /Connect|Yes, sign/ }).count()).to.equal(0);
    rmSync(copy, { recursive: true });
    expect(basename(folder)).to.equal("001-tdx");
  });

  for (const [what, behaviour, says] of [
    ["an account that is no owner", { key: WHO.stranger.key }, /Not an owner/],
    [
      "a wallet on another chain that stays there",
      { key: WHO.alice.key, chainId: "0x1" },
      /the wallet is on chain 1, the proposal on 31337/,
    ],
    [
      "a wallet that signs another nonce",
      { key: WHO.alice.key, turns: "other nonce" },
      /is not 0x\w+'s signature of this step/,
    ],
    ["a wallet that gives what is no signature", { key: WHO.alice.key, turns: "garbage" }, /must be 65 bytes/],
    ["somebody who declines", { key: WHO.alice.key, turns: "declines" }, /you declined it in the wallet/],
  ] as readonly [string, Behaviour, RegExp][]) {
    it(`given ${what}: says so, and gives no file`, async () => {
      const page = await open(behaviour);
      await choose(page);
      await page.getByRole("button", { name: /^Connect/ }).click();
      if (behaviour.turns !== undefined) await page.getByRole("button", { name: /^Yes, sign/ }).click();
      await page.getByText(says).first().waitFor();
      expect(await page.getByText("Download the signature").count()).to.equal(0);
    });
  }
});
