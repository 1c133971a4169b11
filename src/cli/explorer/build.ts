import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { KeysteadError } from "../../core/errors.ts";

const ROOT = join(import.meta.dirname, "..", "..", "..");
const WEB = join(ROOT, "web");
const DIST = join(WEB, "dist");
/** What the page is made of. */
const SOURCES = [
  ...["web/src", "web/public", "web/index.html", "web/vite.config.ts"],
  ...["src/core", "src/chain", "src/audit", "src/protocol", "src/governance"].filter((path) =>
    existsSync(join(ROOT, path)),
  ),
];

/** The page's files by their paths on the server, such as `/assets/index-….js`. */
export type StaticFiles = ReadonlyMap<string, Uint8Array<ArrayBuffer>>;

/**
 * The built explorer, built first where it is absent or older than its sources.
 *
 * @param tell says what is being done
 * @throws KeysteadError `explore/not-built` where it can be neither found nor built
 * @example
 * const files = await loadExplorer((line) => io.warn(line));
 */
export async function loadExplorer(tell: (line: string) => void): Promise<StaticFiles> {
  const index = join(DIST, "index.html");
  if (!existsSync(index) || statSync(index).mtimeMs < newest(SOURCES.map((path) => join(ROOT, path)))) {
    tell("building the explorer");
    await buildExplorer();
  }
  return readFiles(DIST);
}

/**
 * Builds the explorer into `web/dist`.
 *
 * @throws KeysteadError `explore/not-built`
 * @example
 * await buildExplorer();
 */
export async function buildExplorer(): Promise<void> {
  try {
    const { build } = await import("vite");
    await build({ configFile: join(WEB, "vite.config.ts"), logLevel: "error" });
  } catch (cause) {
    throw new KeysteadError("explore/not-built", "the explorer could not be built", {
      remedy: "Run it from a checkout where npm ci has installed the development dependencies.",
      cause,
    });
  }
}

function readFiles(folder: string): StaticFiles {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return new Map(
    files.map(({ parentPath, name }) => {
      const path = join(parentPath, name);
      return [`/${relative(folder, path).split(sep).join("/")}`, new Uint8Array(readFileSync(path))];
    }),
  );
}

/** When the newest of some files and folders was written, in milliseconds since 1970. */
function newest(paths: readonly string[]): number {
  return Math.max(
    ...paths.filter(existsSync).flatMap((path) => {
      if (statSync(path).isFile()) return [statSync(path).mtimeMs];
      return readdirSync(path, { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map(({ parentPath, name }) => statSync(join(parentPath, name)).mtimeMs);
    }),
  );
}
