import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { id, zeroPadValue } from "ethers";
import { foldRoles, type RoleLog } from "../../src/chain/roles.ts";
import { compareRoles, type GovernedContract, ROLE_MATRIX } from "../../src/protocol/roles.ts";

const PARTIES = {
  timelock: "0x1111111111111111111111111111111111111111",
  governanceSafe: "0x2222222222222222222222222222222222222222",
  guardianSafe: "0x3333333333333333333333333333333333333333",
};
const STRANGER = "0x4444444444444444444444444444444444444444";

const roleLog = (event: "RoleGranted" | "RoleRevoked", role: string, account: string): RoleLog => ({
  topics: [id(`${event}(bytes32,address,address)`), role, zeroPadValue(account, 32), zeroPadValue(STRANGER, 32)],
});
const adminLog = (role: string, from: string, to: string): RoleLog => ({
  topics: [id("RoleAdminChanged(bytes32,bytes32,bytes32)"), role, from, to],
});
const idOf = (role: string) => ROLE_MATRIX.find((row) => row.role === role)?.id ?? "";
const NONE = `0x${"00".repeat(32)}`;

/** The logs of a contract that was set up exactly as published. */
function publishedLogs(contract: GovernedContract): RoleLog[] {
  return ROLE_MATRIX.filter((row) => row.contract === contract).flatMap((row) => [
    ...(idOf(row.admin) === NONE ? [] : [adminLog(row.id, NONE, idOf(row.admin))]),
    ...row.holders.map((party) => roleLog("RoleGranted", row.id, PARTIES[party])),
  ]);
}

describe("roles from logs", () => {
  it("folds grants and revocations in order", () => {
    const role = id("SOME_ROLE");
    const logs = [
      roleLog("RoleGranted", role, STRANGER),
      roleLog("RoleGranted", role, PARTIES.timelock),
      roleLog("RoleRevoked", role, STRANGER),
    ];
    expect([...foldRoles(logs).holders]).to.deep.equal([[role, [PARTIES.timelock]]]);
    expect(foldRoles([...logs, roleLog("RoleRevoked", role, PARTIES.timelock)]).holders.size).to.equal(0);
    expect(foldRoles([...logs, roleLog("RoleGranted", role, STRANGER)]).holders.get(role)).to.have.length(2);
  });

  for (const contract of ["timelock", "policy", "registry"] as const) {
    describe(contract, () => {
      const compare = (logs: readonly RoleLog[]) => compareRoles(contract, foldRoles(logs), PARTIES);
      const rows = ROLE_MATRIX.filter((row) => row.contract === contract);

      it("is as published", () => expect(compare(publishedLogs(contract))).to.deep.equal([]));

      for (const row of rows) {
        it(`sees a stranger with ${row.role}`, () => {
          const logs = [...publishedLogs(contract), roleLog("RoleGranted", row.id, STRANGER)];
          expect(compare(logs)).to.deep.equal([`${contract}: ${STRANGER} holds ${row.role}, and must not`]);
        });
        for (const party of row.holders) {
          it(`sees that ${party} lost ${row.role}`, () => {
            const logs = [...publishedLogs(contract), roleLog("RoleRevoked", row.id, PARTIES[party])];
            expect(compare(logs)).to.deep.equal([
              `${contract}: ${party} (${PARTIES[party]}) does not hold ${row.role}`,
            ]);
          });
        }
        it(`sees that another role administers ${row.role}`, () => {
          const logs = [...publishedLogs(contract), adminLog(row.id, idOf(row.admin), id("BACKDOOR"))];
          expect(compare(logs)).to.have.length(1);
        });
      }

      it("sees a role that nobody published", () => {
        const logs = [...publishedLogs(contract), roleLog("RoleGranted", id("BACKDOOR"), PARTIES.governanceSafe)];
        expect(compare(logs)[0]).to.match(/governanceSafe .* holds unknown role 0x/);
      });
    });
  }

  it("is the table that deploy/README.md shows", () => {
    const readme = readFileSync(join(import.meta.dirname, "../../deploy/README.md"), "utf8");
    const table = readme
      .split("\n")
      .filter((line) => /^\| (timelock|policy|registry) +\|/.test(line))
      .map((line) => line.replaceAll("`", "").replaceAll(/ +/g, " "));
    expect(table).to.deep.equal(
      ROLE_MATRIX.map(
        ({ contract, role, holders, admin, meaning }) =>
          `| ${contract} | ${role} | ${holders.join(", ") || "nobody"} | ${admin} | ${meaning} |`,
      ),
    );
  });
});
