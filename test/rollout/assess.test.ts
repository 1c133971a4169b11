import { expect } from "chai";
import { KeysteadError } from "../../src/core/errors.ts";
import { assess } from "../../src/rollout/assess.ts";
import { rollbackIdOf } from "../../src/rollout/operations.ts";
import {
  ALL_SAID,
  APP_V1,
  APP_V2,
  CREATED,
  chainBefore,
  chainGoverned,
  DAY,
  facts,
  JOINED,
  KMS_V1,
  machineGone,
  machineUp,
  NEW_CODE,
  nodeDown,
  nodeUp,
  planOf,
  version,
} from "../helpers/rollout.ts";
import {
  abortOf,
  alarms,
  bothUp,
  everywhere,
  governed,
  nextOf,
  nodesReplaced,
  operation,
  plan,
  states,
} from "../helpers/rollout-standing.ts";

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
