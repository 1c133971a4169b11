import { quoteText } from "../core/text.ts";
import { contextOf } from "./check.ts";
import { type DecodedCall, decodeCall, renderCalls } from "./decode.ts";
import type { ExpectedState } from "./effects.ts";
import { judgeOperation } from "./judge.ts";
import type { Operation } from "./operation.ts";
import { renderSummary, summarise } from "./present/summary.ts";
import type { Provenance } from "./provenance.ts";
import { describeQuestion, describeValue, nameField, nameQuestion } from "./questions.ts";
import type { PlannedTransaction } from "./transactions.ts";
import { formatDuration, formatTime } from "./words.ts";

/** An operation in one line, and that line's first part. */
export interface Headline {
  /** E.g. `GRANT 1 TDX platform`. */
  readonly effect: string;
  /** With when, and who can stop it. */
  readonly line: string;
}

/**
 * What an operation does, when, and who can stop it, in one line.
 *
 * @example
 * headline(operation).line; // "GRANT 1 TDX platform · delay 48 h · earliest 2026-11-24 10:00Z if scheduled at once · cancellable by 0x…"
 */
export function headline(operation: Operation): Headline {
  const decoded = decodeOperation(operation);
  const counts = new Map<string, number>();
  for (const { words, calls } of decoded) {
    for (const noun of calls.length > 0 && words.noun === "batch"
      ? calls.map((call) => call.words.noun)
      : [words.noun]) {
      counts.set(noun, (counts.get(noun) ?? 0) + 1);
    }
  }
  const effect = `${operation.lane.toUpperCase()} ${[...counts].map(([noun, count]) => `${count} ${plural(noun, count)}`).join(", ")}`;
  const alarms = judgeOperation(operation).warnings.length;
  const { timelock, safe, cancellers, assumptions } = operation;
  const parts = [effect];
  if (alarms > 0) parts.push(`${alarms} ${plural("WARNING", alarms)}`);
  if (timelock === null) parts.push("at once, no delay", `by Safe ${safe.address}`, "cannot be cancelled");
  else {
    parts.push(
      `delay ${formatDuration(timelock.delay)}`,
      `earliest ${formatTime(assumptions.time + timelock.delay)} if scheduled when proposed`,
      `cancellable by ${[safe, ...cancellers].map(({ address }) => address).join(", ")}`,
    );
  }
  return { effect, line: parts.join(" · ") };
}

const plural = (noun: string, count: number): string => {
  if (count === 1) return noun;
  return noun.endsWith("y") ? `${noun.slice(0, -1)}ies` : `${noun}${/(s|x|ch)$/.test(noun) ? "es" : "s"}`;
};

/** The operation's own calls, taken apart. */
export function decodeOperation(operation: Operation): readonly DecodedCall[] {
  const context = contextOf(operation);
  return operation.calls.map((call) => decodeCall(call, context));
}

/** What a report is made from. */
export interface ReportInput {
  readonly operation: Operation;
  readonly planned: readonly PlannedTransaction[];
  readonly expected: ExpectedState;
  readonly provenance: Provenance;
}

/**
 * `REPORT.md`: verdict and effect first, then what the hardware wallet shows, the calls, what must hold afterwards, where measurements come
 * from, who can cancel, the way back, what was assumed. Text from outside stands in code blocks, quoted.
 *
 * @example
 * writeFileSync("REPORT.md", formatReport(input));
 */
export function formatReport({ operation, planned, expected, provenance }: ReportInput): string {
  const { id, title, chainId, rollback, timelock } = operation;
  const context = contextOf(operation);
  const sections: [string, readonly string[]][] = [
    ["What the hardware wallet shows", planned.flatMap(renderHashes)],
    ["What it does", fence(renderWhole(operation))],
    ["What changes", fence(renderChanges(operation, expected))],
    ["What must hold afterwards", fence(renderExpected(expected))],
    ["Where the measurements come from", fence(renderProvenance(operation, provenance))],
    ["Who can stop it", renderCancellation(operation)],
    [
      "The way back",
      rollback === null
        ? [
            "None follows from the operation itself: propose one, or have its inverse ready, before this one is executed.",
          ]
        : [
            `Import \`rollback.safe.json\` into Safe \`${rollback.safe.address}\`${rollback.timelock === null ? "; it works at once" : `; it waits ${formatDuration(rollback.timelock.delay)} in the timelock, then \`rollback-execute.safe.json\` executes it`}. It undoes the operation once that is done; before, cancel.`,
            "",
            "Or sign and send it from here:",
            "",
            ...rollBackCommands(operation),
            "",
            ...fence([
              ...renderCalls(rollback.calls.map((call) => decodeCall(call, context))),
              ...judgeOperation(operation)
                .warnings.filter(({ code }) => code.startsWith("rollback/"))
                .map(({ where, message, code }) => `UNSAFE ${where}: ${message} (${code})`),
            ]),
          ],
    ],
    ["What was assumed", renderAssumptions(operation)],
    [
      "How to check this",
      [
        'The first command derives every file of this folder again from `operation.json` and compares them; the second compares with the chain too, the third plays it on a copy of the chain and compares every change with "What must hold afterwards", both ways. They run in the repository\'s root; `KEYSTEAD_RPC_URL` in the environment names the endpoint.',
        "",
        ...shell([command("verify", id), command("verify", id, "--rpc"), command("simulate", id)]),
        "",
        "The checksums in the batch files protect against slips of an editor, not against people: what counts is the pair of hashes above, on the device.",
      ],
    ],
  ];
  const screen = renderSummary(summarise(operation, provenance), title);
  const lines = [`# ${id}`, "", `**${verdictOf(operation, provenance)}**`, "", ...fence(screen), ""];
  lines.push(`**${headline(operation).line}**`, "");
  lines.push(`Chain ${chainId}${timelock === null ? "" : `, timelock \`${timelock.address}\``}.`, "");
  for (const [heading, body] of sections) lines.push(`## ${heading}`, "", ...body, "");
  return `${lines.join("\n").trimEnd()}\n`;
}

/** The first line: whether anything has to be read before anything else, in the operation or in its rollback. */
function verdictOf(operation: Operation, { differences, reports }: Provenance): string {
  const { warnings } = judgeOperation(operation);
  const unsafe = warnings.filter(({ severity }) => severity === "unsafe");
  const inRollback = unsafe.length > 0 && unsafe.every(({ part }) => part === "rollback");
  if (differences.length > 0) return "DON'T SIGN: a measurement does not agree with the calls";
  if (unsafe.length > 0) {
    const verb = unsafe.length === 1 ? "is" : "are";
    return `DON'T SIGN before the ${unsafe.length} UNSAFE below${inRollback ? ", in the rollback," : ""} ${verb} explained`;
  }
  if (warnings.length > 0) return "COULD NOT BE READ WHOLE: sign only what somebody explains";
  return `READ WHOLE: every call is known and goes its prescribed way${standingWords(reports)}`;
}

/** What stands behind the images: only what was measured again here is called measured. */
function standingWords(reports: Provenance["reports"]): string {
  const standings = reports.flatMap((report) => report.standings.map(({ standing }) => standing));
  if (standings.length === 0) return "";
  if (standings.every((standing) => standing === "measured"))
    return ", and the images were measured again from sources";
  if (standings.includes("stated")) return ". Where the images come from is somebody's word";
  return ". The images are claimed by evidence whose signature is not checked here";
}

/** Before → after as people read it, as far as the start was recorded. */
function renderChanges(operation: Operation, expected: ExpectedState): readonly string[] {
  const { start } = operation.assumptions;
  const then = new Map((start?.facts ?? []).map(({ name, value }) => [name, value]));
  const shown = (text: string) => (/^[\x20-\x7e]+$/.test(text) ? text : quoteText(text));
  const lines = expected.views.map((view) => {
    const question = { ...view, free: [] };
    const old = then.get(nameField(nameQuestion(question, operation), view.field));
    const value = shown(describeValue(question, view.field, view.value));
    const after = view.rule === "equals" ? value : `${view.rule === "contains" ? "with" : "without"} ${value}`;
    const before = old === undefined ? "" : `${shown(describeValue(question, view.field, old))} → `;
    return `${describeQuestion(question, view.field)}: ${before}${after}`;
  });
  return [
    ...lines,
    ...expected.underived.map(({ call, why }) => `call ${call + 1}: ${why}`),
    start === null
      ? "(what it was before is not recorded: proposed without looking at a chain)"
      : `(before: block ${start.block}, ${start.hash})`,
  ];
}

/** Title and calls, and what is to be said of neither a call nor the rollback. */
function renderWhole(operation: Operation): readonly string[] {
  const others = judgeOperation(operation).warnings.filter(({ code }) => /^(terms|text)\//.test(code));
  return [
    ...[`title ${quoteText(operation.title)}`, "", ...renderCalls(decodeOperation(operation))],
    ...others.map(({ severity, where, message, code }) => `${severity.toUpperCase()} ${where}: ${message} (${code})`),
  ];
}

/** Four backquotes: a quoted text can't end the block, as it can't start a line. */
const fence = (lines: readonly string[]): readonly string[] => ["````text", ...lines, "````"];

/** Commands that can be pasted into a shell as they stand, in the repository's root. */
const shell = (commands: readonly string[]): readonly string[] => ["```sh", ...commands, "```"];
const command = (name: string, id: string, ...more: readonly string[]): string =>
  ["npm run --silent keystead --", name, `deploy/proposals/${id}`, ...more].join(" ");

function rollBackCommands({ id, rollback }: Operation): readonly string[] {
  const steps = rollback?.timelock == null ? ["rollback"] : ["rollback", "rollback-execute"];
  return shell(steps.flatMap((step) => [command("sign", id, "--step", step), command("rollback", id, "--step", step)]));
}

function renderHashes({ file, step, safe, transaction, hashes }: PlannedTransaction): readonly string[] {
  return [
    `**${step}**, \`${file}\`, Safe \`${safe.address}\` (${safe.version}), nonce ${transaction.nonce}`,
    "",
    ...fence([
      `domain hash   ${hashes.domainHash}`,
      `message hash  ${hashes.messageHash}`,
      `(safeTxHash   ${hashes.safeTxHash})`,
      `${transaction.operation === 0 ? "CALL" : "DELEGATECALL"} ${transaction.to}, ${transaction.value} wei, ${transaction.data.length / 2 - 1} bytes`,
    ]),
    "",
  ];
}

const RULE_WORDS = { equals: "is", contains: "contains the bits", lacks: "has none of the bits" } as const;

function renderExpected(expected: ExpectedState): readonly string[] {
  return [
    ...expected.views.map(({ contract, view, arguments: args, field, rule, value }) => {
      const name = view.slice(0, view.indexOf("("));
      const shown = /^[\x20-\x7e]*$/.test(value) ? value : quoteText(value);
      return `${contract}.${name}(${args.join(", ")})${field === "" ? "" : `.${field}`} ${RULE_WORDS[rule]} ${shown === "" ? '""' : shown}`;
    }),
    ...expected.underived.map(({ call, why }) => `call ${call + 1}: not said here, ${why}`),
  ];
}

function renderProvenance(operation: Operation, { reports, differences }: Provenance): readonly string[] {
  if (operation.measurements.length === 0)
    return ["no measurement was given: where images come from is not shown here"];
  return [
    ...reports.flatMap(({ call, file, measurement, standings, kept }) => [
      `call ${call + 1}, ${file}: ${measurement.kind}, by its own words read as ${quoteText(measurement.input)}`,
      ...standings.flatMap(({ name, standing, why }) => {
        const register = measurement.registers[name];
        if (register === undefined) return [`  ${name}: NOT MEASURED`];
        return [
          `  ${name} = ${register.value}`,
          `    ${standing.toUpperCase()}: ${why}`,
          ...(standing === "measured" ? [] : [`    whoever measured it says: ${quoteText(register.formula)}`]),
        ];
      }),
      ...measurement.sources.map(
        (source) =>
          `  source ${quoteText(source.name)}, ${source.bytes} bytes, sha256 ${source.sha256}${kept.includes(source.sha256) ? ", kept here" : ", not kept here"}`,
      ),
      ...measurement.findings.map(
        (finding) =>
          `  whoever measured it found: ${finding.severity}: ${quoteText(finding.code)}: ${quoteText(finding.message)}`,
      ),
      ...measurement.unchecked.map((item) => `  whoever measured it did not check: ${quoteText(item)}`),
    ]),
    ...differences.map(({ field, message }) => `MISMATCH ${field}: ${message}`),
  ];
}

function renderCancellation({ id, timelock, safe, cancellers, assumptions }: Operation): readonly string[] {
  if (timelock === null)
    return ["Nobody: it works as soon as the Safe executes it. What it tightens can be loosened through the timelock."];
  return [
    `Until it is executed, at the earliest ${formatTime(assumptions.time + timelock.delay)} if it is scheduled when proposed, with \`cancel.safe.json\`, each of these alone. Its owners sign, then anybody sends it:`,
    ...[...new Set([safe, ...cancellers].map(({ address }) => address))].flatMap((address) => [
      "",
      `Safe \`${address}\`:`,
      "",
      ...shell([command("sign", id, "--step", "cancel", "--safe", address), command("cancel", id, "--safe", address)]),
    ]),
  ];
}

function renderAssumptions({
  safe,
  cancellers,
  rollback,
  timelock,
  assumptions,
  contracts,
}: Operation): readonly string[] {
  const safes = new Map(
    [safe, ...cancellers, ...(rollback === null ? [] : [rollback.safe])].map((ref) => [ref.address, ref]),
  );
  return [
    `- PlatformPolicy is \`${contracts.policy}\`, KmsRegistry \`${contracts.registry}\`, their timelock \`${contracts.timelock}\`.`,
    ...[...safes.values()].map(
      ({ address, version, nonce }) =>
        `- Safe \`${address}\` is version ${version}, and its next nonce is ${address === safe.address ? safe.nonce : nonce}. Another nonce gives other hashes.`,
    ),
    ...(timelock === null
      ? []
      : [
          `- The timelock's minimum delay is at most ${formatDuration(timelock.delay)} when this is scheduled, and each Safe above has its role there.`,
          ...(/^0x0+$/.test(timelock.predecessor)
            ? []
            : [`- The operation \`${timelock.predecessor}\` is done before this one is executed.`]),
        ]),
    `- Proposed at ${formatTime(assumptions.time)}${assumptions.block === null ? ", without looking at a chain" : `, looking at block ${assumptions.block}`}.`,
    ...(assumptions.start === null
      ? []
      : [
          `- ${assumptions.start.facts.length} facts of that block are recorded in \`operation.json\`; where one moved, execution is refused.`,
        ]),
  ];
}
