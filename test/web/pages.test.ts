import { spawn } from "node:child_process";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { expect } from "chai";
import { byGuardian } from "../../scripts/demo/world.ts";
import { formatDeployment } from "../../src/chain/deployment.ts";
import { formatImage } from "../../src/core/image.ts";
import { makeFolder } from "../helpers/cli.ts";
import { buildNitroDocument, buildSnpReport, buildTdxQuote } from "../helpers/evidence.ts";
import { loadVectors, NO_VECTORS, readVector } from "../helpers/vectors.ts";
import { BROWSER_TESTS, openTab, shoot, type Tab } from "./browser.ts";
import { enterStage, leaveStage, mainText, type OpenOptions, overflow, type Stage, settled } from "./stage.ts";
import { IMAGES, idOf, PLATFORMS, pass } from "./world.ts";

/** The most that a reader's machine has to load, in bytes, compressed. */
const MAX_LOAD = 300 * 1024;

/** Seconds that a countdown shows: `1 d 02:03:04`. */
function secondsOf(clock: string): number {
  const [, days = "0", hours = "0", minutes = "0", seconds = "0"] = /(?:(\d+) d )?(\d+):(\d+):(\d+)/.exec(clock) ?? [];
  return ((Number(days) * 24 + Number(hours)) * 60 + Number(minutes)) * 60 + Number(seconds);
}

describe("explorer in Chromium: pages", () => {
  let stage: Stage;
  let tab: Tab | undefined;

  before(async function () {
    this.timeout(300_000);
    if (!BROWSER_TESTS) {
      console.log("      skipped: browser tests run with `npm run test:web`");
      this.skip();
    }
    stage = await enterStage();
  });
  after(() => (BROWSER_TESTS ? leaveStage() : undefined));
  afterEach(async function () {
    if (tab === undefined) return;
    const { requests, problems } = tab;
    await tab.close();
    tab = undefined;
    // whatever a test did: nothing but the page itself and the endpoint was asked, and nothing went wrong unseen
    const strange = requests.filter(
      (url) => !url.startsWith(stage.server.url) && !url.startsWith(stage.explored.anvil.url),
    );
    expect(strange, this.currentTest?.title).to.deep.equal([]);
    expect(problems, this.currentTest?.title).to.deep.equal([]);
  });
  const open = async (path: string, options?: OpenOptions) => {
    tab = await stage.open(path, options);
    return tab.page;
  };

  it("loads under 300 KB compressed, and in few requests", async () => {
    const sizes = [...stage.files.values()].map((file) => gzipSync(file).length);
    const total = sizes.reduce((sum, size) => sum + size, 0);
    console.log(`      ${(total / 1024).toFixed(1)} KB compressed in ${sizes.length} files`);
    expect(total).to.be.below(MAX_LOAD);
    await open("overview");
    const own = new Set(tab?.requests.filter((url) => url.startsWith(stage.server.url)));
    expect(own.size).to.be.at.most(6);
  });

  describe("which deployment", () => {
    it("given no fragment asks, names every wrong field, and takes a dropped record", async () => {
      tab = await openTab(stage.browser);
      const { page } = tab;
      await page.goto(stage.server.url);
      await page.getByRole("heading", { name: "Which deployment?" }).waitFor();
      await page.getByLabel("Registry").fill("0x12");
      await page.getByRole("button", { name: "Read and verify" }).click();
      await page.getByText("registry is not 20 bytes of hex").waitFor();
      expect(await page.locator('input[aria-invalid="true"]').count()).to.equal(3);
      const record = formatDeployment(stage.explored.world.deployment);
      const file = { name: "anvil.json", mimeType: "application/json", buffer: Buffer.from(record) };
      await page.locator('input[type="file"]').setInputFiles(file);
      await page.getByText("The record was read").waitFor();
      await page.getByLabel("RPC endpoint").fill(stage.explored.anvil.url);
      await shoot(page, "connect");
      await page.getByRole("button", { name: "Read and verify" }).click();
      await page.getByRole("heading", { name: "Overview" }).waitFor();
      expect(page.url()).to.contain("registry=");
    });

    it("given a record that is none says so", async () => {
      tab = await openTab(stage.browser);
      await tab.page.goto(stage.server.url);
      const file = { name: "x.json", mimeType: "application/json", buffer: Buffer.from("{}") };
      await tab.page.locator('input[type="file"]').setInputFiles(file);
      await tab.page.getByText("deployment/invalid").waitFor();
    });
  });

  describe("overview", () => {
    it("shows verdict, figures, lanes, roles and code", async () => {
      const page = await open("overview");
      const text = await mainText(page);
      await shoot(page, "overview");
      expect(await page.locator(".seal .verdict").innerText()).to.equal("Proven");
      expect(text).to.match(/services\s+6\s+5 upgradeable, 1 final/);
      expect(text).to.match(/platforms\s+3\s+allowed of 4 ever listed/);
      expect(text).to.match(/timelock delay\s+12 h/);
      expect(text).to.match(/releases\s+running/);
      expect(text).to.contain("The guardian can cancel whatever waits in the timelock");
      expect(text).to.contain("3 operations, executed, cancelled or expired");
      expect(text).not.to.contain("look into this");
      expect(await page.getByText("by storage proof").count()).to.equal(2);
      const proposer = page.locator("tr", { hasText: "PROPOSER_ROLE" });
      expect(await proposer.innerText()).to.contain("Safe 1.5.0, 2 of 3");
    });

    it("counts down to the pending operation and to the pending image, second by second", async () => {
      const page = await open("overview");
      const operation = page.locator(".operation", { hasText: "can be cancelled by" });
      const clock = operation.locator(".clock");
      const first = secondsOf(await clock.innerText());
      // 12 h of delay, 3 h passed on the chain; the rest is this machine being slow
      expect(first).to.be.within(9 * 3600 - 600, 9 * 3600);
      // looked at from here: the page's policy lets no test evaluate a text in it
      let later = first;
      for (let tries = 0; later === first && tries < 100; tries++) {
        await page.waitForTimeout(200);
        later = secondsOf(await clock.innerText());
      }
      expect(later).to.be.below(first);
      expect(await operation.innerText()).to.contain("can be cancelled by");
      const image = page.locator("article.card", { hasText: "pending image" }).locator(".clock");
      expect(secondsOf(await image.innerText())).to.be.within(7 * 86_400 - 4 * 3600, 7 * 86_400);
    });
  });

  describe("services", () => {
    it("tells at a glance what can change, and who is behind each admin", async () => {
      const page = await open("services");
      await shoot(page, "services");
      const row = (text: string) => page.locator("tbody tr", { hasText: text }).innerText();
      expect(await row("A wallet that keeps")).to.match(/upgradeable[\s\S]*Safe 1.5.0, 2 of 3[\s\S]*7 d/);
      expect(await row("A vault that nobody")).to.match(/final[\s\S]*none/);
      expect(await row("A bot with one")).to.match(/upgradeable[\s\S]*EOA \(one key\)[\s\S]*none/);
      expect(await row("A bridge behind")).to.match(/upgradeable[\s\S]*timelock[\s\S]*30 d/);
      expect(await row("Once upgradeable")).to.match(/frozen: admin renounced[\s\S]*none/);
      expect(await page.locator("tbody .badge", { hasText: "Proven" }).count()).to.equal(6);
    });

    it("searches by text, service id and image id, and filters", async () => {
      const page = await open("services");
      const rows = page.locator("tbody tr");
      for (const search of ["WALLET that keeps", stage.explored.services.wallet, idOf(IMAGES.v3)]) {
        await page.getByRole("searchbox").fill(search);
        await page.getByText("1 service of 6").waitFor();
        expect(await rows.innerText()).to.contain("A wallet that keeps");
      }
      await page.getByRole("searchbox").fill("nothing like it");
      await page.getByText("0 services of 6").waitFor();
      await page.getByRole("searchbox").fill("");
      await page.getByText("final", { exact: true }).first().click();
      await page.getByText("1 service of 6").waitFor();
      await page.getByText("pending images").click();
      expect(await rows.innerText()).to.contain("A wallet that keeps");
    });
  });

  describe("a service", () => {
    it("shows who decides, the timeline, every image and every event", async () => {
      const page = await open(`service/${stage.explored.services.wallet}`);
      await page.locator("details summary", { hasText: "retired or removed" }).click();
      await page.locator(".card.image.removed").waitFor();
      await shoot(page, "service");
      const text = await mainText(page);
      expect(text).to.contain("Yes: Safe 1.5.0, 2 of 3 may add images, and each may have keys after a wait of 7 d.");
      expect(text).to.match(/who can veto a pending image\s+its guardian\s+!?\s*EOA \(one key\)/);
      expect(text).to.match(/a storage proof at block/);
      const statuses = await page.locator(".card.image header .badge").allInnerTexts();
      expect(statuses.map((status) => status.replace(/^\W+/, ""))).to.deep.equal([
        "pending",
        "active",
        "retiring",
        "removed",
      ]);
      expect(text).to.contain("built from the wrong branch");
      expect(text).to.match(/epoch 0[\s\S]*epoch 1, newest/);
      expect(await page.locator(".entry", { hasText: "accept service admin" }).count()).to.equal(1);
      expect(await page.locator(".entry").count()).to.equal(11);
      expect(await page.locator(".timeline .lane .span.active").count()).to.equal(3);
      expect(await page.locator(".timeline .lane .span.pending").count()).to.equal(3);
      expect(await page.locator(".timeline .removed").count()).to.equal(1);
      const label = await page.locator(".timeline [role=img]").getAttribute("aria-label");
      expect(label).to.match(/retiring; .* removed; .* active; .* pending/);
      const registers = page.locator(".card.image.active .registers");
      expect(await registers.innerText()).to.contain("any value: mr_seam, mr_signer_seam");
      const pending = page.locator(".card.image.pending .registers");
      expect(await pending.locator(".differs").count()).to.equal(1);
      expect(await pending.locator(".differs").innerText()).to.match(/rtmr3[\s\S]*changes/);
    });

    it("copies a register whole", async () => {
      const page = await open(`service/${stage.explored.services.wallet}`, {
        context: { permissions: ["clipboard-read", "clipboard-write"] },
      });
      await page.locator(".card.image.active").getByRole("button", { name: "Copy rtmr3" }).click();
      expect(await page.evaluate("navigator.clipboard.readText()")).to.equal("b3".repeat(48));
    });

    it("that is final says never, and that is frozen not any more", async () => {
      const page = await open(`service/${stage.explored.services.vault}`);
      expect(await mainText(page)).to.contain("Never. It has exactly one image, and no admin.");
      await shoot(page, "service-final");
      await page.goto(stage.url(`service/${stage.explored.services.renounced}`));
      await page.getByText("Not any more. The admin renounced").waitFor();
    });

    it("that does not exist is unknown, and said to be so", async () => {
      const page = await open(`service/0x${"12".repeat(20)}`);
      await page.getByText("audit/no-service").waitFor();
      expect(await page.locator("h1").innerText()).to.equal("Unknown service");
    });
  });

  describe("policy", () => {
    it("shows kinds, platforms with their registers, and what was revoked", async () => {
      const page = await open("policy");
      await page.locator("summary", { hasText: "1 platform revoked" }).click();
      await shoot(page, "policy");
      const text = await mainText(page);
      expect(text).to.contain("There was never a pause.");
      expect(text).to.match(/AWS Nitro[\s\S]*enabled[\s\S]*NotApplicable/);
      expect(text).to.contain("advisory 2026-11");
      expect(await page.locator(".card.image.active").count()).to.equal(3);
      expect(await page.locator(".entry").count()).to.equal(13);
    });

    it("given a pause counts it down everywhere, and no quote is accepted", async () => {
      const { world } = stage.explored;
      const snapshot = await world.connection.provider.request({ method: "evm_snapshot", params: [] });
      try {
        const pause = world.policy.interface.encodeFunctionData("pauseRelease", [86_400, "drill"]);
        await byGuardian(world, world.deployment.contracts.policy.address, pause);
        const page = await open("policy");
        await page.getByText("all releases are paused").waitFor();
        expect(secondsOf(await page.locator(".clock").first().innerText())).to.be.within(86_400 - 600, 86_400);
        await page.goto(stage.url("overview"));
        await page.locator(".figures .alarm", { hasText: "paused" }).waitFor();
        await page.goto(stage.url("check"));
        await page.getByLabel("Evidence").fill(Buffer.from(buildTdxQuote()).toString("hex"));
        await page.getByRole("button", { name: "Check" }).click();
        await page.getByText("ReleasePaused").waitFor();
      } finally {
        await world.connection.provider.request({ method: "evm_revert", params: [snapshot] });
      }
    });
  });

  describe("check a quote", () => {
    const check = async (evidence: string | Uint8Array) => {
      const page = await open("check");
      if (typeof evidence === "string") {
        await page.getByLabel("Evidence").fill(evidence);
        await page.getByRole("button", { name: "Check" }).click();
      } else {
        const file = { name: "evidence.bin", mimeType: "application/octet-stream", buffer: Buffer.from(evidence) };
        await page.locator('input[type="file"]').setInputFiles(file);
      }
      await page.locator(".results, [role=alert]").first().waitFor();
      return page;
    };

    it("given a quote of an active image says who would accept it, and that no signature was verified", async () => {
      const page = await check(Buffer.from(buildTdxQuote()).toString("base64"));
      await shoot(page, "check-accepted");
      const text = await page.locator(".results").innerText();
      expect(text).to.contain("would be accepted by 1 service, if it is genuine");
      expect(text).to.contain("The signature was not verified here.");
      expect(text).to.contain(stage.explored.services.wallet);
      expect(text).to.match(/Platform\s+✓?\s*allowed/);
      expect(text).to.contain("1 dstack image could not be compared with this");
    });

    it("given a quote with a register changed says which one differs", async () => {
      const page = await check(Buffer.from(buildTdxQuote({ rtMr3: new Uint8Array(48).fill(0x77) })).toString("hex"));
      await shoot(page, "check-refused");
      const text = await page.locator(".results").innerText();
      expect(text).to.contain("would get no keys: no service lists it");
      expect(text).to.contain("rtmr3 differs");
    });

    it("given debug evidence of an active image refuses it as unsafe", async () => {
      const page = await check(buildTdxQuote({ tdAttributes: Uint8Array.of(1, 0, 0, 0x10, 0, 0, 0, 0) }));
      const text = await page.locator(".results").innerText();
      expect(text).to.contain("no node takes unsafe evidence");
      expect(text).to.contain("refused: unsafe evidence");
      expect(text).not.to.contain("would be accepted");
    });

    it("given a report whose platform was revoked says so by the contract's name for it", async () => {
      const text = await (await check(buildSnpReport())).locator(".results").innerText();
      expect(text).to.contain("PlatformNotAllowed");
      expect(text).to.contain("this platform was revoked");
      expect(text).not.to.contain("would be accepted");
    });

    it("given a Nitro document reads it too", async () => {
      const text = await (await check(buildNitroDocument())).locator(".results").innerText();
      expect(text).to.contain("would be accepted by 1 service");
      expect(text).to.contain(stage.explored.services.slow);
    });

    for (const [what, image, words] of [
      ["pending", IMAGES.v3, "ImagePending"],
      ["retiring", IMAGES.v1, "This image would be accepted by 1 service"],
      ["removed", IMAGES.withdrawn, "ImageRemoved"],
      ["half", PLATFORMS.tdx, "no service lists it"],
      ["half", PLATFORMS.tdx, "rtmr0 is not in the evidence, rtmr3 is not in the evidence"],
    ] as const) {
      it(`given the text of a ${what} image says: ${words}`, async () => {
        const text = await (await check(formatImage(image))).locator(".results").innerText();
        expect(text).to.contain("This is an image, not a machine's statement");
        expect(text).to.contain(words);
      });
    }

    it("given something else says what to give", async () => {
      const page = await check("hello");
      expect(await page.locator("[role=alert]").innerText()).to.match(/web\/unknown-evidence/);
      expect(await page.locator("[role=alert]").innerText()).to.contain("Give a TDX quote");
    });

    it("given real evidence reads what it claims", async function () {
      const vectors = loadVectors();
      if (vectors === undefined) {
        console.log(`      ${NO_VECTORS}`);
        return this.skip();
      }
      for (const [tee, role] of [
        ["tdx", "quote"],
        ["sev-snp", "report"],
        ["nitro", "document"],
      ] as const) {
        const vector = vectors.find((each) => each.tee === tee && each.mustVerify && each.files[role] !== undefined);
        if (vector === undefined) throw new Error(`no ${tee} vector`);
        const page = await check(readVector(vector, role));
        expect(await page.locator(".results").innerText(), vector.id).to.contain("would get no keys");
        await tab?.close();
      }
      tab = undefined;
    });
  });

  it("keystead explore serves it for a recorded deployment and its endpoint alone", async () => {
    const folder = makeFolder();
    const record = folder.write("anvil.json", formatDeployment(stage.explored.world.deployment));
    const main = join(import.meta.dirname, "..", "..", "src", "cli", "main.ts");
    const args = ["explore", "--json", "--port", "0", "--deployment", record, "--rpc", stage.explored.anvil.url];
    const child = spawn(process.execPath, [main, ...args], { stdio: ["ignore", "pipe", "inherit"] });
    try {
      let said = "";
      for await (const chunk of child.stdout) {
        said += chunk;
        if (said.trimEnd().endsWith("}")) break;
      }
      const { url } = JSON.parse(said);
      const own = await openTab(stage.browser);
      await own.page.goto(url);
      await settled(own.page);
      expect(await own.page.locator(".seal .verdict").innerText()).to.equal("Proven");
      expect(own.problems).to.deep.equal([]);
      const { headers } = await fetch(new URL("/", url));
      expect(headers.get("content-security-policy")).to.contain(`connect-src ${stage.explored.anvil.url};`);
      await own.close();
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      expect(await ended).to.equal(0);
    } finally {
      child.kill("SIGKILL");
      folder.remove();
    }
  });

  it("a change of time alone turns a pending image active", async () => {
    const { world } = stage.explored;
    const snapshot = await world.connection.provider.request({ method: "evm_snapshot", params: [] });
    try {
      await pass(world, 7 * 86_400);
      const page = await open("check");
      await page.getByLabel("Evidence").fill(formatImage(IMAGES.v3));
      await page.getByRole("button", { name: "Check" }).click();
      await page.getByText("would be accepted by 1 service").waitFor();
      expect(await overflow(page)).to.be.at.most(0);
      await page.goto(stage.url("overview"));
      await page.locator(".operation", { hasText: "may be executed now" }).waitFor();
      await settled(page);
    } finally {
      await world.connection.provider.request({ method: "evm_revert", params: [snapshot] });
    }
  });
});
