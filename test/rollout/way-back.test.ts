import { expect } from "chai";
import type { Hex } from "../../src/core/bytes.ts";
import { assess } from "../../src/rollout/assess.ts";
import type { ChainFacts, OperationFacts, ReceiptFacts } from "../../src/rollout/facts.ts";
import { rollbackIdOf } from "../../src/rollout/operations.ts";
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
  facts,
  JOINED,
  KMS_V1,
  KMS_V2,
  machineGone,
  nodeDown,
  nodeUp,
  planOf,
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
    expect(cancels.join("\n")).to.match(/--nonce 4 [\s\S]*--nonce 5 /);
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

    it("offers no step forward that would be ready, once another was taken back", () => {
      const given = takenBack("cancelled", { images: chainBefore().images });
      expect([states(given)["service-image"], nextOf(given)]).to.deep.equal(["blocked", []]);
    });

    it("does not take contracts for rolled back by their own way back before that was executed", () => {
      const given = takenBack("ready", { implementations: chainBefore().implementations });
      expect(states(given)).to.include({ contracts: "failed" });
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
      const often = [at(1, fresh, 1), at(2, fresh, 2), at(3, fresh, 3)];
      expect(given(often, back)[0], "none of them is from after").to.equal("ready");
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
