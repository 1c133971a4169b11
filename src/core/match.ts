import type { Hex } from "./bytes.ts";
import type { Image, TeeKind } from "./image.ts";

/**
 * Whether a machine is what an image describes: the same kind, and every register of the image is there with that very value. A register that the image
 * leaves out matches anything; one that the machine does not show matches nothing.
 *
 * @param machine registers as its evidence shows them, at their natural widths, lower-case
 * @example
 * matchesImage({ kind: "tdx", registers: { mrtd: "0x…" } }, { kind: "tdx", registers: tdxRegisters(quote) });
 */
export function matchesImage(
  image: Image,
  machine: { readonly kind: TeeKind; readonly registers: Readonly<Record<string, Hex>> },
): boolean {
  if (image.kind !== machine.kind) return false;
  for (const name in image.registers) if (image.registers[name] !== machine.registers[name]) return false;
  return true;
}
