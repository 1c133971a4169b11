import { expect } from "chai";
import type { Page } from "playwright-core";
import { measured, tdxImage } from "../helpers/images.ts";
import { BROWSER_TESTS, openTab, type Tab } from "../web/browser.ts";
import { startLiar } from "../web/rpc.ts";
import { enterStage, leaveStage, type Stage, settled } from "../web/stage.ts";
import { benchmark } from "./benchmark.ts";

/*
 * How the explorer fares with a larger deployment: dozens of services, more than a thousand events, one service with a long history, and an endpoint that
 * is as far away as endpoints are. Figures are printed; what a reader must not wait for is held. Run by `npm run bench:web`, in real Chromium.
 */

const SERVICES = 40;
const IMAGES_EACH = 24;
/** Images of the service with the long history. */
const LONG = 300;
/** Images that one transaction lists. */
const BATCH = 25;
/** Milliseconds that an answer takes on its way. */
const LATENCY = 25;
/** The longest that the page may not answer while it reads, in milliseconds: a machine shared with others included. */
const MAX_BLOCKED = 1500;
/** The longest that a page may take to be drawn from what was read, in milliseconds. */
const MAX_DRAWN = 3000;

/** Lists images in a service, many with each transaction. */
async function seed({ explored }: Stage): Promise<string> {
  const { registry, ada } = explored.world;
  const config = { admin: ada.address, noticePeriod: 0, devices: [], requireUpToDateTcb: false };
  const fill = async (name: string, images: number) => {
    const salt = measured(`salt of ${name}`, 32);
    await (await registry.createService({ ...config, description: name }, salt)).wait();
    const id = await registry.serviceIdFor(ada.address, salt);
    for (let at = 0; at < images; at += BATCH) {
      const list = Array.from({ length: Math.min(BATCH, images - at) }, (_, index) => ({
        image: tdxImage(`${name}, ${at + index}`),
        description: `release ${at + index} of ${name}`,
      }));
      await (await registry.addImagesToService(id, list)).wait();
    }
    return id;
  };
  for (let index = 0; index < SERVICES; index++) await fill(`service ${index}`, IMAGES_EACH);
  return fill("a service with a long history", LONG);
}

/** How long an act takes until what it changed has been drawn, in milliseconds. */
async function drawn(page: Page, act: string): Promise<number> {
  return Number(
    await page.evaluate(
      `new Promise((done) => { const start = performance.now(); ${act};
        setTimeout(() => requestAnimationFrame(() => setTimeout(() => done(performance.now() - start))), 0); })`,
    ),
  );
}

const print = (what: string, value: string) => console.log(`      ${what.padEnd(58)}${value.padStart(14)}`);
const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;

benchmark("explorer with a larger deployment", function () {
  this.timeout(600_000);
  let stage: Stage;
  let long: string;
  let tab: Tab | undefined;

  before(async function () {
    if (!BROWSER_TESTS) this.skip();
    stage = await enterStage();
    long = await seed(stage);
  });
  after(() => (BROWSER_TESTS ? leaveStage() : undefined));

  it("shows a service long before the rest, answers while it reads, and draws every page at once", async () => {
    const far = await startLiar(stage.explored.anvil.url, async (_method, answer) => {
      await new Promise((resolve) => setTimeout(resolve, LATENCY));
      return answer;
    });
    try {
      tab = await openTab(stage.browser);
      const { page } = tab;
      await page.addInitScript(
        `window.blocked = []; new PerformanceObserver((list) => { for (const { duration } of list.getEntries()) window.blocked.push(duration); }).observe({ type: "longtask" });`,
      );
      const start = performance.now();
      await page.goto(stage.url(`service/${long}`, { rpc: far.url }));
      await page.locator(".seal").waitFor({ timeout: 300_000 });
      const first = performance.now() - start;
      await page.locator(".strip .rest").waitFor({ state: "detached", timeout: 300_000 });
      const all = performance.now() - start;
      const blocked = (await page.evaluate("window.blocked")) as number[];
      const longest = Math.max(0, ...blocked);
      print("a service with 301 events is shown after", seconds(first));
      print("everything is read after", seconds(all));
      const strip = await page.locator(".strip .item", { hasText: "verified in" }).textContent();
      print("calls", /([\d,]+) calls/.exec(strip ?? "")?.[1] ?? "?");
      print("the page did not answer for at most", `${longest.toFixed(0)} ms`);
      const memory = Number(await page.evaluate("performance.memory.usedJSHeapSize"));
      print("memory", `${(memory / 2 ** 20).toFixed(0)} MB`);
      print("elements on its page", String(await page.evaluate("document.querySelectorAll('*').length")));

      const costs: number[] = [];
      for (const [what, path] of [
        ["the services", "services"],
        ["the overview", "overview"],
        ["the long service again", `service/${long}`],
        ["another service", "services"],
      ] as const) {
        const cost = await drawn(
          page,
          `location.hash = ${JSON.stringify(new URL(stage.url(path, { rpc: far.url })).hash)}`,
        );
        costs.push(cost);
        print(`drawing ${what}`, `${cost.toFixed(0)} ms`);
      }
      const search = page.getByRole("searchbox");
      await search.waitFor();
      const typed = performance.now();
      await search.pressSequentially("service 39");
      await page.getByText("1 service of").waitFor();
      print("searching, a key", `${((performance.now() - typed) / 10).toFixed(0)} ms`);
      await page.goto(stage.url(`service/${long}`, { rpc: far.url }));
      const older = page.getByRole("button", { name: /older events/ });
      await older.waitFor();
      const unfolding = await drawn(
        page,
        `[...document.querySelectorAll("button")].find((each) => /older events/.test(each.textContent)).click()`,
      );
      costs.push(unfolding);
      print("unfolding more of its events", `${unfolding.toFixed(0)} ms`);
      const tick = await page.evaluate(
        "new Promise((done) => { window.blocked.length = 0; setTimeout(() => done(Math.max(0, ...window.blocked)), 4000); })",
      );
      print("what each second takes, at most", `${Number(tick).toFixed(0)} ms`);

      expect(first, "a service waits for nobody").to.be.below(all / 2);
      expect(longest).to.be.below(MAX_BLOCKED);
      expect(Math.max(...costs)).to.be.below(MAX_DRAWN);
      expect(tab.problems).to.deep.equal([]);
      await settled(page);
    } finally {
      await tab?.close();
      await far.close();
    }
  });
});
