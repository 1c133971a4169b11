import { execFileSync } from "node:child_process";
import { truncateSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { createIo } from "../../src/cli/io.ts";
import { fromHex, type Hex, toHex } from "../../src/core/bytes.ts";
import { parseImage } from "../../src/core/image.ts";
import type { Machine } from "../../src/rollout/inputs.ts";
import { type MachinePlace, readMachine, registersOf } from "../../src/rollout/read-machines.ts";
import { type Folder, makeFolder } from "../helpers/cli.ts";
import { errorOf } from "../helpers/errors.ts";
import { buildNitroDocument, buildSnpReport, buildTdxQuote, NITRO_PCRS, SNP_POLICY } from "../helpers/evidence.ts";
import { APP_V1, APP_V2 } from "../helpers/rollout.ts";
import { endless, fetchFrom, json, startServer } from "../helpers/unruly.ts";

/* What a machine says of itself decides nothing but whether it is the planned one: every doubt is one. */

const SERVICE: Hex = `0x${"5e".repeat(20)}`;
const IMAGE = APP_V1.image.text;
const URL = "http://web.test";

const registers = (text: string) => {
  const { registers: named } = parseImage(text);
  const bytes = (name: string) => fromHex(named[name] ?? "0x", name);
  return {
    mrTd: bytes("mrtd"),
    ...{ rtMr0: bytes("rtmr0"), rtMr1: bytes("rtmr1"), rtMr2: bytes("rtmr2"), rtMr3: bytes("rtmr3") },
  };
};
const QUOTE = buildTdxQuote(registers(IMAGE));

const machine = (changes: Partial<Machine> = {}): Machine => ({
  ...{ name: "web", runs: "new", updates: null, quote: null, evidence: null, start: null, stop: null },
  ...changes,
});
const place = (changes: Partial<MachinePlace> = {}): MachinePlace => ({
  ...{ service: SERVICE, image: IMAGE },
  readFile: () => Promise.reject(new Error("there is no such file")),
  fetch: fetchFrom(() => undefined),
  ...changes,
});
const compare = (quote: Uint8Array, image: string | undefined = IMAGE) =>
  readMachine(machine({ quote: "quote.bin" }), place({ image, readFile: async () => quote }));
const updatesFrom = (answer: () => Response) =>
  readMachine(machine({ updates: URL }), place({ fetch: fetchFrom(answer) }));

describe("rollout: what machines say", () => {
  it("is nothing where nothing was asked: neither up nor down, and no quote", async () => {
    const found = await readMachine(machine(), place());
    expect([found.up, found.quote, found.differs]).to.deep.equal([undefined, undefined, []]);
  });

  describe("given a quote", () => {
    it("is as planned with the planned image's registers, in any of the forms of evidence", async () => {
      const hex = new TextEncoder().encode(toHex(QUOTE).slice(2));
      const base64 = new TextEncoder().encode(Buffer.from(QUOTE).toString("base64"));
      for (const quote of [QUOTE, hex, base64]) {
        const found = await compare(quote);
        expect([found.quote, found.differs]).to.deep.equal(["as-planned", []]);
      }
    });

    it("proves nothing where the plan names no image", async () => {
      const found = await readMachine(
        machine({ quote: "quote.bin" }),
        place({ image: undefined, readFile: async () => QUOTE }),
      );
      expect(found.quote).to.equal(undefined);
    });

    it("differs in each register alone, and by its name", async () => {
      const other = registers(APP_V2.image.text);
      for (const [field, name] of [
        ...[["mrTd", "mrtd"] as const, ["rtMr0", "rtmr0"] as const, ["rtMr1", "rtmr1"] as const],
        ...[["rtMr2", "rtmr2"] as const, ["rtMr3", "rtmr3"] as const],
      ]) {
        const found = await compare(buildTdxQuote({ ...registers(IMAGE), [field]: other[field] }));
        expect([found.quote, found.differs]).to.deep.equal(["differs", [name]]);
      }
    });

    it("differs where it is of another TEE", async () => {
      const found = await compare(buildSnpReport());
      expect([found.quote, found.differs]).to.deep.equal(["differs", ["kind snp"]]);
    });

    for (const [what, evidence, unsafe] of [
      ["a TD whose host can read it", () => tdx(Uint8Array.of(1, 0, 0, 0x10, 0, 0, 0, 0)), "evidence/debug"],
      ["a TD without SEPT_VE_DISABLE", () => tdx(new Uint8Array(8)), "evidence/sept-ve-disable"],
      [
        "a TD with a service TD",
        () => buildTdxQuote({ ...registers(IMAGE), version: 5, mrServiceTd: new Uint8Array(48).fill(1) }),
        "evidence/service-td",
      ],
    ] as const) {
      it(`differs where the registers are right and it is ${what}`, async () => {
        const found = await compare(evidence());
        expect([found.quote, found.differs]).to.deep.equal(["differs", [unsafe]]);
      });
    }

    it("names what is unsafe of a SEV-SNP guest and of an enclave in debug mode", () => {
      expect(registersOf(buildSnpReport({ policy: SNP_POLICY | (1n << 19n) })).unsafe).to.deep.equal([
        "evidence/debug",
      ]);
      expect(registersOf(buildSnpReport()).unsafe).to.deep.equal([]);
      const zero = new Map([...NITRO_PCRS].map(([index]) => [index, new Uint8Array(48)] as const));
      expect(registersOf(buildNitroDocument({ pcrs: zero })).unsafe).to.deep.equal(["evidence/debug"]);
      expect(registersOf(buildNitroDocument()).unsafe).to.deep.equal([]);
    });

    for (const [what, bytes] of [
      ["nothing", new Uint8Array(0)],
      ["text", new TextEncoder().encode("<html>not found</html>")],
      ["half a quote", QUOTE.slice(0, 300)],
      ["zeros", new Uint8Array(2_000)],
    ] as const) {
      it(`is unreadable, and not merely absent, where it is ${what}`, async () => {
        const found = await compare(bytes);
        expect([found.quote, typeof found.problem]).to.deep.equal(["unreadable", "string"]);
      });
    }

    it("is no evidence where it is a certificate or a log: the error says what it is", () => {
      expect(errorOf(() => registersOf(new TextEncoder().encode("{}"))).code).to.equal("rollout/not-evidence");
    });
  });

  describe("given a file in place of a quote, it is looked at in bounded time and memory", () => {
    let folder: Folder;
    before(() => {
      folder = makeFolder();
    });
    after(() => folder.remove());
    const nowhere = { write: () => {} };
    const io = createIo({ stdin: (async function* () {})(), stdout: nowhere, stderr: nowhere, env: {} });
    const readFile = async (path: string) => (await io.readFile(path, { argument: "quote" })).bytes;

    for (const [what, make] of [
      ["of 8 GiB", () => folder.write("huge", "")],
      ["that is a pipe nobody writes to", () => join(folder.path, "pipe")],
      ["that never ends", () => "/dev/zero"],
      ["that is a folder", () => folder.path],
      ["that is not there", () => join(folder.path, "nothing")],
    ] as const) {
      it(`one ${what}`, async () => {
        const path = make();
        if (path.endsWith("huge")) truncateSync(path, 8 * 1024 ** 3);
        if (path.endsWith("pipe")) execFileSync("mkfifo", [path]);
        const [started, before] = [performance.now(), process.memoryUsage().arrayBuffers];
        const found = await readMachine(machine({ quote: path }), place({ readFile }));
        expect([found.quote, found.up]).to.deep.equal(["unreadable", undefined]);
        expect(performance.now() - started).to.be.lessThan(30_000);
        expect(process.memoryUsage().arrayBuffers - before).to.be.lessThan(64 * 1024 * 1024);
      });
    }
  });

  describe("given /vm_updates", () => {
    it("is up where it is about this service, in any case of its letters", async () => {
      for (const service_id of [SERVICE, SERVICE.toUpperCase().replace("0X", "0x")]) {
        expect((await updatesFrom(() => json({ service_id }))).up).to.equal(true);
      }
    });

    for (const [what, answer] of [
      ["another service", () => json({ service_id: `0x${"5f".repeat(20)}` })],
      ["no service", () => json({})],
      ["a service that is no text", () => json({ service_id: [SERVICE] })],
      ["a list", () => json([SERVICE])],
      ["a key twice", () => new Response(`{"service_id":"${SERVICE}","service_id":"${SERVICE}"}`)],
      ["a web page", () => new Response(`<p>${SERVICE}</p>`, { headers: { "content-type": "text/html" } })],
      ["bytes that are no text", () => new Response(Uint8Array.of(0xff, 0xfe))],
      ["an error with the right content", () => json({ service_id: SERVICE }, 500)],
      ["a redirection that was not followed", () => new Response("", { status: 301, headers: { location: "/x" } })],
    ] as const) {
      it(`is not up with ${what}`, async () => {
        const found = await updatesFrom(answer);
        expect([found.up, typeof found.problem]).to.deep.equal([false, "string"]);
      });
    }

    it("shortens what it is said to be about", async () => {
      const { problem } = await updatesFrom(() => json({ service_id: "x".repeat(100_000) }));
      expect(problem?.length).to.be.lessThan(200);
    });

    it("ends after 8 MiB, whatever comes", async () => {
      const body = endless();
      const { up } = await updatesFrom(() => body.response());
      expect([up, body.taken < 9 * 1024 * 1024, body.cancelled]).to.deep.equal([false, true, true]);
      const refused = endless();
      await updatesFrom(() => refused.response(404));
      expect([refused.taken < 256 * 1024, refused.cancelled]).to.deep.equal([true, true]);
    });
  });

  describe("over a real network", () => {
    let reached = 0;
    let server: Awaited<ReturnType<typeof startServer>>;
    before(async () => {
      server = await startServer((request, response) => {
        const [, which] = (request.url ?? "").split("/");
        if (which === "target") reached += 1;
        if (which === "redirects") response.writeHead(302, { location: `${server.url}/target/vm_updates` }).end();
        else if (which === "hangs") return;
        else if (which === "drips") response.writeHead(200).write("{");
        else response.end(which === "quote" ? QUOTE : JSON.stringify({ service_id: SERVICE }));
      });
    });
    after(() => server.stop());
    const over = (changes: Partial<Machine>) =>
      readMachine(machine(changes), place({ fetch: undefined, timeoutMs: 300 }));

    it("follows no redirection, for the quote neither", async () => {
      const found = await over({ updates: `${server.url}/redirects`, quote: `${server.url}/redirects/quote` });
      expect([found.up, found.quote, reached]).to.deep.equal([false, "unreadable", 0]);
    });

    it("waits no longer than it may", async () => {
      for (const which of ["hangs", "drips"]) {
        const started = performance.now();
        const found = await over({ updates: `${server.url}/${which}`, quote: `${server.url}/${which}` });
        expect([found.up, found.quote], which).to.deep.equal([false, "unreadable"]);
        expect(performance.now() - started).to.be.lessThan(30_000);
      }
    });

    it("reads a quote from where the plan says", async () => {
      const found = await over({ updates: `${server.url}/web`, quote: `${server.url}/quote` });
      expect([found.up, found.quote]).to.deep.equal([true, "as-planned"]);
    });
  });
});

const tdx = (tdAttributes: Uint8Array) => buildTdxQuote({ ...registers(IMAGE), tdAttributes });
