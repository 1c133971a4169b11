/*
 * `keystead/audit`: histories verified and proven, states rebuilt from them, reports, watching, and the `/vm_updates` server.
 */
export { auditSuite, type SuiteAudit, type SuiteOptions } from "../audit/all.ts";
export { type Change, compareInspections } from "../audit/changes.ts";
export { type Page, renderPage, type Section, type Tone } from "../audit/html.ts";
export { type Inspection, inspect, type Subjects } from "../audit/inspect.ts";
export { auditPolicy } from "../audit/policy.ts";
export { auditReport, findingsOf, type ReportOptions, type Since } from "../audit/report.ts";
export { inspectionJson, renderCsv, renderMarkdown } from "../audit/report-formats.ts";
export type { Audit, AuditFault, Difference, PolicyAudit, Reason, ServiceAudit } from "../audit/result.ts";
export {
  type Basis,
  fetchImageStanding,
  fetchKnownBy,
  fetchPolicyStanding,
  type ImageStanding,
  type KnownBy,
  type PolicyStanding,
  type StandingOptions,
} from "../audit/standing.ts";
export { auditTable, type Table, timelineTable } from "../audit/table.ts";
export {
  createVmUpdatesApp,
  VM_UPDATES_PATHS,
  VM_UPDATES_PORT,
  type VmUpdatesOptions,
} from "../audit/vm-updates-app.ts";
export { auditService, type ReadOptions } from "../audit/walk.ts";
export { type Sighting, type WatchOptions, watch } from "../audit/watch.ts";
export type { ScanCache, ScanKey, ScanOptions, ScanPart } from "../chain/logs.ts";
export {
  decodeGovernedEvent,
  decodePolicyEvent,
  decodeServiceEvent,
  type GovernedEvent,
  type PolicyEvent,
  type RawLog,
  type ServiceEvent,
} from "../core/events.ts";
export {
  EMPTY_HEAD,
  type ExpectedHistory,
  type Fault,
  foldAll,
  foldHistory,
  type HistoryEntry,
  type Verdict,
  type VerifiedHistory,
  verifyPolicyHistory,
  verifyServiceHistory,
} from "../core/history.ts";
export { parseLog } from "../core/log.ts";
export { type PolicyEntry, type PolicyState, rebuildPolicy } from "../core/policy-state.ts";
export {
  type ImageStatus,
  imageStatus,
  rebuildService,
  type ServiceImage,
  type ServiceState,
  type ServiceView,
  type TimedEntry,
  viewService,
} from "../core/state.ts";
