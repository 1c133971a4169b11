import { type HostileFolder, takeover } from "./kinds.ts";
import {
  ATTACKER,
  addressOf,
  adminOf,
  callOf,
  forge,
  governance,
  guardian,
  type Made,
  made,
  propose,
  proposeIntent,
  safeRef,
  ZERO,
} from "./stage.ts";

const onSafe = (safe: string, name: string, ...args: readonly unknown[]) => callOf("safe", safe, name, ...args);
const grantCall = propose().calls[0] ?? { to: ZERO, value: 0n, data: "0x" as const };

const grantsRole = (name: string, account: string): Made =>
  made(proposeIntent("grant-role", { contract: "timelock", role: name, account }));
const takesRole = (name: string, account: string): Made =>
  made(proposeIntent("revoke-role", { contract: "timelock", role: name, account }));

export const TAKEOVERS: readonly HostileFolder[] = [
  ...["PROPOSER_ROLE", "CANCELLER_ROLE", "EXECUTOR_ROLE"].map((role) =>
    takeover(`${role} for an attacker's Safe`, "danger/role-granted", () => grantsRole(role, ATTACKER)),
  ),
  takeover("the timelock's admin for an attacker", "danger/role-granted", () =>
    grantsRole("DEFAULT_ADMIN_ROLE", ATTACKER),
  ),
  takeover("the timelock's admin for the governance Safe, without any delay", "danger/role-granted", () =>
    grantsRole("DEFAULT_ADMIN_ROLE", governance.address),
  ),
  takeover("EXECUTOR_ROLE for everybody", "danger/role-granted", () => grantsRole("EXECUTOR_ROLE", ZERO)),
  takeover("PROPOSER_ROLE for the guardian", "danger/role-granted", () =>
    grantsRole("PROPOSER_ROLE", guardian.address),
  ),
  takeover("GOVERNOR_ROLE of the policy for an attacker", "danger/role-granted", () =>
    made(proposeIntent("grant-role", { contract: "policy", role: "GOVERNOR_ROLE", account: ATTACKER })),
  ),
  takeover("GUARDIAN_ROLE of the policy for an attacker", "danger/role-granted", () =>
    made(proposeIntent("grant-role", { contract: "policy", role: "GUARDIAN_ROLE", account: ATTACKER })),
  ),
  takeover("GOVERNOR_ROLE of the registry for the governance Safe, past the timelock", "danger/role-granted", () =>
    made(proposeIntent("grant-role", { contract: "registry", role: "GOVERNOR_ROLE", account: governance.address })),
  ),
  takeover("an attacker named as canceller, and so as known", "danger/role-granted", () => {
    const given = proposeIntent("grant-role", {
      ...{ contract: "timelock", role: "PROPOSER_ROLE", account: safeRef(666, 0n).address },
    });
    return made(forge(given, { cancellers: [...given.cancellers, safeRef(666, 0n)] }));
  }),
  takeover("the guardian's veto taken", "danger/role-taken", () => takesRole("CANCELLER_ROLE", guardian.address)),
  takeover(
    "the governance Safe's proposals taken",
    "danger/role-taken",
    () => takesRole("PROPOSER_ROLE", governance.address),
    { rollback: "goes" },
  ),
  takeover(
    "the guardian's power to tighten taken",
    "danger/role-taken",
    () => made(proposeIntent("revoke-role", { contract: "policy", role: "GUARDIAN_ROLE", account: guardian.address })),
    { rollback: "goes" },
  ),
  takeover("a delay of zero", "danger/delay", () => made(proposeIntent("set-delay", { delay: "0" }))),
  takeover("a shorter delay", "danger/delay", () => made(proposeIntent("set-delay", { delay: "1h" }))),
  takeover("a delay of ten years", "danger/delay", () => made(proposeIntent("set-delay", { delay: "3650d" }))),
  takeover("a module for the governance Safe", "danger/safe-module", () =>
    made(adminOf(onSafe(governance.address, "enableModule", ATTACKER))),
  ),
  takeover("a guard for the governance Safe", "danger/safe-guard", () =>
    made(adminOf(onSafe(governance.address, "setGuard", ATTACKER))),
  ),
  takeover("an owner swapped", "danger/safe-owners", () =>
    made(adminOf(onSafe(governance.address, "swapOwner", addressOf(1), addressOf(50), ATTACKER))),
  ),
  takeover("an owner added", "danger/safe-owners", () =>
    made(adminOf(onSafe(governance.address, "addOwnerWithThreshold", ATTACKER, 2))),
  ),
  takeover("an owner removed, one decides", "danger/safe-owners", () =>
    made(adminOf(onSafe(governance.address, "removeOwner", addressOf(1), addressOf(50), 1))),
  ),
  takeover("a threshold of one", "danger/safe-threshold", () =>
    made(adminOf(onSafe(governance.address, "changeThreshold", 1))),
  ),
  takeover("other code for a Safe", "danger/safe-singleton", () =>
    made(adminOf(onSafe(governance.address, "changeMasterCopy", ATTACKER))),
  ),
  takeover("a module for a Safe that nobody named", "danger/safe-module", () =>
    made(adminOf(onSafe(addressOf(77), "enableModule", ATTACKER))),
  ),
  takeover("ether to an attacker", "danger/ether", () => made(adminOf({ to: ATTACKER, value: 5n, data: "0x" }))),
  takeover("ether with an unknown call", "danger/ether", () =>
    made(adminOf({ to: ATTACKER, value: 5n, data: "0xdeadbeef" })),
  ),
  takeover("a Safe transaction that is a foreign DELEGATECALL", "danger/delegatecall", () =>
    made(adminOf(onSafe(governance.address, "execTransaction", ...[ATTACKER, 0, "0x", 1, 0, 0, 0, ZERO, ZERO, "0x"]))),
  ),
  takeover(
    "an unknown call",
    "danger/unknown-call",
    () => made(adminOf({ to: ATTACKER, value: 0n, data: "0xdeadbeef" })),
    {
      verify: 2,
    },
  ),
  takeover(
    "a known function at an address of nobody's",
    "danger/unknown-target",
    () => made(adminOf({ ...grantCall, to: ATTACKER })),
    { verify: 2 },
  ),
];
