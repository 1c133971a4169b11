import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { expect } from "chai";
import { createSnpCrlSource, type SnpCrlSource, verifySnpCrl } from "../../../src/node/evidence/snp-crl.ts";
import { createJudge } from "../../../src/node/judge.ts";
import type { TestSnp } from "../../../src/node/test-tee/snp.ts";
import { errorOf, rejectionOf } from "../../helpers/errors.ts";
import { createTestNode, createTestTees, honestRequest, now, post, type TestTees } from "../../helpers/node.ts";

const HOUR = 3600;

describe("AMD's revocation lists over HTTP", function () {
  this.timeout(120_000);
  let tees: TestTees;
  let server: Server;
  let url: string;
  const at = now();
  /** What the server answers, and what it was asked for. */
  let answer: { readonly status: number; readonly body: Uint8Array };
  const asked: string[] = [];
  const lists: Record<"good" | "newer" | "revoking" | "forged" | "expired", Uint8Array> = {
    good: new Uint8Array(),
    newer: new Uint8Array(),
    revoking: new Uint8Array(),
    forged: new Uint8Array(),
    expired: new Uint8Array(),
  };
  const serve = (body: Uint8Array, status = 200) => {
    answer = { status, body };
  };
  /** A source whose stopwatch runs with the time that it is asked at. */
  const source = (timeoutMs = 10_000): SnpCrlSource => {
    let time = at;
    const made = createSnpCrlSource({
      ...{ url, fetch, timeoutMs, unsafeTestRoots: [tees.snp.root] },
      stopwatch: () => time,
    });
    return {
      get: async (product, endorsement, atUnixSeconds) => {
        time = atUnixSeconds;
        return await made.get(product, endorsement, atUnixSeconds);
      },
    };
  };
  /** Waits until what happens beside an answer has happened. */
  const settle = async (requests: number) => {
    while (asked.length < requests) await new Promise((resolve) => setTimeout(resolve, 5));
    await new Promise((resolve) => setTimeout(resolve, 100));
  };

  before(async () => {
    tees = await createTestTees();
    const { snp }: { snp: TestSnp } = tees;
    lists.good = await snp.issueCrl();
    lists.newer = await snp.issueCrl({ thisUpdate: at - HOUR, nextUpdate: at + 2 * 86_400 });
    lists.revoking = await snp.issueCrl({ revoked: true, thisUpdate: at - HOUR });
    lists.forged = await snp.issueCrl({ forged: true });
    lists.expired = await snp.issueCrl({ nextUpdate: at - 1 });
    server = createServer((request, response) => {
      asked.push(request.url ?? "");
      if (answer.status !== 0) response.writeHead(answer.status).end(answer.body);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  beforeEach(() => {
    asked.length = 0;
    serve(lists.good);
  });
  after(() => {
    server.closeAllConnections();
    server.close();
    tees.folder.remove();
  });

  it("given a list that is signed and in date, takes it once, and each product's at its own address", async () => {
    const one = source();
    const all = await Promise.all([
      one.get("milan", "vcek", at),
      one.get("milan", "vcek", at),
      one.get("genoa", "vcek", at),
      one.get("turin", "vcek", at),
    ]);
    for (const der of all) expect(der).to.deep.equal(lists.good);
    await one.get("milan", "vcek", at + HOUR - 1);
    // a VLEK's issuer is on a list of its own
    expect(await one.get("milan", "vlek", at)).to.deep.equal(lists.good);
    const paths = ["/vcek/v1/Milan/crl", "/vcek/v1/Genoa/crl", "/vcek/v1/Turin/crl", "/vlek/v1/Milan/crl"];
    expect(asked).to.deep.equal(paths);
  });

  it("given a list that was forged, is out of date, is none, or under a root that is not taken, takes none of them", async () => {
    for (const [body, code] of [
      [lists.forged, /^snp\/crl-(?:issuer|signature)$/],
      [lists.expired, /^snp\/crl-expired$/],
      [Buffer.from("<html>"), /^snp\/crl-malformed$/],
      [new Uint8Array(), /^snp\/crl-malformed$/],
    ] as const) {
      serve(body);
      expect((await rejectionOf(source().get("milan", "vcek", at))).code).to.match(code);
    }
    serve(lists.good);
    const real = createSnpCrlSource({ url, fetch });
    expect((await rejectionOf(real.get("milan", "vcek", at))).code).to.match(/^snp\/crl-(issuer|signature)$/);
    expect(errorOf(() => verifySnpCrl(lists.good, "genoa", { atUnixSeconds: at })).code).to.match(/^snp\/crl-/);
    const early = errorOf(() =>
      verifySnpCrl(lists.good, "milan", { atUnixSeconds: at - 2 * 86_400, unsafeTestRoots: [tees.snp.root] }),
    );
    expect(early.code).to.equal("snp/crl-not-yet-valid");
  });

  it("given a server that fails or stays silent, fails, and leaves it alone for half a minute", async () => {
    serve(lists.good, 500);
    const one = source();
    expect((await rejectionOf(one.get("milan", "vcek", at))).code).to.equal("collateral/busy");
    serve(lists.good);
    expect((await rejectionOf(one.get("milan", "vcek", at + 29))).code).to.equal("collateral/busy");
    expect(asked).to.have.length(1);
    expect(await one.get("milan", "vcek", at + 30)).to.deep.equal(lists.good);
    serve(lists.good, 0);
    expect((await rejectionOf(source(100).get("milan", "vcek", at))).code).to.equal("collateral/timeout");
    serve(lists.good, 404);
    expect((await rejectionOf(source().get("milan", "vcek", at))).code).to.equal("collateral/not-found");
  });

  it("given an hour, renews beside; what does not verify or is older never takes the place of what is held", async () => {
    serve(lists.newer);
    const one = source();
    await one.get("milan", "vcek", at);
    for (const [index, body] of [lists.good, lists.forged, lists.expired].entries()) {
      serve(body);
      const later = at + HOUR + 60 * index;
      expect(await one.get("milan", "vcek", later)).to.deep.equal(lists.newer);
      await settle(index + 2);
      expect(await one.get("milan", "vcek", later + 1)).to.deep.equal(lists.newer);
    }
    expect(asked).to.have.length(4);
    // and when what is held ends, nothing takes its place
    serve(lists.good, 500);
    expect((await rejectionOf(one.get("milan", "vcek", at + 3 * 86_400))).code).to.equal("collateral/busy");
  });

  it("given a newer list, goes by it from then on", async () => {
    const one = source();
    await one.get("milan", "vcek", at);
    serve(lists.revoking);
    await one.get("milan", "vcek", at + HOUR);
    await settle(2);
    expect(await one.get("milan", "vcek", at + HOUR + 1)).to.deep.equal(lists.revoking);
  });

  it("given what is no address, refuses it", () => {
    for (const wrong of ["nowhere", "ftp://x", "https://x/?a", "https://x/#a"])
      expect(errorOf(() => createSnpCrlSource({ url: wrong, fetch })).code, wrong).to.equal("collateral/bad-url");
  });

  describe("in a node", () => {
    /** What becomes of a machine's request, which brings a good list of its own where that is said. */
    const ask = async (ownList: boolean, files?: Record<string, string>) => {
      const judge = createJudge({ ...tees.judgeOptions, requireSnpCrl: true, snpKdsUrl: url, snpCrlFiles: files });
      const node = await createTestNode(tees, { judge });
      const { request } = await honestRequest(node, "snp");
      if (request.evidence.kind === "snp" && ownList)
        Object.assign(request.evidence.certificates, { crl: Buffer.from(lists.good).toString("base64") });
      const response = await post(node.app, "/v1/keys", request);
      await node.close();
      const { code, reason } = (await response.json()) as { code?: string; reason?: string };
      return response.status === 200 ? "released" : `${code} ${reason}`;
    };

    it("given a machine without a list, releases by AMD's; given its key there, does not, whatever it brings itself", async () => {
      expect(await ask(false)).to.equal("released");
      serve(lists.revoking);
      for (const own of [false, true]) expect(await ask(own)).to.match(/^evidence\/not-genuine snp\/.*revoked$/);
    });

    it("given no answer of AMD's, cannot check: 503, even where the machine brings a list that would do", async () => {
      serve(lists.good, 500);
      for (const own of [false, true]) expect(await ask(own)).to.equal("collateral/unavailable collateral/busy");
    });

    it("given a file of the product, does not ask", async () => {
      serve(lists.good, 500);
      expect(await ask(false, { milan: tees.folder.write("milan.crl", lists.good) })).to.equal("released");
      expect(asked).to.deep.equal([]);
    });
  });
});
