import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { expect } from "chai";
import { Wallet } from "ethers";
import { writeProposal } from "../../src/governance/folder.ts";
import { serviceOf } from "../../src/governance/safe-service.ts";
import { planStep } from "../../src/governance/transactions.ts";
import { typedDataOf } from "../../src/governance/typed-data.ts";
import { errorCodeOf, type Folder, jsonOf, keysteadHere, makeFolder } from "../helpers/cli.ts";
import { errorOf } from "../helpers/errors.ts";
import { folderOf, propose } from "../helpers/governance.ts";

interface Stored {
  [name: string]: unknown;
  confirmations: { owner: string; signature: string; signatureType: string }[];
}

/**
 * A server that speaks the three routes of Safe's Transaction Service as its OpenAPI document has them: a proposal is created by
 * `POST /api/v2/safes/{address}/multisig-transactions/` (201, no body), read by `GET /api/v2/multisig-transactions/{hash}/` (404 where unknown), and
 * confirmed by `POST /api/v1/multisig-transactions/{hash}/confirmations/` (201).
 */
class Service {
  readonly stored = new Map<string, Stored>();
  readonly asked: string[] = [];
  /** Told who signed, as the real service recovers it. */
  readonly signers = new Map<string, string>();
  change: (answer: Stored) => unknown = (answer) => answer;
  status: number | undefined;
  #server: Server | undefined;

  async start(): Promise<string> {
    this.#server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        const key = request.headers.authorization;
        this.asked.push(`${request.method} ${request.url}${key === undefined ? "" : ` ${key}`}`);
        const { code, body } = this.#answer(request.method ?? "", request.url ?? "", Buffer.concat(chunks).toString());
        response
          .writeHead(code, { "content-type": "application/json" })
          .end(body === undefined ? "" : JSON.stringify(body));
      });
    });
    await new Promise<void>((resolve) => this.#server?.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  stop = () => new Promise((resolve) => this.#server?.close(resolve));

  #answer(method: string, url: string, text: string): { code: number; body?: unknown } {
    if (this.status !== undefined) return { code: this.status, body: { detail: "no\u001b[31m" } };
    const created = /^\/api\/v2\/safes\/(0x\w{40})\/multisig-transactions\/$/.exec(url);
    if (method === "POST" && created) {
      const { contractTransactionHash: hash, sender, signature, origin, ...rest } = JSON.parse(text);
      if (typeof sender !== "string" || typeof signature !== "string")
        return { code: 400, body: { sender: ["required"] } };
      const stored = {
        ...rest,
        safe: created[1],
        safeTxHash: hash,
        origin,
        confirmations: [] as Stored["confirmations"],
      };
      stored.confirmations.push({ owner: sender, signature, signatureType: "EOA" });
      this.stored.set(hash, stored);
      return { code: 201 };
    }
    const found = /^\/api\/v([12])\/multisig-transactions\/(0x\w{64})\/(confirmations\/)?$/.exec(url);
    const stored = this.stored.get(found?.[2] ?? "");
    if (found === null || stored === undefined) return { code: 404, body: { detail: "Not found." } };
    if (method === "GET" && found[1] === "2" && found[3] === undefined) return { code: 200, body: this.change(stored) };
    if (method === "POST" && found[1] === "1" && found[3] !== undefined) {
      const { signature } = JSON.parse(text);
      const owner = this.signers.get(signature) ?? "";
      stored.confirmations.push({ owner, signature, signatureType: "EOA" });
      return { code: 201, body: { signature } };
    }
    return { code: 405 };
  }
}

describe("keystead safe-service", () => {
  const [alice, bob, carol] = [Wallet.createRandom(), Wallet.createRandom(), Wallet.createRandom()];
  const operation = propose();
  const planned = planStep(operation, "schedule");
  let folder: Folder;
  let proposal: string;
  let service: Service;
  let url: string;
  beforeEach(async () => {
    folder = makeFolder();
    proposal = join(folder.path, operation.id);
    await writeProposal(proposal, folderOf(operation));
    service = new Service();
    url = await service.start();
  });
  afterEach(async () => {
    await service.stop();
    folder.remove();
  });

  const signatureOf = async (wallet: { signTypedData: Wallet["signTypedData"]; address: string }) => {
    const { domain, types, message } = typedDataOf(1n, planned, null);
    const { SafeTx = [] } = types;
    const signature = await wallet.signTypedData(domain, { SafeTx: [...SafeTx] }, message);
    service.signers.set(signature, wallet.address);
    return signature;
  };
  const run = (sub: string, ...more: string[]) =>
    keysteadHere(["safe-service", sub, proposal, "--step", "schedule", "--service", url, "--json", ...more], {
      SAFE_API_KEY: "a key",
    });
  const sign = (wallet: { privateKey: string }) =>
    keysteadHere(["sign", proposal, "--step", "schedule", "--yes", "--json"], {
      KEYSTEAD_SIGNER_KEY: wallet.privateKey,
    });

  it("proposes with the folder's signatures, once, and collects what was confirmed elsewhere", async () => {
    await signatureOf(alice);
    await signatureOf(bob);
    const unsigned = await run("propose");
    expect([unsigned.code, errorCodeOf(unsigned)]).to.deep.equal([2, "safe-service/no-signature"]);
    expect(jsonOf(await run("collect")).known).to.equal(false);

    expect((await sign(alice)).code).to.equal(0);
    const first = await run("propose");
    expect(first.code, first.stderr).to.equal(0);
    expect([jsonOf(first).known, jsonOf(first).confirmed]).to.deep.equal([false, [alice.address]]);
    const stored = service.stored.get(planned.hashes.safeTxHash);
    expect(stored).to.include({ to: planned.transaction.to, data: planned.transaction.data, nonce: "5", operation: 0 });
    expect(stored?.origin).to.equal("keystead 007-tdx");

    // one more signature here, one more there
    expect((await sign(bob)).code).to.equal(0);
    const again = await run("propose");
    expect([jsonOf(again).known, jsonOf(again).confirmed]).to.deep.equal([true, [bob.address]]);
    expect(jsonOf(await run("propose")).confirmed, "nothing twice").to.deep.equal([]);
    stored?.confirmations.push({ owner: carol.address, signature: await signatureOf(carol), signatureType: "EOA" });
    const collected = await run("collect");
    expect([collected.code, jsonOf(collected).added]).to.deep.equal([0, [carol.address]]);
    expect(jsonOf(await run("collect")).added).to.deep.equal([]);
    const verified = await keysteadHere(["verify", proposal, "--json"]);
    expect([verified.code, jsonOf(verified).differences]).to.deep.equal([0, []]);
    expect(service.asked.every((line) => line.endsWith("Bearer a key"))).to.equal(true);
  }).timeout(60_000);

  it("takes nothing that is not the named owner's, and keeps nobody else's out", async () => {
    expect((await sign(alice)).code).to.equal(0);
    await run("propose");
    const stored = service.stored.get(planned.hashes.safeTxHash);
    // bob's name on carol's signature, bytes that are none, and bob's own
    stored?.confirmations.push(
      { owner: bob.address, signature: await signatureOf(carol), signatureType: "EOA" },
      { owner: carol.address, signature: "0x1234", signatureType: "EOA" },
      { owner: bob.address, signature: await signatureOf(bob), signatureType: "EOA" },
    );
    const collected = await run("collect");
    expect([collected.code, jsonOf(collected).added]).to.deep.equal([1, [bob.address]]);
    expect(jsonOf(collected).refused.map(({ owner }: { owner: string }) => owner)).to.deep.equal([
      bob.address,
      carol.address,
    ]);
  }).timeout(60_000);

  it("confirms and takes nothing where the service holds another transaction under the hash", async () => {
    expect((await sign(alice)).code).to.equal(0);
    await run("propose");
    for (const [field, value] of Object.entries({
      to: bob.address,
      data: "0x",
      operation: 1,
      nonce: "6",
      gasPrice: "1",
    })) {
      service.change = (answer) => ({ ...answer, [field]: value });
      for (const sub of ["propose", "collect"]) {
        const refused = await run(sub);
        expect([refused.code, errorCodeOf(refused)], `${sub} ${field}`).to.deep.equal([
          1,
          "safe-service/other-transaction",
        ]);
      }
    }
    for (const answer of [[], { confirmations: {} }, { confirmations: [{ owner: "x" }] }]) {
      service.change = (whole) => (Array.isArray(answer) ? answer : { ...whole, ...answer });
      const refused = await run("collect");
      expect([refused.code, errorCodeOf(refused)]).to.deep.equal([2, "safe-service/malformed"]);
    }
  }).timeout(60_000);

  it("says whether trying again helps, makes the service's words harmless, and names no key", async () => {
    expect((await sign(alice)).code).to.equal(0);
    for (const [status, code, retryable] of [
      [500, "safe-service/unreachable", true],
      [429, "safe-service/unreachable", true],
      [401, "safe-service/refused", false],
      [422, "safe-service/refused", false],
    ] as const) {
      service.status = status;
      const refused = await run("propose");
      expect([refused.code, errorCodeOf(refused)]).to.deep.equal([2, code]);
      expect(JSON.parse(refused.stderr).error.retryable).to.equal(retryable);
      expect(refused.stderr).to.not.include("\u001b").and.not.include("a key");
    }
  }).timeout(60_000);

  it("prints what would be posted, for a person to post", async () => {
    expect((await sign(alice)).code).to.equal(0);
    const dry = await run("propose", "--dry");
    expect(JSON.parse(dry.stdout)).to.include({
      contractTransactionHash: planned.hashes.safeTxHash,
      sender: alice.address,
    });
    expect(service.asked).to.deep.equal([]);
  }).timeout(60_000);

  it("knows Safe's own services, and asks no other over plain HTTP", () => {
    expect(serviceOf(11155111n, undefined, undefined).url).to.equal("https://api.safe.global/tx-service/sep");
    expect(serviceOf(1n, "https://safe.example/api/", undefined).url).to.equal("https://safe.example");
    expect(errorOf(() => serviceOf(424242n, undefined, undefined)).code).to.equal("safe-service/none");
    for (const bad of ["http://safe.example", "ftp://x", "https://safe.example/?key=1", "nonsense"])
      expect(errorOf(() => serviceOf(1n, bad, undefined)).code).to.equal("safe-service/bad-url");
  });
});
