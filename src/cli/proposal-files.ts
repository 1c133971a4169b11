import { existsSync } from "node:fs";
import { basename, join } from "node:path";
import { decodeUtf8 } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { readProposal } from "../governance/folder.ts";
import { type Operation, parseOperation, type StartState } from "../governance/operation.ts";
import { readProvenance } from "../governance/provenance.ts";
import type { SourceFile } from "../rollout/claims.ts";
import type { Io } from "./io.ts";

/* What commands that write proposals have in common. */

/**
 * The operation that a folder holds already; undefined where it holds none.
 *
 * @throws KeysteadError as `readProposal` and `parseOperation`
 * @example
 * (await earlierOperation("deploy/proposals/007-tdx"))?.assumptions.time;
 */
export async function earlierOperation(folder: string): Promise<Operation | undefined> {
  if (!existsSync(join(folder, "operation.json"))) return undefined;
  const operation = (await readProposal(folder)).get("operation.json");
  return operation === undefined ? undefined : parseOperation(decodeUtf8(operation, "operation.json"));
}

/**
 * When an earlier run recorded the start, that one stands: it is what was proposed on.
 *
 * @throws KeysteadError as {@link earlierOperation}
 * @example
 * const start = (await startOf(folder)) ?? (await readStartState(client, block, draft));
 */
export async function startOf(folder: string): Promise<StartState | null> {
  const operation = await earlierOperation(folder);
  return operation?.assumptions.start ?? null;
}

/**
 * Reads files that something was measured from, under the names that a proposal keeps them by.
 *
 * @throws KeysteadError as reading files
 * @example
 * const [source] = await readSources(io, ["docker-compose.yaml"]); // measurements/source-1-docker-compose.yaml
 */
export async function readSources(io: Io, names: readonly string[]): Promise<readonly SourceFile[]> {
  const found: SourceFile[] = [];
  for (const [i, name] of names.entries()) {
    const { bytes, source } = await io.readFile(name, { argument: "source" });
    const safe = basename(name)
      .replace(/[^a-zA-Z0-9_.-]/g, "_")
      .slice(-60);
    found.push({ file: `measurements/source-${i + 1}-${safe}`, bytes, sha256: source.sha256 });
  }
  return found;
}

/**
 * Refuses to write what `keystead verify` would refuse: measurements that do not show where the calls' images come from.
 *
 * @throws KeysteadError `provenance/…` {differences}
 * @example
 * requireProvenance(operation, attachments);
 */
export function requireProvenance(operation: Operation, files: ReadonlyMap<string, Uint8Array>): void {
  const { differences } = readProvenance(operation, files);
  const [first] = differences;
  if (first === undefined) return;
  throw new KeysteadError(first.code, `${first.field}: ${first.message}`, {
    argument: "measurement",
    remedy: "Give the measurement that the image was made from, and the very files that were measured.",
    details: { differences },
  });
}
