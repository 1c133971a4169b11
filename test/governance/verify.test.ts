import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { expect } from "chai";
import type { Operation } from "../../src/governance/operation.ts";
import { formatOperation, parseOperation } from "../../src/governance/operation.ts";
import { deriveProposal } from "../../src/governance/proposal.ts";
import { verifyProposal } from "../../src/governance/verify.ts";
import {
  ALLOW_TDX,
  addressOf,
  folderOf,
  PARTIES,
  propose,
  SERVICE,
  safeRef,
  savedMeasurement,
} from "../helpers/governance.ts";
import { measured } from "../helpers/images.ts";

const encoder = new TextEncoder();
const COMPOSE = encoder.encode("services: {}\n");

/** A proposal with everything in it: a measured image, a predecessor, a rollback through the timelock is in the upgrade's. */
function measuredProposal(): { operation: Operation; files: Map<string, Uint8Array> } {
  const os = measured("os image", 32);
  const measurement = savedMeasurement("dstack", { os_image_hash: os }, COMPOSE);
  const { sha256 } = JSON.parse(new TextDecoder().decode(measurement)).measurement.sources[0];
  const attachments = new Map([
    ["measurements/measurement.json", measurement],
    ["measurements/source-1-docker-compose.yaml", COMPOSE],
  ]);
  const operation = propose({
    predecessor: `0x${"77".repeat(32)}`,
    intents: [
      { intent: "allow-platform", arguments: { image: `dstack:os_image_hash=${os.slice(2)}`, description: "v2" } },
    ],
    measurements: [
      {
        ...{ call: 0, file: "measurements/measurement.json", sha256: hashOf(measurement) },
        sources: [{ file: "measurements/source-1-docker-compose.yaml", sha256 }],
      },
    ],
  });
  return { operation, files: folderOf(operation, attachments) };
}

function hashOf(bytes: Uint8Array): `0x${string}` {
  const { createHash } = process.getBuiltinModule("node:crypto");
  return `0x${createHash("sha256").update(bytes).digest("hex")}`;
}

const verify = (files: ReadonlyMap<string, Uint8Array>) => verifyProposal(files, { folder: "007-tdx" });
const fields = (files: ReadonlyMap<string, Uint8Array>) => verify(files).differences.map(({ field }) => field);
const codes = (files: ReadonlyMap<string, Uint8Array>) => verify(files).differences.map(({ code }) => code);

/** Sets one path of a JSON file, leaving its layout as it was. */
function tamper(
  files: ReadonlyMap<string, Uint8Array>,
  name: string,
  change: (document: unknown) => void,
): Map<string, Uint8Array> {
  const document: unknown = JSON.parse(new TextDecoder().decode(files.get(name)));
  change(document);
  return new Map([...files, [name, encoder.encode(`${JSON.stringify(document, null, 2)}\n`)]]);
}

/** Every leaf of a JSON document, as a path. */
function leaves(value: unknown, path: readonly (string | number)[] = []): (readonly (string | number)[])[] {
  if (Array.isArray(value)) return value.flatMap((item, i) => leaves(item, [...path, i]));
  if (typeof value === "object" && value !== null) {
    return Object.entries(value).flatMap(([key, item]) => leaves(item, [...path, key]));
  }
  return [path];
}

/** Another value that could stand in the same place. */
function flip(value: unknown): unknown {
  if (typeof value === "boolean") return !value;
  if (typeof value === "number") return value + 1;
  if (typeof value !== "string") return "1";
  if (/^0x[0-9a-fA-F]{40}$/.test(value)) return addressOf(99);
  if (/^0x[0-9a-f]+$/.test(value)) return `${value.slice(0, -1)}${value.endsWith("0") ? "1" : "0"}`;
  if (/^\d+$/.test(value)) return (BigInt(value) + 1n).toString();
  return `${value}x`;
}

function flipAt(document: unknown, path: readonly (string | number)[]): void {
  let at: unknown = document;
  for (const key of path.slice(0, -1)) at = Reflect.get(Object(at), key);
  const last = path.at(-1) ?? "";
  Reflect.set(Object(at), last, flip(Reflect.get(Object(at), last)));
}

const PROPOSALS: Readonly<Record<string, () => Operation>> = {
  "a measured grant": () => measuredProposal().operation,
  "an upgrade with its rollback": () =>
    propose({
      intents: ["policy", "registry"].map((contract, i) => ({
        intent: "upgrade",
        arguments: { contract, implementation: addressOf(30 + i), previous: addressOf(40 + i) },
      })),
    }),
  "several revocations at once": () =>
    propose({
      intents: ["11", "22"].map((byte) => ({
        intent: "revoke-platform",
        arguments: { platform: `0x${byte.repeat(32)}`, reason: "broken" },
      })),
    }),
};

describe("verify", () => {
  it("passes what was proposed, and says what it did not look at", () => {
    const { files } = measuredProposal();
    const found = verify(files);
    expect(found.differences).to.deep.equal([]);
    expect([found.ok, found.warnings]).to.deep.equal([true, []]);
    expect(found.headline).to.match(/^GRANT 1 dstack platform · delay 48 h · earliest 2025-11-26 16:00Z/);
    expect(found.unchecked.join()).to.match(/deployment.*the chain/);
  });

  for (const [title, make] of Object.entries(PROPOSALS)) {
    it(`passes ${title}, and derives it again to the same bytes`, () => {
      const operation = make();
      const files = title === "a measured grant" ? measuredProposal().files : folderOf(operation);
      expect(verify(files).differences).to.deep.equal([]);
      const again = deriveProposal(parseOperation(formatOperation(operation)), files);
      for (const [name, text] of again) expect(new TextDecoder().decode(files.get(name)), name).to.equal(text);
    });

    // tamper.test.ts does the same to a measured grant, with nothing left out
    if (title === "a measured grant") continue;
    it(`catches and names values changed in ${title}`, () => {
      const files = folderOf(make());
      let flips = 0;
      for (const [name, bytes] of files) {
        if (!name.endsWith(".json") || name.startsWith("measurements/")) continue;
        // operation.json whole; of what is derived from it, every third value: all of them pass through one comparison
        const paths = leaves(JSON.parse(new TextDecoder().decode(bytes)));
        for (const path of paths.filter((_, i) => name === "operation.json" || i % 3 === 0)) {
          // the methods' descriptions are the same in each file: one of them will do
          if (path.length === 0 || (path.includes("contractMethod") && name !== "schedule.safe.json")) continue;
          const found = fields(tamper(files, name, (document) => flipAt(document, path)));
          expect(found, `${name} ${path.join(".")}`).to.not.have.length(0);
          // a change of operation.json moves what follows from it; any other file is named itself
          if (name !== "operation.json") expect(found.join(), path.join(".")).to.include(name);
          flips++;
        }
      }
      expect(flips).to.be.greaterThan(35);
    });
  }

  it("catches every byte changed in files that are text, and in measurements and their sources", () => {
    const { files } = measuredProposal();
    for (const [name, bytes] of files) {
      const step = name.endsWith(".json") ? 499 : 211;
      for (let at = 0; at < bytes.length; at += step) {
        const changed = Uint8Array.from(bytes);
        changed[at] = (changed[at] ?? 0) ^ 1;
        const found = fields(new Map([...files, [name, changed]]));
        expect(found, `${name} byte ${at}`).to.not.have.length(0);
        if (name !== "operation.json") expect(found.join(), `byte ${at}`).to.include(name);
      }
    }
  });

  describe("names the field", () => {
    const { files } = measuredProposal();
    const inOperation = (change: (document: Record<string, never>) => void) =>
      tamper(files, "operation.json", (document) => change(Object(document)));

    for (const [what, change, field] of [
      ["calldata", (d) => flipAt(d, ["calls", 0, "data"]), "timelock.salt"],
      ["to", (d) => flipAt(d, ["calls", 0, "to"]), "timelock.salt"],
      ["value", (d) => flipAt(d, ["calls", 0, "value"]), "timelock.salt"],
      ["salt", (d) => flipAt(d, ["timelock", "salt"]), "timelock.salt"],
      ["predecessor", (d) => flipAt(d, ["timelock", "predecessor"]), "timelock.salt"],
      ["timelock", (d) => flipAt(d, ["timelock", "address"]), "timelock.salt"],
      ["chainId", (d) => flipAt(d, ["chainId"]), "timelock.salt"],
      ["id", (d) => Reflect.set(d, "id", "008-tdx"), "id"],
      [
        "delay",
        (d) => flipAt(d, ["timelock", "delay"]),
        "schedule.safe.json: transactions[0].contractInputsValues.delay",
      ],
      ["nonce", (d) => flipAt(d, ["safe", "nonce"]), "hashes.json: transactions[0].messageHash"],
      ["safe", (d) => flipAt(d, ["safe", "address"]), "hashes.json: transactions[0].domainHash"],
      ["canceller", (d) => flipAt(d, ["cancellers", 0, "address"]), "hashes.json: transactions[3].domainHash"],
      ["lane", (d) => Reflect.set(d, "lane", "admin"), "calls[0]"],
      ["policy", (d) => flipAt(d, ["contracts", "policy"]), "expected-state.json: views"],
      ["multiSend", (d) => flipAt(d, ["safe", "multiSend"]), "operation.json: safe.multiSend"],
      ["format", (d) => Reflect.set(d, "format", "keystead.operation/2"), "operation.json: format"],
      ["a field nobody knows", (d) => Reflect.set(d, "more", "1"), "operation.json: operation.more"],
    ] as readonly [string, (document: Record<string, never>) => void, string][]) {
      it(`for ${what} in operation.json`, () => {
        expect(fields(inOperation(change)).join(" ")).to.include(field);
      });
    }

    it("for what a batch file would do otherwise, even with its checksum made right", () => {
      const changed = tamper(files, "schedule.safe.json", (d) =>
        flipAt(d, ["transactions", 0, "contractInputsValues", "delay"]),
      );
      expect(codes(changed)).to.include.members(["verify/differs", "verify/batch-calls", "verify/batch-checksum"]);
    });

    it("for expected state, measurement and the compose file behind it", () => {
      const state = tamper(files, "expected-state.json", (d) => flipAt(d, ["views", 0, "value"]));
      expect(fields(state)).to.deep.equal(["expected-state.json: views[0].value"]);
      const compose = new Map([
        ...files,
        ["measurements/source-1-docker-compose.yaml", encoder.encode("services: {x: {}}\n")],
      ]);
      expect(fields(compose)[0]).to.equal("measurements/source-1-docker-compose.yaml");
      const measurement = tamper(files, "measurements/measurement.json", (d) =>
        flipAt(d, ["measurement", "registers", "os_image_hash", "value"]),
      );
      expect(codes(measurement)).to.include.members(["provenance/changed", "provenance/other-image"]);
    });

    it("for files that are missing, and for files that nobody proposed", () => {
      for (const name of files.keys()) {
        const rest = new Map([...files].filter(([other]) => other !== name));
        expect(fields(rest).join(), name).to.include(name);
      }
      expect(codes(new Map([...files, ["schedule-2.safe.json", encoder.encode("{}")]]))).to.include(
        "verify/unexpected-file",
      );
    });
  });

  it("compares with the deployment's record", () => {
    const operation = propose();
    const contract = (address: string) => ({
      ...{ address, source: "a.sol:A", codeHash: "0x", transaction: "0x", block: 1, constructorArguments: [] },
    });
    const { contracts } = operation;
    const safe = { address: PARTIES.governance.address, version: "1.5.0", owners: [], threshold: 2 };
    const deployment = {
      ...{ schema: 1 as const, network: "mainnet", chainId: 1n, block: 1, delaySeconds: 172_800, roles: [] },
      safes: { governance: safe, guardian: { ...safe, address: PARTIES.guardian.address, version: "1.4.1" } },
      contracts: {
        ...{ timelock: contract(contracts.timelock), policy: contract(contracts.policy) },
        ...{ registry: contract(contracts.registry), dstackAuth: contract(addressOf(4)) },
        ...{ policyImplementation: contract(addressOf(5)), registryImplementation: contract(addressOf(6)) },
      },
    };
    const against = (change: object) =>
      verifyProposal(folderOf(operation), { deployment: { ...deployment, ...change } }).differences.map((d) => d.field);
    expect(against({})).to.deep.equal([]);
    expect(against({ chainId: 2n })).to.deep.equal(["chainId"]);
    const other = { ...deployment.contracts, policy: contract(addressOf(77)) };
    expect(against({ contracts: other })).to.deep.equal(["contracts.policy"]);
    expect(against({ safes: { ...deployment.safes, governance: { ...safe, version: "1.4.1" } } })).to.deep.equal([
      "safe.version",
    ]);
  });

  it("loads nothing that signs or talks to a network", () => {
    const seen = new Set<string>();
    const packages = new Set<string>();
    // what is imported as a type alone is not loaded
    const visit = (file: string): void => {
      if (seen.has(file)) return;
      seen.add(file);
      for (const [, found = ""] of readFileSync(file, "utf8").matchAll(
        /^(?:(?:import|export)(?! type )|\}).* from "([^"\n]+)";$/gm,
      )) {
        if (found.startsWith(".")) visit(resolve(dirname(file), found));
        // a package's parts are the package
        else packages.add(found.startsWith("@") ? found : (found.split("/")[0] ?? found));
      }
    };
    const root = join(import.meta.dirname, "../..");
    visit(join(root, "src/governance/verify.ts"));
    const foreign = [...packages].filter((name) => !/^(@noble\/|ethers\/(address|hash)$)/.test(name));
    expect(foreign.sort()).to.deep.equal(["ethers"]);
    visit(join(root, "src/cli/commands/verify.ts"));
    expect([...packages].filter((name) => name.includes("safe"))).to.deep.equal([]);
    expect(seen.size).to.be.greaterThan(15);
  });
});

describe("buildOperation", () => {
  const code = (input: Parameters<typeof propose>[0]): string => {
    try {
      propose(input);
    } catch (error) {
      return String(Reflect.get(Object(error), "code"));
    }
    return "accepted";
  };
  const revoke = { intent: "revoke-platform", arguments: { platform: `0x${"11".repeat(32)}`, reason: "" } };
  const addImage = {
    intent: "add-image",
    arguments: { service: SERVICE, image: `snp:measurement=${measured("m").slice(2)}`, description: "" },
  };

  it("sends loosening through the timelock, and tightening from the guardian at once", () => {
    const grant = propose();
    expect([grant.lane, grant.safe, grant.timelock?.address, grant.cancellers]).to.deep.equal([
      ...["grant", PARTIES.governance, grant.contracts.timelock, [PARTIES.guardian]],
    ]);
    expect([grant.rollback?.safe, grant.rollback?.timelock]).to.deep.equal([PARTIES.guardian, null]);
    const tighten = propose({ intents: [revoke] });
    expect([tighten.lane, tighten.safe, tighten.timelock]).to.deep.equal(["revoke", PARTIES.guardian, null]);
  });

  it("sends a service's calls the way of its admin, removal always at once", () => {
    const safe = safeRef(20, 1n, "1.3.0");
    expect(code({ intents: [addImage] })).to.equal("operation/no-account");
    const direct = propose({ intents: [addImage], parties: { ...PARTIES, account: { safe } } });
    expect([direct.lane, direct.safe, direct.timelock]).to.deep.equal(["grant", safe, null]);
    expect(direct.rollback?.safe).to.deep.equal({ ...safe, nonce: 2n });
    const timelock = { address: addressOf(21), delay: 60n };
    const slow = propose({ intents: [addImage], parties: { ...PARTIES, account: { safe, timelock } } });
    expect([slow.timelock?.address, slow.timelock?.delay, slow.rollback]).to.deep.equal([timelock.address, 60n, null]);
    const remove = {
      intent: "remove-image",
      arguments: { service: SERVICE, image: `0x${"11".repeat(32)}`, reason: "" },
    };
    const gone = propose({ intents: [remove], parties: { ...PARTIES, account: { safe, timelock } } });
    expect([gone.lane, gone.timelock]).to.deep.equal(["revoke", null]);
  });

  it("refuses what crosses lanes, makes no sense, or has no call", () => {
    for (const [input, expected] of [
      [{ intents: [ALLOW_TDX, revoke] }, "operation/crossed-lane"],
      [{ intents: [] }, "operation/no-calls"],
      [{ id: "7-tdx" }, "operation/malformed"],
      [{ title: "two\nlines" }, "operation/malformed"],
      [{ intents: [{ intent: "allow-everything", arguments: {} }] }, "intent/unknown"],
      [{ intents: [{ intent: "enable-tee", arguments: { kind: "sgx" } }] }, "intent/bad-argument"],
      [{ intents: [{ intent: "enable-tee", arguments: { kind: "tdx", more: "" } }] }, "intent/bad-argument"],
      [{ intents: [{ intent: "enable-tee", arguments: {} }] }, "intent/bad-argument"],
      [{ intents: [{ intent: "accept-tcb", arguments: { kind: "tdx", statuses: "Revoked" } }] }, "intent/bad-argument"],
      [
        { intents: [{ intent: "extend-notice", arguments: { service: SERVICE, period: "9999d" } }] },
        "intent/bad-argument",
      ],
      [{ intents: [{ intent: "call", arguments: { to: addressOf(3), data: "0x0d3cf6fc" } }] }, "accepted"],
    ] as readonly [Parameters<typeof propose>[0], string][]) {
      expect(code(input)).to.equal(expected);
    }
  });

  it("is caught by the check where its way was changed by hand", () => {
    const grant = propose();
    const direct = { ...grant, timelock: null, cancellers: [], rollback: null };
    expect(codes(folderOf(direct))).to.include("operation/crossed-lane");
    const slow = { ...propose({ intents: [revoke] }), timelock: grant.timelock };
    expect(codes(folderOf(slow))).to.include.members(["operation/crossed-lane", "operation/wrong-salt"]);
    const foreign = propose({ contracts: { ...grant.contracts, timelock: addressOf(50) } });
    expect(codes(folderOf({ ...foreign, contracts: grant.contracts }))).to.include("operation/crossed-lane");
  });
});
