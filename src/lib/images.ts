/*
 * `keystead/images`: measured images in their three spellings, evidence read (not verified), and what changed between two measurements. Pure: no network.
 */
export { type Detected, detectEvidence } from "../core/evidence/detect.ts";
export { computeComposeHash, computeOsImageHash } from "../core/evidence/dstack.ts";
export { type NitroDocument, nitroRegisters, parseNitroDocument, parseNitroPcrs } from "../core/evidence/nitro.ts";
export { computeRtmr3, formatImageFilter, type ImageFilter, parseImageFilter } from "../core/evidence/secretvm.ts";
export { parseSnpReport, type SnpReport, snpFindings, snpRegisters } from "../core/evidence/snp.ts";
export { parseTdxQuote, type TdxQuote, tdxFindings, tdxRegisters } from "../core/evidence/tdx.ts";
export {
  checkImage,
  decodeImage,
  encodeImage,
  formatImage,
  IMAGE_KINDS,
  type Image,
  type ImageUse,
  imageId,
  type KindSpec,
  parseImage,
  type RegisterSpec,
  TEE_KINDS,
  type TeeKind,
} from "../core/image.ts";
export {
  type BuiltImage,
  buildImage,
  type Finding,
  isUnsafe,
  type MeasuredRegister,
  type Measurement,
  type MeasurementSource,
  type Provenance,
  platformExclude,
  type RegisterChoice,
  registerValues,
} from "../core/measurement.ts";
export {
  type DiffOptions,
  diffMeasurements,
  type GovernanceCall,
  type MeasurementDiff,
} from "../core/measurement-diff.ts";
export { parseMeasurement } from "../core/measurement-format.ts";
