import { expect } from "chai";
import { connection } from "../../helpers/connection.ts";
import { DECISION } from "../../helpers/decisions.ts";
import { expectHistory, mined, timeOf } from "../../helpers/history.ts";
import {
  at,
  bytes32,
  config,
  DEVICE,
  deviceService,
  NO_SERVICE,
  now,
  openSuite,
  request,
  serviceWithImage,
  strictService,
} from "../../helpers/registry.ts";
import { NOTICE, TCB } from "../../helpers/suite.ts";

const { networkHelpers } = connection;
const HARDENING = { tcbStatus: TCB.swHardeningNeeded };

describe("KmsRegistry: devices (setDevice)", () => {
  it("given a list, a new device counts after the notice period, to the second", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(deviceService);
    const receipt = await mined(own.setDevice(serviceId, DEVICE.two, true));
    const effectiveFrom = (await timeOf(receipt)) + NOTICE;
    await expectHistory(registry, serviceId, receipt, [
      { name: "SetDevice", fields: { actor: admin.address, deviceId: DEVICE.two, allowed: true, effectiveFrom } },
    ]);
    const two = request(serviceId, { deviceId: DEVICE.two });
    await at(effectiveFrom - 1);
    expect(await registry.isDeviceAllowed(serviceId, DEVICE.two)).to.deep.equal([false, BigInt(effectiveFrom)]);
    expect(await registry.authorize(two)).to.equal(DECISION.ServiceDeviceNotAllowed);
    await at(effectiveFrom);
    expect(await registry.isDeviceAllowed(serviceId, DEVICE.two)).to.deep.equal([true, BigInt(effectiveFrom)]);
    expect(await registry.authorize(two)).to.equal(DECISION.Allowed);
  });

  it("given a listed device, taking it off works at once", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(deviceService);
    expect(await registry.authorize(request(serviceId))).to.equal(DECISION.Allowed);
    const receipt = await mined(own.setDevice(serviceId, DEVICE.one, false));
    await expectHistory(registry, serviceId, receipt, [
      {
        name: "SetDevice",
        fields: {
          actor: admin.address,
          deviceId: DEVICE.one,
          allowed: false,
          effectiveFrom: await timeOf(receipt),
        },
      },
    ]);
    expect(await registry.isDeviceAllowed(serviceId, DEVICE.one)).to.deep.equal([false, 0n]);
    expect(await registry.authorize(request(serviceId))).to.equal(DECISION.ServiceDeviceNotAllowed);
  });

  it("given the last device was taken off, none counts, and the service still restricts devices", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(deviceService);
    await own.setDevice(serviceId, DEVICE.one, false);
    expect((await registry.service(serviceId)).restrictDevices).to.equal(true);
    for (const deviceId of Object.values(DEVICE)) {
      expect(await registry.authorize(request(serviceId, { deviceId }))).to.equal(DECISION.ServiceDeviceNotAllowed);
    }
  });

  it("given a pending device was taken off, coming back it waits anew", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(deviceService);
    await own.setDevice(serviceId, DEVICE.two, true);
    await at((await now()) + NOTICE - 10);
    await own.setDevice(serviceId, DEVICE.two, false);
    const time = await timeOf(await mined(own.setDevice(serviceId, DEVICE.two, true)));
    expect(await registry.isDeviceAllowed(serviceId, DEVICE.two)).to.deep.equal([false, BigInt(time + NOTICE)]);
  });

  it("given a device of the start was taken off, coming back it waits like any other", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(deviceService);
    await own.setDevice(serviceId, DEVICE.one, false);
    await own.setDevice(serviceId, DEVICE.one, true);
    expect((await registry.isDeviceAllowed(serviceId, DEVICE.one)).allowed).to.equal(false);
  });

  it("when the device is on the list or pending already, it refuses", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(deviceService);
    await own.setDevice(serviceId, DEVICE.two, true);
    for (const deviceId of [DEVICE.one, DEVICE.two]) {
      await expect(own.setDevice(serviceId, deviceId, true))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_DeviceAlreadyListed")
        .withArgs(serviceId, deviceId);
    }
  });

  it("when the device to take off is not on the list, it refuses", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(deviceService);
    await own.setDevice(serviceId, DEVICE.one, false);
    for (const deviceId of [DEVICE.one, DEVICE.other]) {
      await expect(own.setDevice(serviceId, deviceId, false))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_DeviceNotListed")
        .withArgs(serviceId, deviceId);
    }
  });

  it("given a service that started without devices, any device counts, and setDevice starts no list", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    expect(await registry.isDeviceAllowed(serviceId, DEVICE.other)).to.deep.equal([true, 0n]);
    for (const allowed of [true, false]) {
      await expect(own.setDevice(serviceId, DEVICE.one, allowed))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_DevicesNotRestricted")
        .withArgs(serviceId);
    }
    expect(await registry.authorize(request(serviceId, { deviceId: DEVICE.other }))).to.equal(DECISION.Allowed);
  });

  it("when the service does not exist, or anyone but the admin calls, it refuses", async () => {
    const { own, registry, serviceId, admin, eve, deployer } = await networkHelpers.loadFixture(deviceService);
    await expect(own.setDevice(NO_SERVICE, DEVICE.two, true))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
      .withArgs(NO_SERVICE);
    for (const hand of [eve, deployer]) {
      await expect(registry.connect(hand).setDevice(serviceId, DEVICE.two, true))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
        .withArgs(serviceId, hand.address, admin.address);
    }
  });
});

describe("KmsRegistry: the TCB rule (setRequireUpToDateTcb)", () => {
  it("given it is not in force, demanding it works at once", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(serviceWithImage);
    expect(await registry.authorize(request(serviceId, HARDENING))).to.equal(DECISION.Allowed);
    const receipt = await mined(own.setRequireUpToDateTcb(serviceId, true));
    await expectHistory(registry, serviceId, receipt, [
      {
        name: "SetRequireUpToDateTcb",
        fields: { actor: admin.address, required: true, effectiveFrom: await timeOf(receipt) },
      },
    ]);
    const { requireUpToDateTcb, tcbRuleEnds } = await registry.service(serviceId);
    expect([requireUpToDateTcb, tcbRuleEnds]).to.deep.equal([true, 0n]);
    expect(await registry.authorize(request(serviceId, HARDENING))).to.equal(DECISION.ServiceTcbNotUpToDate);
  });

  it("given it is in force, lifting it waits out the notice period, to the second", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(strictService);
    const receipt = await mined(own.setRequireUpToDateTcb(serviceId, false));
    const ends = (await timeOf(receipt)) + NOTICE;
    await expectHistory(registry, serviceId, receipt, [
      { name: "SetRequireUpToDateTcb", fields: { actor: admin.address, required: false, effectiveFrom: ends } },
    ]);
    await at(ends - 1);
    const before = await registry.service(serviceId);
    expect([before.requireUpToDateTcb, before.tcbRuleEnds]).to.deep.equal([true, BigInt(ends)]);
    expect(await registry.authorize(request(serviceId, HARDENING))).to.equal(DECISION.ServiceTcbNotUpToDate);
    await at(ends);
    const after = await registry.service(serviceId);
    expect([after.requireUpToDateTcb, after.tcbRuleEnds]).to.deep.equal([false, 0n]);
    expect(await registry.authorize(request(serviceId, HARDENING))).to.equal(DECISION.Allowed);
  });

  it("given it is ending, demanding it again keeps it for good", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(strictService);
    await own.setRequireUpToDateTcb(serviceId, false);
    await own.setRequireUpToDateTcb(serviceId, true);
    await at((await now()) + 2 * NOTICE);
    const { requireUpToDateTcb, tcbRuleEnds } = await registry.service(serviceId);
    expect([requireUpToDateTcb, tcbRuleEnds]).to.deep.equal([true, 0n]);
  });

  it("given it ended, it can be demanded anew, and lifting it waits anew", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(strictService);
    await own.setRequireUpToDateTcb(serviceId, false);
    await at((await now()) + NOTICE);
    await own.setRequireUpToDateTcb(serviceId, true);
    expect(await registry.authorize(request(serviceId, HARDENING))).to.equal(DECISION.ServiceTcbNotUpToDate);
    const time = await timeOf(await mined(own.setRequireUpToDateTcb(serviceId, false)));
    expect((await registry.service(serviceId)).tcbRuleEnds).to.equal(BigInt(time + NOTICE));
  });

  it("given a notice period of zero, lifting it works at once", async () => {
    const { registry, admin } = await networkHelpers.loadFixture(openSuite);
    const own = registry.connect(admin);
    await own.createService(config(admin.address, { noticePeriod: 0, requireUpToDateTcb: true }), bytes32("hasty"));
    const serviceId = await registry.serviceIdFor(admin.address, bytes32("hasty"));
    await own.setRequireUpToDateTcb(serviceId, false);
    expect((await registry.service(serviceId)).requireUpToDateTcb).to.equal(false);
  });

  it("when it would leave everything as it is, it refuses: in force, not in force, ending, ended", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(strictService);
    const unchanged = (required: boolean) =>
      expect(own.setRequireUpToDateTcb(serviceId, required))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_Unchanged")
        .withArgs(serviceId);
    await unchanged(true);
    await own.setRequireUpToDateTcb(serviceId, false);
    await unchanged(false);
    await at((await now()) + NOTICE);
    await unchanged(false);

    const lax = await networkHelpers.loadFixture(serviceWithImage);
    await expect(lax.own.setRequireUpToDateTcb(lax.serviceId, false))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_Unchanged")
      .withArgs(lax.serviceId);
  });

  it("when the service does not exist, or anyone but the admin calls, it refuses", async () => {
    const { own, registry, serviceId, admin, eve } = await networkHelpers.loadFixture(strictService);
    await expect(own.setRequireUpToDateTcb(NO_SERVICE, true))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
      .withArgs(NO_SERVICE);
    await expect(registry.connect(eve).setRequireUpToDateTcb(serviceId, false))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
      .withArgs(serviceId, eve.address, admin.address);
  });
});
