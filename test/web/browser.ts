import { existsSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core";

/** Where a Chromium may be: what the environment says, or where distributions put it. */
const CANDIDATES = [
  process.env.KEYSTEAD_CHROMIUM,
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/** Screenshots go here: artefacts of a run, not committed. */
export const SHOTS = join(import.meta.dirname, "..", "..", "web", "screenshots");

/** Why the browser tests do not run with all the others. */
export const BROWSER_TESTS = process.env.KEYSTEAD_BROWSER_TESTS === "1";

/** Starts a real Chromium. Where there is none the tests fail, and say what to do. */
export async function launch(): Promise<Browser> {
  const executablePath = CANDIDATES.find((path) => path !== undefined && path !== "" && existsSync(path));
  if (executablePath === undefined) {
    throw new Error("the browser tests need Chromium: apt-get install -y chromium, or name one in KEYSTEAD_CHROMIUM");
  }
  return chromium.launch({
    executablePath,
    args: [
      ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
      ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
    ],
  });
}

/** A page of its own, and everything that it did that a test may have to know. */
export interface Tab {
  readonly page: Page;
  /** URLs of every request. */
  readonly requests: string[];
  /** Errors and policy violations on the console, and uncaught exceptions. */
  readonly problems: string[];
  close(): Promise<void>;
}

/** Opens a page in a context of its own. */
export async function openTab(browser: Browser, options: BrowserContextOptions = {}): Promise<Tab> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const requests: string[] = [];
  const problems: string[] = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  return { page, requests, problems, close: () => context.close() };
}

/** Keeps a screenshot of the whole page. */
export async function shoot(page: Page, name: string): Promise<void> {
  mkdirSync(SHOTS, { recursive: true });
  await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true });
}
