import { expect } from "chai";
import hre from "hardhat";
import type { Connection } from "../../deploy/connection.ts";
import { askView, deriveExpectedState, type ExpectedView, identityId } from "../../src/governance/effects.ts";
import { buildIntent, INTENTS } from "../../src/governance/intents.ts";
import { functionRecord } from "../../src/protocol/functions.ts";
import { addressOf } from "../helpers/governance.ts";
import { imageId, PLATFORM, tdxImage } from "../helpers/images.ts";
import { contractSigner, deploy, deploySuite, type Suite } from "../helpers/suite.ts";

const IDENTITY = [1n, `0x${"11".repeat(32)}`, addressOf(4), `0x${"22".repeat(32)}`] as const;
const DEVICE = `0x${"dd".repeat(32)}`;
const tdx = { kind: "tdx" };

/** Intents in an order in which each of them succeeds, with their arguments. */
const STEPS: readonly (readonly [string, Readonly<Record<string, string>>])[] = [
  ["allow-platform", { image: PLATFORM.tdx, description: "d" }],
  ["enable-tee", tdx],
  ["accept-tcb", { ...tdx, statuses: "UpToDate,SWHardeningNeeded" }],
  ["restrict-devices", tdx],
  ["allow-device", { ...tdx, device: DEVICE }],
  ["allow-kms-image", { image: tdxImage("kms"), description: "d" }],
  [
    "publish-kms-identity",
    { "root-epoch": "1", "environment-key": IDENTITY[1], "receipt-signer": IDENTITY[2], "evidence-hash": IDENTITY[3] },
  ],
  ["set-gateway-app-id", { gateway: "abc" }],
  ["set-app-implementation", { implementation: addressOf(8) }],
  ["revoke-device", { ...tdx, device: DEVICE }],
  ["unrestrict-devices", tdx],
  ["reject-tcb", { ...tdx, statuses: "SWHardeningNeeded" }],
  ["pause-release", { duration: "2d", reason: "r" }],
  ["extend-pause", { duration: "5d" }],
  ["resume-release", {}],
  ["revoke-kms-identity", { identity: identityId(IDENTITY), reason: "r" }],
  ["revoke-kms-image", { image: imageId(tdxImage("kms")), reason: "r" }],
  ["suspend-tee", { ...tdx, reason: "r" }],
  ["revoke-platform", { platform: imageId(PLATFORM.tdx), reason: "r" }],
];

describe("expected state", () => {
  let connection: Connection;
  let suite: Suite;
  let contracts: { policy: string; registry: string; timelock: string };
  before(async () => {
    connection = await hre.network.create({ network: "default" });
    suite = await deploySuite(connection as Suite["connection"]);
    const timelock = await deploy(suite.connection, "GovernanceTimelock", [
      3600,
      suite.governor.address,
      suite.guardian.address,
    ]);
    contracts = { policy: await suite.policy.getAddress(), registry: await suite.registry.getAddress(), timelock };
  });
  after(() => connection.close());

  const holds = async (view: ExpectedView): Promise<boolean> => {
    const { data, accepts } = askView(view);
    return accepts(await connection.ethers.provider.call({ to: view.to, data }));
  };

  /** Does an intent as `from`, and says which expected views held before and hold after. */
  async function play(intent: string, given: Readonly<Record<string, string>>, from: Suite["governor"]) {
    const { call } = buildIntent({ intent, arguments: given }, contracts);
    const { views, underived } = deriveExpectedState([call], { contracts });
    const before = await Promise.all(views.map(holds));
    await (await from.sendTransaction({ to: call.to, data: call.data })).wait();
    return { before, after: await Promise.all(views.map(holds)), derived: views.length, underived: underived.length };
  }

  it("of every policy intent does not hold before and holds after, played on the contracts by who its lane names", async () => {
    for (const [intent, given] of STEPS) {
      const { call } = buildIntent({ intent, arguments: given }, contracts);
      const name = suite.policy.interface.parseTransaction({ data: call.data })?.name ?? "";
      const from = functionRecord("policy", name)?.by === "guardian" ? suite.guardian : suite.governor;
      const { before, after, derived, underived } = await play(intent, given, from);
      expect(derived > 0 || underived === 1, intent).to.equal(true);
      if (derived > 0)
        expect(
          before.every((held) => held),
          `${intent} before`,
        ).to.equal(false);
      expect(
        after.every((held) => held),
        `${intent} after`,
      ).to.equal(true);
    }
    const policyIntents = Object.keys(INTENTS).slice(0, Object.keys(INTENTS).indexOf("upgrade"));
    expect(STEPS.map(([intent]) => intent).sort()).to.deep.equal([...policyIntents].sort());
  });

  it("of a service's intents", async () => {
    const config = {
      admin: suite.admin.address,
      noticePeriod: 60,
      description: "",
      devices: [],
      requireUpToDateTcb: false,
    };
    const salt = `0x${"01".repeat(32)}`;
    await (await suite.registry.connect(suite.admin).getFunction("createService")(config, salt)).wait();
    const service = String(await suite.registry.getFunction("serviceIdFor")(suite.admin.address, salt));
    const image = tdxImage("service");
    const until = String(
      (await connection.ethers.provider.getBlock("latest").then((block) => block?.timestamp ?? 0)) + 100_000,
    );
    for (const [intent, given] of [
      ["add-image", { image, description: "d" }],
      ["retire-image", { image: imageId(image), "last-moment": until }],
      ["rotate-key", {}],
      ["extend-notice", { period: "1h" }],
      ["set-service-guardian", { guardian: addressOf(9) }],
      ["set-tcb-rule", { required: "true" }],
      ["publish-secrets", { name: "n", ciphertext: `0x${"ab".repeat(64)}` }],
      ["remove-image", { image: imageId(image), reason: "r" }],
      ["transfer-admin", { to: addressOf(8) }],
      ["renounce-admin", {}],
    ] as const) {
      const { before, after, derived, underived } = await play(intent, { service, ...given }, suite.admin);
      expect(derived > 0 || underived === 1, intent).to.equal(true);
      if (derived > 0)
        expect(
          before.every((held) => held),
          `${intent} before`,
        ).to.equal(false);
      expect(
        after.every((held) => held),
        `${intent} after`,
      ).to.equal(true);
    }
  });

  it("of roles, upgrades and the delay", async () => {
    const timelock = await contractSigner(suite.connection, contracts.timelock);
    const account = await deploy(suite.connection, "Actor");
    const implementation = await deploy(suite.connection, "PlatformPolicyV2");
    for (const [intent, given, from] of [
      ["grant-role", { contract: "policy", role: "GUARDIAN_ROLE", account }, suite.governor],
      ["revoke-role", { contract: "policy", role: "GUARDIAN_ROLE", account }, suite.governor],
      ["grant-role", { contract: "timelock", role: "CANCELLER_ROLE", account }, timelock],
      ["set-delay", { delay: "72h" }, timelock],
      ["upgrade", { contract: "policy", implementation }, suite.governor],
    ] as const) {
      const { before, after, derived } = await play(intent, given, from);
      expect([derived, before, after], intent).to.deep.equal([1, [false], [true]]);
    }
  });

  it("of bits lacks what is there and contains what is not", async () => {
    const { call } = buildIntent({ intent: "accept-tcb", arguments: { kind: "snp", statuses: "UpToDate" } }, contracts);
    const [view] = deriveExpectedState([call], { contracts }).views;
    if (view === undefined) throw new Error("no view");
    expect(await holds(view)).to.equal(false);
    expect(await holds({ ...view, rule: "lacks" })).to.equal(true);
  });
});
