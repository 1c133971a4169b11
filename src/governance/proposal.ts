import { contextOf } from "./check.ts";
import { deriveExpectedState } from "./effects.ts";
import { formatJson, formatOperation, type Operation } from "./operation.ts";
import { readProvenance } from "./provenance.ts";
import { formatReport } from "./report.ts";
import { formatBatches, formatHashes, planTransactions } from "./transactions.ts";

/**
 * Every file of a proposal's folder but the measurements, from the operation alone: the same operation gives the same bytes on any machine.
 *
 * @param attachments the measurements and their sources by file name
 * @returns file name → content
 * @throws KeysteadError `batch/misread`, and those of the operation's parts
 * @example
 * for (const [name, text] of deriveProposal(operation, new Map())) writeFileSync(join(folder, name), text);
 */
export function deriveProposal(
  operation: Operation,
  attachments: ReadonlyMap<string, Uint8Array>,
): ReadonlyMap<string, string> {
  const planned = planTransactions(operation);
  const expected = deriveExpectedState(operation.calls, contextOf(operation));
  const provenance = readProvenance(operation, attachments);
  return new Map([
    ["operation.json", formatOperation(operation)],
    ...formatBatches(operation, planned),
    ["hashes.json", formatHashes(operation, planned)],
    ["expected-state.json", formatJson(expected)],
    ["REPORT.md", formatReport({ operation, planned, expected, provenance })],
  ]);
}

/** The files of the folder that the operation only refers to. */
export function attachmentNames(operation: Operation): readonly string[] {
  return operation.measurements.flatMap(({ file, sources }) => [file, ...sources.map((source) => source.file)]);
}
