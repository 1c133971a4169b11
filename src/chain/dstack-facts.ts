import { concatBytes, fromHex, type Hex } from "../core/bytes.ts";
import type { ReadSlot } from "./proven.ts";
import { policySlots, slotHex, stringLayout } from "./slots.ts";

/** What the policy says to dstack machines. */
export interface DstackTexts {
  /** Text of governance, as UTF-8. */
  readonly gatewayAppId: string;
  readonly appImplementation: Hex;
}

/**
 * `PlatformPolicy.gatewayAppId` and `appImplementation`, from proven slots.
 *
 * @example
 * const { gatewayAppId } = await state.read((read) => readDstackTexts(read, policy));
 */
export function readDstackTexts(read: ReadSlot, policy: Hex): DstackTexts {
  const { gatewayAppId: slot, appImplementation } = policySlots();
  const { length, short, slots } = stringLayout(slot, read(policy, slot));
  const bytes = short ?? concatBytes(...slots.map((each) => fromHex(slotHex(read(policy, each)), "slot")));
  return {
    gatewayAppId: new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes.subarray(0, length)),
    appImplementation: `0x${slotHex(read(policy, appImplementation)).slice(26)}`,
  };
}
