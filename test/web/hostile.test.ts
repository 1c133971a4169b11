import { expect } from "chai";
import { createExplorerApp } from "../../src/cli/explorer/app.ts";
import { serveApp } from "../../src/cli/serve.ts";
import { topicOf } from "../../src/core/events.ts";
import { buildTdxQuote } from "../helpers/evidence.ts";
import { BROWSER_TESTS, openTab, shoot, type Tab } from "./browser.ts";
import { type Lie, startLiar } from "./rpc.ts";
import { enterStage, leaveStage, mainText, overflow, type Stage, settled } from "./stage.ts";
import { HOSTILE } from "./world.ts";

type Log = { topics: string[]; data: string };
const isLogs = (method: string, answer: unknown): answer is Log[] => method === "eth_getLogs" && Array.isArray(answer);

describe("explorer in Chromium: what is hostile, and what fails", () => {
  let stage: Stage;
  const tabs: Tab[] = [];

  before(async function () {
    this.timeout(300_000);
    if (!BROWSER_TESTS) this.skip();
    stage = await enterStage();
  });
  after(() => (BROWSER_TESTS ? leaveStage() : undefined));
  afterEach(async () => {
    for (const tab of tabs.splice(0)) await tab.close();
  });
  const open: Stage["open"] = async (path, options) => {
    const tab = await stage.open(path, options);
    tabs.push(tab);
    return tab;
  };
  /** Opens a page over an endpoint that lies. */
  const lied = async (lie: Lie, path: string, act: (tab: Tab) => Promise<void>) => {
    const liar = await startLiar(stage.explored.anvil.url, lie);
    try {
      await act(await open(path, { changes: { rpc: liar.url } }));
    } finally {
      await liar.close();
    }
  };
  const topicOfService = (id: string) => `${id}${"00".repeat(12)}`;

  describe("texts from the chain", () => {
    it("given markup, scripts, reversed and invisible characters and the longest text shows them as text", async () => {
      expect(Buffer.byteLength(HOSTILE)).to.equal(512);
      for (const path of [`service/${stage.explored.services.hostile}`, "services", "overview"]) {
        const { page, problems } = await open(path, { context: { viewport: { width: 360, height: 740 } } });
        await shoot(page, `hostile-${path.split("/")[0]}`);
        const text = await mainText(page);
        expect(text, path).to.contain('<img src=x onerror="window.pwned=1"><script>');
        expect(text, path).to.contain("\\u{202e}gpj.exe\\u{202c}");
        for (const unseen of ["\u202e", "\u202c", "\u200b", "\u001b"]) expect(text, path).not.to.contain(unseen);
        expect(await page.evaluate("window.pwned"), path).to.equal(undefined);
        expect(await page.locator("main img, main script, main iframe").count(), path).to.equal(0);
        expect(await overflow(page), path).to.be.at.most(0);
        expect(problems, path).to.deep.equal([]);
      }
    });

    it("given a long text cuts it, and opens it on demand", async () => {
      const { page } = await open(`service/${stage.explored.services.hostile}`);
      const description = page.locator(".description");
      const cut = await description.innerText();
      await description.getByRole("button", { name: /show all \d+ characters/ }).click();
      const whole = await description.innerText();
      expect(whole.match(/W/g)?.length).to.equal(HOSTILE.match(/W/g)?.length);
      expect(cut.length).to.be.below(whole.length);
      await description.getByRole("button", { name: "show less" }).click();
      expect(await description.innerText()).to.equal(cut);
    });
  });

  describe("an endpoint that lies", () => {
    it("given a dropped event of a service is broken, and shows nothing of that history", async () => {
      const { hostile, wallet } = stage.explored.services;
      const lie: Lie = (method, answer) =>
        isLogs(method, answer)
          ? answer.filter(
              ({ topics }) => topics[0] !== topicOf("add_image_to_service") || topics[1] !== topicOfService(hostile),
            )
          : answer;
      await lied(lie, "overview", async ({ page }) => {
        await shoot(page, "broken-overview");
        expect(await page.locator(".seal .verdict").innerText()).to.equal("Broken");
        expect(await mainText(page)).to.contain("The histories of 1 service do not verify.");
        await page.getByRole("link", { name: hostile }).click();
        await page.getByText("Nothing of a broken history is shown").waitFor();
        await shoot(page, "broken-service");
        const text = await mainText(page);
        expect(text).to.match(/broken: (dropped|head-mismatch)/);
        expect(text).not.to.contain("onerror");
        expect(await page.locator(".entry, .card.image").count()).to.equal(0);
        // another service's history stands on its own proof
        await page.goto(page.url().replace(hostile, wallet));
        await page.getByText("A wallet that keeps its state").first().waitFor();
        expect(await page.locator(".seal .verdict").innerText()).to.equal("Proven");
      });
    });

    it("given an edited image would be accepted by nobody", async () => {
      const { wallet } = stage.explored.services;
      const lie: Lie = (method, answer) =>
        isLogs(method, answer)
          ? answer.map((log) =>
              log.topics[1] === topicOfService(wallet)
                ? { ...log, data: log.data.replaceAll("b3b3b3b3", "b3b3b3b4") }
                : log,
            )
          : answer;
      await lied(lie, "check", async ({ page }) => {
        const quote = buildTdxQuote({
          rtMr3: Uint8Array.from({ length: 48 }, (_, at) => (at % 4 === 3 ? 0xb4 : 0xb3)),
        });
        await page.getByLabel("Evidence").fill(Buffer.from(quote).toString("hex"));
        await page.getByRole("button", { name: "Check" }).click();
        const results = page.locator(".results");
        await results.waitFor();
        expect(await results.innerText()).to.contain("The histories of 1 service do not verify");
        expect(await results.innerText()).not.to.contain("would be accepted");
      });
    });

    it("given a policy whose event was dropped knows no allowed platform", async () => {
      const lie: Lie = (method, answer) =>
        isLogs(method, answer) ? answer.filter(({ topics }) => topics[0] !== topicOf("revoke_platform")) : answer;
      await lied(lie, "check", async ({ page }) => {
        await page.getByLabel("Evidence").fill(Buffer.from(buildTdxQuote()).toString("hex"));
        await page.getByRole("button", { name: "Check" }).click();
        await page.getByText("no platform is known to be allowed").waitFor();
        expect(await page.locator(".results").innerText()).not.to.contain("would be accepted");
      });
    });

    it("given a withheld service shows it to whoever asks for it, and says that it was withheld", async () => {
      const { slow } = stage.explored.services;
      // only the scan of the whole registry leaves it out: a question about the service itself is answered
      const lie: Lie = (method, answer, params) =>
        isLogs(method, answer) && (params[0] as { blockHash?: string }).blockHash === undefined
          ? answer.filter(({ topics }) => topics[1] !== topicOfService(slow))
          : answer;
      await lied(lie, `service/${slow}`, async ({ page }) => {
        await page.getByText("The endpoint withheld this service").waitFor();
        await page.getByText("A bridge behind the timelock").first().waitFor();
        expect(await page.locator(".seal .verdict").innerText()).to.equal("Proven");
      });
    });

    it("given another call in a scheduled operation says that it is not the operation's", async () => {
      const lie: Lie = (method, answer) =>
        isLogs(method, answer)
          ? answer.map((log) => ({ ...log, data: log.data.replace(`${"0".repeat(63)}4`, `${"0".repeat(63)}5`) }))
          : answer;
      const timelock = stage.explored.world.deployment.contracts.timelock.address.toLowerCase();
      const onlyTimelock: Lie = (method, answer, params) =>
        (params[0] as { address?: string })?.address === timelock ? lie(method, answer, params) : answer;
      await lied(onlyTimelock, "overview", async ({ page }) => {
        await page.getByText("the calls do not hash to the id").first().waitFor();
        expect(await mainText(page)).to.match(/look into this[\s\S]*do not hash to its id/);
      });
    });

    it("given no storage proofs is consistent and not proven, and says why", async () => {
      const lie: Lie = (method, answer) => {
        if (method === "eth_getProof") throw { code: -32601, message: "the method eth_getProof does not exist" };
        return answer;
      };
      await lied(lie, "overview", async ({ page }) => {
        await shoot(page, "consistent");
        expect(await page.locator(".seal .verdict").innerText()).to.equal("Consistent, not proven");
        expect(await mainText(page)).to.contain("no-storage-proof");
        expect(await page.getByText("by storage proof").count()).to.equal(0);
        // an answer about a quote then rests on the endpoint alone, and looks like it
        await page.getByRole("link", { name: "Check a quote" }).click();
        await page.getByLabel("Evidence").fill(Buffer.from(buildTdxQuote()).toString("hex"));
        await page.getByRole("button", { name: "Check" }).click();
        await page.getByText("accepted, by the endpoint's word alone").waitFor();
        expect(await page.locator(".results .panel.ok, .results .badge.ok", { hasText: "accepted" }).count()).to.equal(
          0,
        );
        expect(await page.locator(".results").innerText()).to.contain("Not proven:");
      });
    });

    it("given a false proof is broken", async () => {
      const lie: Lie = (method, answer) => {
        if (method !== "eth_getProof") return answer;
        const proof = answer as { accountProof: string[] };
        return { ...proof, accountProof: proof.accountProof.map((node) => node.replace(/.{4}$/, "0000")) };
      };
      await lied(lie, "policy", async ({ page }) => {
        expect(await page.locator(".seal .verdict").innerText()).to.equal("Broken");
        expect(await mainText(page)).to.contain("false-proof");
      });
    });
  });

  describe("a second endpoint", () => {
    it("given the same block vouches for it", async () => {
      const second = await startLiar(stage.explored.anvil.url, (_method, answer) => answer);
      try {
        const { page } = await open("overview", { changes: { witness: second.url } });
        expect(await mainText(page)).to.contain(`Both endpoints have it`);
        expect(await mainText(page)).to.contain(new URL(second.url).host);
      } finally {
        await second.close();
      }
    });

    it("given another block fails with chain/disagreement", async () => {
      const second = await startLiar(stage.explored.anvil.url, (method, answer) =>
        method === "eth_getBlockByNumber" ? { ...(answer as object), hash: `0x${"ab".repeat(32)}` } : answer,
      );
      try {
        const { page } = await open("overview", { changes: { witness: second.url } });
        expect(await mainText(page)).to.contain("chain/disagreement");
      } finally {
        await second.close();
      }
    });
  });

  describe("an endpoint that fails", () => {
    it("given a slow one says how far it has come", async () => {
      // each step lasts for longer than the half second between two looks of Playwright's
      const delays: Readonly<Record<string, number>> = { eth_getLogs: 1500, eth_call: 150 };
      const slow = await startLiar(stage.explored.anvil.url, async (method, answer) => {
        await new Promise((resolve) => setTimeout(resolve, delays[method] ?? 0));
        return answer;
      });
      try {
        const tab = await openTab(stage.browser);
        tabs.push(tab);
        await tab.page.goto(stage.url("overview", { rpc: slow.url }));
        await tab.page.getByRole("progressbar", { name: "Verification" }).waitFor();
        await tab.page.locator("li[aria-current=step]", { hasText: "every service's history" }).waitFor();
        await shoot(tab.page, "progress");
        expect(await mainText(tab.page)).to.match(/[1-9]\d* calls to the endpoint so far/);
        await settled(tab.page);
        expect(await tab.page.locator(".seal .verdict").innerText()).to.equal("Proven");
      } finally {
        await slow.close();
      }
    });

    it("given nobody who answers says what to do, gives no verdict, and tries again on demand", async () => {
      let down = true;
      const liar = await startLiar(stage.explored.anvil.url, (_method, answer) => {
        if (down) throw { code: -32005, message: "rate limit exceeded, 429" };
        return answer;
      });
      try {
        const { page } = await open("overview", { changes: { rpc: liar.url } });
        await shoot(page, "down");
        const text = await mainText(page);
        expect(text).to.contain("Nothing could be checked");
        expect(text).to.contain("chain/rate-limited");
        expect(text).to.contain("What to do:");
        expect(text).to.contain("This is no verdict");
        expect(await page.locator(".seal").count()).to.equal(0);
        down = false;
        await page.getByRole("button", { name: "Try again" }).click();
        await page.getByRole("heading", { name: "Overview" }).waitFor();
        expect(await page.locator(".seal .verdict").innerText()).to.equal("Proven");
      } finally {
        await liar.close();
      }
    });

    for (const [what, changes, code] of [
      ["no server at all", { rpc: "http://127.0.0.1:9" }, "chain/unreachable"],
      ["another chain", { chain: "1" }, "chain/wrong-chain"],
      ["a policy that is not the registry's", { policy: `0x${"77".repeat(20)}` }, "audit/wrong-policy"],
      ["a registry that is none", { registry: `0x${"77".repeat(20)}` }, "chain/not-this-contract"],
    ] as const) {
      it(`given ${what} fails with ${code}, and offers the form`, async () => {
        const { page } = await open("overview", { changes });
        expect(await mainText(page)).to.contain(code);
        await page.getByRole("link", { name: "Change the endpoint or addresses" }).click();
        await page.getByRole("heading", { name: "Which deployment?" }).waitFor();
        expect(await page.getByLabel("RPC endpoint").inputValue()).to.match(/^http/);
      });
    }

    it("given a page served for one endpoint connects to no other, and says so", async () => {
      const server = await serveApp(createExplorerApp(stage.files, ["https://rpc.example"]), {
        host: "127.0.0.1",
        port: 0,
      });
      try {
        const tab = await openTab(stage.browser);
        tabs.push(tab);
        await tab.page.goto(stage.url("overview").replace(stage.server.url, server.url));
        await settled(tab.page);
        expect(await mainText(tab.page)).to.contain("web/not-allowed");
        expect(tab.problems.join("\n")).to.contain("Content Security Policy");
      } finally {
        await server.close();
      }
    });
  });
});
