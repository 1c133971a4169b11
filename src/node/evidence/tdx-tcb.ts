import { equalBytes, fromHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import type { QeReport, TdxBody } from "../../core/evidence/tdx.ts";
import { isJsonArray, isJsonObject, type JsonObject, type JsonValue, parseJson } from "../../core/json.ts";
import { GOOD_TCB, type TcbShortfall } from "../../core/tcb.ts";

/*
 * TCB info and QE identity, and what they say of a platform. Formats: Intel, "Provisioning Certification Service for ECDSA Attestation", API v4, TCB info
 * version 3 and enclave identity version 2. Judgement: the same document ("Get TDX TCB Info", description of the comparison) and Intel's Quote
 * Verification Library, Src/AttestationLibrary (TdxModuleCheck, TCB level matching, status convergence).
 */

/** Intel's statuses, mildest first. The order is for people: {@link convergeTcbStatus} says how two of them combine. */
export const TCB_STATUSES = [
  "UpToDate",
  "SWHardeningNeeded",
  "ConfigurationNeeded",
  "ConfigurationAndSWHardeningNeeded",
  "OutOfDate",
  "OutOfDateConfigurationNeeded",
  "Revoked",
] as const;
/** One of {@link TCB_STATUSES}. Its index there is its number in `contracts/types/TcbStatus.sol`. */
export type TcbStatus = (typeof TCB_STATUSES)[number];

/** A level's verdict. */
export interface TcbVerdict {
  readonly status: TcbStatus;
  readonly advisoryIds: readonly string[];
  /** The level's date, ISO 8601. */
  readonly tcbDate: string;
}

/** A level of the TDX module or of the quoting enclave. */
export interface SvnLevel extends TcbVerdict {
  readonly isvSvn: number;
}

/** A level of the platform. */
export interface PlatformLevel extends TcbVerdict {
  readonly sgxSvns: readonly number[];
  readonly tdxSvns: readonly number[];
  readonly pceSvn: number;
}

interface SeamIdentity {
  readonly mrSigner: Uint8Array;
  readonly attributes: Uint8Array;
  readonly attributesMask: Uint8Array;
}

/** Common to both documents. Times in seconds since 1970. */
export interface SignedDocument {
  readonly issueDate: number;
  readonly nextUpdate: number;
  readonly evaluationDataNumber: number;
}

/** Parsed TCB info of a TDX platform family. */
export interface TcbInfo extends SignedDocument {
  readonly fmspc: Uint8Array;
  readonly pceId: Uint8Array;
  readonly module: SeamIdentity;
  readonly moduleIdentities: ReadonlyMap<string, SeamIdentity & { readonly levels: readonly SvnLevel[] }>;
  readonly levels: readonly PlatformLevel[];
  /** What Intel calls the 16 components of each list, where it says, e.g. `Early Microcode Update`. */
  readonly componentNames: { readonly sgx: readonly string[]; readonly tdx: readonly string[] };
}

/** Parsed identity of the TD quoting enclave. */
export interface QeIdentity extends SignedDocument {
  readonly miscSelect: number;
  readonly miscSelectMask: number;
  readonly attributes: Uint8Array;
  readonly attributesMask: Uint8Array;
  readonly mrSigner: Uint8Array;
  readonly isvProdId: number;
  readonly levels: readonly SvnLevel[];
}

/** What a PCK certificate says of its platform's TCB. */
export interface PlatformTcb {
  /** The 16 SGX component SVNs. */
  readonly sgxSvns: readonly number[];
  readonly pceSvn: number;
}

const malformed = (argument: string, what: string, cause?: unknown) =>
  new KeysteadError("tdx/collateral-malformed", `${argument}: ${what}`, {
    argument,
    remedy: "Fetch the collateral again from Intel or a PCCS, API version 4.",
    cause,
  });

/** Reads fields of one JSON object; everything that is not exactly of its type is refused. */
class Fields {
  readonly #object: JsonObject;
  readonly #argument: string;

  constructor(value: JsonValue | undefined, argument: string) {
    if (!isJsonObject(value)) throw malformed(argument, "an object is missing");
    this.#object = value;
    this.#argument = argument;
  }

  has(name: string): boolean {
    return this.#object[name] !== undefined;
  }

  optionalText(name: string): string {
    return this.has(name) ? this.text(name) : "";
  }

  text(name: string): string {
    const value = this.#object[name];
    if (typeof value !== "string") throw malformed(this.#argument, `${name} is not a text`);
    return value;
  }

  uint(name: string): number {
    const value = this.#object[name];
    if (typeof value !== "number" || !Number.isInteger(value) || value < 0 || value > 0xffff_ffff)
      throw malformed(this.#argument, `${name} is not a number`);
    return value;
  }

  hex(name: string, length: number): Uint8Array {
    const text = this.text(name);
    if (!/^[0-9a-fA-F]*$/.test(text) || text.length !== 2 * length)
      throw malformed(this.#argument, `${name} is not ${length} bytes in hex`);
    return fromHex(text, name);
  }

  date(name: string): number {
    const text = this.text(name);
    const time = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(text) ? Date.parse(text) : Number.NaN;
    if (Number.isNaN(time)) throw malformed(this.#argument, `${name} is not a time in UTC`);
    return time / 1000;
  }

  exactly(name: string, value: string | number): void {
    if (this.#object[name] !== value) throw malformed(this.#argument, `${name} is not ${JSON.stringify(value)}`);
  }

  object(name: string): Fields {
    return new Fields(this.#object[name], `${this.#argument}.${name}`);
  }

  list(name: string): readonly Fields[] {
    const value = this.#object[name];
    if (!isJsonArray(value)) throw malformed(this.#argument, `${name} is not a list`);
    return value.map((item, index) => new Fields(item, `${this.#argument}.${name}[${index}]`));
  }

  texts(name: string): readonly string[] {
    const value = this.#object[name];
    if (value === undefined) return [];
    if (!isJsonArray(value)) throw malformed(this.#argument, `${name} is not a list`);
    return value.map((item) => {
      if (typeof item !== "string") throw malformed(this.#argument, `${name} holds something that is not a text`);
      return item;
    });
  }
}

const readVerdict = (level: Fields): TcbVerdict => {
  const text = level.text("tcbStatus");
  const status = TCB_STATUSES.find((known) => known === text);
  if (status === undefined) throw malformed("tcbStatus", `the status ${JSON.stringify(text)} is not known`);
  return { status, advisoryIds: level.texts("advisoryIDs"), tcbDate: level.text("tcbDate") };
};

const readSvnLevels = (parent: Fields): readonly SvnLevel[] =>
  parent.list("tcbLevels").map((level) => ({ ...readVerdict(level), isvSvn: level.object("tcb").uint("isvsvn") }));

const readSeam = (fields: Fields): SeamIdentity => ({
  mrSigner: fields.hex("mrsigner", 48),
  attributes: fields.hex("attributes", 8),
  attributesMask: fields.hex("attributesMask", 8),
});

const readSigned = (fields: Fields): SignedDocument => ({
  issueDate: fields.date("issueDate"),
  nextUpdate: fields.date("nextUpdate"),
  evaluationDataNumber: fields.uint("tcbEvaluationDataNumber"),
});

function readSvns(tcb: Fields, name: string): readonly number[] {
  const svns = tcb.list(name).map((component) => component.uint("svn"));
  if (svns.length !== 16) throw malformed(name, "does not have 16 components");
  return svns;
}

const readNames = (level: Fields | undefined, name: string): readonly string[] =>
  level
    ?.object("tcb")
    .list(name)
    .map((component) => component.optionalText("type")) ?? [];

/**
 * Reads TCB info, exactly the text that Intel signed. Its signature is for the caller to check first.
 *
 * @throws KeysteadError `tdx/collateral-malformed`, and those of `parseJson`
 * @example
 * parseTcbInfo(collateral.tcbInfo).fmspc;
 */
export function parseTcbInfo(text: string): TcbInfo {
  const fields = new Fields(parseJson(text, "TCB info"), "TCB info");
  fields.exactly("id", "TDX");
  fields.exactly("version", 3);
  fields.exactly("tcbType", 0);
  const moduleIdentities = new Map<string, SeamIdentity & { readonly levels: readonly SvnLevel[] }>();
  for (const identity of fields.has("tdxModuleIdentities") ? fields.list("tdxModuleIdentities") : []) {
    const id = identity.text("id").toUpperCase();
    if (moduleIdentities.has(id)) throw malformed("TCB info", `the TDX module ${id} is there twice`);
    moduleIdentities.set(id, { ...readSeam(identity), levels: readSvnLevels(identity) });
  }
  const listed = fields.list("tcbLevels");
  const levels = listed.map((level) => {
    const tcb = level.object("tcb");
    return {
      ...readVerdict(level),
      sgxSvns: readSvns(tcb, "sgxtcbcomponents"),
      tdxSvns: readSvns(tcb, "tdxtcbcomponents"),
      pceSvn: tcb.uint("pcesvn"),
    };
  });
  return {
    ...readSigned(fields),
    fmspc: fields.hex("fmspc", 6),
    pceId: fields.hex("pceId", 2),
    module: readSeam(fields.object("tdxModule")),
    moduleIdentities,
    levels,
    componentNames: { sgx: readNames(listed[0], "sgxtcbcomponents"), tdx: readNames(listed[0], "tdxtcbcomponents") },
  };
}

/**
 * Reads the identity of the TD quoting enclave, exactly the text that Intel signed. Its signature is for the caller to check first.
 *
 * @throws KeysteadError `tdx/collateral-malformed`, and those of `parseJson`
 * @example
 * parseQeIdentity(collateral.qeIdentity).isvProdId; // 2
 */
export function parseQeIdentity(text: string): QeIdentity {
  const fields = new Fields(parseJson(text, "QE identity"), "QE identity");
  fields.exactly("id", "TD_QE");
  fields.exactly("version", 2);
  // In the order of memory, as all of its hex.
  const u32 = (name: string) => new DataView(fields.hex(name, 4).buffer).getUint32(0, true);
  return {
    ...readSigned(fields),
    miscSelect: u32("miscselect"),
    miscSelectMask: u32("miscselectMask"),
    attributes: fields.hex("attributes", 16),
    attributesMask: fields.hex("attributesMask", 16),
    mrSigner: fields.hex("mrsigner", 32),
    isvProdId: fields.uint("isvprodid"),
    levels: readSvnLevels(fields),
  };
}

const refuse = (code: string, message: string, details: Readonly<Record<string, unknown>> = {}) =>
  new KeysteadError(`tdx/${code}`, message, {
    argument: "quote",
    remedy: "Update the platform's firmware, TDX module and quoting software, then ask for a new quote.",
    details,
  });

const masked = (value: Uint8Array, mask: Uint8Array): Uint8Array =>
  value.map((byte, index) => byte & (mask[index] ?? 0xff));

/**
 * Judges the quoting enclave: it must be Intel's TD QE, and its SVN gives its status.
 *
 * @throws KeysteadError `tdx/qe-identity` {field}, `tdx/qe-no-tcb-level` {isvSvn}
 * @example
 * judgeQe(quote.signatureData.qeReport, identity).status; // "UpToDate"
 */
export function judgeQe(report: QeReport, identity: QeIdentity): TcbVerdict {
  const wrong = (field: string) =>
    refuse("qe-identity", `the quote was made by an enclave whose ${field} is not that of Intel's TD quoting enclave`, {
      field,
    });
  if (!equalBytes(report.mrSigner, identity.mrSigner)) throw wrong("MRSIGNER");
  if (report.isvProdId !== identity.isvProdId) throw wrong("ISVPRODID");
  // >>> 0: JavaScript's & gives signed numbers.
  if ((report.miscSelect & identity.miscSelectMask) >>> 0 !== identity.miscSelect) throw wrong("MISCSELECT");
  if (!equalBytes(masked(report.attributes, identity.attributesMask), identity.attributes)) throw wrong("ATTRIBUTES");
  const level = identity.levels.find(({ isvSvn }) => report.isvSvn >= isvSvn);
  if (level === undefined) {
    throw refuse("qe-no-tcb-level", `the quoting enclave's version ${report.isvSvn} is below every level Intel lists`, {
      isvSvn: report.isvSvn,
    });
  }
  return level;
}

/** The TDX module's identity and status. */
export interface ModuleVerdict extends TcbVerdict {
  readonly id: string;
  readonly isvSvn: number;
}

/**
 * Judges the TDX module. `TEE_TCB_SVN[1]` is its major version: from 1 on the module has an identity of its own, `TDX_01` and so on, with its own levels
 * for `TEE_TCB_SVN[0]`; at 0 it is part of the platform's levels.
 *
 * @returns `undefined` for version 0
 * @throws KeysteadError `tdx/module-unknown` {id}, `tdx/module-identity` {field}, `tdx/module-no-tcb-level` {id, isvSvn}
 * @example
 * judgeModule(quote.body, tcbInfo)?.status; // "UpToDate"
 */
export function judgeModule(body: TdxBody, info: TcbInfo): ModuleVerdict | undefined {
  const [isvSvn = 0, version = 0] = body.teeTcbSvn;
  const id = `TDX_${version.toString(16).padStart(2, "0").toUpperCase()}`;
  const identity = version === 0 ? undefined : info.moduleIdentities.get(id);
  if (version !== 0 && identity === undefined)
    throw refuse("module-unknown", `Intel's TCB info does not list the TDX module ${id}`, { id });
  const seam = identity ?? info.module;
  const wrong = (field: string) =>
    refuse("module-identity", `the TDX module's ${field} is not that of Intel's module`, { field, id });
  if (!equalBytes(body.mrSignerSeam, seam.mrSigner)) throw wrong("MRSIGNERSEAM");
  if (!equalBytes(masked(body.seamAttributes, seam.attributesMask), seam.attributes)) throw wrong("SEAMATTRIBUTES");
  if (identity === undefined) return undefined;
  const level = identity.levels.find((candidate) => isvSvn >= candidate.isvSvn);
  if (level === undefined) {
    throw refuse("module-no-tcb-level", `the TDX module ${id}, version ${isvSvn}, is below every level Intel lists`, {
      id,
      isvSvn,
    });
  }
  return { status: level.status, advisoryIds: level.advisoryIds, tcbDate: level.tcbDate, id, isvSvn };
}

/**
 * Judges the platform: the first level that it reaches in every component. TDX components 0 and 1 count only where the module has no identity of its own
 * (see {@link judgeModule}).
 *
 * @throws KeysteadError `tdx/no-tcb-level`
 * @example
 * judgePlatform(pck.tcb, quote.body, tcbInfo).status; // "OutOfDate"
 */
export function judgePlatform(tcb: PlatformTcb, { teeTcbSvn }: TdxBody, info: TcbInfo): TcbVerdict {
  const from = teeTcbSvn[1] === 0 ? 0 : 2;
  const reached = (have: ArrayLike<number>, need: readonly number[], start: number) =>
    need.every((svn, index) => index < start || (have[index] ?? -1) >= svn);
  const level = info.levels.find(
    (candidate) =>
      tcb.pceSvn >= candidate.pceSvn &&
      reached(tcb.sgxSvns, candidate.sgxSvns, 0) &&
      reached(teeTcbSvn, candidate.tdxSvns, from),
  );
  if (level !== undefined) return level;
  const short = platformShortfall(tcb, { teeTcbSvn }, info);
  const needs = short.map(({ svn, have, need }) => `${svn} has ${have}, the good level ${need}`).join("; ");
  throw refuse("no-tcb-level", `the platform is below every TCB level that Intel lists for it: ${needs}`, { short });
}

/**
 * The newest level that is good: what a platform should reach. Intel lists levels newest first.
 *
 * @example
 * targetLevel(tcbInfo.levels)?.pceSvn;
 */
export function targetLevel<T extends TcbVerdict>(levels: readonly T[]): T | undefined {
  return levels.find(({ status }) => GOOD_TCB.has(status)) ?? levels[0];
}

/**
 * What a platform lacks of the newest level that is up to date.
 *
 * @example
 * platformShortfall(pck.tcb, quote.body, tcbInfo); // [{ svn: "PCE", have: 11, need: 13 }]
 */
export function platformShortfall(
  tcb: PlatformTcb,
  { teeTcbSvn }: Pick<TdxBody, "teeTcbSvn">,
  info: TcbInfo,
): TcbShortfall[] {
  const wanted = targetLevel(info.levels);
  if (wanted === undefined) return [];
  const named = (kind: string, names: readonly string[], index: number) =>
    `${kind} component ${index + 1}${names[index] ? ` (${names[index]})` : ""}`;
  const lacks = (kind: string, names: readonly string[], have: ArrayLike<number>, need: readonly number[], from = 0) =>
    need.flatMap((least, index) => {
      const actual = have[index] ?? 0;
      return index >= from && actual < least ? [{ svn: named(kind, names, index), have: actual, need: least }] : [];
    });
  const pce = tcb.pceSvn < wanted.pceSvn ? [{ svn: "PCE", have: tcb.pceSvn, need: wanted.pceSvn }] : [];
  // TDX components 0 and 1 are the module's own where it has an identity (see judgePlatform).
  const from = teeTcbSvn[1] === 0 ? 0 : 2;
  return [
    ...lacks("SGX", info.componentNames.sgx, tcb.sgxSvns, wanted.sgxSvns),
    ...lacks("TDX", info.componentNames.tdx, teeTcbSvn, wanted.tdxSvns, from),
    ...pce,
  ];
}

/**
 * The platform's status worsened by that of its TDX module or quoting enclave, by the Quote Verification Library's rule: a part out of date makes the
 * whole out of date and keeps "configuration needed"; a part revoked revokes the whole.
 *
 * @throws KeysteadError `tdx/part-status` {part} for a part's status that Intel's rule does not know
 * @example
 * convergeTcbStatus("ConfigurationNeeded", "OutOfDate"); // "OutOfDateConfigurationNeeded"
 */
export function convergeTcbStatus(platform: TcbStatus, part: TcbStatus): TcbStatus {
  if (platform === "Revoked" || part === "Revoked") return "Revoked";
  if (part === "UpToDate") return platform;
  if (part !== "OutOfDate")
    throw refuse("part-status", `the status ${part} is not defined for a TDX module or quoting enclave`, { part });
  if (platform === "UpToDate" || platform === "SWHardeningNeeded") return "OutOfDate";
  if (platform === "ConfigurationNeeded" || platform === "ConfigurationAndSWHardeningNeeded")
    return "OutOfDateConfigurationNeeded";
  return platform;
}
