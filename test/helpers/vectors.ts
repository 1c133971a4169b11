import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** One line of the vectors' manifest. */
export interface Vector {
  readonly id: string;
  readonly kind: string;
  readonly tee: string | null;
  readonly mustVerify: boolean;
  readonly failure: string | null;
  /** Seconds since 1970; `null` where time plays no part. */
  readonly verifyAtUnixSeconds: number | null;
  readonly checks: readonly string[];
  readonly files: Readonly<Record<string, string>>;
  readonly expected: Readonly<Record<string, unknown>>;
}

const folder = join(import.meta.dirname, "..", "..", "..", "shared", "vectors");

/** Why there are no vectors, for the tests that say so and skip. */
export const NO_VECTORS =
  "the evidence vectors (../shared/vectors beside the repository) are not here: nothing to compare with";

/** Every vector, or `undefined` where the folder is absent. */
export function loadVectors(): readonly Vector[] | undefined {
  const manifest = join(folder, "manifest.json");
  return existsSync(manifest) ? JSON.parse(readFileSync(manifest, "utf8")) : undefined;
}

/** The path of a vector's file. */
export function vectorPath(vector: Vector, role: string): string {
  const path = vector.files[role];
  if (path === undefined) throw new Error(`${vector.id} has no file for ${role}`);
  return join(folder, path);
}

/** The bytes of a vector's file. */
export function readVector(vector: Vector, role: string): Uint8Array {
  return new Uint8Array(readFileSync(vectorPath(vector, role)));
}
