import { expect } from "chai";
import { concat, encodeRlp, keccak256, toBeHex } from "ethers";
import { type Block, fetchBlock, parseBlock } from "../../src/chain/block.ts";
import { type Client, connect } from "../../src/chain/client.ts";
import { type AccountProof, fetchStorageProof, verifyStorageProof } from "../../src/chain/proof.ts";
import { IMPLEMENTATION_SLOT, namespaceSlot, policySlots, serviceSlots } from "../../src/chain/slots.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import { type Chain, CLIENTS, startChain } from "../deploy/chains.ts";
import { errorOf } from "../helpers/errors.ts";
import { type Story, tellStory } from "../helpers/story.ts";
import { deploySuite } from "../helpers/suite.ts";

const UNUSED: Hex = `0x${"5a".repeat(32)}`;

describe("storage slots", () => {
  it("are those that the contracts name (ERC-7201)", () => {
    expect(namespaceSlot("keystead.storage.KmsRegistry")).to.equal(
      "0xcbba06258cefd29a5414518227a5f12767df9b0b4ff96b05066b75c1bb332e00",
    );
    expect(namespaceSlot("keystead.storage.PlatformPolicy")).to.equal(
      "0xf5ef5f018a8b15ae385f05397962a1af09f148accd2b149f94a45402d413a200",
    );
  });
});

describe("headers", () => {
  /** Ethereum mainnet's first block, whose hash every client pins. */
  const GENESIS = {
    hash: "0xd4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3",
    parentHash: `0x${"00".repeat(32)}`,
    sha3Uncles: "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347",
    miner: `0x${"00".repeat(20)}`,
    stateRoot: "0xd7f8974fb5ac78d9ac099b9ad5018bedc2ce0a72dad1827a1709da30580f0544",
    transactionsRoot: "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
    receiptsRoot: "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421",
    logsBloom: `0x${"00".repeat(256)}`,
    difficulty: "0x400000000",
    number: "0x0",
    gasLimit: "0x1388",
    gasUsed: "0x0",
    timestamp: "0x0",
    extraData: "0x11bbe8db4e347b4e8c937c1c8370e4b5ed33adb3db69cbdb7a38e1e50b1b82fa",
    mixHash: `0x${"00".repeat(32)}`,
    nonce: "0x0000000000000042",
  };

  it("hash to the hash that the world knows", () => expect(parseBlock(GENESIS).hashed).to.equal(true));

  for (const field of Object.keys(GENESIS).filter((name) => name !== "hash")) {
    it(`do not when ${field} is another`, () => {
      const value = GENESIS[field as keyof typeof GENESIS];
      const changed = { ...GENESIS, [field]: `${value.slice(0, -1)}${value.endsWith("7") ? "6" : "7"}` };
      expect(parseBlock(changed).hashed).to.equal(false);
    });
  }

  it("with a field of the wrong type are not hashed, and without a hash are refused", () => {
    expect(parseBlock({ ...GENESIS, gasUsed: 0 }).hashed).to.equal(false);
    expect(parseBlock({ ...GENESIS, logsBloom: "0x0" }).hashed).to.equal(false);
    for (const bad of [null, 7, {}, { ...GENESIS, hash: "0x12" }, { ...GENESIS, stateRoot: undefined }]) {
      expect(errorOf(() => parseBlock(bad)).code).to.equal("chain/malformed-block");
    }
    expect(errorOf(() => parseBlock({ ...GENESIS, number: "ten" })).code).to.equal("log/malformed");
  });
});

for (const clientName of CLIENTS) {
  describe(`storage proofs of ${clientName}`, () => {
    let chain: Chain;
    let client: Client;
    let story: Story;
    let block: Block;
    let slots: readonly Hex[];
    let answer: AccountProof;
    let honest: readonly bigint[];

    before(async function () {
      this.timeout(240_000);
      chain = await startChain(clientName);
      story = await tellStory(await deploySuite(chain.connection));
      client = await connect(chain.connection.provider);
      block = await fetchBlock(client, "latest");
      const ids = [story.upgradeable, story.sealed, story.quiet];
      slots = [IMPLEMENTATION_SLOT, ...ids.map(serviceSlots).flatMap(({ word, head }) => [word, head]), UNUSED];
      const params = [story.registry, slots, `0x${block.number.toString(16)}`];
      answer = (await client.request("eth_getProof", params)) as AccountProof;
      honest = (await fetchStorageProof(client, block, story.registry, slots)).values;
    });
    after(() => chain?.stop());

    it("give the values that the node stores, zero where it stores none, and the hash of the code", async () => {
      for (const [at, slot] of slots.entries()) {
        const stored = await client.request("eth_getStorageAt", [story.registry, slot, "latest"]);
        expect(honest[at], slot).to.equal(BigInt(String(stored)));
      }
      expect(honest.at(-1)).to.equal(0n);
      expect(honest.slice(0, -1)).not.to.include(0n);
      const code = await client.request("eth_getCode", [story.registry, "latest"]);
      const { codeHash } = verifyStorageProof(block.stateRoot, story.registry, slots, answer);
      expect(codeHash).to.equal(keccak256(String(code)));
    });

    it("prove the policy's head too", async () => {
      const { head } = policySlots();
      const { values } = await fetchStorageProof(client, block, story.policy, [head]);
      expect(toBeHex(values[0] ?? 0n, 32)).to.equal(
        await client.request("eth_getStorageAt", [story.policy, head, "latest"]),
      );
    });

    it("with any digit of any node changed are invalid", () => {
      const nodes = [
        ...answer.accountProof.map((_, at) => ["account", 0, at] as const),
        ...answer.storageProof.flatMap(({ proof }, slot) => proof.map((_, at) => ["storage", slot, at] as const)),
      ];
      let tried = 0;
      for (const [kind, slot, at] of nodes) {
        const node = (kind === "account" ? answer.accountProof : answer.storageProof[slot]?.proof)?.[at] ?? "";
        for (let digit = 2; digit < node.length; digit += 97) {
          const flipped = `${node.slice(0, digit)}${node[digit] === "7" ? "8" : "7"}${node.slice(digit + 1)}`;
          const forged = structuredClone(answer) as {
            accountProof: string[];
            storageProof: { key: string; proof: string[] }[];
          };
          (kind === "account" ? forged.accountProof : forged.storageProof[slot]?.proof)?.splice(at, 1, flipped);
          expect(errorOf(() => verifyStorageProof(block.stateRoot, story.registry, slots, forged)).code).to.equal(
            "proof/invalid",
          );
          tried += 1;
        }
      }
      expect(tried).to.be.greaterThan(100);
    });

    it("cut short, exchanged, or of another kind are invalid", () => {
      const storage = answer.storageProof;
      const first = storage[0] as AccountProof["storageProof"][number];
      const deepest = [...storage].sort((a, b) => b.proof.length - a.proof.length)[0] ?? first;
      const bad: unknown[] = [
        null,
        {},
        "0x",
        { ...answer, accountProof: [] },
        { ...answer, accountProof: answer.accountProof.slice(1) },
        { ...answer, accountProof: [...answer.accountProof].map(() => 7) },
        { ...answer, accountProof: new Array(66).fill(answer.accountProof[0]) },
        { ...answer, storageProof: [] },
        { ...answer, storageProof: storage.slice(0, 1) },
        { ...answer, storageProof: storage.map((each) => ({ ...each, proof: each.proof.slice(0, -1) })) },
        { ...answer, storageProof: storage.map(() => ({ ...deepest, proof: "0x" })) },
        { ...answer, storageProof: storage.toReversed() },
        { ...answer, accountProof: answer.storageProof[0]?.proof },
      ];
      for (const [at, each] of bad.entries()) {
        const fault = errorOf(() => verifyStorageProof(block.stateRoot, story.registry, slots, each as AccountProof));
        expect(fault.code, `case ${at}`).to.equal("proof/invalid");
      }
    });

    it("for another root, or of an account that is not there, are invalid", async () => {
      expect(errorOf(() => verifyStorageProof(UNUSED, story.registry, slots, answer)).code).to.equal("proof/invalid");
      const nobody: Hex = `0x${"0b".repeat(20)}`;
      const failure = await fetchStorageProof(client, block, nobody, []).catch((error: unknown) => error);
      expect(isKeysteadError(failure, "proof/invalid")).to.equal(true);
    });

    it("are not asked for when the header is not known", async () => {
      const failure = await fetchStorageProof(client, { ...block, hashed: false }, story.registry, []).catch(
        (e: unknown) => e,
      );
      expect(isKeysteadError(failure, "proof/unknown-header")).to.equal(true);
    });
  });
}

describe("tries with nodes inside nodes", () => {
  /* A trie of one account with one slot: extension (60 nibbles) → branch → leaf of 3 nibbles, so short that it stands in the branch itself. */
  const slot: Hex = `0x${"01".repeat(32)}`;
  const address: Hex = `0x${"ac".repeat(20)}`;
  const path = keccak256(slot).slice(2);
  const nextNibble = Number.parseInt(path[60] ?? "0", 16);
  const leaf = (nibbles: string, value: string) => [`0x3${nibbles}`, encodeRlp(value)];
  const children: unknown[] = new Array(17).fill("0x");
  children[nextNibble] = leaf(path.slice(61), "0x2a");
  children[(nextNibble + 1) % 16] = leaf("abc", "0x07");
  const branch = encodeRlp(children as never);
  const root = encodeRlp([`0x00${path.slice(0, 60)}`, keccak256(branch)]);
  const accountPath = keccak256(address).slice(2);
  const account = encodeRlp(["0x01", "0x", keccak256(root), keccak256("0x")]);
  const accountLeaf = encodeRlp([concat(["0x20", `0x${accountPath}`]), account]);
  const stateRoot = keccak256(accountLeaf) as Hex;
  const answer = (proof: string[]): AccountProof => ({
    accountProof: [accountLeaf],
    storageProof: [{ key: slot, proof }],
  });

  it("are walked", () => {
    expect(verifyStorageProof(stateRoot, address, [slot], answer([root, branch])).values).to.deep.equal([42n]);
  });
  it("show that a slot is empty where the paths part", () => {
    expect(verifyStorageProof(stateRoot, address, [UNUSED], answer([root, branch])).values).to.deep.equal([0n]);
  });
  it("show that a slot is empty where only the ends of the paths are the same", () => {
    let twin: Hex = UNUSED;
    for (let at = 0n; keccak256(twin).slice(-4) !== path.slice(-4); at++) twin = toBeHex(at, 32) as Hex;
    expect(twin).not.to.equal(slot);
    expect(verifyStorageProof(stateRoot, address, [twin], answer([root, branch])).values).to.deep.equal([0n]);
  });
  it("are invalid without the branch", () => {
    expect(errorOf(() => verifyStorageProof(stateRoot, address, [slot], answer([root]))).code).to.equal(
      "proof/invalid",
    );
  });
});
