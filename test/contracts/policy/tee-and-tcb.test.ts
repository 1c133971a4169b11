import { expect } from "chai";
import { network } from "hardhat";
import { KIND } from "../../helpers/images.ts";
import { expectChange, expectRefusal, fieldsOf, MAX_TEXT, UNKNOWN_KINDS } from "../../helpers/policy.ts";
import { deploySuite, type Suite } from "../../helpers/suite.ts";

const connection = await network.create();
const KINDS = Object.entries(KIND);
/** TcbStatus.ACCEPTABLE: bits 0 to 9 but for 6, Revoked. */
const ACCEPTABLE = 0x03bf;

describe("PlatformPolicy: TEE kinds and TCB statuses", () => {
  let suite: Suite;
  let governor: Suite["policy"];
  let guardian: Suite["policy"];

  beforeEach(async () => {
    suite = await connection.networkHelpers.loadFixture(deploySuite);
    governor = suite.policy.connect(suite.governor);
    guardian = suite.policy.connect(suite.guardian);
  });

  const rules = async (kind: number) => fieldsOf(await suite.policy.teeRules(kind));
  const CLOSED = { enabled: false, devicesRestricted: false, acceptedTcb: 0n };

  it("given a new deployment, every kind is closed", async () => {
    for (const [, kind] of KINDS) expect(await rules(kind)).to.deep.equal(CLOSED);
  });

  it("given a number that names no kind, its rules are all zero whatever is set", async () => {
    for (const [, kind] of KINDS) {
      await governor.enableTee(kind);
      await governor.acceptTcb(kind, ACCEPTABLE);
      await guardian.restrictDevices(kind);
    }
    for (const kind of UNKNOWN_KINDS) expect(await rules(kind), `kind ${kind}`).to.deep.equal(CLOSED);
  });

  for (const [name, kind] of KINDS) {
    describe(`enableTee and suspendTee of ${name}`, () => {
      it("enables this kind alone", async () => {
        await expectChange(suite, () => governor.enableTee(kind), "EnableTee", { kind, actor: suite.governor.address });
        for (const [, other] of KINDS) {
          expect(await rules(other)).to.deep.equal({ ...CLOSED, enabled: other === kind });
        }
      });

      for (const actor of ["guardian", "governor"] as const) {
        it(`given the ${actor}, suspends this kind alone, at once`, async () => {
          for (const [, other] of KINDS) await governor.enableTee(other);
          const reason = actor === "guardian" ? "" : "r".repeat(MAX_TEXT);
          await expectChange(suite, () => suite.policy.connect(suite[actor]).suspendTee(kind, reason), "SuspendTee", {
            kind,
            actor: suite[actor].address,
            reason,
          });
          for (const [, other] of KINDS) expect((await rules(other)).enabled).to.equal(other !== kind);
        });
      }

      it("suspending keeps the TCB and device rules for when it comes back", async () => {
        await governor.enableTee(kind);
        await governor.acceptTcb(kind, 0b11);
        await guardian.restrictDevices(kind);
        await guardian.suspendTee(kind, "advisory");
        await expectRefusal(
          suite,
          () => guardian.enableTee(kind),
          "AccessControlUnauthorizedAccount",
          suite.guardian.address,
          await suite.policy.GOVERNOR_ROLE(),
        );
        await governor.enableTee(kind);
        expect(await rules(kind)).to.deep.equal({ enabled: true, devicesRestricted: true, acceptedTcb: 3n });
      });

      it("refuses to enable or suspend twice", async () => {
        await expectRefusal(suite, () => guardian.suspendTee(kind, ""), "PlatformPolicy_TeeNotEnabled", kind);
        await governor.enableTee(kind);
        await expectRefusal(suite, () => governor.enableTee(kind), "PlatformPolicy_TeeAlreadyEnabled", kind);
      });
    });

    describe(`acceptTcb and rejectTcb of ${name}`, () => {
      it("accepts statuses of this kind alone, adding to those accepted", async () => {
        const actor = suite.governor.address;
        await expectChange(suite, () => governor.acceptTcb(kind, 0b1), "AcceptTcb", {
          kind,
          actor,
          previous: 0,
          accepted: 0b1,
        });
        await expectChange(suite, () => governor.acceptTcb(kind, 0x0281), "AcceptTcb", {
          kind,
          actor,
          previous: 0b1,
          accepted: 0x0281,
        });
        for (const [, other] of KINDS) {
          expect(await rules(other)).to.deep.equal({ ...CLOSED, acceptedTcb: other === kind ? 0x0281n : 0n });
        }
      });

      it("every acceptable set is accepted whole and rejected whole, and the neighbours' stay", async () => {
        for (const [, other] of KINDS) await governor.acceptTcb(other, ACCEPTABLE);
        for (const [, other] of KINDS) expect((await rules(other)).acceptedTcb).to.equal(BigInt(ACCEPTABLE));
        await guardian.rejectTcb(kind, 0xffff);
        for (const [, other] of KINDS) {
          expect((await rules(other)).acceptedTcb).to.equal(other === kind ? 0n : BigInt(ACCEPTABLE));
        }
      });

      for (const actor of ["guardian", "governor"] as const) {
        it(`given the ${actor}, rejects statuses at once and passes over those not accepted`, async () => {
          await governor.acceptTcb(kind, 0b111);
          await expectChange(suite, () => suite.policy.connect(suite[actor]).rejectTcb(kind, 0xfff2), "RejectTcb", {
            kind,
            actor: suite[actor].address,
            previous: 0b111,
            accepted: 0b101,
          });
          expect((await rules(kind)).acceptedTcb).to.equal(0b101n);
        });
      }
    });
  }

  describe("acceptTcb", () => {
    for (let bit = 0; bit < 16; bit++) {
      const ok = bit < 10 && bit !== 6;
      it(`given status bit ${bit}${bit === 6 ? " (Revoked)" : ""}, it is ${ok ? "accepted" : "refused"}`, async () => {
        const statuses = 1 << bit;
        if (ok) {
          await governor.acceptTcb(KIND.tdx, statuses);
          expect((await rules(KIND.tdx)).acceptedTcb).to.equal(BigInt(statuses));
          return;
        }
        // Alone, or among acceptable ones.
        for (const set of [statuses, statuses | ACCEPTABLE]) {
          await expectRefusal(
            suite,
            () => governor.acceptTcb(KIND.tdx, set),
            "PlatformPolicy_UnacceptableTcb",
            KIND.tdx,
            set,
          );
        }
      });
    }

    it("given no status, it is refused", async () => {
      await expectRefusal(suite, () => governor.acceptTcb(KIND.snp, 0), "PlatformPolicy_UnacceptableTcb", KIND.snp, 0);
    });

    it("given nothing new, it is refused with the set as it is", async () => {
      await governor.acceptTcb(KIND.snp, 0b11);
      for (const statuses of [0b01, 0b10, 0b11]) {
        await expectRefusal(
          suite,
          () => governor.acceptTcb(KIND.snp, statuses),
          "PlatformPolicy_TcbUnchanged",
          KIND.snp,
          0b11,
        );
      }
    });
  });

  describe("rejectTcb", () => {
    it("given nothing that is accepted, it is refused with the set as it is", async () => {
      await expectRefusal(suite, () => guardian.rejectTcb(KIND.tdx, 1), "PlatformPolicy_TcbUnchanged", KIND.tdx, 0);
      await governor.acceptTcb(KIND.tdx, 0b11);
      for (const statuses of [0, 0b100, 0xfffc]) {
        await expectRefusal(
          suite,
          () => guardian.rejectTcb(KIND.tdx, statuses),
          "PlatformPolicy_TcbUnchanged",
          KIND.tdx,
          0b11,
        );
      }
    });

    it("given a status rejected by the guardian, only the governor accepts it again", async () => {
      await governor.acceptTcb(KIND.tdx, 1);
      await guardian.rejectTcb(KIND.tdx, 1);
      await expectRefusal(
        suite,
        () => guardian.acceptTcb(KIND.tdx, 1),
        "AccessControlUnauthorizedAccount",
        suite.guardian.address,
        await suite.policy.GOVERNOR_ROLE(),
      );
      await governor.acceptTcb(KIND.tdx, 1);
      expect((await rules(KIND.tdx)).acceptedTcb).to.equal(1n);
    });
  });

  it("given a number that names no kind, every function refuses it", async () => {
    for (const kind of UNKNOWN_KINDS) {
      const error = "PlatformPolicy_UnknownKind";
      await expectRefusal(suite, () => governor.enableTee(kind), error, kind);
      await expectRefusal(suite, () => guardian.suspendTee(kind, ""), error, kind);
      await expectRefusal(suite, () => governor.acceptTcb(kind, 1), error, kind);
      await expectRefusal(suite, () => guardian.rejectTcb(kind, 1), error, kind);
    }
  });

  it("when the reason of a suspension is too long, the kind stays enabled", async () => {
    await governor.enableTee(KIND.tdx);
    await expectRefusal(
      suite,
      () => guardian.suspendTee(KIND.tdx, "r".repeat(MAX_TEXT + 1)),
      "PlatformPolicy_TextTooLong",
      MAX_TEXT + 1,
      MAX_TEXT,
    );
    expect((await rules(KIND.tdx)).enabled).to.equal(true);
  });
});
