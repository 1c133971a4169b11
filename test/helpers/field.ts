import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const folder = join(import.meta.dirname, "..", "..", "..", "shared", "field", "evidence");

/** An input of the field, where the folder stands beside the repository; else the test that asks for it says so and skips. */
export function fieldInput(test: Mocha.Context, name: string): Uint8Array {
  const path = join(folder, name);
  if (existsSync(path)) return new Uint8Array(readFileSync(path));
  console.log(`      ../shared/field/evidence/${name} is not here: nothing to try this on`);
  return test.skip();
}
