import { expect } from "chai";
import { concat } from "ethers";
import { serviceSlots, slotHex } from "../../src/chain/slots.ts";
import { formatImage } from "../../src/core/image.ts";
import { fold } from "../helpers/history.ts";
import { measured, tdxImage } from "../helpers/images.ts";
import { BROWSER_TESTS, openTab, shoot, type Tab } from "./browser.ts";
import { type Lie, startLiar } from "./rpc.ts";
import { enterStage, leaveStage, mainText, type Stage, settled } from "./stage.ts";
import { IMAGES } from "./world.ts";

/** What a service with two events may cost before it is shown: the chain, its policy, block, head, history, views, code. */
const MOST_CALLS = 20;

/** A scan of a whole contract; a walk asks for the logs of a block by its hash. */
const isScan = (method: string, params: readonly unknown[]) =>
  method === "eth_getLogs" && (params[0] as { blockHash?: string }).blockHash === undefined;
const withoutLogs = (answer: unknown, serviceId: string, keep: number) => {
  let seen = 0;
  return (answer as { topics: string[] }[]).filter(({ topics }) => !topics[1]?.startsWith(serviceId) || seen++ < keep);
};

describe("explorer in Chromium: a service, and what its answer rests on", () => {
  let stage: Stage;
  const ends: (() => Promise<void>)[] = [];

  before(async function () {
    this.timeout(300_000);
    if (!BROWSER_TESTS) this.skip();
    stage = await enterStage();
  });
  after(() => (BROWSER_TESTS ? leaveStage() : undefined));
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });
  /** Opens a page over an endpoint that lies, and does not wait for it. */
  const visit = async (lie: Lie, path: string, changes: Readonly<Record<string, string>> = {}): Promise<Tab> => {
    const endpoint = await startLiar(stage.explored.anvil.url, lie);
    ends.push(endpoint.close);
    const tab = await openTab(stage.browser);
    ends.push(tab.close);
    await tab.page.goto(stage.url(path, { rpc: endpoint.url, ...changes }));
    return tab;
  };

  describe("given a link to it", () => {
    it("is shown with its verdict after a few calls, while the registry's log is still being read", async () => {
      const { solo } = stage.explored.services;
      let calls = 0;
      let open = () => {};
      const gate = new Promise<void>((resolve) => {
        open = resolve;
      });
      const { page } = await visit(async (method, answer, params) => {
        if (isScan(method, params)) await gate;
        else calls += 1;
        return answer;
      }, `service/${solo}`);
      await page.getByText("A bot with one admin key").first().waitFor();
      const before = calls;
      await shoot(page, "service-early");
      console.log(`      ${before} calls before the service is shown`);
      expect(before).to.be.within(5, MOST_CALLS);
      expect(await page.locator(".seal .verdict").innerText()).to.equal("Proven");
      expect(await page.locator(".strip").innerText()).to.match(/this service alone[\s\S]*the rest is being read/);
      expect(await page.locator(".strip").innerText(), "no verdict on the whole").not.to.contain("Proven");
      const early = await mainText(page);
      expect(early, "nobody has looked at who the admin is, and it says so").to.contain("account being read");
      expect(early).not.to.contain("EOA");
      expect(early).to.contain("can pause all releases is being read");
      await page.locator(".entry summary").first().click();
      // the other pages wait for everything
      await page.getByRole("link", { name: "Services", exact: true }).click();
      await page.getByRole("progressbar", { name: "Verification" }).waitFor();
      await page.goBack();
      await page.locator(".entry summary").first().click();
      open();
      await settled(page);
      expect(await page.locator(".strip .verdict, .strip .badge").first().innerText()).to.contain("Proven");
      await page.getByText("EOA (one key)").first().waitFor();
      expect(await page.locator(".entry details[open]").count(), "what was opened stays open").to.equal(1);
      expect(await mainText(page)).not.to.match(/being read|not read/);
      expect(await page.locator("main [role=alert]").count()).to.equal(0);
      expect(calls, "the rest took more").to.be.above(before);
    });

    it("given that the rest can't be read says so, keeps the service, and gives no verdict on the whole", async () => {
      let down = true;
      const { page } = await visit((method, answer, params) => {
        if (down && isScan(method, params)) throw { code: -32000, message: "the archive is away" };
        return answer;
      }, `service/${stage.explored.services.solo}`);
      await page.getByText("Only this service was read and verified").waitFor();
      expect(await page.locator(".seal .verdict").innerText()).to.equal("Proven");
      const text = await mainText(page);
      expect(text).to.contain("chain/refused").and.to.contain("account not read");
      expect(text).to.contain("can pause all releases was not read").and.not.to.contain("being read");
      expect(await page.locator(".strip").innerText()).not.to.contain("Proven");
      await page.getByRole("link", { name: "Overview" }).click();
      await page.getByRole("heading", { name: "Nothing could be checked" }).waitFor();
      await page.goBack();
      down = false;
      await page.getByRole("button", { name: "Try again" }).click();
      await page.getByText("EOA (one key)").first().waitFor();
    });

    it("given a scan that leaves events out reads them again by block, and is proven with all of them", async () => {
      const { wallet } = stage.explored.services;
      let left = 0;
      const { page } = await visit((method, answer, params) => {
        if (!isScan(method, params)) return answer;
        const kept = withoutLogs(answer, wallet, 3);
        left += (answer as unknown[]).length - kept.length;
        return kept;
      }, `service/${wallet}`);
      await settled(page);
      expect(left, "events that the scan left out").to.be.above(0);
      expect(await page.locator(".seal .verdict").innerText()).to.equal("Proven");
      expect(await page.locator(".strip .verdict, .strip .badge").first().innerText()).to.contain("Proven");
      expect(await page.locator(".entry").count()).to.equal(11);
      expect(await page.locator("main [role=alert]").count()).to.equal(0);
    });

    it("given another history once the registry is listed is broken, and says that there were two", async () => {
      const { wallet } = stage.explored.services;
      let listing = false;
      const { page } = await visit((method, answer, params) => {
        if (method !== "eth_getLogs") return answer;
        const scan = isScan(method, params);
        listing ||= scan;
        return listing ? withoutLogs(answer, wallet, scan ? 3 : 0) : answer;
      }, `service/${wallet}`);
      await page.getByText("the endpoint gave another history than").waitFor();
      expect(await page.locator(".seal .verdict").innerText()).to.equal("Broken");
      expect(await page.locator(".entry").count()).to.equal(0);
    });

    it("given a walk that is refused shows it with all the others", async () => {
      const { page } = await visit((method, answer, params) => {
        if (method === "eth_getLogs" && !isScan(method, params)) throw { code: -32602, message: "no such parameter" };
        return answer;
      }, `service/${stage.explored.services.solo}`);
      await page.getByText("EOA (one key)").first().waitFor();
      expect(await page.locator(".seal .verdict").innerText()).to.equal("Proven");
      expect(await page.locator("main [role=alert]").count()).to.equal(0);
    });

    it("given a second endpoint with another block shows nothing of it", async () => {
      const second = await startLiar(stage.explored.anvil.url, (method, answer) =>
        method === "eth_getBlockByNumber" ? { ...(answer as object), hash: `0x${"ab".repeat(32)}` } : answer,
      );
      ends.push(second.close);
      const witness = { witness: second.url };
      const { page } = await visit((_method, answer) => answer, `service/${stage.explored.services.solo}`, witness);
      await page.getByText("chain/disagreement").waitFor();
      expect(await page.locator(".seal, .strip").count()).to.equal(0);
    });
  });

  describe("given a false proof of the registry's code alone", () => {
    const lie: () => Promise<Lie> = async () => {
      const { connection, deployment } = stage.explored.world;
      const slot = "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc";
      const word = await connection.ethers.provider.getStorage(deployment.contracts.registry.address, slot);
      const implementation = `0x${word.slice(-40)}`.toLowerCase();
      return (method, answer, params) => {
        if (method !== "eth_getProof" || String(params[0]).toLowerCase() !== implementation) return answer;
        const proof = answer as { accountProof: string[] };
        return { ...proof, accountProof: proof.accountProof.map((node) => node.replace(/.{4}$/, "0000")) };
      };
    };

    it("every page says so, and no answer about a quote counts as proven", async () => {
      const { page } = await visit(await lie(), `service/${stage.explored.services.wallet}`);
      await page.getByText("proof of the registry's code is false").waitFor();
      expect(await page.locator("main [role=alert]").innerText()).to.contain("broken: false-proof");
      await settled(page);
      await shoot(page, "false-code-service");
      expect(await page.getByText("proof of the registry's code is false").count()).to.equal(1);
      expect(await page.locator(".strip").innerText()).to.contain("Broken");

      await page.getByRole("link", { name: "Overview" }).click();
      await page.getByText("false proofs of the code behind a proxy").waitFor();
      expect(await page.locator(".seal .verdict").innerText()).to.equal("Broken");
      const card = page.locator("article.card", { hasText: "its code hash" });
      expect(await card.filter({ hasText: "registry" }).first().innerText()).to.contain("broken: false-proof");
      expect(await card.filter({ hasText: "policy" }).last().innerText()).not.to.contain("broken");

      await page.getByRole("link", { name: "Check a quote" }).click();
      await page.getByLabel("Evidence").fill(formatImage(IMAGES.v2));
      await page.getByRole("button", { name: "Check" }).click();
      await page.getByText("accepted, by the endpoint's word alone").waitFor();
      expect(await page.locator(".results .panel.ok, .results .badge.ok", { hasText: "accepted" }).count()).to.equal(0);
    });
  });

  it("given a long history shows its newest part, more on demand, and all of it on paper", async () => {
    const { provider } = stage.explored.world.connection;
    const snapshot = await provider.request({ method: "evm_snapshot", params: [] });
    try {
      const id = await createLong(stage, 60);
      const { page } = await visit((_method, answer) => answer, `service/${id}`);
      await settled(page);
      const shown = async () => [
        await page.locator(".card.image").count(),
        await page.locator("li.entry").count(),
        await page.locator(".timeline .lane .name code").count(),
        await page.locator("li.entry .registers").count(),
      ];
      expect(await shown()).to.deep.equal([20, 50, 16, 0]);
      expect(await page.locator(".card.image").first().innerText(), "newest first").to.contain("release 59");
      expect(await mainText(page)).to.contain("16 of 60 images are drawn");
      await page.emulateMedia({ media: "print" });
      await page.locator("li.entry .registers").nth(59).waitFor();
      expect(await shown()).to.deep.equal([60, 61, 60, 60]);
      await page.emulateMedia({ media: null });
      await page.getByRole("button", { name: "Show 20 of 40 further images" }).click();
      await page.getByRole("button", { name: "Show 20 further images" }).waitFor();
      await page.getByRole("button", { name: "Show 11 older events" }).click();
      await page.locator("li.entry", { hasText: "create service" }).waitFor();
      expect(await shown()).to.deep.equal([40, 61, 16, 0]);
    } finally {
      await provider.request({ method: "evm_revert", params: [snapshot] });
    }
  });

  describe("given an event that this version does not know", () => {
    it("is consistent and not proven, shows the event as unknown, and answers no question about a quote", async () => {
      const { world, services } = stage.explored;
      const { provider } = world.connection;
      const request = (method: string, params: readonly unknown[]) => provider.request({ method, params: [...params] });
      const snapshot = await request("evm_snapshot", []);
      try {
        const log = await logUnknownEvent(stage, services.slow);
        const { page } = await visit((_method, answer) => answer, `service/${services.slow}`);
        await page.getByText("unknown event", { exact: true }).waitFor();
        await settled(page);
        await shoot(page, "unknown-event");
        expect(await page.locator(".seal .verdict").innerText()).to.equal("Consistent, not proven");
        const text = await mainText(page);
        expect(text).to.contain("not proven: unknown-events");
        expect(text).to.contain("a storage proof");
        expect(await page.locator(".entry", { hasText: "unknown event" }).innerText()).to.contain(log.slice(0, 6));

        await page.getByRole("link", { name: "Check a quote" }).click();
        await page.getByLabel("Evidence").fill(formatImage(IMAGES.enclave));
        await page.getByRole("button", { name: "Check" }).click();
        await page.locator(".results").waitFor();
        const answer = await page.locator(".results").innerText();
        expect(answer).not.to.contain("would be accepted by");
        expect(answer).to.contain("can't be judged: a history holds events that this version does not know");
        // a service with nothing unknown is answered for as ever
        await page.getByLabel("Evidence").fill(formatImage(IMAGES.v2));
        await page.getByRole("button", { name: "Check" }).click();
        await page.getByText("would be accepted by 1 service").waitFor();
      } finally {
        await request("evm_revert", [snapshot]);
      }
    });
  });
});

/** Creates a service with so many images, 25 with each transaction. */
async function createLong({ explored }: Stage, images: number): Promise<string> {
  const { registry, ada } = explored.world;
  const salt = measured("salt of a long history", 32);
  const config = { admin: ada.address, noticePeriod: 0, description: "", devices: [], requireUpToDateTcb: false };
  await (await registry.createService(config, salt)).wait();
  const id = await registry.serviceIdFor(ada.address, salt);
  for (let at = 0; at < images; at += 25) {
    const list = Array.from({ length: Math.min(25, images - at) }, (_, index) => ({
      image: tdxImage(`long ${at + index}`),
      description: `release ${at + index}`,
    }));
    await (await registry.addImagesToService(id, list)).wait();
  }
  return id.toLowerCase();
}

/**
 * Has the registry log an event that no version knows, chained as every event is: its code is another for one transaction, and the head and the count are
 * then what a contract that knows the event would have written. Everything that an endpoint says of it afterwards is true.
 *
 * @returns the event's topic
 */
async function logUnknownEvent({ explored }: Stage, serviceId: string): Promise<string> {
  const { connection, deployment, eve } = explored.world;
  const registry = deployment.contracts.registry.address;
  const request = (method: string, params: readonly unknown[]) =>
    connection.provider.request({ method, params: [...params] });
  const topics = [`0x${"e7".repeat(32)}`, `${serviceId}${"00".repeat(12)}`];
  const data = `0x${"00".repeat(31)}01`;
  // logs its input: two topics, then data
  const code = await connection.ethers.provider.getCode(registry);
  await request("anvil_setCode", [registry, "0x602035600035604036038060406000376000a200"]);
  const receipt = await (await eve.sendTransaction({ to: registry, data: concat([...topics, data]) })).wait();
  await request("anvil_setCode", [registry, code]);
  const slots = serviceSlots(serviceId as `0x${string}`);
  const read = (slot: string) => connection.ethers.provider.getStorage(registry, slot);
  const word = BigInt(await read(slots.word));
  const sequence = ((word >> 192n) & 0xffffffffn) + 1n;
  const counters = (BigInt(receipt?.blockNumber ?? 0) << 224n) | (sequence << 192n);
  await request("anvil_setStorageAt", [registry, slots.word, slotHex((word & (2n ** 192n - 1n)) | counters)]);
  await request("anvil_setStorageAt", [registry, slots.head, fold(await read(slots.head), { topics, data })]);
  await request("evm_mine", []);
  return topics[0] ?? "";
}
