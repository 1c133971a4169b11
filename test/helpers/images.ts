import { concat, keccak256, toBeHex, zeroPadBytes } from "ethers";

/** TEE kinds by the number that the contracts use. */
export const KIND = { tdx: 1, snp: 2, nitro: 3, dstack: 4 } as const;

/** A register value that depends on a label and fills its width with non-zero bytes. */
export function measured(label: string, width = 48): string {
  const bytes = `${keccak256(Buffer.from(label)).slice(2)}${keccak256(Buffer.from(`${label}/tail`)).slice(2)}`;
  return `0x${bytes.replaceAll("00", "a7").slice(0, width * 2)}`;
}

/** Canonical bytes from register values by bit, written independently of `src/core` so that tests have a second opinion. */
export function image(kind: number, registers: Readonly<Record<number, string>>): string {
  const bits = Object.keys(registers)
    .map(Number)
    .sort((a, b) => a - b);
  const mask = bits.reduce((sum, bit) => sum + 2 ** bit, 0);
  const values = bits.map((bit) => zeroPadBytes(registers[bit] ?? "0x", 48));
  return concat(["0x01", toBeHex(kind, 1), toBeHex(mask, 4), ...values]);
}

/** A TDX image with mrtd and rtmr0–3, the realistic one of the gas budgets. */
export const tdxImage = (label: string): string =>
  image(KIND.tdx, {
    0: measured("mrtd"),
    1: measured("rtmr0"),
    2: measured("rtmr1"),
    3: measured("rtmr2"),
    4: measured(`rtmr3 of ${label}`),
  });

export const snpImage = (label: string): string =>
  image(KIND.snp, { 0: measured(`measurement of ${label}`), 1: measured("host_data", 32) });

export const nitroImage = (label: string): string =>
  image(KIND.nitro, { 0: measured(`pcr0 of ${label}`), 1: measured("pcr1"), 2: measured(`pcr2 of ${label}`) });

export const dstackImage = (label: string): string => image(KIND.dstack, { 1: measured(`compose of ${label}`, 32) });

export const dstackPinnedImage = (label: string): string =>
  image(KIND.dstack, { 0: measured("os image", 32), 1: measured(`compose of ${label}`, 32) });

/** The platforms on which the images above run. */
export const PLATFORM = {
  tdx: image(KIND.tdx, { 0: measured("mrtd"), 2: measured("rtmr1"), 3: measured("rtmr2") }),
  snp: image(KIND.snp, { 0: measured("snp platform") }),
  nitro: image(KIND.nitro, { 1: measured("pcr1") }),
  dstack: image(KIND.dstack, { 0: measured("os image", 32) }),
} as const;

export const imageId = (bytes: string): string => keccak256(bytes);
