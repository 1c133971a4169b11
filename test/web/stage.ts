import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { createExplorerApp } from "../../src/cli/explorer/app.ts";
import { loadExplorer, type StaticFiles } from "../../src/cli/explorer/build.ts";
import { type Serving, serveApp } from "../../src/cli/serve.ts";
import { launch, openTab, type Tab } from "./browser.ts";
import { type Explored, seedExplored } from "./world.ts";

/** A seeded chain, the explorer served as `keystead explore` does, and a browser. */
export interface Stage {
  readonly explored: Explored;
  readonly files: StaticFiles;
  readonly server: Serving;
  readonly browser: Browser;
  /** The page's address, for this deployment or another endpoint in its place. */
  url(path: string, changes?: Readonly<Record<string, string>>): string;
  /** Opens a page and waits until it has something to say. */
  open(path: string, options?: OpenOptions): Promise<Tab>;
  stop(): Promise<void>;
}

/** How a page is opened. */
export interface OpenOptions {
  readonly context?: BrowserContextOptions;
  /** Parameters of the fragment in place of the right ones. */
  readonly changes?: Readonly<Record<string, string>>;
}

let stage: Promise<Stage> | undefined;
let users = 0;

/** The stage, set up once for all test files of a run. */
export async function enterStage(): Promise<Stage> {
  users += 1;
  stage ??= setUp();
  return stage;
}

/** Whoever leaves last takes it down. */
export async function leaveStage(): Promise<void> {
  users -= 1;
  if (users > 0 || stage === undefined) return;
  const standing = stage;
  stage = undefined;
  await (await standing).stop();
}

async function setUp(): Promise<Stage> {
  const browser = await launch();
  const files = await loadExplorer(() => {});
  const explored = await seedExplored();
  const server = await serveApp(createExplorerApp(files, []), { host: "127.0.0.1", port: 0 });
  const { contracts, block } = explored.world.deployment;
  const url: Stage["url"] = (path, changes = {}) => {
    const params = {
      rpc: explored.anvil.url,
      registry: contracts.registry.address,
      policy: contracts.policy.address,
      from: String(block),
      ...changes,
    };
    return `${server.url}/#/${path}?${new URLSearchParams(params)}`;
  };
  return {
    ...{ explored, files, server, browser, url },
    open: async (path, { context, changes } = {}) => {
      const tab = await openTab(browser, context);
      await tab.page.goto(url(path, changes));
      await settled(tab.page);
      return tab;
    },
    stop: async () => {
      await browser.close();
      await server.close();
      await explored.stop();
    },
  };
}

/** Waits until the page has stopped reading. */
export async function settled(page: Page): Promise<void> {
  await page.locator("h1", { hasNotText: "Reading and verifying" }).waitFor();
  await page.locator(".strip .rest").waitFor({ state: "detached" });
}

/** Everything that a reader sees in the page's main part. */
export const mainText = (page: Page): Promise<string> => page.locator("main").innerText();

/** How far the page is wider than its window, in pixels. */
export const overflow = (page: Page): Promise<number> =>
  page.evaluate("document.documentElement.scrollWidth - window.innerWidth");
