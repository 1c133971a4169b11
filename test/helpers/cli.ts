import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createIo } from "../../src/cli/io.ts";
import { run } from "../../src/cli/main.ts";
import { PROGRAM_ENVIRONMENT } from "./environment.ts";

/** The program, as a file that Node runs. */
export const MAIN = join(import.meta.dirname, "..", "..", "src", "cli", "main.ts");

/** What one run of the command line did. */
export interface CliRun {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `keystead` as a process of its own. */
export function keystead(
  args: readonly string[],
  options: { readonly input?: Uint8Array | string; readonly env?: Readonly<Record<string, string>> } = {},
): CliRun {
  const { status, stdout, stderr, error } = spawnSync(process.execPath, [MAIN, ...args], {
    input: options.input ?? "",
    env: { ...PROGRAM_ENVIRONMENT, ...options.env },
    encoding: "utf8",
    timeout: 60_000,
  });
  // a command that refuses its input early leaves the rest of it unread: no fault of the run
  if (error !== undefined && !("code" in error && error.code === "EPIPE")) throw error;
  return { code: status, stdout, stderr };
}

/** The same, while this process goes on: for commands that ask a server which runs in it. */
export function keysteadAsync(
  args: readonly string[],
  options: { readonly env?: Readonly<Record<string, string>> } = {},
): Promise<CliRun> {
  const child = spawn(process.execPath, [MAIN, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...PROGRAM_ENVIRONMENT, ...options.env },
    timeout: 60_000,
  });
  const said = { stdout: "", stderr: "" };
  for (const stream of ["stdout", "stderr"] as const) {
    child[stream].setEncoding("utf8").on("data", (text: string) => {
      said[stream] += text;
    });
  }
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, ...said }));
  });
}

/** The same in this process, for commands that end by themselves: quicker by the start of a process. */
export async function keysteadHere(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<CliRun> {
  const said = { stdout: "", stderr: "" };
  const to = (name: keyof typeof said) => ({
    write: (text: string) => {
      said[name] += text;
    },
  });
  const stdin: AsyncIterable<string> = (async function* () {})();
  const code = await run(args, createIo({ stdin, stdout: to("stdout"), stderr: to("stderr"), env }));
  return { code, ...said };
}

/** The JSON document that a run with `--json` printed. */
// biome-ignore lint/suspicious/noExplicitAny: a test reads whatever the document holds
export function jsonOf(run: CliRun): any {
  return JSON.parse(run.stdout);
}

/** The code of the error that a run with `--json` ended in. */
export function errorCodeOf(run: CliRun): string {
  return JSON.parse(run.stderr).error.code;
}

/** A folder for one suite's files. */
export interface Folder {
  readonly path: string;
  /** Writes a file, and gives its path. */
  write(name: string, contents: Uint8Array | string): string;
  remove(): void;
}

/** Makes an empty folder outside of the repository. */
export function makeFolder(): Folder {
  const path = mkdtempSync(join(tmpdir(), "keystead-test-"));
  return {
    path,
    write(name, contents) {
      const file = join(path, name);
      writeFileSync(file, contents);
      return file;
    },
    remove: () => rmSync(path, { recursive: true, force: true }),
  };
}
