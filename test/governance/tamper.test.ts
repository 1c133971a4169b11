import { expect } from "chai";
import { getBytes, id, sha256, Wallet } from "ethers";
import { hex } from "../../src/governance/safe-hash.ts";
import { importSignature, parseKey, signStep } from "../../src/governance/sign.ts";
import { formatSignature, type SignatureRecord, signaturePath } from "../../src/governance/signatures.ts";
import { planStep } from "../../src/governance/transactions.ts";
import { verifyProposal } from "../../src/governance/verify.ts";
import { addressOf, folderOf, PARTIES, propose, savedMeasurement } from "../helpers/governance.ts";
import { measured } from "../helpers/images.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const COMPOSE = encoder.encode("services: {}\n");
const OS = measured("os image", 32);
const [alice, bob, carol] = ["alice", "bob", "carol"].map((name) => new Wallet(id(`keystead test key ${name}`)));

/** A folder with everything that one can hold: a measured image, its source, the state to start from, a rollback, and signatures of every kind. */
async function wholeFolder(): Promise<ReadonlyMap<string, Uint8Array>> {
  const measurement = savedMeasurement("dstack", { os_image_hash: OS }, COMPOSE);
  const attachments = new Map([
    ["measurements/measurement.json", measurement],
    ["measurements/source-1-docker-compose.yaml", COMPOSE],
  ]);
  const operation = propose({
    predecessor: `0x${"77".repeat(32)}`,
    intents: [
      { intent: "allow-platform", arguments: { image: `dstack:os_image_hash=${OS.slice(2)}`, description: "v2" } },
    ],
    measurements: [
      {
        ...{ call: 0, file: "measurements/measurement.json", sha256: hex(sha256(measurement)) },
        sources: [{ file: "measurements/source-1-docker-compose.yaml", sha256: hex(sha256(COMPOSE)) }],
      },
    ],
    start: {
      ...{ block: 17n, hash: `0x${"12".repeat(32)}` as const },
      facts: [
        { name: "timelock.getMinDelay()", value: "172800" },
        { name: `safe@${PARTIES.governance.address}.owners`, value: `${addressOf(50)} ${addressOf(51)}` },
      ],
    },
  });
  const [schedule, rollback] = [planStep(operation, "schedule"), planStep(operation, "rollback", { nonce: 12n })];
  const key = (wallet: Wallet | undefined) => parseKey(wallet?.privateKey ?? "", "key");
  const message = hex((await bob?.signMessage(getBytes(schedule.hashes.safeTxHash))) ?? "");
  const records: readonly SignatureRecord[] = [
    signStep(operation, schedule, key(alice)),
    importSignature(operation, schedule, { signature: message, signer: bob?.address }),
    signStep(operation, schedule, key(carol), { through: addressOf(33) }),
    signStep(operation, rollback, key(carol)),
  ];
  const signed = records.map((record) => [signaturePath(record), encoder.encode(formatSignature(record))] as const);
  return new Map([...folderOf(operation, attachments), ...signed]);
}

type Path = readonly (string | number)[];

/** Every value of a JSON document that holds no others, by its path. */
function leaves(value: unknown, path: Path = []): readonly Path[] {
  if (Array.isArray(value)) return value.flatMap((item, i) => leaves(item, [...path, i]));
  if (typeof value !== "object" || value === null) return [path];
  return Object.entries(value).flatMap(([key, item]) => leaves(item, [...path, key]));
}

/** Another value that could stand in the same place: of the same type and length, so that no parser's rule catches it first where that can be. */
function flip(value: unknown): unknown {
  if (typeof value === "boolean") return !value;
  if (typeof value === "number") return value + 1;
  if (typeof value !== "string") return "1";
  if (/^0x[0-9a-fA-F]{40}$/.test(value)) return addressOf(99);
  if (/^0x[0-9a-f]+$/.test(value)) return `${value.slice(0, -1)}${value.endsWith("0") ? "1" : "0"}`;
  if (/^\d+$/.test(value)) return (BigInt(value) + 1n).toString();
  return `${value}x`;
}

function flipped(text: string, path: Path): string {
  const document: unknown = JSON.parse(text);
  const last = path.at(-1) ?? "";
  const parent = path.slice(0, -1).reduce<unknown>((at, key) => Reflect.get(Object(at), key), document);
  Reflect.set(Object(parent), last, flip(Reflect.get(Object(parent), last)));
  return `${JSON.stringify(document, null, 2)}\n`;
}

describe("a proposal's folder under tampering", function () {
  this.timeout(300_000);
  let files: ReadonlyMap<string, Uint8Array>;
  before(async () => {
    files = await wholeFolder();
    expect(verifyProposal(files, { folder: "007-tdx" }).differences).to.deep.equal([]);
    expect(files.size).to.equal(14);
  });

  const fields = (name: string, content: string | Uint8Array): string => {
    const bytes = typeof content === "string" ? encoder.encode(content) : content;
    const { ok, differences } = verifyProposal(new Map([...files, [name, bytes]]), { folder: "007-tdx" });
    // exit 1 follows from this alone
    expect(ok).to.equal(differences.length === 0);
    return differences.map(({ field, code }) => `${field} ${code}`).join("\n");
  };

  it("names what differs for every value of every JSON file, one by one", () => {
    const counted = new Map<string, number>();
    const operationFields = new Set<string>();
    for (const [name, bytes] of files) {
      if (!name.endsWith(".json")) continue;
      const text = decoder.decode(bytes);
      for (const path of leaves(JSON.parse(text))) {
        const found = fields(name, flipped(text, path));
        expect(found, `${name} ${path.join(".")} is not caught`).to.not.equal("");
        // a change of operation.json moves what follows from it; any other file is named itself
        if (name === "operation.json") operationFields.add(String(path[0]));
        else expect(found, path.join(".")).to.include(name);
        const kind = name.startsWith("signatures/") ? "signatures" : name;
        counted.set(kind, (counted.get(kind) ?? 0) + 1);
      }
    }
    expect([...operationFields].sort()).to.deep.equal(
      [
        ...["assumptions", "calls", "cancellers", "chainId", "contracts", "format", "id", "lane", "measurements"],
        ...["rollback", "safe", "timelock", "title"],
      ].sort(),
    );
    expect([...counted.keys()].sort()).to.deep.equal(
      [
        ...["operation.json", "schedule.safe.json", "execute.safe.json", "cancel.safe.json", "rollback.safe.json"],
        ...["hashes.json", "expected-state.json", "measurements/measurement.json", "signatures"],
      ].sort(),
    );
    expect([...counted.values()].reduce((a, b) => a + b)).to.be.greaterThan(280);
    expect(counted.get("signatures")).to.equal(4 * 9);
  });

  it("names the report for every line, removed or added", () => {
    const lines = decoder.decode(files.get("REPORT.md")).split("\n");
    for (const i of lines.keys()) {
      // an empty line beside another one reads the same without either: those get one more
      const text = i % 2 === 0 && lines[i] !== "" ? lines.toSpliced(i, 1) : lines.toSpliced(i, 0, "ok");
      expect(fields("REPORT.md", text.join("\n")), `line ${i + 1}`).to.include("REPORT.md");
    }
  });

  it("names the source of a measurement for every byte, and each file that is gone or cut off", () => {
    const source = "measurements/source-1-docker-compose.yaml";
    for (const at of COMPOSE.keys()) {
      const changed = Uint8Array.from(COMPOSE);
      changed[at] = (changed[at] ?? 0) ^ 1;
      expect(fields(source, changed), `byte ${at}`).to.include(`${source} provenance/changed`);
    }
    for (const [name, bytes] of files) {
      expect(fields(name, bytes.slice(0, -1)), name).to.include(name);
      const rest = new Map([...files].filter(([other]) => other !== name));
      const { differences } = verifyProposal(rest, { folder: "007-tdx" });
      // a signature that is not there was never missed: how many there must be, the chain says
      if (name.startsWith("signatures/")) expect(differences).to.deep.equal([]);
      else expect(differences.map(({ field }) => field).join(), name).to.include(name);
    }
  });
});
