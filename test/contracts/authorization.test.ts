import type { HardhatEthersSigner } from "@nomicfoundation/hardhat-ethers/types";
import { expect } from "chai";
import type { BaseContract } from "ethers";
import { ZeroAddress, ZeroHash } from "ethers";
import { DstackAuth__factory } from "../../typechain-types/index.ts";
import { connection } from "../helpers/connection.ts";
import { dstackPinnedImage, image, imageId, KIND, measured, PLATFORM } from "../helpers/images.ts";
import { bytes32, config, DEVICE, NO_SERVICE, openSuite, V1, V2 } from "../helpers/registry.ts";
import { DAY, deploy, type Suite } from "../helpers/suite.ts";
import { verdictOf } from "../helpers/verdict.ts";

/**
 * The authorization matrix: every function that changes state × every actor, as data. A function that is missing here fails the test. What a function does
 * once it is allowed is told by the tests of its contract; here each call is one that succeeds in the right hands.
 */

const { networkHelpers, ethers } = connection;

const ACTORS = [
  "governor",
  "guardian",
  "deployer",
  "admin",
  "successor",
  "serviceGuardian",
  "eve",
  "formerAdmin",
  "exAdmin",
] as const;
type Actor = (typeof ACTORS)[number];

/** `managed`: `admin` took it over from `formerAdmin`, offered it to `successor`. `renounced`: by `exAdmin`. Both have `serviceGuardian`. */
const SERVICES = ["managed", "renounced", "sealed", "unknown"] as const;
type ServiceName = (typeof SERVICES)[number];

interface World extends Suite {
  readonly formerAdmin: HardhatEthersSigner;
  readonly exAdmin: HardhatEthersSigner;
  readonly services: Readonly<Record<ServiceName, string>>;
  readonly names: ReadonlyMap<string, string>;
  readonly roles: { readonly governor: string; readonly guardian: string };
  readonly v2: { readonly registry: string; readonly policy: string };
  readonly kmsIdentity: string;
  readonly contractAccount: string;
}

const IDENTITY = { rootEpoch: 1, environmentKey: bytes32("env"), evidenceHash: bytes32("evidence") } as const;

async function world(): Promise<World> {
  const suite = await openSuite();
  const [, , , , , formerAdmin, exAdmin] = await ethers.getSigners();
  if (!formerAdmin || !exAdmin) throw new Error("seven accounts are needed");
  const { registry, deployer, admin, successor, serviceGuardian } = suite;

  const rules = (owner: string) => config(owner, { devices: [DEVICE.one], requireUpToDateTcb: true });
  for (const [hand, salt] of [
    [formerAdmin, "managed"],
    [exAdmin, "renounced"],
  ] as const) {
    await registry.connect(hand).createServiceWithImage(rules(hand.address), bytes32(salt), V1, "");
  }
  await registry.addSecretKeyByImage(V1, [DEVICE.one], true, bytes32("sealed"), "", "0x");
  const idOf = (salt: string, creator = deployer) => registry.serviceIdFor(creator.address, bytes32(salt));
  const services = {
    managed: await idOf("managed", formerAdmin),
    renounced: await idOf("renounced", exAdmin),
    sealed: await idOf("sealed"),
    unknown: NO_SERVICE,
  };
  await registry.connect(formerAdmin).setServiceGuardian(services.managed, serviceGuardian.address);
  await registry.connect(formerAdmin).transferServiceAdmin(services.managed, admin.address);
  await registry.connect(admin).acceptServiceAdmin(services.managed);
  await registry.connect(admin).transferServiceAdmin(services.managed, successor.address);
  await registry.connect(exAdmin).setServiceGuardian(services.renounced, serviceGuardian.address);
  await registry.connect(exAdmin).renounceServiceAdmin(services.renounced);

  const policy = suite.policy.connect(suite.governor);
  const identity = { ...IDENTITY, receiptSigner: deployer.address };
  const kmsIdentity = await policy.publishKmsIdentity.staticCall(identity);
  await policy.publishKmsIdentity(identity);
  await policy.allowKmsImage(dstackPinnedImage("kms"), "");
  await policy.allowDevice(KIND.tdx, DEVICE.one);
  await policy.restrictDevices(KIND.tdx);
  await policy.suspendTee(KIND.nitro, "");

  const roles = { governor: await registry.GOVERNOR_ROLE(), guardian: await registry.GUARDIAN_ROLE() };
  const hands = { ...suite, formerAdmin, exAdmin };
  const names = new Map([
    ...ACTORS.map((actor) => [hands[actor].address, actor] as const),
    ...SERVICES.map((name) => [services[name], name] as const),
    [roles.governor, "GOVERNOR_ROLE"],
    [roles.guardian, "GUARDIAN_ROLE"],
    [ZeroHash, "DEFAULT_ADMIN_ROLE"],
    [ZeroAddress, "nobody"],
  ]);
  return {
    ...hands,
    services,
    roles,
    kmsIdentity,
    contractAccount: await deploy(connection, "Actor"),
    v2: {
      registry: await deploy(connection, "KmsRegistryV2", [await suite.policy.getAddress()]),
      policy: await deploy(connection, "PlatformPolicyV2"),
    },
    names: new Map([...names].map(([value, name]) => [value.toLowerCase(), name])),
  };
}

/** What comes of an actor's call. */
type Rule = (actor: Actor) => string;

const anyone: Rule = () => "allowed";
const nobodyAgain: Rule = () => "InvalidInitialization()";
const governor: Rule = (actor) =>
  actor === "governor" ? "allowed" : `AccessControlUnauthorizedAccount(${actor}, GOVERNOR_ROLE)`;
const guardianOrGovernor: Rule = (actor) =>
  actor === "guardian" || actor === "governor" ? "allowed" : `Governed_NeitherGuardianNorGovernor(${actor})`;
/** Giving up a role that one does not hold changes nothing and is nobody's business. */
const allButTheGovernor: Rule = (actor) =>
  actor === "governor" ? "Governed_GovernorCannotLeave(governor)" : "allowed";

type ServiceRule = (actor: Actor, service: ServiceName) => string;

const adminOf: Readonly<Record<ServiceName, string>> = {
  managed: "admin",
  renounced: "nobody",
  sealed: "nobody",
  unknown: "nobody",
};
const serviceAdmin: ServiceRule = (actor, service) =>
  actor === adminOf[service] ? "allowed" : `KmsRegistry_NotAdmin(${service}, ${actor}, ${adminOf[service]})`;
/** Services here name their devices from the start. */
const alreadyRestricted: ServiceRule = (actor, service) => {
  const verdict = serviceAdmin(actor, service);
  return verdict === "allowed" ? `KmsRegistry_DevicesAlreadyRestricted(${service})` : verdict;
};
const serviceAdminOrGuardian: ServiceRule = (actor, service) =>
  actor === adminOf[service] || (actor === "serviceGuardian" && service !== "sealed")
    ? "allowed"
    : `KmsRegistry_NeitherAdminNorGuardian(${service}, ${actor})`;
const namedSuccessor: ServiceRule = (actor, service) => {
  const named = service === "managed" ? "successor" : "nobody";
  return actor === named ? "allowed" : `KmsRegistry_NotPendingAdmin(${service}, ${actor}, ${named})`;
};

interface Row {
  readonly rule: Rule;
  readonly args: (world: World, actor: HardhatEthersSigner) => readonly unknown[];
  /** What has to happen before, for the call to succeed in the right hands. */
  readonly given?: (world: World) => Promise<unknown>;
}

/** The arguments are those after the service's id. */
interface ServiceRow {
  readonly rule: ServiceRule;
  readonly args: (world: World) => readonly unknown[];
}

const governedRows = (contract: "registry" | "policy"): Record<string, Row> => ({
  initialize: {
    rule: nobodyAgain,
    args: ({ contractAccount }) => (contract === "registry" ? [contractAccount] : [contractAccount, contractAccount]),
  },
  grantRole: { rule: governor, args: ({ roles, contractAccount }) => [roles.guardian, contractAccount] },
  revokeRole: { rule: governor, args: ({ roles, guardian }) => [roles.guardian, guardian.address] },
  renounceRole: { rule: allButTheGovernor, args: ({ roles }, actor) => [roles.governor, actor.address] },
  upgradeTo: { rule: governor, args: ({ v2 }) => [v2[contract]] },
  upgradeToAndCall: { rule: governor, args: ({ v2 }) => [v2[contract], "0x"] },
});

const REGISTRY: Record<string, Row> = {
  ...governedRows("registry"),
  createService: { rule: anyone, args: ({ admin }) => [config(admin.address), bytes32("new")] },
  createServiceWithImage: { rule: anyone, args: ({ admin }) => [config(admin.address), bytes32("new"), V1, ""] },
  addSecretKeyByImage: { rule: anyone, args: () => [V1, [], false, bytes32("new"), "", "0x"] },
  multicall: { rule: anyone, args: () => [[]] },
};

const REGISTRY_PER_SERVICE: Record<string, ServiceRow> = {
  addImageToService: { rule: serviceAdmin, args: () => [V2, ""] },
  addImagesToService: { rule: serviceAdmin, args: () => [[{ image: V2, description: "" }]] },
  retireImageFromService: { rule: serviceAdmin, args: () => [imageId(V1), 2 ** 39] },
  rotateServiceKey: { rule: serviceAdmin, args: () => [] },
  publishSealedSecrets: { rule: serviceAdmin, args: () => ["env", "0x01"] },
  extendNoticePeriod: { rule: serviceAdmin, args: () => [100 * DAY] },
  setServiceGuardian: { rule: serviceAdmin, args: () => [ZeroAddress] },
  setDevice: { rule: serviceAdmin, args: () => [DEVICE.two, true] },
  setRequireUpToDateTcb: { rule: serviceAdmin, args: () => [false] },
  transferServiceAdmin: { rule: serviceAdmin, args: ({ eve }) => [eve.address] },
  renounceServiceAdmin: { rule: serviceAdmin, args: () => [] },
  restrictServiceDevices: { rule: alreadyRestricted, args: () => [[DEVICE.two]] },
  removeImageFromService: { rule: serviceAdminOrGuardian, args: () => [imageId(V1), ""] },
  removeImagesFromService: { rule: serviceAdminOrGuardian, args: () => [[imageId(V1)], ""] },
  withdrawPendingSecrets: { rule: serviceAdminOrGuardian, args: () => [""] },
  acceptServiceAdmin: { rule: namedSuccessor, args: () => [] },
};

/** Calls of functions above that tighten, which the guardian may make too. */
const REGISTRY_TIGHTENING: Record<string, ServiceRow> = {
  setDevice: { rule: serviceAdminOrGuardian, args: () => [DEVICE.one, false] },
};

const paused = ({ policy, guardian }: World) => policy.connect(guardian).pauseRelease(DAY, "");

const POLICY: Record<string, Row> = {
  ...governedRows("policy"),
  allowPlatform: { rule: governor, args: () => [image(KIND.tdx, { 0: measured("another mrtd") }), ""] },
  enableTee: { rule: governor, args: () => [KIND.nitro] },
  acceptTcb: { rule: governor, args: () => [KIND.tdx, 1 << 4] },
  allowDevice: { rule: governor, args: () => [KIND.tdx, DEVICE.two] },
  unrestrictDevices: { rule: governor, args: () => [KIND.tdx] },
  allowKmsImage: { rule: governor, args: () => [dstackPinnedImage("another kms"), ""] },
  publishKmsIdentity: {
    rule: governor,
    args: ({ deployer }) => [{ ...IDENTITY, rootEpoch: 2, receiptSigner: deployer.address }],
  },
  setGatewayAppId: { rule: governor, args: () => ["gateway"] },
  setAppImplementation: { rule: governor, args: ({ contractAccount }) => [contractAccount] },
  extendPause: { rule: governor, args: () => [2 * DAY], given: paused },
  resumeRelease: { rule: governor, args: () => [], given: paused },
  revokePlatform: { rule: guardianOrGovernor, args: () => [imageId(PLATFORM.tdx), ""] },
  suspendTee: { rule: guardianOrGovernor, args: () => [KIND.tdx, ""] },
  rejectTcb: { rule: guardianOrGovernor, args: () => [KIND.tdx, 1] },
  revokeDevice: { rule: guardianOrGovernor, args: () => [KIND.tdx, DEVICE.one] },
  restrictDevices: { rule: guardianOrGovernor, args: () => [KIND.snp] },
  revokeKmsImage: { rule: guardianOrGovernor, args: () => [imageId(dstackPinnedImage("kms")), ""] },
  revokeKmsIdentity: { rule: guardianOrGovernor, args: ({ kmsIdentity }) => [kmsIdentity, ""] },
  pauseRelease: { rule: guardianOrGovernor, args: () => [DAY, ""] },
};

/** The names of a contract's functions that can change state, overloads included. */
function stateChanging(contract: BaseContract): string[] {
  return contract.interface.fragments
    .filter((fragment) => fragment.type === "function")
    .filter((fragment) => !/ (view|pure)( |$)/.test(fragment.format("full")))
    .map((fragment) => fragment.format("sighash").replace(/\(.*/, ""))
    .sort();
}

/** One line for each actor, so that a failure shows the whole row. */
async function row(told: (actor: Actor) => Promise<string>): Promise<Record<string, string>> {
  const verdicts: Record<string, string> = {};
  for (const actor of ACTORS) verdicts[actor] = await told(actor);
  return verdicts;
}

const expectedRow = (rule: Rule): Record<string, string> =>
  Object.fromEntries(ACTORS.map((actor) => [actor, rule(actor)]));

describe("Authorization matrix", () => {
  describe("is exhaustive", () => {
    it("KmsRegistry: every function that changes state has its row", async () => {
      const { registry } = await networkHelpers.loadFixture(world);
      expect([...Object.keys(REGISTRY), ...Object.keys(REGISTRY_PER_SERVICE)].sort()).to.deep.equal(
        stateChanging(registry),
      );
    });

    it("PlatformPolicy: every function that changes state has its row", async () => {
      const { policy } = await networkHelpers.loadFixture(world);
      expect(Object.keys(POLICY).sort()).to.deep.equal(stateChanging(policy));
    });

    it("DstackAuth: no function changes state", async () => {
      const { dstackAuth } = await networkHelpers.loadFixture(world);
      expect(DstackAuth__factory.abi.length).to.be.greaterThan(0);
      expect(stateChanging(dstackAuth)).to.deep.equal([]);
    });

    it("no contract takes plain ether or unknown calls", async () => {
      const { registry, policy, dstackAuth } = await networkHelpers.loadFixture(world);
      for (const contract of [registry, policy, dstackAuth]) {
        expect([contract.interface.fallback, contract.interface.receive]).to.deep.equal([null, false]);
      }
    });
  });

  for (const [table, rows, contractOf] of [
    ["KmsRegistry", REGISTRY, ({ registry }: World): BaseContract => registry],
    ["PlatformPolicy", POLICY, ({ policy }: World): BaseContract => policy],
  ] as const) {
    describe(table, () => {
      for (const [name, { rule, args, given }] of Object.entries(rows)) {
        it(name, async () => {
          const there = await networkHelpers.loadFixture(world);
          await given?.(there);
          const told = await row((actor) =>
            verdictOf(contractOf(there).connect(there[actor]), name, args(there, there[actor]), there.names),
          );
          expect(told).to.deep.equal(expectedRow(rule));
        });
      }
    });
  }

  describe("KmsRegistry, per service", () => {
    const rows = [REGISTRY_PER_SERVICE, REGISTRY_TIGHTENING].flatMap((table, at) =>
      Object.entries(table).map((entry) => [at === 0 ? "" : ", to tighten", ...entry] as const),
    );
    for (const [how, name, { rule, args }] of rows) {
      for (const service of SERVICES) {
        it(`${name}${how}, given the service is ${service}`, async () => {
          const there = await networkHelpers.loadFixture(world);
          const told = await row((actor) =>
            verdictOf(
              there.registry.connect(there[actor]),
              name,
              [there.services[service], ...args(there)],
              there.names,
            ),
          );
          const wanted: Rule = (actor) =>
            service === "unknown" ? "KmsRegistry_ServiceUnknown(unknown)" : rule(actor, service);
          expect(told).to.deep.equal(expectedRow(wanted));
        });
      }
    }
  });
});
