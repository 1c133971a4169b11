import { isKeysteadError, type KeysteadError } from "../../src/core/errors.ts";

/** The `KeysteadError` that `act` throws; anything else thrown, or nothing, fails the test. */
export function errorOf(act: () => unknown): KeysteadError {
  try {
    act();
  } catch (error) {
    if (isKeysteadError(error)) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

/** The `KeysteadError` that a promise is rejected with; anything else, or none, fails the test. */
export async function rejectionOf(promise: Promise<unknown>): Promise<KeysteadError> {
  try {
    await promise;
  } catch (error) {
    if (isKeysteadError(error)) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}
