import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { registerHooks } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { expect } from "chai";
import { startAnvil } from "../../src/governance/anvil.ts";
import { refusal } from "../deploy/refusal.ts";

const MODULE = pathToFileURL("src/governance/anvil.ts").href;
/** A process that starts anvil, says where, and does nothing more. */
const PROGRAM = `
import { startAnvil } from ${JSON.stringify(MODULE)};
const { url } = await startAnvil();
console.log(url);
setInterval(() => {}, 1000);
`;

const answers = (url: string): Promise<boolean> =>
  fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "eth_chainId", params: [] }),
  }).then(
    ({ ok }) => ok,
    () => false,
  );

async function untilSilent(url: string): Promise<void> {
  const end = performance.now() + 60_000;
  while (await answers(url)) {
    if (performance.now() > end) throw new Error(`anvil still answers at ${url}`);
    await sleep(50);
  }
}

describe("a private anvil", function () {
  this.timeout(180_000);
  const started: ChildProcess[] = [];
  after(() => {
    for (const child of started) child.kill("SIGKILL");
  });

  for (const signal of ["SIGKILL", "SIGTERM"] as const) {
    it(`given its process ended by ${signal}: it ends too`, async () => {
      const child = spawn(process.execPath, ["--input-type=module", "-e", PROGRAM], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      started.push(child);
      const [said] = await once(child.stdout, "data");
      const url = String(said).trim();
      expect(await answers(url)).to.equal(true);
      child.kill(signal);
      await untilSilent(url);
    });
  }

  it("given stop(): it is gone when that returns, and stopping again does nothing", async () => {
    const anvil = await startAnvil();
    expect(await answers(anvil.url)).to.equal(true);
    await anvil.stop();
    expect(await answers(anvil.url)).to.equal(false);
    await anvil.stop();
  });

  it("given what anvil does not take: its own words, at once", async () => {
    const error = await refusal(startAnvil({ args: ["--no-such-option"] }), "anvil/not-started");
    expect(error.message).to.include("--no-such-option");
  });

  it("given a package without the program for this machine: it says that there is none, and how to get it", async () => {
    const hooks = registerHooks({
      resolve(specifier, context, next) {
        return next(specifier.startsWith("@foundry-rs/anvil-") ? "not-installed-here" : specifier, context);
      },
    });
    try {
      const error = await refusal(startAnvil(), "anvil/not-installed");
      expect(error.remedy).to.include("@foundry-rs/anvil");
    } finally {
      hooks.deregister();
    }
  });
});
