import { z } from "zod";

/*
 * What a machine's TCB status rests on, part by part, for the people who have to do something about it: in a node's log, metrics and refusals, and in
 * `keystead measure quote`.
 */

const shortfallSchema = z.strictObject({
  /** Which security version number, e.g. `SGX component 1 (Early Microcode Update)`, `PCE`, `microcode`. */
  svn: z.string(),
  have: z.int(),
  /** What the newest level that is up to date asks for. */
  need: z.int(),
});
const partSchema = z.strictObject({
  /** `platform`: microcode, BIOS, PCE; `module`: the TDX module; `qe`: the quoting enclave. */
  part: z.enum(["platform", "module", "qe"]),
  status: z.string(),
  /** The level's date, ISO 8601: what was disclosed until then is fixed in it. */
  date: z.string().optional(),
  /** Advisories that are open at this level, e.g. `INTEL-SA-00837`. */
  advisories: z.array(z.string()),
  short: z.array(shortfallSchema),
});
const verdict = {
  /** The worst of the parts, by the vendor's rule. */
  status: z.string(),
  parts: z.array(partSchema),
  /** Intel's `tcbEvaluationDataNumber`. */
  evaluation: z.int().nonnegative().optional(),
};

/** A TCB status and its reasons. */
export const tcbSchema = z.strictObject({
  ...verdict,
  /** Until when the collateral that says so is good, in seconds since 1970; it may be replaced earlier. */
  until: z.int().nonnegative().optional(),
  /** What the vendor's coming set (Intel's `update=early`) says of the same machine, where it is at hand. */
  early: z.strictObject(verdict).optional(),
});
/** A TCB status and its reasons. */
export type TcbReport = z.infer<typeof tcbSchema>;
/** One part of a platform. */
export type TcbPart = z.infer<typeof partSchema>;
/** A security version number that is too low. */
export type TcbShortfall = z.infer<typeof shortfallSchema>;

/** Levels that need no update of firmware or microcode: what a platform should reach. */
export const GOOD_TCB: ReadonlySet<string> = new Set(["UpToDate", "SWHardeningNeeded"]);

const PART_NAMES: Readonly<Record<TcbPart["part"], string>> = {
  platform: "platform",
  module: "TDX module",
  qe: "quoting enclave",
};

/**
 * One part in words.
 *
 * @example
 * describeTcbPart(part); // "platform OutOfDate (level of 2024-03-13): PCE has 11 and needs 13; INTEL-SA-00837"
 */
export function describeTcbPart({ part, status, date, short, advisories }: TcbPart): string {
  const since = date === undefined ? "" : ` (level of ${date.slice(0, 10)})`;
  const needs = short.map(({ svn, have, need }) => `${svn} has ${have} and needs ${need}`);
  const reasons = [...needs, ...(advisories.length === 0 ? [] : [advisories.join(", ")])];
  return `${PART_NAMES[part]} ${status}${since}${reasons.length === 0 ? "" : `: ${reasons.join("; ")}`}`;
}

/**
 * What falls short, in one sentence; `undefined` where nothing does.
 *
 * @example
 * describeTcb(report); // "TCB OutOfDate: platform OutOfDate (level of 2024-03-13): PCE has 11 and needs 13; by evaluation 17, good until 2026-12-01"
 */
export function describeTcb({ status, parts, evaluation, until }: TcbReport): string | undefined {
  const bad = parts.filter((part) => part.status !== "UpToDate");
  if (status === "UpToDate" && bad.length === 0) return undefined;
  const by = [
    ...(evaluation === undefined ? [] : [`by Intel's evaluation ${evaluation}`]),
    ...(until === undefined ? [] : [`good until ${new Date(until * 1000).toISOString().slice(0, 10)}`]),
  ];
  return `TCB ${status}: ${[...bad.map(describeTcbPart), ...(by.length === 0 ? [] : [by.join(", ")])].join(" | ")}`;
}
