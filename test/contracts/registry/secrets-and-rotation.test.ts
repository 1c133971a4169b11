import { expect } from "chai";
import { AbiCoder, keccak256, toBeHex, zeroPadBytes } from "ethers";
import { connection } from "../../helpers/connection.ts";
import { DECISION } from "../../helpers/decisions.ts";
import { expectHistory, mined, timeOf } from "../../helpers/history.ts";
import {
  at,
  bareService,
  guardedService,
  LIMIT,
  NO_SERVICE,
  next,
  now,
  renouncedService,
  request,
  serviceWithImage,
} from "../../helpers/registry.ts";
import { DAY, NOTICE } from "../../helpers/suite.ts";

const { networkHelpers, ethers } = connection;
const PANIC_OVERFLOW = 0x11;
const bytes = (length: number): string => `0x${"c5".repeat(length)}`;

describe("KmsRegistry: key rotation (rotateServiceKey)", () => {
  it("given a service, each rotation raises the epoch by one and returns it", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(serviceWithImage);
    for (const keyEpoch of [1, 2, 3]) {
      if (keyEpoch > 1) await at((await now()) + DAY);
      expect(await own.rotateServiceKey.staticCall(serviceId)).to.equal(BigInt(keyEpoch));
      const receipt = await mined(own.rotateServiceKey(serviceId));
      await expectHistory(registry, serviceId, receipt, [
        { name: "RotateServiceKey", fields: { admin: admin.address, keyEpoch, since: await timeOf(receipt) } },
      ]);
      expect((await registry.service(serviceId)).keyEpoch).to.equal(BigInt(keyEpoch));
    }
    expect(await registry.authorize(request(serviceId)), "images are not concerned").to.equal(DECISION.Allowed);
  });

  it("given a rotation, the next one waits a day, to the second, so that a stolen key cannot bury the past", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
    const first = await timeOf(await mined(own.rotateServiceKey(serviceId)));
    const rotate = registry.interface.encodeFunctionData("rotateServiceKey", [serviceId]);
    await expect(own.multicall(Array(1000).fill(rotate), { gasLimit: 16_000_000 }))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_RotationTooEarly")
      .withArgs(serviceId, first + DAY);
    await next(first + DAY - 1);
    await expect(own.rotateServiceKey(serviceId)).to.be.revertedWithCustomError(
      registry,
      "KmsRegistry_RotationTooEarly",
    );
    await next(first + DAY);
    await own.rotateServiceKey(serviceId);
    const { keyEpoch, rotatedAt } = await registry.service(serviceId);
    expect([keyEpoch, rotatedAt]).to.deep.equal([2n, BigInt(first + DAY)]);
  });

  it("given an offer to a successor, which shares its slot, the offer stays", async () => {
    const { own, registry, serviceId, successor } = await networkHelpers.loadFixture(bareService);
    await own.transferServiceAdmin(serviceId, successor.address);
    await own.rotateServiceKey(serviceId);
    const { pendingAdmin, keyEpoch } = await registry.service(serviceId);
    expect([pendingAdmin, keyEpoch]).to.deep.equal([successor.address, 1n]);
  });

  it("given the last epoch that 16 bits hold, it refuses rather than start again at 0", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
    const namespace = 0xcbba06258cefd29a5414518227a5f12767df9b0b4ff96b05066b75c1bb332e00n;
    const coder = AbiCoder.defaultAbiCoder();
    const slot = BigInt(keccak256(coder.encode(["bytes32", "uint256"], [zeroPadBytes(serviceId, 32), namespace])));
    const cold = toBeHex(slot + 2n, 32);
    const lastEpoch = toBeHex(0xffffn << 160n, 32);
    await networkHelpers.setStorageAt(await registry.getAddress(), cold, lastEpoch);
    expect((await registry.service(serviceId)).keyEpoch, "the slot is the right one").to.equal(0xffffn);
    await expect(own.rotateServiceKey(serviceId)).to.be.revertedWithPanic(PANIC_OVERFLOW);
  });

  it("when the service does not exist, was renounced, or anyone but the admin calls, it refuses", async () => {
    const { own, registry, serviceId, admin, eve } = await networkHelpers.loadFixture(bareService);
    await expect(own.rotateServiceKey(NO_SERVICE))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
      .withArgs(NO_SERVICE);
    await expect(registry.connect(eve).rotateServiceKey(serviceId))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
      .withArgs(serviceId, eve.address, admin.address);
    const renounced = await networkHelpers.loadFixture(renouncedService);
    await expect(renounced.own.rotateServiceKey(renounced.serviceId))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
      .withArgs(renounced.serviceId, admin.address, ethers.ZeroAddress);
  });
});

describe("KmsRegistry: sealed secrets (publishSealedSecrets)", () => {
  it("given a service, it logs name and ciphertext whole, and binds them into the history", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(bareService);
    const receipt = await mined(own.publishSealedSecrets(serviceId, "env", bytes(1000)));
    const effectiveFrom = await timeOf(receipt);
    await expectHistory(registry, serviceId, receipt, [
      {
        name: "PublishSealedSecrets",
        fields: { actor: admin.address, name: "env", ciphertext: bytes(1000), effectiveFrom },
      },
    ]);
  });

  it("given a name that was published before, it publishes it again", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(bareService);
    await own.publishSealedSecrets(serviceId, "env", bytes(10));
    const receipt = await mined(own.publishSealedSecrets(serviceId, "env", bytes(11)));
    const effectiveFrom = await timeOf(receipt);
    await expectHistory(registry, serviceId, receipt, [
      {
        name: "PublishSealedSecrets",
        fields: { actor: admin.address, name: "env", ciphertext: bytes(11), effectiveFrom },
      },
    ]);
  });

  it("given the service has had an image, secrets wait out the notice period; until then it is at once", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(serviceWithImage);
    const receipt = await mined(own.publishSealedSecrets(serviceId, "env", bytes(10)));
    const effectiveFrom = (await timeOf(receipt)) + NOTICE;
    const log = receipt.logs.map((each) => registry.interface.parseLog(each))[0];
    expect(log?.args.getValue("effectiveFrom")).to.equal(BigInt(effectiveFrom));
  });

  it("withdrawing tells from when on, and up to when, nothing that is pending counts", async () => {
    const { own, registry, serviceId, admin, serviceGuardian } = await networkHelpers.loadFixture(guardedService);
    await own.publishSealedSecrets(serviceId, "env", bytes(10));
    for (const hand of [admin, serviceGuardian]) {
      const receipt = await mined(registry.connect(hand).withdrawPendingSecrets(serviceId, "not ours"));
      await expectHistory(registry, serviceId, receipt, [
        {
          name: "WithdrawPendingSecrets",
          fields: {
            actor: hand.address,
            reason: "not ours",
            since: await timeOf(receipt),
            before: 2 ** 40 - 1,
          },
        },
      ]);
    }
    await expect(own.withdrawPendingSecrets(serviceId, "r".repeat(LIMIT.text + 1)))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_TextTooLong")
      .withArgs(LIMIT.text + 1, LIMIT.text);
  });

  it("when name and ciphertext are at their limits, least or most, it accepts them", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(bareService);
    for (const [name, ciphertext] of [
      ["e", bytes(1)],
      ["n".repeat(LIMIT.name), bytes(LIMIT.ciphertext)],
    ] as const) {
      const receipt = await mined(own.publishSealedSecrets(serviceId, name, ciphertext));
      const effectiveFrom = await timeOf(receipt);
      await expectHistory(registry, serviceId, receipt, [
        { name: "PublishSealedSecrets", fields: { actor: admin.address, name, ciphertext, effectiveFrom } },
      ]);
    }
  });

  it("when the name is empty, or a byte too long, it refuses", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
    for (const length of [0, LIMIT.name + 1]) {
      await expect(own.publishSealedSecrets(serviceId, "n".repeat(length), bytes(1)))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_BadName")
        .withArgs(length, LIMIT.name);
    }
  });

  it("when the ciphertext is empty, or a byte too long, it refuses", async () => {
    const { own, registry, serviceId } = await networkHelpers.loadFixture(bareService);
    for (const length of [0, LIMIT.ciphertext + 1]) {
      await expect(own.publishSealedSecrets(serviceId, "env", bytes(length)))
        .to.be.revertedWithCustomError(registry, "KmsRegistry_BadCiphertext")
        .withArgs(length, LIMIT.ciphertext);
    }
  });

  it("when the service does not exist, was renounced, or anyone but the admin calls, it refuses", async () => {
    const { own, registry, serviceId, admin, eve } = await networkHelpers.loadFixture(bareService);
    await expect(own.publishSealedSecrets(NO_SERVICE, "env", bytes(1)))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_ServiceUnknown")
      .withArgs(NO_SERVICE);
    await expect(registry.connect(eve).publishSealedSecrets(serviceId, "env", bytes(1)))
      .to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin")
      .withArgs(serviceId, eve.address, admin.address);
    const renounced = await networkHelpers.loadFixture(renouncedService);
    await expect(
      renounced.own.publishSealedSecrets(renounced.serviceId, "env", bytes(1)),
    ).to.be.revertedWithCustomError(registry, "KmsRegistry_NotAdmin");
  });
});
