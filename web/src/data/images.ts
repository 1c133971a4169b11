import { fromHex } from "../../../src/core/bytes.ts";
import { isKeysteadError } from "../../../src/core/errors.ts";
import { decodeImage, IMAGE_KINDS, type Image, type TeeKind } from "../../../src/core/image.ts";

/** Kinds as their makers write them. */
export const KIND_NAMES: Readonly<Record<TeeKind, string>> = {
  tdx: "Intel TDX",
  snp: "AMD SEV-SNP",
  nitro: "AWS Nitro",
  dstack: "dstack",
};

/**
 * Canonical bytes as an image, for the first use that takes them; undefined for bytes that are no image.
 *
 * @example
 * readImageBytes(serviceImage.image)?.registers.mrtd;
 */
export function readImageBytes(hex: string): Image | undefined {
  for (const use of ["service", "platform"] as const) {
    try {
      return decodeImage(fromHex(hex, "image"), use);
    } catch (error) {
      if (!isKeysteadError(error)) throw error;
    }
  }
  return undefined;
}

/**
 * The name of a kind by its number in the contracts.
 *
 * @example
 * kindName(1); // "Intel TDX"
 */
export function kindName(byte: number): string {
  const spec = Object.values(IMAGE_KINDS).find((known) => known.byte === byte);
  return spec === undefined ? `kind ${byte}` : KIND_NAMES[spec.kind];
}

/** TCB statuses by bit position (contracts/types/TcbStatus.sol). */
export const TCB_STATUSES: readonly string[] = [
  ...["UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"],
  ...["OutOfDate", "OutOfDateConfigurationNeeded", "Revoked", "NotApplicable"],
  ...["RelaunchAdvised", "RelaunchAdvisedConfigurationNeeded"],
];

/**
 * A set of TCB statuses as names.
 *
 * @example
 * tcbNames(5); // ["UpToDate", "ConfigurationNeeded"]
 */
export function tcbNames(set: number): readonly string[] {
  return Array.from({ length: 16 }, (_, bit) => ((set >> bit) & 1 ? (TCB_STATUSES[bit] ?? `bit ${bit}`) : "")).filter(
    (name) => name !== "",
  );
}
