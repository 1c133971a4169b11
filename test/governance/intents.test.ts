import { expect } from "chai";
import { recogniseCall } from "../../src/governance/decode.ts";
import { buildIntent, INTENTS } from "../../src/governance/intents.ts";
import type { Operation } from "../../src/governance/operation.ts";
import { verifyProposal } from "../../src/governance/verify.ts";
import { FUNCTIONS, type FunctionRecord } from "../../src/protocol/functions.ts";
import { errorOf } from "../helpers/errors.ts";
import { addressOf, CONTRACTS, folderOf, PARTIES, propose, SERVICE, safeRef } from "../helpers/governance.ts";
import { PLATFORM, tdxImage } from "../helpers/images.ts";

const ID = `0x${"1d".repeat(32)}`;

/** A value for each argument, by the intent's own name for it. */
const VALUES: Readonly<Record<string, string>> = {
  ...{ description: "d", reason: "r", kind: "tdx", statuses: "UpToDate", device: ID, service: SERVICE, platform: ID },
  ...{ "root-epoch": "1", "environment-key": ID, "receipt-signer": addressOf(4), "evidence-hash": ID, identity: ID },
  ...{ gateway: "app", implementation: addressOf(30), duration: "1h", contract: "policy", role: "GUARDIAN_ROLE" },
  ...{
    account: addressOf(31),
    delay: "72h",
    operation: ID,
    "last-moment": "1900000000",
    name: "n",
    ciphertext: "0xab",
  },
  ...{ period: "7d", guardian: addressOf(32), allowed: "true", required: "true", to: addressOf(33) },
  ...{ admin: addressOf(34), notice: "3d" },
};

/** Images by what they are for, ids where an id is asked for. */
const imageOf = (kind: string): string => {
  if (kind === "image:platform") return PLATFORM.tdx;
  return kind.startsWith("image:") ? tdxImage("x") : ID;
};

function argumentsOf(intent: string, optional: boolean): Record<string, string> {
  const parameters = (INTENTS[intent]?.parameters ?? []).filter(
    (parameter) => parameter.default === undefined && (optional || parameter.optional !== true),
  );
  return Object.fromEntries(
    parameters.map(({ name, kind }) => {
      if (name === "image") return [name, imageOf(kind)];
      if (name === "previous") return [name, kind === "duration" ? "48h" : kind === "text" ? "old" : addressOf(35)];
      return [name, VALUES[name] ?? ""];
    }),
  );
}

/** Functions that no intent makes by design, and how the same is proposed. */
const OTHERWISE: Readonly<Record<string, string>> = {
  "registry.addImagesToService": "a batch of add-image",
  "policy.upgradeToAndCall": "upgrade with --call",
  "registry.upgradeToAndCall": "upgrade with --call",
};

describe("intents", () => {
  const made = new Map<string, string>();
  const build = (intent: string, more: Readonly<Record<string, string>>, optional = false) => {
    const { call, inverse } = buildIntent(
      { intent, arguments: { ...argumentsOf(intent, optional), ...more } },
      CONTRACTS,
    );
    for (const one of inverse === undefined ? [call] : [call, inverse]) {
      const recognised = recogniseCall(one, { contracts: CONTRACTS });
      if (recognised?.certain !== true) throw new Error(`${intent} makes a call that nobody knows`);
      made.set(`${recognised.contract}.${recognised.name}`, intent);
    }
  };

  it("make every function of the contracts that a proposal may hold", () => {
    for (const [name, { parameters }] of Object.entries(INTENTS)) {
      const has = (wanted: string) => parameters.some((parameter) => parameter.name === wanted);
      const contracts = ["policy", "registry", ...(name === "upgrade" ? [] : ["timelock"])];
      for (const contract of has("contract") ? contracts : [undefined]) {
        const role = contract === "timelock" ? { role: "CANCELLER_ROLE" } : {};
        for (const optional of [false, true])
          build(name, contract === undefined ? {} : { contract, ...role }, optional);
      }
    }
    const wanted = Object.entries(FUNCTIONS).flatMap(([contract, rules]) =>
      Object.entries<FunctionRecord>(rules)
        .filter(([, { by }]) => by !== "nobody")
        .map(([name]) => `${contract}.${name}`),
    );
    expect(wanted.filter((name) => !made.has(name) && OTHERWISE[name] === undefined)).to.deep.equal([]);
    for (const name of Object.keys(OTHERWISE)) expect(made.has(name), name).to.equal(false);
    build("upgrade", { contract: "registry", call: "0x12345678" });
    expect(made.has("registry.upgradeToAndCall")).to.equal(true);
  });

  for (const intent of Object.keys(INTENTS)) {
    it(`${intent} becomes a folder that verifies, with its way back where one follows`, () => {
      const given = argumentsOf(intent, false);
      const account = { safe: safeRef(20, 1n, "1.3.0") };
      const operation: Operation = propose({
        parties: { ...PARTIES, account },
        intents: [{ intent, arguments: given }],
      });
      expect(verifyProposal(folderOf(operation), { folder: "007-tdx" }).differences).to.deep.equal([]);
      const built = buildIntent({ intent, arguments: given }, CONTRACTS);
      if (built.inverse === undefined) expect(operation.rollback).to.equal(null);
    });
  }

  it("refuse devices that are none, and take several", () => {
    const create = (devices: string) =>
      buildIntent(
        { intent: "create-service", arguments: { ...argumentsOf("create-service", false), devices } },
        CONTRACTS,
      );
    const recognised = recogniseCall(create(`${ID}, ${`0x${"2d".repeat(32)}`}`).call, { contracts: CONTRACTS });
    expect(recognised?.values[0].devices).to.deep.equal([ID, `0x${"2d".repeat(32)}`]);
    expect(errorOf(() => create("0x12")).code).to.equal("intent/bad-argument");
  });
});
