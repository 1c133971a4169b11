import { expect } from "chai";
import type { Hex } from "../../src/core/bytes.ts";
import { KeysteadError } from "../../src/core/errors.ts";
import { abortActions, nextActions } from "../../src/rollout/actions.ts";
import { assess } from "../../src/rollout/assess.ts";
import type { ChainFacts, Facts, OperationFacts, ReceiptFacts } from "../../src/rollout/facts.ts";
import { operationIdOf, rollbackIdOf } from "../../src/rollout/operations.ts";
import type { Plan } from "../../src/rollout/plan.ts";
import { addressOf } from "../helpers/governance.ts";
import {
  ALL_SAID,
  APP_V1,
  APP_V2,
  CREATED,
  chainBefore,
  chainGoverned,
  DAY,
  DELIVERED,
  facts,
  JOINED,
  KMS_V1,
  KMS_V2,
  machineGone,
  machineUp,
  NEW_CODE,
  nodeDown,
  nodeUp,
  planOf,
  version,
} from "../helpers/rollout.ts";

const plan = planOf();
const states = (given: Facts, of: Plan = plan) =>
  Object.fromEntries(assess(of, given).steps.map(({ step, state }) => [step.id, state]));
const alarms = (given: Facts, of: Plan = plan) => assess(of, given).alarms.map(({ code }) => code);
const nextOf = (given: Facts, of: Plan = plan) => nextActions(of, assess(of, given), given, "plan.json");
const abortOf = (given: Facts, of: Plan = plan) => abortActions(of, assess(of, given), given, "plan.json");

const operation = (id: string, state: OperationFacts["state"], readyAt = CREATED + 3 * DAY): OperationFacts => {
  const step = plan.steps.find((one) => one.id === id);
  const operationId = step === undefined ? undefined : operationIdOf(plan, step);
  if (operationId === undefined) throw new Error(`${id} has no operation`);
  return { id: operationId, state, readyAt, calls: [] };
};
const governed = (changes: Partial<ChainFacts> = {}) => facts({ chain: chainGoverned(changes) });
const bothUp = new Map([
  ["web-old", machineUp],
  ["web-new", machineUp],
]);
const nodesReplaced = (receipts = JOINED.map((one) => ({ ...one, type: "root" as "root" | "keys" }))) =>
  new Map([
    ["north", nodeUp({ receipts })],
    ["south", nodeUp({ receipts })],
  ]);
const everywhere = [...JOINED, ...DELIVERED];

describe("rollout: where it stands", () => {
  it("has the steps in the order of the dependencies", () => {
    expect(plan.steps.map(({ id }) => id)).to.deep.equal([
      ...["staging", "pins", "contracts", "measurements", "service-image", "governance", "node-north", "node-south"],
      ...["machine-web-new", "traffic", "delivery", "old-machine-web-old", "retire-image", "revoke"],
    ]);
    const place = new Map(plan.steps.map(({ id }, i) => [id, i]));
    for (const { id, needs } of plan.steps) {
      for (const need of needs) expect(place.get(need), `${id} needs ${need}`).to.be.lessThan(place.get(id) ?? -1);
    }
    expect(plan.leftOut).to.deep.equal([]);
  });

  describe("given nothing was done", () => {
    it("offers the proposals and what the service's admin does, and blocks the rest", () => {
      expect(states(facts())).to.include({
        ...{ staging: "done", contracts: "ready", measurements: "blocked", "service-image": "blocked" },
        ...{ governance: "blocked", "node-north": "blocked", delivery: "blocked", revoke: "blocked" },
      });
      const [first] = nextOf(facts());
      expect(first?.commands[0]).to.equal("keystead rollout propose plan.json contracts");
      expect(first?.governance).to.equal("timelock");
    });

    it("puts the Safes' own nonces into commands", () => {
      const [, , , rollback, sign] = nextOf(facts())[0]?.commands ?? [];
      expect(rollback).to.match(/^keystead simulate .* --rollback /);
      expect(sign).to.include("--step schedule --nonce 4 --deployment");
    });

    it("asks first for what nobody has said", () => {
      const unsaid = planOf({}, ALL_SAID.slice(1));
      expect(states(facts(), unsaid)).to.include({ staging: "ready", contracts: "blocked" });
      const [action] = nextOf(facts(), unsaid);
      expect(action?.commands.join("\n"))
        .to.include("acknowledge plan.json changelog-reviewed")
        .and.not.include("stakeholders-told");
    });

    it("does not offer a proposal again that is written", () => {
      const given = facts({ folders: new Set(["007-v2-contracts"]) });
      expect(nextOf(given)[0]?.commands[0]).to.match(/^keystead verify deploy\/proposals\/007-v2-contracts /);
    });
  });

  describe("given operations at the timelock", () => {
    it("waits until the very second, then offers to execute", () => {
      const waiting = facts({ chain: chainBefore({ operations: [operation("contracts", "waiting")] }) });
      const found = assess(plan, waiting).steps.find(({ step }) => step.id === "contracts");
      expect([found?.state, found?.until]).to.deep.equal(["waiting", CREATED + 3 * DAY]);
      expect(nextOf(waiting)).to.deep.equal([]);
      const ready = facts({ chain: chainBefore({ operations: [operation("contracts", "ready")] }) });
      expect(nextOf(ready)[0]?.commands.map((line) => line.split(" ")[1])).to.deep.equal([
        "simulate",
        "sign",
        "execute",
      ]);
    });

    it("says that one was cancelled, and by what way to go on", () => {
      const given = facts({ chain: chainBefore({ operations: [operation("contracts", "cancelled")] }) });
      expect(states(given)).to.include({ contracts: "failed" });
      expect(alarms(given)).to.include("operation-cancelled");
      expect(assess(plan, given).standing).to.equal("failed");
    });

    it("says that one was executed without the effect that it should have", () => {
      const given = facts({ chain: chainBefore({ operations: [operation("contracts", "done")] }) });
      expect(states(given)).to.include({ contracts: "failed" });
    });

    it("names one that is not of the plan, and no way back of its own", () => {
      const foreign = { id: `0x${"99".repeat(32)}` as const, state: "waiting" as const, readyAt: 0, calls: [] };
      expect(alarms(facts({ chain: chainBefore({ operations: [foreign] }) }))).to.deep.equal(["foreign-operation"]);
      const step = plan.steps.find(({ id }) => id === "contracts");
      const back = step === undefined ? undefined : rollbackIdOf(plan, step);
      const own = { ...foreign, id: back ?? foreign.id };
      expect(alarms(facts({ chain: chainBefore({ operations: [own] }) }))).to.deep.equal([]);
    });
  });

  describe("given governance is complete but for the notice period", () => {
    it("waits for it", () => {
      const images = new Map([
        ...chainBefore().images,
        [APP_V2.image.id, { status: "pending" as const, until: CREATED + 5 * DAY, changed: CREATED + DAY }],
      ]);
      const found = assess(plan, governed({ images })).steps.find(({ step }) => step.id === "governance");
      expect([found?.state, found?.until]).to.deep.equal(["waiting", CREATED + 5 * DAY]);
    });
  });

  describe("given governance is complete", () => {
    it("replaces one node at a time", () => {
      expect(nextOf(governed()).map(({ step }) => step)).to.deep.equal(["node-north"]);
      const one = facts({
        chain: chainGoverned(),
        nodes: new Map([
          ["north", nodeUp({ receipts: JOINED.slice(0, 1) })],
          ["south", nodeUp()],
        ]),
      });
      expect(nextOf(one).map(({ step }) => step)).to.deep.equal(["node-south"]);
    });

    it("never offers to stop the last node that releases keys", () => {
      const given = facts({
        chain: chainGoverned(),
        nodes: new Map([
          ["north", nodeUp()],
          ["south", nodeDown],
        ]),
      });
      expect(nextOf(given)).to.deep.equal([]);
      expect(states(given)).to.include({ "node-north": "blocked" });
      expect(alarms(given)).to.include("node-down");
      expect(
        alarms(
          facts({
            nodes: new Map([
              ["north", nodeDown],
              ["south", nodeDown],
            ]),
          }),
        ),
      ).to.include("no-node");
    });

    it("starts new machines before anything else happens to the old ones", () => {
      const given = facts({ chain: chainGoverned(), nodes: nodesReplaced() });
      const unswitched = planOf({}, ALL_SAID.slice(0, -1));
      expect(nextOf(given, unswitched).map(({ step }) => step)).to.deep.equal(["machine-web-new"]);
      const started = facts({ chain: chainGoverned(), nodes: nodesReplaced(), machines: bothUp });
      expect(nextOf(started, unswitched).map(({ step }) => step)).to.deep.equal(["traffic"]);
      expect(nextOf(started).map(({ step }) => step)).to.deep.equal(["delivery"]);
    });

    it("fails at a machine whose quote is not of the planned image", () => {
      const differs = { ...machineUp, quote: "differs" as const, differs: ["rtmr3"] };
      const machines = new Map([
        ["web-old", machineUp],
        ["web-new", differs],
      ]);
      const given = facts({ chain: chainGoverned(), nodes: nodesReplaced(), machines });
      expect(states(given)).to.include({ "machine-web-new": "failed", delivery: "blocked" });
      expect(alarms(given)).to.deep.equal(["quote-differs"]);
      expect(abortOf(given).map(({ step }) => step)).to.include("machine-web-new");
    });

    it("takes delivery for verified once every node released keys to both images", () => {
      const nodes = nodesReplaced(everywhere);
      const given = facts({ chain: chainGoverned(), nodes, machines: bothUp });
      expect(states(given)).to.include({ delivery: "done", "old-machine-web-old": "ready", "retire-image": "blocked" });
      const half = new Map(nodes).set("south", nodeUp({ receipts: JOINED }));
      expect(states(facts({ chain: chainGoverned(), nodes: half, machines: bothUp }))).to.include({
        delivery: "ready",
      });
      const stale = everywhere.map((one) => ({ ...one, issuedAt: one.type === "keys" ? CREATED - 1 : one.issuedAt }));
      expect(states(facts({ chain: chainGoverned(), nodes: nodesReplaced(stale), machines: bothUp }))).to.include({
        delivery: "ready",
      });
    });

    it("retires and revokes only when the old machines are gone, and is finished then", () => {
      const nodes = nodesReplaced(everywhere);
      const machines = new Map([
        ["web-old", machineGone],
        ["web-new", machineUp],
      ]);
      const given = facts({ chain: chainGoverned(), nodes, machines });
      expect(nextOf(given).map(({ step }) => step)).to.deep.equal(["retire-image", "revoke"]);
      expect(nextOf(given)[0]?.commands[0]).to.include(`--last-moment ${CREATED + 100 + DAY}`);
      const chain = chainGoverned();
      const finished = facts({
        ...{ nodes, machines },
        chain: {
          ...chain,
          images: new Map(chain.images).set(APP_V1.image.id, { status: "retiring", until: 1, changed: 1 }),
          platforms: new Map(chain.platforms)
            .set(APP_V1.platform?.id ?? "0x", { state: "revoked", text: "", changed: 1 })
            .set(KMS_V1.platform?.id ?? "0x", { state: "revoked", text: "", changed: 1 }),
          kmsImages: new Map(chain.kmsImages).set(KMS_V1.image.id, { state: "revoked", text: "", changed: 1 }),
        },
      });
      expect([assess(plan, finished).standing, alarms(finished), nextOf(finished)]).to.deep.equal(["finished", [], []]);
    });

    it("raises the alarm when the old image is cut off before delivery is verified", () => {
      const images = new Map(chainGoverned().images).set(APP_V1.image.id, { status: "removed", until: 0, changed: 1 });
      expect(alarms(governed({ images }))).to.include.members(["old-cut-off", "out-of-order"]);
    });
  });

  it("knows a measurement that is not in the plan, wherever it was registered", () => {
    const stranger = version("stranger");
    const chain = chainBefore();
    const late = { status: "pending" as const, until: CREATED + 9 * DAY, changed: CREATED + 5 };
    const images = new Map(chain.images).set(stranger.image.id, late);
    const allowed = { state: "allowed" as const, text: "", changed: CREATED + 5 };
    const platforms = new Map(chain.platforms).set(stranger.platform?.id ?? "0x", allowed);
    const kmsImages = new Map(chain.kmsImages).set(stranger.image.id, allowed);
    for (const changes of [{ images }, { platforms }, { kmsImages }]) {
      expect(alarms(facts({ chain: chainBefore(changes) }))).to.deep.equal(["wrong-measurement"]);
    }
    const early = new Map(chain.images).set(stranger.image.id, { ...late, changed: CREATED - 1 });
    expect(alarms(facts({ chain: chainBefore({ images: early }) }))).to.deep.equal([]);
    const [removal] = abortOf(facts({ chain: chainBefore({ images }) })).filter(({ title }) =>
      title.includes(stranger.image.id),
    );
    expect(removal?.commands[0]).to.match(/^keystead service remove-image /);
  });

  it("never takes a chain that could not be read for one where nothing was done", () => {
    const down = new KeysteadError("chain/unreachable", "no answer", { remedy: "", retryable: true });
    const given = facts({ chain: down });
    const status = assess(plan, given);
    expect(status.steps.filter(({ state }) => state === "ready").map(({ step }) => step.id)).to.deep.equal([]);
    expect([alarms(given), status.standing]).to.deep.equal([["chain-unreadable"], "unknown"]);
    expect(abortOf(given).at(-1)?.commands[0]).to.include("verify plan.json --only old");
  });

  it("notices an old machine that is down before the new version is verified", () => {
    const machines = new Map([
      ["web-old", machineGone],
      ["web-new", machineUp],
    ]);
    expect(alarms(facts({ machines }))).to.include("old-machine-down");
  });

  it("notices a pause and a new admin", () => {
    const chain = chainBefore();
    const service = { ...chain.service, admin: NEW_CODE, upgradeable: true, noticePeriod: 0, keyEpoch: 0 };
    expect(alarms(facts({ chain: chainBefore({ pausedUntil: CREATED + DAY, service }) }))).to.deep.equal([
      ...["paused", "admin-changed"],
    ]);
  });
});

describe("rollout: the way back", () => {
  it("cancels first what waits", () => {
    const operations = [operation("contracts", "waiting"), operation("measurements", "ready")];
    const found = abortOf(facts({ chain: chainBefore({ operations }) }));
    expect(found.map(({ step }) => step)).to.deep.equal(["contracts", "measurements", "delivery"]);
    const guardian = plan.inputs.deployment.guardian;
    expect(found[0]?.commands).to.deep.equal([
      `keystead sign deploy/proposals/007-v2-contracts --step cancel --safe ${guardian} --nonce 4 --deployment deployment.json`,
      `keystead cancel deploy/proposals/007-v2-contracts --safe ${guardian} --deployment deployment.json`,
    ]);
  });

  it("undoes what was done in an order that keeps the old version served", () => {
    const given = facts({ chain: chainGoverned(), nodes: nodesReplaced(everywhere), machines: bothUp });
    expect(abortOf(given).map(({ step }) => step)).to.deep.equal([
      ...[
        "traffic",
        "machine-web-new",
        "node-south",
        "node-north",
        "service-image",
        "measurements",
        "contracts",
        "delivery",
      ],
    ]);
    const [, , node] = abortOf(given);
    expect(node?.commands).to.deep.equal(["stop south", "start south old"]);
    expect(node?.note).to.include("acknowledge plan.json node-back-south");
  });

  it("counts each Safe's nonces on from one action to the next, and prints of a timelock's way back what can be done now", () => {
    const chain = chainGoverned({ operations: [operation("contracts", "done"), operation("measurements", "waiting")] });
    const found = abortOf(facts({ chain: { ...chain, platforms: chainBefore().platforms } }));
    const signed = found.flatMap(({ commands }) => commands.filter((line) => line.startsWith("keystead sign ")));
    expect(signed.map((line) => line.replace(/^.*--step (.*) --deployment.*$/, "$1"))).to.deep.equal([
      `cancel --safe ${plan.inputs.deployment.guardian} --nonce 4`,
      "rollback --nonce 4",
    ]);
    const twice = [operation("contracts", "waiting"), operation("measurements", "waiting")];
    const cancels = abortOf(facts({ chain: chainBefore({ operations: twice }) })).flatMap(({ commands }) => commands);
    expect(cancels.join("\n")).to.match(/--nonce 4 [^]*--nonce 5 /);
  });

  describe("given it is followed", () => {
    const contractsStep = plan.steps.find(({ id }) => id === "contracts");
    const wayBack = (state: OperationFacts["state"]): OperationFacts => ({
      ...{ id: (contractsStep === undefined ? undefined : rollbackIdOf(plan, contractsStep)) ?? "0x", state },
      ...{ readyAt: CREATED + 7 * DAY, calls: [] },
    });
    const executed = [operation("contracts", "done"), operation("measurements", "done")];
    const revoked = new Map(
      [APP_V2, KMS_V2].map(({ platform }) => [
        platform?.id ?? "0x",
        { state: "revoked" as const, text: "", changed: CREATED + DAY },
      ]),
    );
    /** Everything was taken back but the contracts, whose way back stands as said. */
    const takenBack = (state: OperationFacts["state"], changes: Partial<ChainFacts> = {}) => {
      const chain = chainGoverned({ operations: [...executed, wayBack(state)] });
      return facts({
        chain: {
          ...chain,
          platforms: new Map([...chain.platforms, ...revoked]),
          kmsImages: new Map(chain.kmsImages).set(KMS_V2.image.id, {
            ...{ state: "revoked", text: "", changed: CREATED + DAY },
          }),
          images: new Map(chain.images).set(APP_V2.image.id, { status: "removed", until: 0, changed: CREATED + DAY }),
          ...changes,
        },
      });
    };

    it("says what was taken back, waits for the contracts, and offers no step forward", () => {
      const given = takenBack("waiting");
      expect(states(given)).to.include({
        ...{ contracts: "waiting", measurements: "undone", "service-image": "undone", "node-north": "blocked" },
      });
      expect([assess(plan, given).standing, alarms(given), nextOf(given)]).to.deep.equal(["going-back", [], []]);
      const [first, last, ...more] = abortOf(given);
      expect([first?.commands, last?.step, more]).to.deep.equal([["keystead rollout abort plan.json"], "delivery", []]);
      expect(first?.note).to.include(new Date((CREATED + 7 * DAY) * 1000).toISOString());
    });

    it("prints the rest of the contracts' way back once its delay is over", () => {
      const folder = "deploy/proposals/007-v2-contracts";
      expect(abortOf(takenBack("ready"))[0]?.commands).to.deep.equal([
        `keystead sign ${folder} --step rollback-execute --nonce 4 --deployment deployment.json`,
        `keystead rollback ${folder} --step rollback-execute --deployment deployment.json`,
      ]);
    });

    it("is over when nothing of it is in force any more", () => {
      const implementations = chainBefore().implementations;
      const given = takenBack("done", { implementations });
      expect([assess(plan, given).standing, alarms(given), nextOf(given)]).to.deep.equal(["rolled-back", [], []]);
      expect(abortOf(given).map(({ step }) => step)).to.deep.equal(["delivery"]);
      expect(states(takenBack("done"))).to.include({ contracts: "done" });
      const foreign = { ...implementations, policy: addressOf(99) };
      expect(states(takenBack("done", { implementations: foreign }))).to.include({ contracts: "failed" });
    });

    it("is not over while a new machine runs, a node runs the new image, or an image is still listed", () => {
      const implementations = chainBefore().implementations;
      const over = takenBack("done", { implementations });
      expect(assess(plan, { ...over, machines: bothUp }).standing).to.equal("going-back");
      expect(assess(plan, { ...over, nodes: nodesReplaced(JOINED.slice(0, 1)) }).standing).to.equal("going-back");
      const listed = takenBack("done", { implementations, images: chainGoverned().images });
      expect(assess(plan, listed).standing).to.equal("going-back");
    });

    it("wants the old machines up, whatever was delivered before", () => {
      const given = takenBack("done", { implementations: chainBefore().implementations });
      const machines = new Map([["web-old", machineGone]]);
      expect(alarms({ ...given, nodes: nodesReplaced(everywhere), machines })).to.include("old-machine-down");
    });

    it("does not call a step taken back of which a part is in force", () => {
      const given = takenBack("done", { kmsImages: chainGoverned().kmsImages });
      expect(states(given)).to.include({ measurements: "failed" });
    });
  });

  describe("given a node went back to the old image", () => {
    const at = (days: number, image: Hex, n: number) => ({
      ...{ type: "root" as const, digest: `0x1${n}` as const, imageId: image, issuedAt: CREATED + days * DAY },
    });
    const joins = (...images: readonly Hex[]) => images.map((image, i) => at(i + 1, image, i));
    const given = (receipts: readonly ReceiptFacts[], of: Plan = plan) => {
      const nodes = new Map(["north", "south"].map((name) => [name, nodeUp({ receipts })] as const));
      const { "node-north": north, "node-south": south } = states(facts({ chain: chainGoverned(), nodes }), of);
      return [north, south];
    };
    const [fresh, old] = [KMS_V2.image.id, KMS_V1.image.id];

    it("counts how many run the new one, in the order of the receipts", () => {
      expect(given(joins(fresh))).to.deep.equal(["done", "ready"]);
      expect(given(joins(fresh, old))).to.deep.equal(["ready", "blocked"]);
      expect(given(joins(fresh, old, fresh))).to.deep.equal(["done", "ready"]);
      expect(given(joins(fresh, fresh, old))).to.deep.equal(["done", "ready"]);
      expect(given(joins(old, fresh))).to.deep.equal(["done", "ready"]);
      expect(given([...joins(fresh), ...joins(fresh)]), "one receipt, shown twice").to.deep.equal(["done", "ready"]);
    });

    it("believes a person where no receipt can show it, until a later one shows otherwise", () => {
      const said = (item: string, days: number) => ({ item, by: "Ada", at: CREATED + days * DAY, note: "" });
      const back = planOf({}, [...ALL_SAID, said("node-back-north", 5)]);
      expect(given(joins(fresh), back)).to.deep.equal(["ready", "blocked"]);
      expect(given([at(1, fresh, 1), at(6, fresh, 2)], back), "the second is north's again").to.deep.equal([
        ...["done", "ready"],
      ]);
      const again = planOf({}, [...ALL_SAID, said("node-back-north", 5), said("node-image-north", 6)]);
      expect(given([], again)).to.deep.equal(["done", "ready"]);
    });
  });

  it("says loudly that nodes accept test roots", () => {
    const nodes = new Map([
      ["north", nodeUp({ testTee: true })],
      ["south", nodeUp()],
    ]);
    const found = assess(plan, facts({ nodes })).alarms;
    expect(found.map(({ code }) => code)).to.deep.equal(["test-evidence"]);
    expect(found[0]?.says).to.match(/^TEST EVIDENCE: north /);
  });

  it("starts with the broken node, while the other serves", () => {
    const nodes = new Map([
      ["north", nodeUp({ receipts: JOINED.slice(0, 1) })],
      ["south", nodeDown],
    ]);
    const found = abortOf(facts({ chain: chainGoverned(), nodes })).filter(({ step }) => step.startsWith("node-"));
    expect(found.map(({ step }) => step)).to.deep.equal(["node-south", "node-north"]);
  });

  it("says what it costs once the old image was retired", () => {
    const images = new Map(chainGoverned().images).set(APP_V1.image.id, { status: "retired", until: 0, changed: 1 });
    const found = abortOf(governed({ images })).find(({ step }) => step === "retire-image");
    expect(found?.note).to.include("notice period");
    expect(found?.commands[0]).to.include(`add-image --service`);
  });
});
