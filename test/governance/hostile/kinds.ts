import type { Made } from "./stage.ts";

/**
 * What a command says: `goes`, or the code that it refuses with. `verify`: its exit code.
 * `acting`: sign, simulate and execute; `rollback`: signing and sending the rollback; `cancel`: signing and sending a cancellation.
 */
export interface HostileFolder {
  readonly name: string;
  readonly make: () => Made;
  /** Codes that must be among the warnings or differences. */
  readonly says: readonly string[];
  readonly verify: 1 | 2;
  readonly acting: "goes" | "proposal/unsafe" | "proposal/not-verified";
  readonly rollback: "goes" | "proposal/unsafe" | "proposal/not-verified";
  readonly cancel: "goes" | "proposal/not-verified";
}

const UNSAFE = "proposal/unsafe";
const NOT_VERIFIED = "proposal/not-verified";

/** The rollback does harm: nobody signs or sends the grant or its rollback; cancelling is always possible. */
export const back = (name: string, says: readonly string[], make: () => Made): HostileFolder => ({
  ...{ name, make, says: [...says], verify: 1, acting: UNSAFE, rollback: UNSAFE, cancel: "goes" },
});
/** The operation itself does harm. */
export const takeover = (
  name: string,
  code: string,
  make: () => Made,
  more: Partial<HostileFolder> = {},
): HostileFolder => ({
  ...{
    name,
    make,
    says: [code],
    verify: 1 as const,
    acting: UNSAFE,
    rollback: "goes" as const,
    cancel: "goes" as const,
  },
  ...more,
});
/** The folder contradicts itself, or the record: nothing is done with it. */
export const contradiction = (name: string, says: readonly string[], make: () => Made): HostileFolder => ({
  ...{ name, make, says, verify: 1, acting: NOT_VERIFIED, rollback: NOT_VERIFIED, cancel: NOT_VERIFIED },
});
/** Somebody added files: `verify` names them, and nobody is stopped. */
export const added = (name: string, says: readonly string[], make: () => Made): HostileFolder => ({
  ...{ name, make, says, verify: 1, acting: "goes", rollback: "goes", cancel: "goes" },
});
