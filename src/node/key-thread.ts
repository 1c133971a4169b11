import { Worker } from "node:worker_threads";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { DeploymentId } from "../core/release.ts";
import type { KeyGrant, KeyRing, RootSecret, SignedSealed } from "./keys.ts";

/*
 * The key ring in a thread of its own. The root secrets move there (their memory is handed over, not copied), and from then on this thread has none: a
 * request that got hold of the web server's heap finds no key in it. Signing and sealing, the most work of a release, do not hold up the event loop either.
 * What crosses is what a ring's methods take and give; key-worker.ts is the other side.
 */

/** A {@link KeyRing} whose methods take their time. */
export interface RemoteKeyRing
  extends Pick<KeyRing, "deployment" | "rootEpoch" | "receiptSigner" | "environmentKey" | "sealKeys" | "sealRoots"> {
  readonly sign: (digest: Uint8Array) => Promise<Hex>;
  readonly secretsKey: (serviceId: Hex, keyEpoch: number) => Promise<Hex>;
  /** Overwrites the secrets and ends the thread. */
  readonly wipe: () => Promise<void>;
}

/** What the thread is asked. */
export type KeyQuestion =
  | { readonly id: number; readonly ask: "open"; readonly roots: readonly RootSecret[]; deployment: DeploymentId }
  | { readonly id: number; readonly ask: "sign"; readonly digest: Uint8Array }
  | { readonly id: number; readonly ask: "secretsKey"; readonly serviceId: Hex; readonly keyEpoch: number }
  | { readonly id: number; readonly ask: "sealKeys"; readonly grant: KeyGrant }
  | {
      readonly id: number;
      readonly ask: "sealRoots";
      readonly recipientPublicKey: Uint8Array;
      readonly receiptDigest: Uint8Array;
    }
  | { readonly id: number; readonly ask: "wipe" };

/** The ring's public face. */
export type KeyFace = Pick<KeyRing, "rootEpoch" | "receiptSigner" | "environmentKey">;

/** What the thread answers. */
export type KeyAnswer =
  | { readonly id: number; readonly value: KeyFace | SignedSealed | Hex | undefined }
  | { readonly id: number; readonly error: KeyError };

/** An error on its way between threads. */
export interface KeyError extends Pick<KeysteadError, "code" | "message" | "argument" | "remedy" | "retryable"> {}

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

const failed = (message: string) =>
  new KeysteadError("node/failed", message, { remedy: "Ask another node; see this one's log.", retryable: true });

/** What runs as the thread. */
const KEY_WORKER = new URL("./key-worker.ts", import.meta.url);

/** What happens around the thread. */
export interface KeyThreadOptions {
  /** Told when the thread ended by itself: the secrets are gone, and the node must stop. */
  readonly onDeath: (reason: string) => void;
  /** Another program in the thread's place: tests have one that ends. */
  readonly program?: URL | undefined;
}

type Unnumbered<Q> = Q extends unknown ? Omit<Q, "id"> : never;

/**
 * Moves root secrets into a thread of their own and makes the ring there.
 *
 * @param roots epochs from 0 on, each in memory of its own; that memory is gone from this thread afterwards
 * @throws KeysteadError `root/malformed`; its methods also `root/wiped`, `seal/bad-key`, `node/failed`
 * @example
 * const ring = await openKeyThread(await store.load(), { chainId: 1n, registry }, { onDeath });
 */
export async function openKeyThread(
  roots: readonly RootSecret[],
  deployment: DeploymentId,
  { onDeath, program = KEY_WORKER }: KeyThreadOptions,
): Promise<RemoteKeyRing> {
  const worker = new Worker(program);
  const waiting = new Map<number, Waiting>();
  let asking: KeyQuestion[] = [];
  let moving: ArrayBuffer[] = [];
  const send = () => {
    const [questions, moved] = [asking, moving];
    [asking, moving] = [[], []];
    worker.postMessage(questions, moved);
  };
  let next = 1;
  let closing = false;
  let dead = false;

  const die = (reason: string) => {
    if (dead) return;
    dead = true;
    for (const { reject } of waiting.values()) reject(failed("the thread that holds the keys ended"));
    waiting.clear();
    if (!closing) onDeath(reason);
  };
  worker.on("message", (answers: readonly KeyAnswer[]) => {
    for (const answer of answers) {
      const asked = waiting.get(answer.id);
      waiting.delete(answer.id);
      if ("error" in answer) {
        const { code, message, argument, remedy, retryable } = answer.error;
        asked?.reject(new KeysteadError(code, message, { argument, remedy, retryable }));
      } else asked?.resolve(answer.value as never);
    }
  });
  // Names alone: an error's message could quote what the thread worked on.
  worker.on("error", (error) => die(error instanceof Error ? error.name : "error"));
  worker.on("exit", (code) => die(`exit ${code}`));

  const ask = <T>(question: Unnumbered<KeyQuestion>, moved: ArrayBuffer[] = []): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      if (dead) return reject(failed("the thread that holds the keys ended"));
      const id = next++;
      waiting.set(id, { resolve, reject });
      // A release asks two things at once: waking a thread costs more than a question does, so they travel together.
      if (asking.push({ ...question, id } as KeyQuestion) === 1) queueMicrotask(() => send());
      moving.push(...moved);
    });

  // A secret that shares its memory with other things cannot be handed over: its copy is.
  const own = roots.map(({ rootEpoch, secret }) => {
    const copy = Uint8Array.from(secret);
    secret.fill(0);
    return { rootEpoch, secret: copy };
  });
  let face: KeyFace;
  try {
    face = await ask<KeyFace>(
      { ask: "open", roots: own, deployment },
      own.map(({ secret }) => secret.buffer),
    );
  } catch (error) {
    closing = true;
    await worker.terminate();
    throw error;
  }
  // From here on the server keeps the process alive, and its end may come while the thread waits.
  worker.unref();
  return {
    deployment,
    ...face,
    sign: (digest) => ask({ ask: "sign", digest }),
    secretsKey: (serviceId, keyEpoch) => ask({ ask: "secretsKey", serviceId, keyEpoch }),
    sealKeys: (grant) => ask({ ask: "sealKeys", grant }),
    sealRoots: (recipientPublicKey, receiptDigest) => ask({ ask: "sealRoots", recipientPublicKey, receiptDigest }),
    wipe: async () => {
      if (closing) return;
      closing = true;
      worker.ref();
      // A thread that ends meanwhile has nothing left to overwrite, and must not keep the rest of the node from closing.
      if (!dead) await ask({ ask: "wipe" }).catch(() => undefined);
      await worker.terminate();
    },
  };
}
