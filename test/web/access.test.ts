import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { AxeResults } from "axe-core";
import { expect } from "chai";
import type { Page } from "playwright-core";
import { buildTdxQuote } from "../helpers/evidence.ts";
import { BROWSER_TESTS, type openTab, shoot, type Tab } from "./browser.ts";
import { enterStage, leaveStage, mainText, overflow, type Stage } from "./stage.ts";
import { HOSTILE } from "./world.ts";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** What axe finds of serious or critical kind, one line each. */
async function violations(page: Page): Promise<readonly string[]> {
  await page.evaluate(AXE);
  const { violations: found } = (await page.evaluate("axe.run(document)")) as AxeResults;
  return found
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(" | ")}`);
}

describe("explorer in Chromium: for everybody, everywhere", () => {
  let stage: Stage;
  let tab: Tab | undefined;
  const paths = () => ({
    overview: "overview",
    services: "services",
    service: `service/${stage.explored.services.wallet}`,
    policy: "policy",
    check: "check",
    connect: "connect",
  });

  before(async function () {
    this.timeout(300_000);
    if (!BROWSER_TESTS) this.skip();
    stage = await enterStage();
  });
  after(() => (BROWSER_TESTS ? leaveStage() : undefined));
  afterEach(async () => {
    await tab?.close();
    tab = undefined;
  });

  /** Goes through all pages in one tab, by default with everything that can be opened open. */
  const visit = async (
    context: Parameters<typeof openTab>[1],
    act: (page: Page, name: string) => Promise<void>,
    opens = true,
  ) => {
    tab = await stage.open("overview", { context: context ?? {} });
    const { page } = tab;
    for (const [name, path] of Object.entries(paths())) {
      await page.goto(stage.url(path));
      const heading = { overview: "Overview", services: "Services", service: "0x", policy: "Policy", check: "Check" };
      await page
        .locator("h1", { hasText: Object.entries(heading).find(([key]) => key === name)?.[1] ?? "Which" })
        .waitFor();
      if (name === "check") {
        await page.getByLabel("Evidence").fill(Buffer.from(buildTdxQuote()).toString("hex"));
        await page.getByRole("button", { name: "Check" }).click();
        await page.locator(".results").waitFor();
      }
      for (const summary of !opens ? [] : await page.locator("main details:not([open]) > summary").all()) {
        if (await summary.isVisible()) await summary.click();
      }
      await act(page, name);
    }
  };

  for (const scheme of ["light", "dark"] as const) {
    it(`in ${scheme} mode axe finds nothing serious on any page`, async () => {
      await visit({ colorScheme: scheme }, async (page, name) => {
        await shoot(page, `${name}-${scheme}`);
        expect(await violations(page), `${name}, ${scheme}`).to.deep.equal([]);
      });
    });
  }

  it("dark mode is dark, and light mode is not", async () => {
    for (const [colorScheme, dark] of [
      ["dark", true],
      ["light", false],
    ] as const) {
      tab = await stage.open("overview", { context: { colorScheme } });
      const color = String(await tab.page.evaluate("getComputedStyle(document.body).backgroundColor"));
      const [red = 0] = (color.match(/\d+/g) ?? []).map(Number);
      expect(red < 64, `${colorScheme}: ${color}`).to.equal(dark);
      await tab.close();
    }
  });

  it("on a phone of 360 pixels no page is wider than the screen, nor any text smaller than 11 pixels", async () => {
    await visit({ viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true }, async (page, name) => {
      await shoot(page, `${name}-phone`);
      expect(await overflow(page), name).to.be.at.most(0);
      // a phone's window grows with what does not fit into it
      expect(await page.evaluate("window.innerWidth"), name).to.equal(360);
      const smallest = await page.evaluate(
        "Math.min(...[...document.querySelectorAll('main *')].filter((e) => e.innerText).map((e) => parseFloat(getComputedStyle(e).fontSize)))",
      );
      expect(smallest, name).to.be.at.least(11);
    });
  });

  it("on paper nothing is left that can only be clicked, and all of the page is there", async () => {
    await visit(
      {},
      async (page, name) => {
        await page.emulateMedia({ media: "print", colorScheme: "dark" });
        expect(await page.locator("nav").isVisible(), name).to.equal(false);
        for (const clickable of await page.locator("main button").all()) {
          expect(await clickable.isVisible(), `${name}: ${await clickable.textContent()}`).to.equal(false);
        }
        for (const closed of await page.locator("main details > *:not(summary)").all()) {
          expect(await closed.isVisible(), `${name}: ${await closed.textContent()}`).to.equal(true);
        }
        const background = await page.evaluate("getComputedStyle(document.body).backgroundColor");
        expect(background, name).to.equal("rgb(255, 255, 255)");
        await shoot(page, `${name}-print`);
        const pdf = await page.pdf({ format: "A4" });
        expect(pdf.subarray(0, 5).toString("latin1"), name).to.equal("%PDF-");
        await page.emulateMedia({ media: null, colorScheme: null });
      },
      false,
    );
  });

  it("on paper long texts from the chain are whole, when a reader prints and when a browser does", async () => {
    tab = await stage.open(`service/${stage.explored.services.hostile}`);
    const { page } = tab;
    const letters = async () => (await mainText(page)).match(/W/g)?.length ?? 0;
    const whole = HOSTILE.match(/W/g)?.length ?? 0;
    const onScreen = await letters();
    const texts = await page.getByRole("button", { name: /show all \d+ characters/ }).count();
    expect(texts).to.be.above(1);
    await page.emulateMedia({ media: "print" });
    await page.getByText("W".repeat(whole)).first().waitFor();
    expect(await letters()).to.be.above(onScreen);
    expect(await letters()).to.be.at.least(texts * whole);
    expect(await mainText(page)).not.to.contain("show all");
    await shoot(page, "hostile-print");
    await page.emulateMedia({ media: null });
    await page
      .getByRole("button", { name: /show all \d+ characters/ })
      .first()
      .waitFor();
    expect(await letters()).to.equal(onScreen);
    // what the page is like at the moment in which it is laid out for paper
    await page.evaluate(
      "window.addEventListener('beforeprint', () => { window.paper = document.querySelector('main').textContent; })",
    );
    await page.pdf({ format: "A4" });
    expect(String(await page.evaluate("window.paper")).match(/W/g)?.length).to.be.at.least(texts * whole);
    await page
      .getByRole("button", { name: /show all \d+ characters/ })
      .first()
      .waitFor();
  });

  it("by keyboard alone a reader gets from the overview to a service's registers, and to an answer about a quote", async () => {
    tab = await stage.open("overview");
    const { page } = tab;
    const { keyboard } = page;
    const focused = () => page.evaluate("document.activeElement?.textContent ?? ''");
    const tabTo = async (text: string | RegExp, most = 80) => {
      for (let presses = 0; presses < most; presses++) {
        await keyboard.press("Tab");
        if (new RegExp(text).test(String(await focused()))) return;
      }
      throw new Error(`nothing that says ${text} can be reached by Tab`);
    };
    await tabTo(/^Skip to the content$/);
    await keyboard.press("Enter");
    expect(await page.evaluate("document.activeElement?.id")).to.equal("content");

    await page.locator("body").press("Home");
    await page.evaluate("document.activeElement.blur()");
    await tabTo(/^Services$/);
    const outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle");
    expect(outline, "the focus can be seen").to.equal("solid");
    await keyboard.press("Enter");
    await page.getByRole("heading", { name: "Services", exact: true }).waitFor();
    expect(await page.evaluate("document.activeElement?.id"), "focus follows the page").to.equal("content");
    await keyboard.press("Tab");
    await keyboard.type("wallet that");
    await page.getByText("1 service of 6").waitFor();
    await keyboard.press("Tab");
    await keyboard.press("ArrowRight");
    expect(await page.getByRole("radio", { name: "upgradeable" }).isChecked()).to.equal(true);
    await tabTo(/^0x/);
    await keyboard.press("Enter");
    await page.getByText("Can it be changed?").waitFor();
    await tabTo(/retired or removed/);
    await keyboard.press("Enter");
    await page.getByText("built from the wrong branch").first().waitFor();

    await page.evaluate("document.activeElement.blur()");
    await tabTo(/^Check a quote$/);
    await keyboard.press("Enter");
    await page.getByRole("heading", { name: "Check a quote" }).waitFor();
    await keyboard.press("Tab");
    await keyboard.insertText(Buffer.from(buildTdxQuote()).toString("hex"));
    await tabTo(/^Check$/, 3);
    await keyboard.press("Enter");
    await page.getByText("would be accepted by 1 service").waitFor();
    expect(await mainText(page)).to.contain("The signature was not verified here.");
  });
});
