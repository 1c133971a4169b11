import { expect } from "chai";
import { AbiCoder, keccak256, toBeHex, zeroPadBytes } from "ethers";
import { connection } from "../../helpers/connection.ts";
import { DECISION } from "../../helpers/decisions.ts";
import { expectHistory, mined } from "../../helpers/history.ts";
import { bareService, LIMIT, NO_SERVICE, renouncedService, request, serviceWithImage } from "../../helpers/registry.ts";

const { networkHelpers, ethers } = connection;
const PANIC_OVERFLOW = 0x11;
const bytes = (length: number): string => `0x${"c5".repeat(length)}`;

describe("KmsRegistry: key rotation (rotateServiceKey)", () => {
  it("given a service, each rotation raises the epoch by one and returns it", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(serviceWithImage);
    for (const keyEpoch of [1, 2, 3]) {
      expect(await own.rotateServiceKey.staticCall(serviceId)).to.equal(BigInt(keyEpoch));
      const receipt = await mined(own.rotateServiceKey(serviceId));
      await expectHistory(registry, serviceId, receipt, [
        { name: "RotateServiceKey", fields: { admin: admin.address, keyEpoch } },
      ]);
      expect((await registry.service(serviceId)).keyEpoch).to.equal(BigInt(keyEpoch));
    }
    expect(await registry.authorize(request(serviceId)), "images are not concerned").to.equal(DECISION.Allowed);
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
    await expectHistory(registry, serviceId, receipt, [
      { name: "PublishSealedSecrets", fields: { actor: admin.address, name: "env", ciphertext: bytes(1000) } },
    ]);
  });

  it("given a name that was published before, it publishes it again", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(bareService);
    await own.publishSealedSecrets(serviceId, "env", bytes(10));
    const receipt = await mined(own.publishSealedSecrets(serviceId, "env", bytes(11)));
    await expectHistory(registry, serviceId, receipt, [
      { name: "PublishSealedSecrets", fields: { actor: admin.address, name: "env", ciphertext: bytes(11) } },
    ]);
  });

  it("when name and ciphertext are at their limits, least or most, it accepts them", async () => {
    const { own, registry, serviceId, admin } = await networkHelpers.loadFixture(bareService);
    for (const [name, ciphertext] of [
      ["e", bytes(1)],
      ["n".repeat(LIMIT.name), bytes(LIMIT.ciphertext)],
    ] as const) {
      const receipt = await mined(own.publishSealedSecrets(serviceId, name, ciphertext));
      await expectHistory(registry, serviceId, receipt, [
        { name: "PublishSealedSecrets", fields: { actor: admin.address, name, ciphertext } },
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
