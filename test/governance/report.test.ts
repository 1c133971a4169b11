import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { expect } from "chai";
import { createIo } from "../../src/cli/io.ts";
import { run } from "../../src/cli/main.ts";
import { writeProposal } from "../../src/governance/folder.ts";
import { INTENTS } from "../../src/governance/intents.ts";
import type { Operation } from "../../src/governance/operation.ts";
import { DIRECTION_WORDS, directionOf } from "../../src/governance/present/direction.ts";
import { COLUMNS } from "../../src/governance/present/layout.ts";
import { SCREEN_LINES } from "../../src/governance/present/summary.ts";
import { decodeOperation } from "../../src/governance/report.ts";
import { FUNCTIONS, type FunctionRecord } from "../../src/protocol/functions.ts";
import {
  ALLOW_TDX,
  addressOf,
  CONTRACTS,
  folderOf,
  PARTIES,
  propose,
  SERVICE,
  safeRef,
} from "../helpers/governance.ts";
import { measured } from "../helpers/images.ts";

const screenOf = (operation: Operation): readonly string[] =>
  new TextDecoder().decode(folderOf(operation).get("REPORT.md")).split("\n").slice(0, SCREEN_LINES);

const revoke = (byte: string) => ({
  intent: "revoke-platform",
  arguments: { platform: `0x${byte.repeat(32)}`, reason: "a reason that is as long as people write them, in a hurry" },
});
const upgrade = (contract: string, n: number) => ({
  intent: "upgrade",
  arguments: { contract, implementation: addressOf(n), previous: addressOf(n + 10) },
});
const enable = { intent: "enable-tee", arguments: { kind: "tdx" } };
const platforms = Array.from({ length: 30 }, (_, i) => ({
  intent: "allow-platform",
  arguments: { image: `dstack:os_image_hash=${measured(`os ${i}`, 32).slice(2)}`, description: "w".repeat(256) },
}));
const stranger = { intent: "call", arguments: { to: addressOf(60), data: "0xdeadbeef" } };

/** Every shape that a proposal has, and what its first screen must say of each of the four. */
const SHAPES: Readonly<
  Record<string, { make: () => Operation; effect: RegExp; delay: RegExp; veto: RegExp; risk: RegExp }>
> = {
  "a grant": {
    make: () => propose(),
    effect: /LOOSENS: allow the TDX platform/,
    delay: /48 h in the timelock.*Earliest: 2025-11-26 16:00Z/,
    veto: new RegExp(`until it is executed.*${PARTIES.governance.address}.*${PARTIES.guardian.address}`),
    risk: /If it is wrong: machines that it lets in get keys.*No measurement was given.*Undo: by.*at once/,
  },
  "a revocation": {
    make: () => propose({ intents: [revoke("11")] }),
    effect: /TIGHTENS: revoke platform 0x1111…1111/,
    delay: /none: it works as soon as the Safe executes it/,
    veto: new RegExp(`nobody, once the acting Safe ${PARTIES.guardian.address} executes it`),
    risk: /refused, until the timelock undoes it/,
  },
  "a grant whose rollback hands a Safe over": {
    make: () => {
      const operation = propose();
      const data = `0x610b5925${addressOf(66).slice(2).toLowerCase().padStart(64, "0")}` as const;
      const calls = [{ to: PARTIES.guardian.address, value: 0n, data }];
      return { ...operation, rollback: { safe: PARTIES.guardian, timelock: null, calls } };
    },
    effect: /LOOSENS: allow the TDX platform/,
    delay: /48 h/,
    veto: /until it is executed/,
    risk: /\d+ warnings? below.*Undo: DON'T COUNT ON IT/,
  },
  "an upgrade": {
    make: () => propose({ intents: [upgrade("policy", 30), upgrade("registry", 31)] }),
    effect: /REPLACES CODE: replace this contract's code.*REPLACES CODE/,
    delay: /48 h/,
    veto: /until it is executed/,
    risk: /new code decides.*Undo: by.*after 48 h in the timelock/,
  },
  "thirty long grants with one call that nobody can read, last": {
    make: () => {
      const grants = propose({ intents: platforms });
      return { ...grants, calls: [...grants.calls, ...propose({ intents: [stranger] }).calls] };
    },
    effect: /^Effect +UNKNOWN: UNKNOWN CALL .*AND \d+ MORE, read all of them below: \d+ LOOSENS/,
    delay: /48 h/,
    veto: /until it is executed/,
    risk: /may do anything.*warning/,
  },
  "a title as long as it may be": {
    make: () => propose({ title: `${"<b>x</b> ".repeat(20)}end` }),
    effect: /LOOSENS/,
    delay: /48 h/,
    veto: /until/,
    risk: /If it is wrong/,
  },
  "many who can cancel": {
    make: () => {
      const operation = propose();
      return { ...operation, cancellers: Array.from({ length: 12 }, (_, i) => safeRef(100 + i, 0n)) };
    },
    effect: /LOOSENS/,
    delay: /48 h/,
    veto: /and 10 more, listed below/,
    risk: /Undo/,
  },
};

describe("REPORT.md", () => {
  for (const [title, { make, ...wanted }] of Object.entries(SHAPES)) {
    it(`of ${title}: the first ${SCREEN_LINES} lines say effect, delay, veto and risk, before any hash`, () => {
      const lines = screenOf(make());
      expect(lines[2], "the verdict").to.match(/^\*\*[A-Z' ]{6,}/);
      const labels = ["Effect", "Delay", "Veto", "Risk"].map((label) =>
        lines.findIndex((line) => line.startsWith(`${label} `)),
      );
      expect(
        labels.every((at, i) => at > (labels[i - 1] ?? 3)),
        `${labels}`,
      ).to.equal(true);
      const end = lines.lastIndexOf("````");
      expect(end, "the whole summary fits").to.be.greaterThan(labels.at(-1) ?? 99);
      for (const line of lines.slice(3, end)) expect(line.length, line).to.be.at.most(COLUMNS);
      expect(lines.slice(0, end).join("\n")).to.not.match(/[0-9a-fA-F]{41}/);
      for (const [i, name] of (["effect", "delay", "veto", "risk"] as const).entries()) {
        const text = lines
          .slice(labels[i], labels[i + 1] ?? end)
          .map((line) => line.trim())
          .join(" ");
        expect(text, name).to.match(wanted[name]);
      }
    });
  }

  it("holds commands that can be pasted: each is taken by the command line as it stands, and verifies", async () => {
    const root = mkdtempSync(join(tmpdir(), "keystead-report-"));
    const before = process.cwd();
    try {
      const seen = new Set<string>();
      for (const [i, intent] of [ALLOW_TDX, revoke("22"), upgrade("policy", 30)].entries()) {
        const operation = propose({ id: `00${i + 1}-x`, intents: [intent] });
        const files = folderOf(operation);
        const folder = join(root, "deploy/proposals", operation.id);
        mkdirSync(dirname(folder), { recursive: true });
        await writeProposal(folder, new Map(files));
        process.chdir(root);
        const report = new TextDecoder().decode(files.get("REPORT.md"));
        const blocks = [...report.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, block = ""]) =>
          block.trim().split("\n"),
        );
        // no command stands outside of a block, where it could not be pasted
        expect(report.replaceAll(/^```sh\n[\s\S]*?^```$/gm, "")).to.not.match(/keystead (verify|sign|cancel|rollback)/);
        for (const line of blocks.flat()) {
          const [npm, sub, silent, name, dashes, ...args] = line.split(" ");
          expect([npm, sub, silent, name, dashes]).to.deep.equal(["npm", "run", "--silent", "keystead", "--"]);
          const said: string[] = [];
          const to = { write: (text: string) => said.push(text) };
          const stdin: AsyncIterable<string> = (async function* () {})();
          const code = await run([...args, "--json"], createIo({ stdin, stdout: to, stderr: to, env: {} }));
          seen.add(args[0] ?? "");
          if (args[0] === "verify" && !args.includes("--rpc")) expect(code, said.join("")).to.equal(0);
          else {
            // what the command line does not know is usage/…; a key or an endpoint is what this test has not
            expect(said.join(""), line).to.match(/"code": "(key\/missing|usage\/no-endpoint)"/);
          }
        }
      }
      expect([...seen].sort()).to.deep.equal(["cancel", "rollback", "sign", "simulate", "verify"]);
    } finally {
      process.chdir(before);
      rmSync(root, { recursive: true });
    }
  }).timeout(120_000);
});

describe("directions", () => {
  it("are known of every function that a proposal can call", () => {
    const unknown = Object.entries(FUNCTIONS).flatMap(([contract, rules]) =>
      Object.entries<FunctionRecord>(rules).flatMap(([name, { lane, by }]) => {
        if (by === "nobody") return [];
        const direction = directionOf({
          ...{
            to: addressOf(1),
            value: 0n,
            data: "0x" as const,
            contract: contract as "policy",
            signature: `${name}()`,
          },
          ...{ arguments: [], words: { noun: "", sentence: "" }, warnings: [], calls: [] },
        });
        if (lane === "grant") expect(direction, name).to.equal("loosens");
        return direction === "unknown" ? [`${contract}.${name}`] : [];
      }),
    );
    expect(unknown).to.deep.equal([]);
  });

  it("follow arguments where these decide, and are never guessed for another contract", () => {
    const of = (intent: string, args: Readonly<Record<string, string>>) => {
      const safe = safeRef(20, 1n);
      const parties = { ...PARTIES, account: { safe } };
      const operation = propose({ parties, intents: [{ intent, arguments: args }] });
      return decodeOperation(operation).map(directionOf);
    };
    expect(Object.keys(INTENTS)).to.include("set-device");
    const device = `0x${"dd".repeat(32)}`;
    expect(of("set-device", { service: SERVICE, device, allowed: "true" })).to.deep.equal(["loosens"]);
    expect(of("set-device", { service: SERVICE, device, allowed: "false" })).to.deep.equal(["tightens"]);
    // the same selector at an address that is no contract of this deployment
    const [call] = decodeOperation(propose({ intents: [enable] }));
    const elsewhere = propose({
      intents: [{ intent: "call", arguments: { to: addressOf(61), data: call?.data ?? "0x" } }],
    });
    expect(decodeOperation(elsewhere).map(directionOf)).to.deep.equal(["unknown"]);
    expect(Object.keys(DIRECTION_WORDS)[0], "what is unknown is shown first").to.equal("unknown");
    expect(CONTRACTS.policy).to.equal(addressOf(1));
  });
});
