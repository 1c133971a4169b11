import { spawn } from "node:child_process";
import { once } from "node:events";
import { Agent, request } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";

/** One answer, as a load test needs it. */
export interface LoadAnswer {
  readonly status: number;
  readonly body: string;
  readonly ms: number;
}

/** Sends POST requests over connections that stay open: what `fetch` costs would be measured in the server's place. */
export function createLoadClient(url: string, connections: number) {
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  const { hostname, port } = new URL(url);
  const post = (path: string, body: string): Promise<LoadAnswer> =>
    new Promise((resolve, reject) => {
      const start = performance.now();
      const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
      const call = request({ agent, hostname, port, path, method: "POST", headers }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("error", reject);
        response.on("end", () => {
          const ms = performance.now() - start;
          resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString(), ms });
        });
      });
      call.on("error", reject);
      call.end(body);
    });
  return { post, close: () => agent.destroy() };
}

/** The value below which a share of the others lie. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
}

/** Requests, and how many a second. */
export interface SteadyLoad {
  readonly url: string;
  readonly path: string;
  readonly bodies: readonly string[];
  readonly perSecond: number;
}

/**
 * Sends requests at a steady rate, whatever the answers take, from a process of its own: one with a large heap, as a test runner's, stands still while it is
 * collected, and would measure that. Every answer must be 200.
 *
 * @returns milliseconds of each, and the processor time of the process that sent them
 */
export async function sendSteadily(load: SteadyLoad): Promise<{ times: number[]; cpuSeconds: number }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, "load-process.ts")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  child.stdin.end(JSON.stringify(load));
  const printed = await text(child.stdout);
  const [code] = await ended;
  if (code !== 0) throw new Error(`the load's process ended with ${code}`);
  return JSON.parse(printed);
}
