import { expect } from "chai";
import { ZeroHash } from "ethers";
import { network } from "hardhat";
import { KIND, measured } from "../../helpers/images.ts";
import { expectChange, expectRefusal, UNKNOWN_KINDS } from "../../helpers/policy.ts";
import { deploySuite, type Suite } from "../../helpers/suite.ts";

const connection = await network.create();
const KINDS = Object.entries(KIND);
const device = measured("device", 32);

describe("PlatformPolicy: devices", () => {
  let suite: Suite;
  let governor: Suite["policy"];
  let guardian: Suite["policy"];

  beforeEach(async () => {
    suite = await connection.networkHelpers.loadFixture(deploySuite);
    governor = suite.policy.connect(suite.governor);
    guardian = suite.policy.connect(suite.guardian);
  });

  const restricted = async (kind: number) => (await suite.policy.teeRules(kind)).devicesRestricted;

  for (const [name, kind] of KINDS) {
    describe(`given ${name}`, () => {
      it("allowDevice lists the device for this kind alone, restricted or not", async () => {
        const actor = suite.governor.address;
        await expectChange(suite, () => governor.allowDevice(kind, device), "AllowDevice", {
          kind,
          deviceId: device,
          actor,
        });
        for (const [, other] of KINDS) {
          expect(await suite.policy.isDeviceListed(other, device)).to.equal(other === kind);
          expect(await restricted(other)).to.equal(false);
        }
        await guardian.restrictDevices(kind);
        await expectChange(suite, () => governor.allowDevice(kind, ZeroHash), "AllowDevice", {
          kind,
          deviceId: ZeroHash,
          actor,
        });
        expect(await suite.policy.isDeviceListed(kind, ZeroHash)).to.equal(true);
      });

      for (const actor of ["guardian", "governor"] as const) {
        it(`the ${actor} restricts devices and revokes one, at once`, async () => {
          const policy = suite.policy.connect(suite[actor]);
          await governor.allowDevice(kind, device);
          await expectChange(suite, () => policy.restrictDevices(kind), "RestrictDevices", {
            kind,
            actor: suite[actor].address,
          });
          for (const [, other] of KINDS) expect(await restricted(other)).to.equal(other === kind);
          await expectChange(suite, () => policy.revokeDevice(kind, device), "RevokeDevice", {
            kind,
            deviceId: device,
            actor: suite[actor].address,
          });
          expect(await suite.policy.isDeviceListed(kind, device)).to.equal(false);
        });
      }

      it("unrestrictDevices lets any device count again and keeps the list", async () => {
        for (const [, other] of KINDS) await guardian.restrictDevices(other);
        await governor.allowDevice(kind, device);
        await expectChange(suite, () => governor.unrestrictDevices(kind), "UnrestrictDevices", {
          kind,
          actor: suite.governor.address,
        });
        for (const [, other] of KINDS) expect(await restricted(other)).to.equal(other !== kind);
        expect(await suite.policy.isDeviceListed(kind, device)).to.equal(true);
      });
    });
  }

  it("what would change nothing is refused", async () => {
    const kind = KIND.snp;
    await expectRefusal(suite, () => governor.unrestrictDevices(kind), "PlatformPolicy_DevicesNotRestricted", kind);
    await governor.allowDevice(kind, device);
    await expectRefusal(
      suite,
      () => governor.allowDevice(kind, device),
      "PlatformPolicy_DeviceAlreadyAllowed",
      kind,
      device,
    );
    // Where any device counts, taking one off the list would only look like a revocation.
    await expectRefusal(suite, () => guardian.revokeDevice(kind, device), "PlatformPolicy_DevicesNotRestricted", kind);
    await guardian.restrictDevices(kind);
    await expectRefusal(suite, () => guardian.restrictDevices(kind), "PlatformPolicy_DevicesAlreadyRestricted", kind);
    const other = measured("another", 32);
    await expectRefusal(
      suite,
      () => guardian.revokeDevice(kind, other),
      "PlatformPolicy_DeviceNotAllowed",
      kind,
      other,
    );
    await guardian.revokeDevice(kind, device);
    await expectRefusal(
      suite,
      () => guardian.revokeDevice(kind, device),
      "PlatformPolicy_DeviceNotAllowed",
      kind,
      device,
    );
  });

  it("a revoked device and an unrestricted kind come back by the governor alone", async () => {
    const role = await suite.policy.GOVERNOR_ROLE();
    await governor.allowDevice(KIND.tdx, device);
    await guardian.restrictDevices(KIND.tdx);
    await guardian.revokeDevice(KIND.tdx, device);
    for (const act of [() => guardian.allowDevice(KIND.tdx, device), () => guardian.unrestrictDevices(KIND.tdx)]) {
      await expectRefusal(suite, act, "AccessControlUnauthorizedAccount", suite.guardian.address, role);
    }
    await governor.allowDevice(KIND.tdx, device);
    expect(await suite.policy.isDeviceListed(KIND.tdx, device)).to.equal(true);
  });

  it("given a number that names no kind, every function refuses it", async () => {
    // 0 is the list of KMS nodes.
    for (const kind of UNKNOWN_KINDS.filter((each) => each !== 0)) {
      const error = "PlatformPolicy_UnknownKind";
      await expectRefusal(suite, () => governor.allowDevice(kind, device), error, kind);
      await expectRefusal(suite, () => guardian.revokeDevice(kind, device), error, kind);
      await expectRefusal(suite, () => guardian.restrictDevices(kind), error, kind);
      await expectRefusal(suite, () => governor.unrestrictDevices(kind), error, kind);
      expect(await suite.policy.isDeviceListed(kind, device)).to.equal(false);
    }
  });
});
