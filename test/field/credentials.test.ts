import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { expect } from "chai";
import { Command } from "commander";
import { connect } from "../../src/chain/client.ts";
import { scrub, secretsIn } from "../../src/chain/endpoint-url.ts";
import { COMMANDS } from "../../src/cli/commands.ts";
import { createIo } from "../../src/cli/io.ts";
import { createOutput } from "../../src/cli/output.ts";
import { serveQuirks } from "../../testing/quirks.ts";
import { keysteadHere, makeFolder } from "../helpers/cli.ts";
import { rejectionOf } from "../helpers/errors.ts";
import { supports } from "./supports.ts";

const USER = "operator-of-rpc";
const PASSWORD = "p@ss/w0rd&<x>";
const LOGIN = `${encodeURIComponent(USER)}:${encodeURIComponent(PASSWORD)}`;
const KEY = "0123456789abcdef0123";
/** Every spelling in which one of them could come back. */
const SPELLINGS = [
  ...[USER, PASSWORD, encodeURIComponent(PASSWORD), JSON.stringify(PASSWORD).slice(1, -1), KEY, "qu3ry-t0ken"],
  Buffer.from(`${USER}:${PASSWORD}`).toString("base64"),
];

/** Commands that never end, or take long to start: what they print is the same code's. */
const SERVERS = new Set(["explore", "vm-updates"]);

/** Every command that can be run, by its words, with what it takes. */
async function everyCommand(): Promise<readonly { readonly words: readonly string[]; readonly command: Command }[]> {
  const found: { words: readonly string[]; command: Command }[] = [];
  const walk = (command: Command, words: readonly string[]) => {
    for (const child of command.commands) walk(child, [...words, child.name()]);
    if (command.commands.length === 0) found.push({ words, command });
  };
  const io = createIo({
    ...{ stdin: (async function* () {})(), env: {} },
    ...{ stdout: { write: () => true }, stderr: { write: () => true } },
  });
  for (const [name, { load }] of Object.entries(COMMANDS)) {
    const command = new Command(name);
    const output = () => createOutput(io, { json: false });
    await (await load()).command.register(command, {
      io,
      output,
      action:
        (act) =>
        async (...given) =>
          void act(...given),
    });
    walk(command, [name]);
  }
  return found;
}

describe("field: credentials in an endpoint's URL", function () {
  this.timeout(300_000);
  const folder = makeFolder();
  let server: Server;
  let port: number;
  before(async () => {
    // turns everybody away, and repeats all that it was told, as services do
    server = createServer(async (request, response) => {
      for await (const _ of request);
      const { authorization } = request.headers;
      const told = `${authorization} ${Buffer.from(String(authorization).slice(6), "base64")} at ${request.url}`;
      response.writeHead(401, { "content-type": "application/json" });
      response.end(JSON.stringify({ error: { code: -32000, message: `no access with ${told}`, data: told } }));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    port = (server.address() as AddressInfo).port;
  });
  after(() => {
    folder.remove();
    server?.close();
    server?.closeAllConnections();
  });

  const expectClean = (printed: string, what: string) => {
    for (const spelling of SPELLINGS)
      expect(printed.includes(spelling), `${what} prints ${spelling}: ${printed}`).to.equal(false);
  };

  supports("any service", "https://user:password@host", "Basic authentication", async () => {
    const provider = { request: async () => "0x1" };
    const { url, stop } = await serveQuirks(provider, { login: `${USER}:${PASSWORD}` });
    const at = (login: string) => url.replace("://", `://${login}`);
    expect((await connect(at(`${LOGIN}@`))).chainId).to.equal(1);
    const failure = await rejectionOf(connect(at(`${USER}:wrong-password@`)));
    expect([failure.code, failure.retryable]).to.deep.equal(["chain/refused", false]);
    expect(failure.message).to.contain("Unauthorized").and.not.to.contain("wrong-password");
    expectClean(failure.message, "the error");
    await stop();
  });

  it("every part that may be a secret is known, and words of common paths are not", () => {
    expect(secretsIn("https://rpc.example/v2/mainnet")).to.deep.equal(["/v2/mainnet"]);
    expect(scrub(`HTTP at /v2/${KEY}`, secretsIn(`https://rpc.example/v2/${KEY}`))).to.equal("HTTP at …");
  });

  it("no output of any command repeats them, whatever goes wrong", async () => {
    const commands = await everyCommand();
    expect(commands.length).to.be.greaterThan(40);
    const path = `/v3/${KEY}?token=qu3ry-t0ken`;
    const endpoints = [
      `http://${LOGIN}@127.0.0.1:${port}${path}`,
      `http://${LOGIN}@127.0.0.1:1${path}`,
      `ftp://${LOGIN}@127.0.0.1${path}`,
      `http://${LOGIN}@127.0.0.1:notaport${path}`,
    ];
    const address = `0x${"1a".repeat(20)}`;
    const some = folder.write("some.json", "{}");
    let ran = 0;
    for (const { words, command } of commands) {
      if (words.some((word) => SERVERS.has(word))) continue;
      const takes = new Set(command.options.map(({ long }) => long));
      const given = command.registeredArguments.map(({ required }) => (required ? some : undefined));
      const addresses = ["--registry", "--policy"].filter((name) => takes.has(name)).flatMap((name) => [name, address]);
      const needed = command.options
        .filter(({ mandatory, long }) => mandatory && !addresses.includes(long ?? ""))
        .flatMap(({ long }) => [long ?? "", some]);
      const base = [...words, ...given.filter((each) => each !== undefined), ...addresses, ...needed];
      const hasEndpoint = takes.has("--rpc");
      for (const endpoint of hasEndpoint ? endpoints : endpoints.slice(0, 1)) {
        const witness = takes.has("--witness") ? ["--witness", endpoint] : [];
        const lines = hasEndpoint
          ? [
              [...base, "--rpc", endpoint, ...witness],
              [...base, `--rpc=${endpoint}`, "--json"],
            ]
          : [[...base, endpoint]];
        for (const args of [...lines, [...base, "--rcp", endpoint]]) {
          const run = await keysteadHere(args, { KEYSTEAD_RPC_URL: endpoint, KEYSTEAD_DEBUG: "1" });
          expectClean(run.stdout + run.stderr, args.join(" "));
          ran += 1;
        }
      }
    }
    for (const wrong of [endpoints[0] ?? "", ["audit", endpoints[0] ?? ""].join(" ")]) {
      const run = await keysteadHere(wrong.split(" "));
      expectClean(run.stdout + run.stderr, wrong);
    }
    expect(ran).to.be.greaterThan(100);
  });
});
