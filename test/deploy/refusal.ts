import { expect } from "chai";
import { isKeysteadError, type KeysteadError } from "../../src/core/errors.ts";

/** Awaits a refusal and returns it, so that a test can look at its argument and details; any other outcome fails the test. */
export async function refusal(promise: Promise<unknown>, code: string): Promise<KeysteadError> {
  try {
    await promise;
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    expect(error.code, error.message).to.equal(code);
    expect(error.remedy).to.not.equal("");
    return error;
  }
  throw new Error(`expected a refusal with code ${code}, but the call succeeded`);
}
