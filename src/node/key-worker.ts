import { parentPort } from "node:worker_threads";
import { isKeysteadError } from "../core/errors.ts";
import type { KeyAnswer, KeyFace, KeyQuestion } from "./key-thread.ts";
import { createKeyRing, type KeyRing, type SignedSealed, wipe } from "./keys.ts";

/* The thread that has the keys (key-thread.ts). It answers its questions one after the other: the first that was asked is the first to be done. */

let ring: KeyRing | undefined;

async function work(question: KeyQuestion): Promise<KeyFace | SignedSealed | `0x${string}` | undefined> {
  if (question.ask === "open") {
    ring = createKeyRing(question.roots, question.deployment);
    wipe(...question.roots.map(({ secret }) => secret));
    const { rootEpoch, receiptSigner, environmentKey } = ring;
    return { rootEpoch, receiptSigner, environmentKey };
  }
  if (ring === undefined) throw new TypeError("no ring was opened");
  switch (question.ask) {
    case "sign":
      return ring.sign(question.digest);
    case "secretsKey":
      return ring.secretsKey(question.serviceId, question.keyEpoch);
    case "sealKeys":
      return await ring.sealKeys(question.grant);
    case "sealRoots":
      return await ring.sealRoots(question.recipientPublicKey, question.receiptDigest);
    case "wipe":
      ring.wipe();
      return undefined;
  }
}

async function answer(question: KeyQuestion): Promise<KeyAnswer> {
  const { id } = question;
  try {
    return { id, value: await work(question) };
  } catch (error) {
    // No cause and no details: nothing of what was worked on leaves with an error.
    if (isKeysteadError(error)) {
      const { code, message, argument, remedy, retryable } = error;
      return { id, error: { code, message, argument, remedy, retryable } };
    }
    const remedy = "Report this: no question makes the keys' thread fail.";
    const message = "the keys could not be used";
    return { id, error: { code: "node/failed", message, argument: "root", remedy, retryable: true } };
  }
}

let before: Promise<void> = Promise.resolve();
parentPort?.on("message", (questions: readonly KeyQuestion[]) => {
  before = before.then(async () => {
    const answers: KeyAnswer[] = [];
    for (const question of questions) answers.push(await answer(question));
    parentPort?.postMessage(answers);
  });
});
