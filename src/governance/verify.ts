import type { Deployment } from "../chain/deployment.ts";
import { decodeUtf8, equalBytes } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";
import { isJsonArray, isJsonObject, type JsonValue, parseJson } from "../core/json.ts";
import { readBatch } from "./batch.ts";
import { checkOperation, contextOf, type Difference, differenceOf } from "./check.ts";
import { changedLineEnds, strayFile } from "./checkout.ts";
import { type DecodedCall, decodeCall } from "./decode.ts";
import { type JudgedWarning, judgeOperation } from "./judge.ts";
import { type Operation, parseOperation } from "./operation.ts";
import { attachmentNames, deriveProposal } from "./proposal.ts";
import { type ProvenanceReport, readProvenance } from "./provenance.ts";
import { headline } from "./report.ts";
import { type FoundSignature, readSignatures, SIGNATURES_FOLDER } from "./signatures.ts";
import { type PlannedTransaction, planTransactions } from "./transactions.ts";

/** What verifying a proposal's folder found. */
export interface Verification {
  /** No difference at all. */
  readonly ok: boolean;
  readonly differences: readonly Difference[];
  /** Absent where `operation.json` can't be read. */
  readonly operation: Operation | undefined;
  readonly headline: string | undefined;
  readonly calls: readonly DecodedCall[];
  /** The rollback's calls; empty where there is none. */
  readonly rollback: readonly DecodedCall[];
  /** What must not be overlooked in the operation and in its rollback: not differences, but nobody should sign over them. */
  readonly warnings: readonly JudgedWarning[];
  readonly provenance: readonly ProvenanceReport[];
  readonly transactions: readonly PlannedTransaction[];
  /** Signatures of its steps that are in the folder. */
  readonly signatures: readonly FoundSignature[];
  /** What was not looked at. */
  readonly unchecked: readonly string[];
}

/** How many differences of one file are named; more are counted. */
const MAX_NAMED = 12;

/**
 * Derives a proposal's folder again from its `operation.json` and compares every file byte for byte; checks that the operation makes sense, that
 * each batch file means the intended calls to the Transaction Builder, and that measurements agree with the calls. It needs no network, and no
 * code that signs.
 *
 * @param files every file of the folder, by its name with `/`
 * @param options.folder the folder's own name, which must be the operation's id
 * @param options.deployment the recorded deployment that the addresses must be of
 * @example
 * verifyProposal(files, { folder: "007-tdx" }).differences.map(({ field }) => field);
 */
export function verifyProposal(
  files: ReadonlyMap<string, Uint8Array>,
  options: { readonly folder?: string; readonly deployment?: Deployment } = {},
): Verification {
  const nothing = {
    operation: undefined,
    headline: undefined,
    calls: [],
    rollback: [],
    warnings: [],
    provenance: [],
    transactions: [],
    signatures: [],
  };
  let operation: Operation;
  const source = files.get("operation.json");
  try {
    if (source === undefined) {
      const missing = { field: "operation.json", code: "verify/missing", message: "the file is not in the folder" };
      return { ok: false, differences: [missing], ...nothing, unchecked: ["everything else"] };
    }
    operation = parseOperation(decodeUtf8(source, "operation.json"));
  } catch (error) {
    const argument = isKeysteadError(error) && error.argument !== undefined ? `: ${error.argument}` : "";
    const difference = differenceOf(error, `operation.json${argument}`);
    return { ok: false, differences: [difference], ...nothing, unchecked: ["everything else"] };
  }
  const differences: Difference[] = [...checkOperation(operation)];
  if (options.folder !== undefined && options.folder !== operation.id) {
    differences.push({
      field: "id",
      code: "verify/other-folder",
      message: `the operation is ${operation.id}, its folder ${JSON.stringify(options.folder)}`,
    });
  }
  if (options.deployment !== undefined) differences.push(...compareDeployment(operation, options.deployment));
  const provenance = readProvenance(operation, files);
  differences.push(...provenance.differences);
  let derived: ReadonlyMap<string, string>;
  try {
    derived = deriveProposal(operation, files);
  } catch (error) {
    differences.push(differenceOf(error, "operation.json"));
    return { ok: false, differences, ...nothing, operation, unchecked: ["everything else"] };
  }
  const expectedNames = new Set([...derived.keys(), ...attachmentNames(operation)]);
  for (const name of files.keys()) {
    if (!expectedNames.has(name) && !name.startsWith(SIGNATURES_FOLDER)) {
      const stray = strayFile(name);
      differences.push({
        field: name,
        code: stray === undefined ? "verify/unexpected-file" : "verify/stray-file",
        message: stray ?? "no file of this proposal has that name",
      });
    }
  }
  const transactions = planTransactions(operation);
  for (const [name, text] of derived) differences.push(...compareFile(name, text, files.get(name)));
  for (const [name, bytes] of files) {
    if (name.endsWith(".safe.json") && !name.includes("/")) {
      differences.push(...compareBatch(operation, name, bytes, transactions));
    }
  }
  const found = readSignatures(operation, files);
  differences.push(...found.differences);
  const { signatures } = found;
  const { calls, rollback, warnings } = judgeOperation(operation, options.deployment);
  return {
    ...{ ok: differences.length === 0, differences, operation, calls, rollback, transactions, signatures },
    ...{ headline: headline(operation).line, warnings, provenance: provenance.reports },
    unchecked: [
      ...(options.deployment === undefined
        ? ["that the addresses are those of the deployment: name its record with --deployment"]
        : []),
      "the chain: code, roles, nonces, delays and pending operations",
      ...signatures
        .filter(({ recovered }) => !recovered)
        .map(({ file }) => `${file}: only the signer's contract can say whether it is valid`),
      ...(signatures.length === 0 ? [] : ["whether the signers are owners of the Safes"]),
      ...provenance.reports.flatMap(uncheckedOf),
    ],
  };
}

/** Registers of a proposed image that nobody measured again, each with what stands behind it. */
function uncheckedOf({ file, standings }: ProvenanceReport): readonly string[] {
  return standings
    .filter(({ standing }) => standing !== "measured")
    .map(({ name, standing, why }) => `${file}: ${name} is ${standing}, not measured here: ${why}`);
}

function compareDeployment(operation: Operation, deployment: Deployment): readonly Difference[] {
  const { contracts, safes } = deployment;
  const rows: [string, string, string][] = [
    ["chainId", operation.chainId.toString(), deployment.chainId.toString()],
    ["contracts.policy", operation.contracts.policy, contracts.policy.address],
    ["contracts.registry", operation.contracts.registry, contracts.registry.address],
    ["contracts.timelock", operation.contracts.timelock, contracts.timelock.address],
  ];
  const known = [safes.governance, safes.guardian].find(({ address }) => address === operation.safe.address);
  if (known !== undefined) rows.push(["safe.version", operation.safe.version, known.version]);
  return rows
    .filter(([, found, recorded]) => found !== recorded)
    .map(([field, found, recorded]) => ({
      field,
      code: "verify/other-deployment",
      message: `it is ${found} in the operation and ${recorded} in the deployment's record`,
    }));
}

function compareFile(name: string, text: string, found: Uint8Array | undefined): readonly Difference[] {
  if (found === undefined) return [{ field: name, code: "verify/missing", message: "the file is not in the folder" }];
  const given = new TextDecoder().decode(found);
  if (given === text && equalBytes(new TextEncoder().encode(text), found)) return [];
  const lineEnds = changedLineEnds(text, given);
  if (lineEnds !== undefined) return [{ field: name, code: "verify/line-ends", message: lineEnds }];
  const code = "verify/differs";
  if (name.endsWith(".json")) {
    try {
      const paths: string[] = [];
      comparePaths(parseJson(text, name), parseJson(given, name), "", paths);
      if (paths.length > 0) {
        const more = paths.length > MAX_NAMED ? ` and ${paths.length - MAX_NAMED} more` : "";
        return paths.slice(0, MAX_NAMED).map((path) => ({
          field: `${name}: ${path}`,
          code,
          message: `it is not what operation.json gives${more}`,
        }));
      }
    } catch (error) {
      return [differenceOf(error, name)];
    }
  }
  const lines = text.split("\n");
  const line = given.split("\n").findIndex((item, i) => item !== lines[i]);
  return [{ field: `${name}: line ${line + 1}`, code, message: "it is not what operation.json gives" }];
}

function comparePaths(a: JsonValue | undefined, b: JsonValue | undefined, path: string, paths: string[]): void {
  if (isJsonArray(a) && isJsonArray(b)) {
    for (let i = 0; i < Math.max(a.length, b.length); i++) comparePaths(a[i], b[i], `${path}[${i}]`, paths);
  } else if (isJsonObject(a) && isJsonObject(b)) {
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      comparePaths(a[key], b[key], path === "" ? key : `${path}.${key}`, paths);
    }
  } else if (a !== b) paths.push(path);
}

/** Reads a batch file the other way round: from what the Transaction Builder makes of it back to the operation. */
function compareBatch(
  operation: Operation,
  name: string,
  bytes: Uint8Array,
  planned: readonly PlannedTransaction[],
): readonly Difference[] {
  const differences: Difference[] = [];
  const add = (code: string, message: string) => differences.push({ field: name, code, message });
  const plan = planned.find(({ file }) => file === name);
  try {
    const batch = readBatch(decodeUtf8(bytes, name));
    if (batch.chainId !== operation.chainId.toString()) add("verify/batch-chain", `it is for chain ${batch.chainId}`);
    if (plan === undefined) return differences;
    if (batch.safe !== plan.safe.address) add("verify/batch-safe", `it is for Safe ${batch.safe}`);
    if (!batch.checksumFits) add("verify/batch-checksum", "its checksum is not that of its content");
    const context = contextOf(operation);
    for (const [i, call] of plan.calls.entries()) {
      const found = batch.calls[i];
      if (found !== undefined && found.to === call.to && found.value === call.value && found.data === call.data)
        continue;
      const means = found === undefined ? "nothing" : decodeCall(found, context).words.sentence;
      add("verify/batch-calls", `call ${i + 1} would be: ${means}`);
    }
    if (batch.calls.length > plan.calls.length) add("verify/batch-calls", `it has ${batch.calls.length} calls`);
  } catch (error) {
    differences.push(differenceOf(error, name));
  }
  return differences;
}
