import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { getBytes, Interface, id, Signature, Wallet, ZeroAddress } from "ethers";
import { createSafe, inspectSafe } from "../../deploy/safe/account.ts";
import { isFallbackHandler, recogniseSafe, SAFE_RELEASES, SAFE_VERSIONS } from "../../src/chain/safe-releases.ts";
import { readBatch } from "../../src/governance/batch.ts";
import { writeProposal } from "../../src/governance/folder.ts";
import { checkStatedHash, readForeign } from "../../src/governance/foreign.ts";
import { planApproval } from "../../src/governance/nested.ts";
import { hex } from "../../src/governance/safe-hash.ts";
import { importSignature, parseKey, signStep } from "../../src/governance/sign.ts";
import { hashesToSign } from "../../src/governance/signatures.ts";
import { planStep } from "../../src/governance/transactions.ts";
import { verifyProposal } from "../../src/governance/verify.ts";
import { type Chain, fetchActors, setCode, startChain } from "../deploy/chains.ts";
import { refusal } from "../deploy/refusal.ts";
import { errorCodeOf, jsonOf, keysteadHere, makeFolder } from "../helpers/cli.ts";
import { errorOf } from "../helpers/errors.ts";
import { addressOf, folderOf, PARTIES, propose } from "../helpers/governance.ts";
import { supports } from "./supports.ts";

const SHARED = join(import.meta.dirname, "../../../shared/field/rpc-and-governance");
const SAFE = new Interface([
  "function getTransactionHash(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,uint256) view returns (bytes32)",
]);
const SAFE_ADDRESS = addressOf(40);
const TARGET = addressOf(41);

describe("Safe, as people have it", function () {
  this.timeout(240_000);
  const folder = makeFolder();
  let chain: Chain;
  before(async () => {
    chain = await startChain("hardhat");
  });
  after(async () => {
    folder.remove();
    await chain?.stop();
  });
  let salt = 100;
  const newSafe = async (version: "1.4.1" | "1.5.0") => {
    const { alice, bob, carol } = await fetchActors(chain.connection);
    return await createSafe(chain.connection, {
      owners: [alice, bob, carol],
      threshold: 2,
      version,
      saltNonce: `${salt++}`,
    });
  };

  supports(
    "Safe",
    "migrated by Safe{Wallet}",
    "an old proxy under a newer singleton is a Safe of the singleton's release; a look-alike is not",
    async () => {
      const { connection } = chain;
      const { provider } = connection.ethers;
      const [older, newer] = [await newSafe("1.4.1"), await newSafe("1.5.0")];
      const [olderCode, newerCode] = [await provider.getCode(older), await provider.getCode(newer)];
      // what SafeMigration leaves: the proxy of 1.4.1, slot 0 at 1.5.0
      await setCode(chain, newer, olderCode);
      expect(await inspectSafe(connection, newer)).to.include({ version: "1.5.0", threshold: 2 });
      await setCode(chain, older, newerCode);
      expect((await inspectSafe(connection, older)).version).to.equal("1.4.1");
      await setCode(chain, older, `${newerCode}00`);
      await refusal(inspectSafe(connection, older), "safe/not-a-safe");
      for (const version of SAFE_VERSIONS)
        for (const proxy of SAFE_VERSIONS) {
          const { proxyCodeHash: codeHash } = SAFE_RELEASES[proxy];
          for (const { addresses, codeHash: singletonCodeHash } of SAFE_RELEASES[version].singletons)
            for (const singleton of addresses)
              expect(recogniseSafe({ codeHash, singleton, singletonCodeHash })).to.deep.equal({ version });
        }
    },
  );

  supports(
    "Safe",
    "handlers of 1.3.0, 1.4.1, 1.5.0",
    "a fallback handler of any release is known under any other",
    () => {
      for (const version of SAFE_VERSIONS)
        for (const { addresses } of SAFE_RELEASES[version].fallbackHandlers)
          for (const address of addresses) expect(isFallbackHandler(address.toLowerCase())).to.equal(true);
      for (const address of [ZeroAddress, TARGET]) expect(isFallbackHandler(address)).to.equal(false);
    },
  );

  supports(
    "Safe",
    "owners that are Safes",
    "approveHash is shown as the child's own transaction: nonce, domain, message, safeTxHash",
    async () => {
      const { connection } = chain;
      const child = await newSafe("1.5.0");
      const planned = planStep(propose(), "schedule");
      const chainId = (await connection.ethers.provider.getNetwork()).chainId;
      const { transaction, hashes } = planApproval(chainId, planned, { address: child, nonce: 9n });
      expect(transaction).to.include({ to: planned.safe.address, value: 0n, operation: 0, nonce: 9n });
      const args = [transaction.to, 0n, transaction.data, 0, 0n, 0n, 0n, ZeroAddress, ZeroAddress, 9n];
      const data = SAFE.encodeFunctionData("getTransactionHash", args);
      expect(hashes.safeTxHash, "as the Safe itself computes it").to.equal(
        await connection.ethers.provider.call({ to: child, data }),
      );
      expect(hashes.safeTxHash).not.to.equal(planned.hashes.safeTxHash);
      const own = join(folder.path, propose().id);
      await writeProposal(own, folderOf(propose()));
      const run = await keysteadHere([
        "--json",
        "sign",
        own,
        "--step",
        "schedule",
        "--show",
        "--through",
        child,
        "--through-nonce",
        "9",
      ]);
      expect(run.code, run.stderr).to.equal(0);
      const shown = jsonOf(run).approval;
      expect(shown).to.deep.equal({
        safe: child,
        nonce: "9",
        hashes: planApproval(propose().chainId, planned, { address: child, nonce: 9n }).hashes,
      });
    },
  );

  supports(
    "Safe",
    "signatures of 64 bytes (EIP-2098)",
    "taken with and without 0x, for both ways of signing, and kept in Safe's form",
    async () => {
      const operation = propose();
      const planned = planStep(operation, "schedule");
      const key = new Wallet(id("a key of the field tests"));
      const parsed = parseKey(key.privateKey, "key");
      for (const through of [null, addressOf(33)]) {
        const record = signStep(operation, planned, parsed, { through });
        const compact = hex(Signature.from(record.signature).compactSerialized);
        expect(compact).to.have.length(130);
        const taken = importSignature(operation, planned, { signature: compact, through, signer: key.address });
        expect(taken).to.deep.equal(record);
        const { safeTxHash } = hashesToSign(operation.chainId, planned, through);
        const message = Signature.from(await key.signMessage(getBytes(safeTxHash))).compactSerialized;
        const byMessage = importSignature(operation, planned, {
          signature: hex(message),
          through,
          signer: key.address,
        });
        expect(byMessage).to.include({ kind: "eth_sign", signer: key.address });
      }
      for (const wrong of [`0x${"00".repeat(64)}`, `0x${"ff".repeat(64)}`, `0x${"11".repeat(63)}`] as const)
        expect(errorOf(() => importSignature(operation, planned, { signature: wrong, through: null })).code).to.match(
          /^sign/,
        );

      const files = folderOf(operation);
      const record = signStep(operation, planned, parsed, { through: null });
      const compact = Signature.from(record.signature).compactSerialized;
      const spelled = [compact, compact.slice(2), record.signature.slice(2), folder.write("sig", compact.slice(2))];
      for (const [at, signature] of spelled.entries()) {
        const own = join(folder.path, `signed-${at}`, operation.id);
        await writeProposal(own, files);
        const run = await keysteadHere([
          "--json",
          "sign",
          own,
          "--step",
          "schedule",
          "--signature",
          signature,
          "--signer",
          key.address,
        ]);
        expect(run.code, run.stderr).to.equal(0);
        expect(jsonOf(run).signature.signature).to.equal(record.signature);
      }
    },
  );

  const batch = (changes: object, transaction: object) => ({
    ...{
      version: "1.0",
      chainId: "1",
      createdAt: 0,
      meta: { name: "b", createdFromSafeAddress: SAFE_ADDRESS },
      ...changes,
    },
    transactions: [{ to: TARGET, value: "0", ...transaction }],
  });
  const decode = (document: unknown, ...options: readonly string[]) =>
    keysteadHere(["--json", "decode", folder.write(`doc-${salt++}.json`, JSON.stringify(document)), ...options]);

  supports(
    "Safe Transaction Builder",
    "1.18",
    "receive entries, numeric chain ids and hex values are decoded",
    async () => {
      for (const [changes, transaction, value] of [
        [{}, { value: "7", data: null, contractMethod: { name: "receive", inputs: [], payable: true } }, "7"],
        [{ chainId: 1 }, { value: "0x10", data: "0x" }, "16"],
        [{}, { value: "0x0", data: null, contractMethod: null, contractInputsValues: null }, "0"],
        [{}, { value: "5" }, "5"],
      ] as const) {
        const run = await decode(batch(changes, transaction));
        expect(run.code, run.stderr).to.equal(value === "0" ? 0 : 1); // ether that leaves is a warning of its own
        expect(jsonOf(run).calls).to.have.length(1);
        expect(jsonOf(run).calls[0]).to.include({ to: TARGET, value, data: "0x" });
      }
      expect(readBatch(JSON.stringify(batch({ chainId: 10 }, { data: "0x" }))).chainId).to.equal("10");
      for (const bad of [
        { value: "-1", data: "0x" },
        { value: "0x", data: "0x" },
        { value: 1.5, data: "0x" },
        { data: null, contractMethod: { name: "receive", inputs: [{ name: "a", type: "uint256" }] } },
        { data: null, contractMethod: { name: "transfer", inputs: [{ name: "a", type: "address" }] } },
      ])
        expect((await decode(batch({}, bad))).code, JSON.stringify(bad)).to.equal(2);
    },
  );

  const transaction = { safe: SAFE_ADDRESS, to: TARGET, value: "3", data: null, operation: 0, nonce: 7 };
  supports(
    "Safe Transaction Service",
    "API v1 and v2",
    "a transaction, or a page of them, is decoded, and its hash recomputed",
    async () => {
      for (const [document, count] of [
        [transaction, 1],
        [{ count: 2, next: null, results: [transaction, { ...transaction, nonce: "8", value: 0 }] }, 2],
      ] as const) {
        const run = await decode(document);
        expect(run.code, run.stderr).to.equal(1);
        const { calls, remarks } = jsonOf(run);
        expect(calls).to.have.length(count);
        expect(calls[0].calls[0]).to.include({ to: TARGET, value: "3", data: "0x" });
        expect(remarks[0]).to.include("nonce 7");
      }
      const delegate = await decode({ ...transaction, operation: 1 });
      expect(delegate.stdout).to.include("DELEGATECALL");
      expect((await decode({ ...transaction, value: "0" })).code).to.equal(0);
      expect((await decode({ ...transaction, value: "0", gasPrice: "1", refundReceiver: TARGET })).code).to.equal(1);
      for (const bad of [{ operation: 2 }, { nonce: undefined }, { to: "0x12" }, { value: "ten" }, { data: "0xabc" }])
        expect(errorCodeOf(await decode({ ...transaction, ...bad })), JSON.stringify(bad)).to.equal("decode/malformed");
      const [stated] = readForeign(JSON.stringify(transaction)).stated;
      if (stated === undefined) throw new Error("nothing was read");
      const hashes = checkStatedHash(1n, stated);
      expect(checkStatedHash(1n, { ...stated, safeTxHash: hashes?.safeTxHash })).to.deep.equal(hashes);
      expect(errorOf(() => checkStatedHash(10n, { ...stated, safeTxHash: hashes?.safeTxHash })).code).to.equal(
        "decode/other-hash",
      );
      expect(checkStatedHash(1n, { ...stated, plain: false })).to.equal(undefined);
    },
  );

  supports(
    "Safe",
    "JSON that others made",
    "a native transfer and a service's transaction are decoded",
    async function (this: Mocha.Context) {
      const files = ["native-transfer.safe.json", "service-transaction.json"].map((name) => join(SHARED, name));
      if (!files.every(existsSync)) this.skip();
      for (const [at, file] of files.entries()) {
        const run = await decode(JSON.parse(readFileSync(file, "utf8")));
        expect(run.code, file).to.equal(at === 0 ? 1 : 0);
        expect(jsonOf(run).calls, file).to.have.length(1);
      }
    },
  );

  supports(
    "git, macOS, Windows",
    "checkouts with CR LF, .DS_Store, Thumbs.db",
    "named for what they are; a .gitattributes keeps proposals' bytes",
    async () => {
      const operation = propose();
      const files = folderOf(operation);
      const codes = (changed: ReadonlyMap<string, Uint8Array>) => {
        const { ok, differences } = verifyProposal(changed);
        expect(ok).to.equal(differences.length === 0);
        return [...new Set(differences.map(({ code }) => code))];
      };
      expect(codes(files)).to.deep.equal([]);
      const crlf = new Map(
        [...files].map(
          ([name, bytes]) => [name, Buffer.from(Buffer.from(bytes).toString().replaceAll("\n", "\r\n"))] as const,
        ),
      );
      expect(codes(crlf)).to.deep.equal(["verify/line-ends"]);
      for (const stray of [".DS_Store", "signatures/.DS_Store", "Thumbs.db", "measurements/._x"])
        expect(codes(new Map([...files, [stray, new Uint8Array(4)]])), stray).to.deep.equal(["verify/stray-file"]);
      expect(codes(new Map([...files, ["evil.sh", new Uint8Array(4)]]))).to.deep.equal(["verify/unexpected-file"]);
      // changed line ends excuse nothing else
      const forged = Buffer.from(crlf.get("operation.json") ?? [])
        .toString()
        .replace(PARTIES.governance.address, TARGET);
      expect(codes(new Map([...crlf, ["operation.json", Buffer.from(forged)]]))).to.include("verify/differs");

      const parent = mkdtempSync(join(tmpdir(), "keystead-proposals-"));
      await writeProposal(join(parent, operation.id), files);
      expect(readFileSync(join(parent, ".gitattributes"), "utf8")).to.equal("* -text\n");
      await writeProposal(join(parent, operation.id), files);
      rmSync(parent, { recursive: true });
    },
  );
});
