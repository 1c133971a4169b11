import { expect } from "chai";
import { getBytes, id, Signature, Wallet } from "ethers";
import type { Hex } from "../../src/core/bytes.ts";
import { hex } from "../../src/governance/safe-hash.ts";
import { importSignature, parseKey, signStep } from "../../src/governance/sign.ts";
import {
  formatSignature,
  hashesToSign,
  parseSignature,
  readSignatures,
  type SignatureRecord,
  signaturePath,
} from "../../src/governance/signatures.ts";
import { planStep } from "../../src/governance/transactions.ts";
import { verifyProposal } from "../../src/governance/verify.ts";
import { errorOf } from "../helpers/errors.ts";
import { addressOf, folderOf, PARTIES, propose } from "../helpers/governance.ts";

const KEYS = ["alice", "bob"].map((name) => id(`keystead test key ${name}`));
const [alice, bob] = KEYS.map((key) => new Wallet(key));
const operation = propose();
const schedule = planStep(operation, "schedule");
const CHILD = addressOf(33);

const bytes = (text: string) => new TextEncoder().encode(text);
const withFile = (record: SignatureRecord, text = formatSignature(record), file = signaturePath(record)) =>
  new Map([...folderOf(operation), [file, bytes(text)]]);
const differences = (files: ReadonlyMap<string, Uint8Array>) => verifyProposal(files).differences;
const keyOf = (wallet: Wallet | undefined) => parseKey(wallet?.privateKey ?? "", "key");
const flipByte = (signature: Hex, at: number): Hex => {
  const changed = getBytes(signature);
  changed[at] = (changed[at] ?? 0) ^ 1;
  return hex(Buffer.from(changed).toString("hex"));
};

describe("signatures in a proposal's folder", () => {
  const record = signStep(operation, schedule, keyOf(alice));

  it("are read back as they were written, and pass verification", () => {
    expect(parseSignature(formatSignature(record))).to.deep.equal(record);
    const found = verifyProposal(withFile(record));
    expect([found.ok, found.differences]).to.deep.equal([true, []]);
    expect(found.signatures.map(({ signer, recovered }) => [signer, recovered])).to.deep.equal([
      [alice?.address, true],
    ]);
    expect(found.unchecked.join()).to.include("owners");
    expect(readSignatures(operation, folderOf(operation)).signatures).to.deep.equal([]);
  });

  it("are caught in the name of their file with any field and any byte changed", () => {
    for (const [change, code] of [
      [{ step: "execute" }, "signature/other-transaction"],
      [{ nonce: record.nonce + 1n }, "signature/other-transaction"],
      [{ safe: PARTIES.guardian.address }, "step/none"],
      [{ safeTxHash: `0x${"11".repeat(32)}` }, "signature/other-transaction"],
      [{ signer: addressOf(44) }, "signature/other-signer"],
      [{ signer: record.safe }, "signature/malformed"],
      [{ through: CHILD }, "signature/other-signer"],
      [{ kind: "eth_sign" }, "signature/other-signer"],
    ] as readonly [Partial<SignatureRecord>, string][]) {
      const changed = { ...record, ...change };
      const found = differences(withFile(changed, formatSignature(changed), signaturePath(record)));
      expect(found, Object.keys(change).join()).to.deep.include.members([found[0]]);
      expect([found[0]?.code, found[0]?.field]).to.deep.equal([code, signaturePath(record)]);
    }
    for (let at = 0; at < 65; at += 4) {
      const changed = { ...record, signature: flipByte(record.signature, at) };
      expect(differences(withFile(changed)), `byte ${at}`).to.have.length(1);
    }
    // the twin that anyone can make: Safe would count it, nothing here does
    const { r, s, v } = Signature.from(record.signature);
    const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
    const twin = hex(`${r}${(order - BigInt(s)).toString(16).padStart(64, "0")}${v === 27 ? "1c" : "1b"}`);
    expect(differences(withFile({ ...record, signature: twin }))[0]?.code).to.equal("signature/malformed");
  });

  it("are taken in one place and one layout only", () => {
    const other = `signatures/${record.safeTxHash}/${addressOf(44)}.json`;
    expect(differences(withFile(record, formatSignature(record), other))[0]?.code).to.equal("signature/other-place");
    const loose = JSON.stringify(JSON.parse(formatSignature(record)));
    expect(differences(withFile(record, loose))[0]?.code).to.equal("verify/differs");
    const more = formatSignature(record).replace("{", '{"more": 1,');
    expect(differences(withFile(record, more))[0]?.code).to.equal("signature/malformed");
    expect(differences(withFile(record, "{"))[0]?.code).to.equal("json/malformed");
  });

  it("are made for another nonce where one is given, and in the name of an owner that is a Safe", () => {
    const later = planStep(operation, "schedule", { nonce: 9n });
    const moved = signStep(operation, later, keyOf(bob));
    expect([moved.nonce, moved.safeTxHash === record.safeTxHash]).to.deep.equal([9n, false]);
    const nested = signStep(operation, schedule, keyOf(bob), { through: CHILD });
    expect(signaturePath(nested)).to.equal(`signatures/${schedule.hashes.safeTxHash}/${CHILD}/${bob?.address}.json`);
    for (const one of [moved, nested]) expect(differences(withFile(one))).to.deep.equal([]);
    const claimed = { ...nested, through: null };
    expect(differences(withFile(claimed))[0]?.code).to.equal("signature/other-signer");
  });

  it("show other hashes to an owner's owner, by the release of the outer Safe", () => {
    const seen = ["1.4.1", "1.5.0"].map((version) => {
      const safe = { ...schedule.safe, version: version === "1.4.1" ? ("1.4.1" as const) : ("1.5.0" as const) };
      return hashesToSign(1n, { ...schedule, safe }, CHILD).safeTxHash;
    });
    expect(new Set([...seen, schedule.hashes.safeTxHash]).size).to.equal(3);
  });

  it("say that only its contract can check a contract's signature", () => {
    const contract = importSignature(operation, schedule, { signature: "0xabcd", signer: CHILD, contract: true });
    const found = verifyProposal(withFile(contract));
    expect([found.ok, found.signatures[0]?.recovered]).to.deep.equal([true, false]);
    expect(found.unchecked.join()).to.include(signaturePath(contract));
    const empty = errorOf(() => importSignature(operation, schedule, { signature: "0xabcd", contract: true }));
    expect(empty.code).to.equal("sign/signer-unknown");
  });
});

describe("importing signatures made elsewhere", () => {
  const hash = schedule.hashes.safeTxHash;
  const key = keyOf(alice);
  const signer = alice?.address ?? "";
  const withV = (signature: string, add: number) =>
    hex(`${signature.slice(0, 130)}${(Number.parseInt(signature.slice(130), 16) + add).toString(16).padStart(2, "0")}`);

  it("takes typed data and messages, with each last byte that wallets give", async () => {
    const message = (await alice?.signMessage(getBytes(hash))) ?? "";
    for (const [signature, kind] of [
      [key.sign(hash), "eip712"],
      [withV(key.sign(hash), -27), "eip712"],
      [hex(message), "eth_sign"],
      [withV(message, -27), "eth_sign"],
      [withV(message, 4), "eth_sign"],
    ] as const) {
      const record = importSignature(operation, schedule, { signature, signer });
      expect([record.kind, record.signer]).to.deep.equal([kind, signer]);
      const v = Number.parseInt(record.signature.slice(130), 16);
      expect(kind === "eip712" ? [27, 28] : [31, 32]).to.include(v);
      expect(differences(withFile(record))).to.deep.equal([]);
      const owners = [addressOf(3), signer];
      expect(importSignature(operation, schedule, { signature, owners })).to.deep.equal(record);
    }
  });

  it("refuses a signature whose signer is not clear, or of something else, or broken", () => {
    const signature = key.sign(hash);
    const code = (given: Parameters<typeof importSignature>[2]) =>
      errorOf(() => importSignature(operation, schedule, given)).code;
    expect(code({ signature })).to.equal("sign/signer-unknown");
    expect(code({ signature, owners: [addressOf(3)] })).to.equal("sign/signer-unknown");
    expect(code({ signature, signer: addressOf(3) })).to.equal("sign/other-signer");
    expect(code({ signature: key.sign(`0x${"22".repeat(32)}`), signer })).to.equal("sign/other-signer");
    expect(code({ signature: "0x1234", signer })).to.equal("signature/malformed");
    expect(code({ signature: withV(signature, 9), signer })).to.equal("signature/malformed");
  });
});

describe("private keys", () => {
  it("are refused without being repeated", () => {
    for (const text of ["", "0x12", "g".repeat(64), "0".repeat(64), "f".repeat(64)]) {
      const error = errorOf(() => parseKey(text, "KEYSTEAD_SIGNER_KEY"));
      expect([error.code, error.argument, error.cause]).to.deep.equal([
        "key/malformed",
        "KEYSTEAD_SIGNER_KEY",
        undefined,
      ]);
      if (text !== "") expect(JSON.stringify([error.message, error.remedy, error.details])).to.not.include(text);
    }
    expect(Object.keys(keyOf(alice)).sort()).to.deep.equal(["address", "sign", "signTransaction"]);
  });
});
