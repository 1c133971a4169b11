import { expect } from "chai";
import { AbiCoder, id, keccak256, toBeHex, zeroPadBytes } from "ethers";
import { connection } from "../../helpers/connection.ts";
import { bareService, openSuite } from "../../helpers/registry.ts";
import { NOTICE } from "../../helpers/suite.ts";

const { networkHelpers, ethers } = connection;

/** What auditors and indexers rely on: a change here breaks every reader of the logs. */
const EVENTS: Readonly<Record<string, string>> = {
  "CreateService(bytes20,address,address,uint24,bool,string,uint32,uint40)":
    "0x1e65f700f8a4961e35a7db455d268493ec1fccb803a9a6ada9f10da7e634d1a0",
  "AddSecretKeyByImage(bytes20,address,bytes32,bytes,bool,string,uint40,uint32,uint40)":
    "0xa73aee6b20da3cbddadacb81d871ae0d944228a0c76492a62ee1770fa8c61c2d",
  "AddImageToService(bytes20,address,bytes32,bytes,string,uint40,uint32,uint40)":
    "0x248ebf5fa12453d68a36f4abd1ffab4420a3b85154b0c3e523d68fe6ffe32142",
  "RemoveImageFromService(bytes20,address,bytes32,string,uint32,uint40)":
    "0x59f4a8a97d851d214e9270cc55bf54f1c5a0952f3c5ded7b9c3cb6918333d098",
  "RetireImageFromService(bytes20,address,bytes32,uint40,uint40,uint32,uint40)":
    "0xf3ef82976320333aced229d2d8730132c8bc6e5e41ec1f213af9e3373bf2a822",
  "RotateServiceKey(bytes20,address,uint16,uint40,uint32,uint40)":
    "0xde811f696d91b69e91871dcfd7f90ad41035d556b471c2b7ecfe8d5007622a25",
  "PublishSealedSecrets(bytes20,address,string,bytes,uint40,uint32,uint40)":
    "0x44d6d781e49357d8b3c7f09a27e50a0283e77c300e672c25266e54d97fa25e89",
  "WithdrawPendingSecrets(bytes20,address,string,uint40,uint40,uint32,uint40)":
    "0x81014a47d952c06d183291516d5af0b21798e8ce07017b2f3687ff2690c6cd40",
  "ExtendNoticePeriod(bytes20,address,uint24,uint24,uint32,uint40)":
    "0x48c28c38e8e718a4e339a60ae1b9fd9ac7fccbff9bdf9139e311ab2668f70caf",
  "SetServiceGuardian(bytes20,address,address,address,uint40,uint32,uint40)":
    "0x3fd8ddd8bedc97cb4a50ca9fbd06231a303eb8f056b2e11237b18dc196701910",
  "SetDevice(bytes20,address,bytes32,bool,uint40,uint32,uint40)":
    "0x63ea6e23fa24eba6f63225b05113105e67635a1f015cf83b08e9ab36feedf107",
  "SetRequireUpToDateTcb(bytes20,address,bool,uint40,uint32,uint40)":
    "0x579f4385b28a2d0d65e13f2101b69c07da22dbfc5a034fdca9261683a7264fb6",
  "TransferServiceAdmin(bytes20,address,address,address,uint32,uint40)":
    "0x1c22c9256c93dd81e525f64c786be16ecf5d98f564e204f59c077c57bb746b58",
  "AcceptServiceAdmin(bytes20,address,address,uint32,uint40)":
    "0x2699fd8534761e99c3f3e7d3eda8515a66dcff9a92083d1f0933d4ac98d0446d",
  "RenounceServiceAdmin(bytes20,address,uint32,uint40)":
    "0xf6b4eb5ac574309fd8315b8ce175e490620e7453da318b1b1a42cd11e79601c2",
};

/** Events of OpenZeppelin's, which tell of roles and upgrades. */
const INHERITED = ["Initialized", "RoleAdminChanged", "RoleGranted", "RoleRevoked", "Upgraded"];

/** ERC-7201's formula. */
const namespace = (name: string): bigint =>
  BigInt(keccak256(toBeHex(BigInt(id(name)) - 1n, 32))) & ~0xffn & (2n ** 256n - 1n);

describe("KmsRegistry: what others rely on", () => {
  it("its events, by signature and topic, are these and no others", async () => {
    const { registry } = await networkHelpers.loadFixture(openSuite);
    const told: Record<string, string> = {};
    registry.interface.forEachEvent((event) => {
      if (!INHERITED.includes(event.name)) told[event.format("sighash")] = event.topicHash;
    });
    expect(told).to.deep.equal(EVENTS);
  });

  it("every event of its own indexes the service's id first", async () => {
    const { registry } = await networkHelpers.loadFixture(openSuite);
    registry.interface.forEachEvent(({ name, inputs }) => {
      if (INHERITED.includes(name)) return;
      expect([name, inputs[0]?.name, inputs[0]?.indexed]).to.deep.equal([name, "serviceId", true]);
      expect(inputs.slice(-2).map((input) => input.name)).to.deep.equal(["sequence", "previousBlock"]);
    });
  });

  it("a service's word and head lie where ERC-7201 puts them, packed as documented", async () => {
    const { registry, serviceId, admin } = await networkHelpers.loadFixture(bareService);
    const key = AbiCoder.defaultAbiCoder().encode(
      ["bytes32", "uint256"],
      [zeroPadBytes(serviceId, 32), namespace("keystead.storage.KmsRegistry")],
    );
    const slot = BigInt(keccak256(key));
    const address = await registry.getAddress();
    const word = BigInt(await ethers.provider.getStorage(address, slot));
    const field = (shift: bigint, bits: bigint) => (word >> shift) & (2n ** bits - 1n);
    const { lastUpdateBlock, historyHead } = await registry.service(serviceId);
    expect({
      admin: toBeHex(field(0n, 160n), 20),
      noticePeriod: field(160n, 24n),
      flags: field(184n, 8n),
      sequence: field(192n, 32n),
      lastUpdateBlock: field(224n, 32n),
    }).to.deep.equal({
      admin: admin.address.toLowerCase(),
      noticePeriod: BigInt(NOTICE),
      flags: 0b11n,
      sequence: 1n,
      lastUpdateBlock,
    });
    expect(await ethers.provider.getStorage(address, slot + 1n), "what a storage proof shows").to.equal(historyHead);
  });

  it("its roles have the names that the tools know", async () => {
    const { registry } = await networkHelpers.loadFixture(openSuite);
    expect(await registry.GOVERNOR_ROLE()).to.equal(id("keystead.GOVERNOR"));
    expect(await registry.GUARDIAN_ROLE()).to.equal(id("keystead.GUARDIAN"));
  });
});
