import { back, contradiction, type HostileFolder } from "./kinds.ts";
import {
  ALLOW_TDX,
  ATTACKER,
  addressOf,
  callOf,
  forge,
  grantThenBack,
  guardian,
  made,
  policyCall,
  propose,
  proposeIntent,
  roleOf,
  safeRef,
  timelockCall,
  word,
  ZERO,
} from "./stage.ts";

const onSafe = (safe: string, name: string, ...args: readonly unknown[]) => callOf("safe", safe, name, ...args);
const SOMETHING_ELSE = "rollback/does-something-else";
const revoke = (id: string) => policyCall("revokePlatform", id, "rollback");
const grantCall = propose().calls[0] ?? { to: ZERO, value: 0n, data: "0x" as const };
const grantBack = propose().rollback?.calls ?? [];

export const ROLLBACKS: readonly HostileFolder[] = [
  back("rollback: a module for the guardian Safe", [SOMETHING_ELSE, "danger/safe-module"], () =>
    made(grantThenBack(onSafe(guardian.address, "enableModule", ATTACKER))),
  ),
  back("rollback: a module beside the genuine revocation", [SOMETHING_ELSE, "danger/safe-module"], () =>
    made(grantThenBack(...grantBack, onSafe(guardian.address, "enableModule", ATTACKER))),
  ),
  back("rollback: a guard for the guardian Safe", ["danger/safe-guard"], () =>
    made(grantThenBack(onSafe(guardian.address, "setGuard", ATTACKER))),
  ),
  back("rollback: a fallback handler nobody published", ["danger/safe-handler"], () =>
    made(grantThenBack(...grantBack, onSafe(guardian.address, "setFallbackHandler", ATTACKER))),
  ),
  back("rollback: an owner swapped", ["danger/safe-owners"], () =>
    made(grantThenBack(onSafe(guardian.address, "swapOwner", addressOf(1), addressOf(50), ATTACKER))),
  ),
  back("rollback: an owner added, one decides", ["danger/safe-owners"], () =>
    made(grantThenBack(onSafe(guardian.address, "addOwnerWithThreshold", ATTACKER, 1))),
  ),
  back("rollback: threshold of one", ["danger/safe-threshold"], () =>
    made(grantThenBack(onSafe(guardian.address, "changeThreshold", 1))),
  ),
  back("rollback: ether leaves", ["danger/ether", SOMETHING_ELSE], () =>
    made(grantThenBack(...grantBack, { to: ATTACKER, value: 10n ** 18n, data: "0x" })),
  ),
  back("rollback: an unknown call", ["danger/unknown-call", SOMETHING_ELSE], () =>
    made(grantThenBack({ to: ATTACKER, value: 0n, data: "0xdeadbeef" })),
  ),
  back("rollback: revokes another platform", [SOMETHING_ELSE, "rollback/leaves-something"], () =>
    made(grantThenBack(revoke(word(0x66)))),
  ),
  back("rollback: pauses everything too", [SOMETHING_ELSE], () =>
    made(grantThenBack(...grantBack, policyCall("pauseRelease", 1_209_600, "rollback"))),
  ),
  back("rollback: suspends a TEE in place of the platform", [SOMETHING_ELSE], () =>
    made(grantThenBack(policyCall("suspendTee", 1, "rollback"))),
  ),
  back("rollback: twice the same revocation", [SOMETHING_ELSE], () => made(grantThenBack(...grantBack, ...grantBack))),
  back("rollback: undoes one of two calls", ["rollback/leaves-something"], () => {
    const two = propose({ intents: [ALLOW_TDX, { intent: "enable-tee", arguments: { kind: "tdx" } }] });
    if (two.rollback === null) throw new Error("it has a rollback");
    return made(forge(two, { rollback: { ...two.rollback, calls: two.rollback.calls.slice(0, 1) } }));
  }),
  back("rollback: by a Safe of nobody's", ["rollback/other-safe"], () => {
    const grant = propose();
    if (grant.rollback === null) throw new Error("it has a rollback");
    return made(forge(grant, { rollback: { ...grant.rollback, safe: safeRef(99, 0n) } }));
  }),
  back("rollback: an approval of a hash that is not shown", ["danger/safe-approval"], () =>
    made(grantThenBack(onSafe(guardian.address, "approveHash", word(0x99)))),
  ),
  back("rollback of a revocation: a grant of another platform", [SOMETHING_ELSE], () => {
    const stop = proposeIntent("suspend-tee", { kind: "tdx", reason: "a bug" });
    if (stop.rollback === null) throw new Error("it has a rollback");
    const calls = [grantCall];
    return made(forge(stop, { rollback: { ...stop.rollback, calls } }));
  }),
  back("rollback of a suspension: another kind enabled", [SOMETHING_ELSE], () => {
    const stop = proposeIntent("suspend-tee", { kind: "tdx", reason: "a bug" });
    if (stop.rollback === null) throw new Error("it has a rollback");
    return made(forge(stop, { rollback: { ...stop.rollback, calls: [policyCall("enableTee", 2)] } }));
  }),
  back("rollback of an upgrade: not to what was there", [SOMETHING_ELSE], () => {
    const upgrade = proposeIntent("upgrade", {
      ...{ contract: "policy", implementation: addressOf(30), previous: ATTACKER },
    });
    const start = {
      ...{ block: 17n, hash: word(0x12) },
      facts: [{ name: "policy.implementation()", value: addressOf(5) }],
    };
    return made(forge(upgrade, { assumptions: { ...upgrade.assumptions, block: 17n, start } }));
  }),
  back("rollback of an upgrade: with a call in it", [SOMETHING_ELSE], () => {
    const upgrade = proposeIntent("upgrade", {
      ...{ contract: "policy", implementation: addressOf(30), previous: addressOf(5) },
    });
    if (upgrade.rollback === null) throw new Error("it has a rollback");
    const init = timelockCall("updateDelay", 0).data;
    const calls = [policyCall("upgradeToAndCall", addressOf(5), init)];
    return made(forge(upgrade, { rollback: { ...upgrade.rollback, calls } }));
  }),
  back("rollback of a role: gives it to another", [SOMETHING_ELSE, "danger/role-granted"], () => {
    const given = proposeIntent("grant-role", {
      ...{ contract: "policy", role: "GUARDIAN_ROLE", account: guardian.address },
    });
    if (given.rollback === null) throw new Error("it has a rollback");
    const calls = [policyCall("grantRole", roleOf("GUARDIAN_ROLE"), ATTACKER)];
    return made(forge(given, { rollback: { ...given.rollback, calls } }));
  }),
  back("rollback of a delay: to zero", ["danger/delay"], () =>
    made(proposeIntent("set-delay", { delay: "72h", previous: "0" })),
  ),
  back("rollback: at once, without waiting, through a timelock without delay", ["terms/no-delay"], () => {
    const stop = proposeIntent("suspend-tee", { kind: "tdx", reason: "a bug" });
    if (stop.rollback?.timelock == null) throw new Error("it has a rollback through the timelock");
    const timelock = { ...stop.rollback.timelock, delay: 0n };
    return made(forge(stop, { rollback: { ...stop.rollback, timelock } }));
  }),
  contradiction("rollback: loosens at once, past the timelock", ["operation/crossed-lane"], () =>
    made(grantThenBack(policyCall("enableTee", 1))),
  ),
  contradiction("rollback: an upgrade at once, past the timelock", ["operation/crossed-lane"], () =>
    made(grantThenBack(policyCall("upgradeTo", ATTACKER))),
  ),
];
