import { expect } from "chai";
import { contentSecurityPolicy, createExplorerApp } from "../../src/cli/explorer/app.ts";
import { errorCodeOf, keystead } from "../helpers/cli.ts";

const text = (value: string) => new Uint8Array(new TextEncoder().encode(value));
const FILES = new Map([
  ["/index.html", text("<!doctype html><title>it</title>")],
  ["/assets/index-abc.js", text("1;")],
  ["/icon.svg", text("<svg/>")],
]);

/** The directives of a policy by name. */
const directives = (policy: string) =>
  new Map(
    policy.split("; ").map((line): [string, string] => {
      const [name = "", ...values] = line.split(" ");
      return [name, values.join(" ")];
    }),
  );

describe("keystead explore", () => {
  describe("the server", () => {
    const app = createExplorerApp(FILES, ["https://rpc.example/secret-key"]);

    it("answers / with the page and a file with its type", async () => {
      const page = await app.request("/");
      expect(page.status).to.equal(200);
      expect(page.headers.get("content-type")).to.equal("text/html; charset=utf-8");
      expect(await page.text()).to.contain("<title>it</title>");
      const script = await app.request("/assets/index-abc.js");
      expect(script.headers.get("content-type")).to.equal("text/javascript; charset=utf-8");
    });

    it("sets strict headers on every answer, refusals too", async () => {
      for (const path of ["/", "/assets/index-abc.js", "/nothing"]) {
        const { headers } = await app.request(path);
        expect(headers.get("x-content-type-options"), path).to.equal("nosniff");
        expect(headers.get("referrer-policy"), path).to.equal("no-referrer");
        expect(headers.get("content-security-policy"), path).to.contain("default-src 'none'");
        expect(headers.get("x-frame-options"), path).to.equal("DENY");
      }
    });

    it("knows its files and no other path, however it is spelt", async () => {
      for (const path of ["/package.json", "/..%2f..%2fpackage.json", "/assets/", "/assets/../../package.json"]) {
        expect((await app.request(path)).status, path).to.equal(404);
      }
    });

    it("refuses other methods", async () => {
      const answer = await app.request("/", { method: "POST" });
      expect(answer.status).to.equal(405);
      expect(answer.headers.get("allow")).to.equal("GET, HEAD");
    });
  });

  describe("the content security policy", () => {
    it("allows no script, style or markup but the page's own", () => {
      const policy = directives(contentSecurityPolicy([]));
      expect(policy.get("script-src")).to.equal("'self'");
      expect(policy.get("style-src")).to.equal("'self'");
      expect(policy.get("require-trusted-types-for")).to.equal("'script'");
      expect(policy.get("frame-ancestors")).to.equal("'none'");
      expect(contentSecurityPolicy([])).not.to.contain("unsafe");
    });

    it("when endpoints are given allows connections to their origins alone, and keeps their keys out", () => {
      const policy = contentSecurityPolicy(["https://rpc.example/secret-key", "http://10.0.0.1:8545"]);
      expect(directives(policy).get("connect-src")).to.equal("https://rpc.example http://10.0.0.1:8545");
      expect(policy).not.to.contain("secret-key");
    });

    it("when none is given allows TLS, and plain HTTP to this machine alone", () => {
      expect(directives(contentSecurityPolicy([])).get("connect-src")).to.equal(
        "https: http://127.0.0.1:* http://localhost:*",
      );
    });
  });

  describe("the command line", () => {
    for (const [what, args, code] of [
      ["an endpoint that is no URL", ["--rpc", "ws://127.0.0.1:1"], "chain/bad-endpoint"],
      ["an address that is none", ["--registry", "0x12"], "audit/bad-address"],
      ["addresses beside a record", ["--deployment", "x.json", "--policy", "0x12"], "usage/two-sources"],
      ["a port that is no number", ["--port", "many"], "usage/number"],
      ["a record that is not there", ["--deployment", "nothing.json"], "input/not-found"],
    ] as const) {
      it(`given ${what} refuses with ${code}`, () => {
        const run = keystead(["explore", "--json", ...args]);
        expect(run.code).to.equal(2);
        expect(errorCodeOf(run)).to.equal(code);
      });
    }
  });
});
