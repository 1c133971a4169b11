import { Worker } from "node:worker_threads";
import type { Binding } from "../core/binding.ts";
import { KeysteadError } from "../core/errors.ts";
import type { WireEvidence } from "../core/release-wire.ts";
import type { CollateralState } from "./evidence/collateral.ts";
import type { Judge, Judgement, JudgeOptions } from "./judge.ts";

/** What a worker is asked. */
export type JudgeQuestion =
  | {
      readonly id: number;
      readonly ask: "judge";
      readonly evidence: WireEvidence;
      readonly binding: Binding;
      readonly atUnixSeconds: number;
    }
  | { readonly id: number; readonly ask: "collateral" };

/** An error on its way between threads. */
export interface ThrownError {
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
  readonly retryable: boolean;
  readonly reason: string | undefined;
  readonly retryAfterSeconds: number | undefined;
}

/** What a worker answers. */
export type JudgeAnswer =
  | { readonly id: number; readonly value: Judgement | readonly CollateralSummary[] }
  | { readonly id: number; readonly error: ThrownError };

/** A {@link CollateralState} whose error travels as its code. */
export type CollateralSummary = Omit<CollateralState, "lastError"> & { readonly lastError: ThrownError | undefined };

/** How many threads, and for how long one question may take. */
export interface PoolOptions {
  readonly threads: number;
  /** Milliseconds, more than a source of collateral may take: a thread that needs longer is ended. */
  readonly timeoutMs: number;
  /** Told when a thread died; it is replaced. */
  readonly onDeath?: (reason: string) => void;
}

interface Thread {
  readonly worker: Worker;
  readonly waiting: Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>;
}

const failed = (message: string) =>
  new KeysteadError("node/failed", message, { remedy: "Try again; see the node's log.", retryable: true });

/**
 * Judges in threads of their own: verifying never holds up the event loop, and a verifier that died or hangs takes one thread with it, which is replaced.
 *
 * @throws KeysteadError as {@link Judge}; `judge` also `node/failed`, `node/busy` (both retryable)
 * @example
 * const judge = createJudgePool(options, { threads: 1, timeoutMs: 20_000 });
 */
export function createJudgePool(options: JudgeOptions, pool: PoolOptions): Judge {
  let next = 1;
  let closed = false;
  const threads: (Thread | undefined)[] = [];

  const spawn = (slot: number): Thread => {
    const worker = new Worker(new URL("./judge-worker.ts", import.meta.url), { workerData: options });
    const thread: Thread = { worker, waiting: new Map() };
    const die = (reason: string) => {
      if (threads[slot] === thread) threads[slot] = undefined;
      for (const { reject } of thread.waiting.values()) reject(failed("the thread that judged this evidence ended"));
      thread.waiting.clear();
      if (!closed) pool.onDeath?.(reason);
    };
    worker.on("message", (answer: JudgeAnswer) => {
      const waiting = thread.waiting.get(answer.id);
      thread.waiting.delete(answer.id);
      if ("error" in answer) waiting?.reject(revive(answer.error));
      else waiting?.resolve(answer.value);
    });
    worker.on("error", (error) => die(error instanceof Error ? error.name : "error"));
    worker.on("exit", (code) => die(`exit ${code}`));
    worker.unref();
    threads[slot] = thread;
    return thread;
  };

  const leastBusy = (): Thread => {
    const all = Array.from({ length: pool.threads }, (_, slot) => threads[slot] ?? spawn(slot));
    return all.reduce((least, thread) => (thread.waiting.size < least.waiting.size ? thread : least));
  };

  const ask = <T>(thread: Thread, question: JudgeQuestion): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      if (closed) return reject(failed("the node is stopping"));
      const timer = setTimeout(() => {
        thread.waiting.delete(question.id);
        reject(
          new KeysteadError("node/busy", "judging the evidence took too long", {
            remedy: "Try again later.",
            retryable: true,
          }),
        );
        // Nothing that a judge does takes this long, collateral's own timeout included: the thread hangs, and would take others' questions with it.
        void thread.worker.terminate();
      }, pool.timeoutMs);
      thread.waiting.set(question.id, {
        resolve: (value) => {
          clearTimeout(timer);
          resolve(value as T);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
      thread.worker.postMessage(question);
    });

  for (let slot = 0; slot < pool.threads; slot += 1) spawn(slot);
  return {
    judge: (evidence, binding, atUnixSeconds) =>
      ask(leastBusy(), { id: next++, ask: "judge", evidence, binding, atUnixSeconds }),
    collateral: async () => {
      const summaries = await ask<readonly CollateralSummary[]>(leastBusy(), { id: next++, ask: "collateral" });
      return summaries.map(({ lastError, ...state }) => ({
        ...state,
        lastError: lastError === undefined ? undefined : revive(lastError),
      }));
    },
    close: async () => {
      closed = true;
      await Promise.all(threads.map((thread) => thread?.worker.terminate()));
    },
  };
}

function revive({ code, message, remedy, retryable, reason, retryAfterSeconds }: ThrownError): KeysteadError {
  const details = { reason, retryAfterSeconds };
  return new KeysteadError(code, message, { argument: "evidence", remedy, retryable, details });
}
