import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { VsockFacts } from "./preflight.ts";

/** Present on an EC2 instance that may run enclaves: the driver of the parent's side. */
const PARENT_DEVICE = "nitro_enclaves";

/**
 * Which VSOCK proxies and enclaves run on this machine, from `/proc`: names of programs and their start, in clock ticks since boot (proc(5), field 22).
 *
 * @param root where `/` is; tests give a folder
 * @returns undefined where this machine is no parent instance, or `/proc` is not to be read
 * @example
 * const found = await readVsock();
 */
export async function readVsock(root = "/"): Promise<VsockFacts | undefined> {
  const devices = await readdir(join(root, "dev")).catch((): string[] => []);
  if (!devices.includes(PARENT_DEVICE)) return undefined;
  const processes: { readonly pid: number; readonly name: string; readonly started: number }[] = [];
  const entries = await readdir(join(root, "proc")).catch(() => undefined);
  if (entries === undefined) return undefined;
  for (const entry of entries.filter((name) => /^\d+$/.test(name))) {
    const stat = await readFile(join(root, "proc", entry, "stat"), "utf8").catch(() => "");
    // the name is in parentheses and may hold any character, a closing parenthesis too
    const [open, close] = [stat.indexOf("("), stat.lastIndexOf(")")];
    const started = Number(stat.slice(close + 2).split(" ")[19]);
    if (open === -1 || close === -1 || !Number.isSafeInteger(started)) continue; // it ended meanwhile
    processes.push({ pid: Number(entry), name: stat.slice(open + 1, close), started });
  }
  const named = (...names: readonly string[]) =>
    processes.filter(({ name }) => names.includes(name)).map(({ pid, started }) => ({ pid, started }));
  // the kernel keeps fifteen characters of a name
  return { proxies: named("vsock-proxy"), enclaves: named("nitro-cli", "nitro-enclaves") };
}
