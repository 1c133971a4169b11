import type { ChildProcess } from "node:child_process";
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { BroadcastChannel, isMainThread, threadId } from "node:worker_threads";

/*
 * What a process still holds once everything that it does not need is collected, thread by thread. How much it has from the system at some moment says
 * little: V8 lets a heap grow to several times of what lives in it before it looks.
 *
 * This file is both sides: a test starts a program with `liveMemoryEnvironment(file)` and asks with `readLiveMemory`; in the program, where the variable
 * names the file, it answers.
 */

const VARIABLE = "KEYSTEAD_LIVE_MEMORY";
const CHANNEL = "keystead-live-memory";
const PATIENCE_MS = 30_000;

/** Bytes that live after a collection. */
export interface LiveMemory {
  /** Heap and array buffers by thread; thread 0 is the main one. */
  readonly threads: Readonly<Record<string, number>>;
  /** What the whole process then has from the system. */
  readonly resident: number;
}

/** Environment of a program that is to be asked, and has so many threads. */
export function liveMemoryEnvironment(file: string, threads: number): Record<string, string> {
  return { [VARIABLE]: `${threads} ${file}`, NODE_OPTIONS: `--import=${pathToFileURL(import.meta.filename).href}` };
}

/** Has every thread of a program collect what it can, and tells what is left. */
export async function readLiveMemory(child: ChildProcess, file: string): Promise<LiveMemory> {
  rmSync(file, { force: true });
  child.kill("SIGUSR2");
  for (let waited = 0; !existsSync(file); waited += 50) {
    if (waited > PATIENCE_MS) throw new Error("the program does not tell its memory");
    await sleep(50);
  }
  return JSON.parse(readFileSync(file, "utf8"));
}

function answer(file: string, count: number): void {
  setFlagsFromString("--expose-gc");
  const collect: () => void = runInNewContext("gc");
  const channel = new BroadcastChannel(CHANNEL);
  channel.unref();
  const live = () => {
    // finalizers free more: the second finds that
    collect();
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  if (!isMainThread) {
    channel.onmessage = ({ data }) => {
      if (data === "collect") channel.postMessage({ threadId, bytes: live() });
    };
    return;
  }
  const threads: Record<string, number> = {};
  channel.onmessage = ({ data }) => {
    threads[data.threadId] = data.bytes;
    if (Object.keys(threads).length < count) return;
    writeFileSync(`${file}.new`, JSON.stringify({ threads, resident: process.memoryUsage.rss() }));
    renameSync(`${file}.new`, file);
    for (const thread of Object.keys(threads)) delete threads[thread];
  };
  process.on("SIGUSR2", () => {
    threads[threadId] = live();
    channel.postMessage("collect");
  });
}

const [, count, file] = /^(\d+) (.+)$/.exec(process.env[VARIABLE] ?? "") ?? [];
if (file !== undefined) answer(file, Number(count));
