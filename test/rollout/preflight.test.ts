import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { KeysteadError } from "../../src/core/errors.ts";
import type { ChainFacts, Facts } from "../../src/rollout/facts.ts";
import type { Plan } from "../../src/rollout/plan.ts";
import { exitOf, type PreflightProbes, preflight } from "../../src/rollout/preflight.ts";
import { readVsock } from "../../src/rollout/vsock.ts";
import { makeFolder } from "../helpers/cli.ts";
import { addressOf } from "../helpers/governance.ts";
import {
  ALL_SAID,
  APP_V1,
  CREATED,
  chainBefore,
  DAY,
  facts,
  inputs,
  KMS_V1,
  NEW_CODE,
  nodeDown,
  nodeUp,
  OLD_CODE,
  planOf,
} from "../helpers/rollout.ts";

const probes = (changes: Partial<PreflightProbes> = {}): PreflightProbes => ({
  backup: async () => [],
  pinning: async () => new Map([["docker-compose.yaml", []]]),
  remeasure: async () => [],
  rollback: async () => ({ ok: true, says: "played" }),
  vsock: async () => undefined,
  ...changes,
});

const fails = async () => {
  throw new KeysteadError("chain/unreachable", "no answer", { remedy: "" });
};

async function results(of: { plan?: Plan; facts?: Facts; probes?: PreflightProbes } = {}) {
  const checks = await preflight(of.plan ?? planOf(), of.facts ?? facts(), of.probes ?? probes());
  return { exit: exitOf(checks), of: Object.fromEntries(checks.map(({ id, result }) => [id, result])), checks };
}
const chain = (changes: Partial<ChainFacts>) => ({ facts: facts({ chain: chainBefore(changes) }) });
const nitro = (said = ALL_SAID) => {
  const [node, ...rest] = inputs().nodes;
  if (node === undefined) throw new Error("no node");
  return planOf({ nodes: [{ ...node, vsockProxy: "systemctl start nitro-enclaves-vsock-proxy" }, ...rest] }, said);
};

describe("rollout: the checklist", () => {
  it("passes where everything is in order, and says what it saw", async () => {
    const { exit, of, checks } = await results();
    expect(exit).to.equal(0);
    expect(of).to.deep.equal({
      ...{
        backup: "ok",
        signers: "ok",
        "timelock-window": "ok",
        "images-pinned": "ok",
        measurements: "ok",
        nodes: "ok",
      },
      ...{ "rollback-contracts": "ok", "old-registered": "ok", "nothing-pending": "ok" },
      // it starts from contracts that are not there yet
      "rollback-measurements": "not-needed",
      ...{ "vsock-proxy": "not-needed", "changelog-reviewed": "ok", "tested-outside-production": "ok" },
      "stakeholders-told": "ok",
    });
    for (const { says } of checks) expect(says).to.not.equal("");
  });

  it("plays the way back of what rests on new contracts once they are there", async () => {
    const upgraded = facts({ chain: chainBefore({ implementations: { policy: NEW_CODE, registry: OLD_CODE } }) });
    const played: string[] = [];
    const rollback = async (id: string) => {
      played.push(id);
      return { ok: false, says: "reverts" };
    };
    const { of } = await results({ facts: upgraded, probes: probes({ rollback }) });
    expect([of["rollback-measurements"], played]).to.deep.equal([
      "failed",
      ["007-v2-contracts", "008-v2-measurements"],
    ]);
    const alone = await results({ plan: planOf({ contracts: [] }), probes: probes({ rollback }) });
    expect(alone.of["rollback-measurements"]).to.equal("failed");
  });

  const failing: readonly (readonly [string, string, Parameters<typeof results>[0]])[] = [
    [
      "a backup that restores to something else",
      "backup",
      { probes: probes({ backup: async () => ["app.json differs"] }) },
    ],
    [
      "a signer who is no owner any more",
      "signers",
      chain({ governance: { ...chainBefore().governance, owners: [addressOf(40), addressOf(43)] } }),
    ],
    [
      "a threshold above the signers named",
      "signers",
      chain({ governance: { ...chainBefore().governance, threshold: 3 } }),
    ],
    [
      "a guardian without enough signers",
      "signers",
      { plan: planOf({ signers: { ...inputs().signers, guardian: [] } }) },
    ],
    [
      "one signer named twice",
      "signers",
      { plan: planOf({ signers: { ...inputs().signers, governance: [addressOf(40), addressOf(40)] } }) },
    ],
    ["a delay that was raised", "timelock-window", chain({ minDelay: 3 * DAY })],
    [
      "a date before delay and notice period are over",
      "timelock-window",
      { plan: planOf({ plannedFor: CREATED + 5 * DAY }) },
    ],
    [
      "a mutable tag",
      "images-pinned",
      { probes: probes({ pinning: async () => new Map([["c.yaml", [{ code: "mutable-tag", line: 3, says: "x" }]]]) }) },
    ],
    [
      "a measurement that comes out otherwise",
      "measurements",
      { probes: probes({ remeasure: async () => ["rtmr3 differs"] }) },
    ],
    [
      "a node that is down",
      "nodes",
      {
        facts: facts({
          nodes: new Map([
            ["north", nodeUp()],
            ["south", nodeDown],
          ]),
        }),
      },
    ],
    [
      "nodes with different roots",
      "nodes",
      {
        facts: facts({
          nodes: new Map([
            ["north", nodeUp()],
            ["south", nodeUp({ environmentKey: `0x${"aa".repeat(32)}` })],
          ]),
        }),
      },
    ],
    [
      "a way back that fails",
      "rollback-contracts",
      { probes: probes({ rollback: async (id) => ({ ok: !id.includes("contracts"), says: "reverts" }) }) },
    ],
    [
      "an old image that is retiring",
      "old-registered",
      chain({ images: new Map([[APP_V1.image.id, { status: "retiring", until: 9, changed: 1 }]]) }),
    ],
    ["an old platform that was revoked", "old-registered", chain({ platforms: new Map() })],
    [
      "an old KMS image that was revoked",
      "old-registered",
      chain({ kmsImages: new Map([[KMS_V1.image.id, { state: "revoked", text: "", changed: 1 }]]) }),
    ],
    [
      "an operation of somebody else on the same contracts",
      "nothing-pending",
      chain({
        operations: [
          { id: `0x${"99".repeat(32)}`, state: "waiting", readyAt: 1, calls: [{ to: addressOf(1), data: "0x" }] },
        ],
      }),
    ],
    ["a statement that nobody made", "stakeholders-told", { plan: planOf({}, ALL_SAID.slice(0, 2)) }],
  ];
  for (const [what, id, given] of failing) {
    it(`fails for ${what}`, async () => {
      const { exit, of } = await results(given);
      expect([exit, of[id]]).to.deep.equal([1, "failed"]);
      const others = Object.entries(of).filter(([name, result]) => name !== id && result === "failed");
      expect(others).to.deep.equal([]);
    });
  }

  it("is not disturbed by somebody else's operation on other contracts", async () => {
    const operations = [
      { id: `0x${"99".repeat(32)}`, state: "waiting", readyAt: 1, calls: [{ to: addressOf(77), data: "0x" }] },
    ] as const;
    expect((await results(chain({ operations }))).of["nothing-pending"]).to.equal("ok");
  });

  it("takes nothing that could not be checked for passed", async () => {
    const error = new KeysteadError("chain/unreachable", "no answer", { remedy: "" });
    const { exit, of } = await results({ facts: facts({ chain: error }) });
    expect([exit, of.signers, of["old-registered"], of["nothing-pending"]]).to.deep.equal([
      2,
      "unknown",
      "unknown",
      "unknown",
    ]);
    for (const probe of ["backup", "pinning", "remeasure", "rollback"] as const) {
      const found = await results({ probes: probes({ [probe]: fails }) });
      expect(found.exit, probe).to.equal(2);
    }
    const undated = await results({ plan: planOf({ plannedFor: null }) });
    expect([undated.exit, undated.of["timelock-window"]]).to.deep.equal([2, "unknown"]);
  });

  it("calls a backup that is not there a fault", async () => {
    const missing = async () => {
      throw new KeysteadError("backup/missing", "there is none", { remedy: "" });
    };
    expect((await results({ probes: probes({ backup: missing }) })).of.backup).to.equal("failed");
  });

  describe("on Nitro", () => {
    const up = { proxies: [{ pid: 1, started: 100 }], enclaves: [{ pid: 2, started: 200 }] };
    const vsockOf = async (vsock: Awaited<ReturnType<PreflightProbes["vsock"]>>, plan = nitro()) =>
      (await results({ plan, probes: probes({ vsock: async () => vsock }) })).of["vsock-proxy"];

    it("wants the proxy up before the enclave, seen on the parent instance", async () => {
      expect(await vsockOf(up)).to.equal("ok");
      expect(await vsockOf({ ...up, proxies: [] })).to.equal("failed");
      expect(await vsockOf({ ...up, proxies: [{ pid: 3, started: 300 }] })).to.equal("failed");
    });

    it("knows nothing elsewhere, unless somebody acknowledges it", async () => {
      expect(await vsockOf(undefined)).to.equal("unknown");
      const said = [...ALL_SAID, { item: "vsock-proxy-north", by: "Ada", at: CREATED, note: "" }];
      expect(await vsockOf(undefined, nitro(said))).to.equal("ok");
    });

    it("reads programs and their start from /proc, whatever their names hold", async () => {
      const folder = makeFolder();
      try {
        mkdirSync(join(folder.path, "dev"));
        expect(await readVsock(folder.path)).to.equal(undefined);
        writeFileSync(join(folder.path, "dev", "nitro_enclaves"), "");
        const stat = (pid: number, name: string, started: number) => {
          mkdirSync(join(folder.path, "proc", `${pid}`), { recursive: true });
          const fields = Array.from({ length: 30 }, (_, i) => (i === 19 ? `${started}` : "S"));
          writeFileSync(join(folder.path, "proc", `${pid}`, "stat"), `${pid} (${name}) ${fields.join(" ")}\n`);
        };
        stat(10, "vsock-proxy", 500);
        stat(11, "nitro-cli", 700);
        stat(12, "x) vsock-proxy (", 1);
        mkdirSync(join(folder.path, "proc", "13"));
        expect(await readVsock(folder.path)).to.deep.equal({
          proxies: [{ pid: 10, started: 500 }],
          enclaves: [{ pid: 11, started: 700 }],
        });
      } finally {
        folder.remove();
      }
    });
  });
});
