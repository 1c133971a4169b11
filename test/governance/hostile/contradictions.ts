import { contradiction, type HostileFolder } from "./kinds.ts";
import { ATTACKER, adminOf, CONTRACTS, forge, made, policyCall, propose, word } from "./stage.ts";

export const CONTRADICTIONS: readonly HostileFolder[] = [
  contradiction("another chain than the record's", ["verify/other-deployment"], () => made(propose({ chainId: 5n }))),
  contradiction("a policy that is not the record's", ["verify/other-deployment"], () =>
    made(propose({ contracts: { ...CONTRACTS, policy: ATTACKER } })),
  ),
  contradiction("a timelock of nobody's", ["verify/other-deployment"], () =>
    made(propose({ contracts: { ...CONTRACTS, timelock: ATTACKER } })),
  ),
  contradiction("a grant in the lane of revocations", ["operation/crossed-lane"], () =>
    made(forge(propose(), { lane: "revoke" })),
  ),
  contradiction("a grant at once, past the timelock", ["operation/crossed-lane"], () =>
    made({ ...propose(), timelock: null, rollback: null }),
  ),
  contradiction("another salt", ["operation/wrong-salt"], () => {
    const grant = propose();
    if (grant.timelock === null) throw new Error("it waits");
    return made({ ...grant, timelock: { ...grant.timelock, salt: word(0x44) } });
  }),
  contradiction("an initialiser that has run", ["operation/not-for-proposals"], () =>
    made(adminOf(policyCall("initialize", ATTACKER, ATTACKER))),
  ),
  contradiction("another's calls in the schedule file", ["verify/differs"], () => {
    const { operation, files } = made(propose());
    const other = made(propose({ title: "other", intents: [{ intent: "enable-tee", arguments: { kind: "snp" } }] }));
    files.set("schedule.safe.json", other.files.get("schedule.safe.json") ?? new Uint8Array(0));
    return { operation, files };
  }),
];
