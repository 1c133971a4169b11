import { parentPort, workerData } from "node:worker_threads";
import { isKeysteadError } from "../core/errors.ts";
import { createJudge, type JudgeOptions } from "./judge.ts";
import type { CollateralSummary, JudgeAnswer, JudgeQuestion, ThrownError } from "./judge-pool.ts";

/* One thread of the pool (judge-pool.ts). It has its own caches, sees no secret, and answers each question once. */

const options: JudgeOptions = workerData;
const judge = createJudge(options);

function describe(error: unknown): ThrownError {
  if (!isKeysteadError(error)) {
    const remedy = "Report this: evidence must not make a verifier fail.";
    return {
      code: "node/failed",
      message: "the evidence could not be judged",
      remedy,
      retryable: true,
      reason: undefined,
      retryAfterSeconds: undefined,
    };
  }
  const { code, message, remedy, retryable, details } = error;
  const { reason, retryAfterSeconds } = details;
  return {
    code,
    message,
    remedy,
    retryable,
    reason: typeof reason === "string" ? reason : undefined,
    retryAfterSeconds: typeof retryAfterSeconds === "number" ? retryAfterSeconds : undefined,
  };
}

async function answer(question: JudgeQuestion): Promise<JudgeAnswer> {
  const { id } = question;
  try {
    if (question.ask === "judge") {
      return { id, value: await judge.judge(question.evidence, question.binding, question.atUnixSeconds) };
    }
    const states = await judge.collateral();
    const value = states.map(
      ({ lastError, ...state }): CollateralSummary => ({
        ...state,
        lastError: lastError === undefined ? undefined : describe(lastError),
      }),
    );
    return { id, value };
  } catch (error) {
    return { id, error: describe(error) };
  }
}

parentPort?.on("message", async (question: JudgeQuestion) => {
  parentPort?.postMessage(await answer(question));
});
