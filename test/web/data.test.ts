import { expect } from "chai";
import { AbiCoder, concat, id, keccak256, toBeHex, zeroPadValue } from "ethers";
import { safeProxyCodeHash, safeRelease } from "../../deploy/safe/contracts.ts";
import { SAFE_RELEASES, singletonAt } from "../../src/chain/safe-releases.ts";
import { formatDeployment } from "../../src/chain/deployment.ts";
import type { LocatedLog } from "../../src/chain/logs.ts";
import type { Hex } from "../../src/core/bytes.ts";
import type { ServiceEvent } from "../../src/core/events.ts";
import type { Image } from "../../src/core/image.ts";
import type { TimedEntry } from "../../src/core/state.ts";
import { PlatformPolicy__factory } from "../../typechain-types/index.ts";
import { readCall } from "../../web/src/data/calls.ts";
import { compareRegisters } from "../../web/src/data/check.ts";
import { readEvidence } from "../../web/src/data/evidence.ts";
import { timeOperations } from "../../web/src/data/operations.ts";
import { imageLives, placeMoments } from "../../web/src/data/spans.ts";
import { formatCountdown, formatDuration } from "../../web/src/format.ts";
import { linkTo, parseRoute } from "../../web/src/route.ts";
import { checkDraft, draftFromRecord, EMPTY_DRAFT } from "../../web/src/settings.ts";
import { errorOf } from "../helpers/errors.ts";
import { buildNitroDocument, buildSnpReport, buildTdxQuote } from "../helpers/evidence.ts";
import { PLATFORM } from "../helpers/images.ts";
import { deploymentRecord } from "../helpers/record.ts";

const REGISTRY = `0x${"1a".repeat(20)}` as Hex;
const POLICY = `0x${"2b".repeat(20)}` as Hex;
const TIMELOCK = `0x${"3c".repeat(20)}` as Hex;
const bytes = (text: string) => new TextEncoder().encode(text);
const reg = (byte: number): Hex => `0x${byte.toString(16).repeat(48)}`;

describe("explorer: settings and routes", () => {
  it("a route survives being a link", () => {
    const draft = { ...EMPTY_DRAFT, rpc: "http://127.0.0.1:8545/?key=a&b=c#d", registry: REGISTRY, from: "17" };
    const route = parseRoute(linkTo("service", draft, REGISTRY));
    expect(route).to.deep.equal({ page: "service", argument: REGISTRY, draft });
  });

  it("given an unknown page shows the overview", () => {
    expect(parseRoute("#/<script>").page).to.equal("overview");
  });

  it("given wrong fields names each of them, and gives no settings", () => {
    const wrong = {
      rpc: "javascript:alert(1)",
      witness: "ftp://x",
      registry: "0x1",
      policy: "",
      timelock: "x",
      from: "-1",
      chain: "1e3",
    };
    const { settings, errors } = checkDraft(wrong);
    expect(settings).to.equal(undefined);
    expect(Object.keys(errors)).to.have.members(["rpc", "witness", "registry", "policy", "timelock", "from", "chain"]);
    expect(errors.rpc?.code).to.equal("chain/bad-endpoint");
    expect(errors.registry?.code).to.equal("audit/bad-address");
  });

  it("given a deployment's record takes its addresses, block and chain, and keeps the endpoint", () => {
    const checksummed = "0x9A9f2CCfdE556A7E9Ff0848998Aa4a0CFD8863AE";
    const record = formatDeployment(deploymentRecord(checksummed, checksummed, 31337n));
    const draft = draftFromRecord(record, { ...EMPTY_DRAFT, rpc: "https://rpc.example" });
    expect(draft).to.include({ rpc: "https://rpc.example", registry: checksummed, from: "0", chain: "31337" });
    expect(errorOf(() => draftFromRecord("{}", draft)).code).to.equal("deployment/invalid");
  });

  it("durations and countdowns say what is left, never more", () => {
    expect(formatDuration(90_061)).to.equal("1 d 1 h");
    expect(formatDuration(0)).to.equal("0 s");
    expect(formatCountdown(90_061)).to.equal("1 d 01:01:01");
    expect(formatCountdown(59.2)).to.equal("00:01:00");
    expect(formatCountdown(-5)).to.equal("00:00:00");
  });
});

describe("explorer: evidence", () => {
  it("given a quote in hex, base64 or binary reads the same registers", () => {
    const quote = buildTdxQuote();
    const hex = Buffer.from(quote).toString("hex");
    const readings = [
      quote,
      bytes(`0x${hex}`),
      bytes(hex.replace(/(.{64})/g, "$1\n")),
      bytes(Buffer.from(quote).toString("base64")),
    ].map(readEvidence);
    for (const { kind, registers, source } of readings) {
      expect(kind).to.equal("tdx");
      expect(source).to.equal("evidence");
      expect(registers.rtmr3).to.equal(`0x${"b3".repeat(48)}`);
    }
  });

  it("given a report or a document reads theirs", () => {
    expect(readEvidence(buildSnpReport()).registers.measurement).to.equal(`0x${"a1".repeat(48)}`);
    expect(readEvidence(buildNitroDocument()).registers.pcr0).to.equal(`0x${"c0".repeat(48)}`);
  });

  it("given an image, as text or as bytes, reads it and says that it is no machine's statement", () => {
    const text = `dstack:compose_hash=${"52".repeat(32)}`;
    expect(readEvidence(bytes(`  ${text}\n`))).to.deep.include({ kind: "dstack", source: "image" });
    expect(readEvidence(bytes(PLATFORM.tdx))).to.deep.include({ kind: "tdx", source: "image" });
  });

  it("given debug evidence says that it is unsafe", () => {
    const { findings } = readEvidence(buildTdxQuote({ tdAttributes: Uint8Array.of(1, 0, 0, 0x10, 0, 0, 0, 0) }));
    expect(findings.some(({ severity }) => severity === "unsafe")).to.equal(true);
  });

  for (const [what, input, code] of [
    ["nothing", new Uint8Array(), "web/no-evidence"],
    ["too much", new Uint8Array(1024 * 1024 + 1), "web/too-large"],
    ["prose", bytes("hello, quote"), "web/unknown-evidence"],
    ["an image whose text is wrong", bytes("tdx:mrtd=00"), "image/register-value"],
    ["a quote that is cut off", buildTdxQuote().slice(0, 400), "bytes/truncated"],
  ] as const) {
    it(`given ${what} refuses with ${code}`, () => {
      expect(errorOf(() => readEvidence(input)).code).to.equal(code);
    });
  }
});

describe("explorer: comparing registers", () => {
  const image: Image = { kind: "tdx", registers: { mrtd: reg(0xaa), rtmr3: reg(0xbb) } };

  it("every register of the image must be in the evidence", () => {
    const evidence = { kind: "tdx" as const, registers: { mrtd: reg(0xaa) } };
    expect(compareRegisters(image, evidence)).to.deep.include({ same: ["mrtd"], differs: [], absent: ["rtmr3"] });
  });

  it("what the image leaves out does not matter, what it names does", () => {
    const evidence = { kind: "tdx" as const, registers: { mrtd: reg(0xaa), rtmr0: reg(0xcc), rtmr3: reg(0xdd) } };
    expect(compareRegisters(image, evidence)).to.deep.include({ same: ["mrtd"], differs: ["rtmr3"], absent: [] });
  });

  it("names that every object has are no registers of the evidence", () => {
    const odd = { kind: "tdx", registers: { constructor: reg(0xaa) } } as unknown as Image;
    expect(compareRegisters(odd, { kind: "tdx", registers: {} })?.absent).to.deep.equal(["constructor"]);
  });

  it("given another kind compares nothing", () => {
    expect(compareRegisters(image, { kind: "snp", registers: {} })).to.equal(undefined);
  });
});

describe("explorer: timelock operations", () => {
  const coder = AbiCoder.defaultAbiCoder();
  const data = PlatformPolicy__factory.createInterface().encodeFunctionData("enableTee", [1]) as Hex;
  const zero = `0x${"00".repeat(32)}`;
  const salt = id("salt");
  const batchId = keccak256(
    coder.encode(["address[]", "uint256[]", "bytes[]", "bytes32", "bytes32"], [[POLICY], [0], [data], zero, salt]),
  ) as Hex;

  const located = (time: number, topics: string[], body: string): LocatedLog => ({
    log: {
      ...{ address: TIMELOCK, topics: topics as Hex[], data: body as Hex, blockNumber: time, logIndex: 0 },
      ...{ blockHash: zero as Hex, transactionHash: zero as Hex },
    },
    block: { number: time, hash: zero as Hex, timestamp: time, stateRoot: zero as Hex, hashed: true },
  });
  const scheduled = (time: number, payload: string = data) =>
    located(
      time,
      [id("CallScheduled(bytes32,uint256,address,uint256,bytes,bytes32,uint256)"), batchId, toBeHex(0, 32)],
      coder.encode(["address", "uint256", "bytes", "bytes32", "uint256"], [POLICY, 0, payload, zero, 100]),
    );
  const salted = (time: number) => located(time, [id("CallSalt(bytes32,bytes32)"), batchId], salt);
  const executed = (time: number) =>
    located(
      time,
      [id("CallExecuted(bytes32,uint256,address,uint256,bytes)"), batchId, toBeHex(0, 32)],
      coder.encode(["address", "uint256", "bytes"], [POLICY, 0, data]),
    );
  const cancelled = (time: number) => located(time, [id("Cancelled(bytes32)"), batchId], "0x");
  const terms = { timelock: `0x${"77".repeat(20)}` as const, grace: 100 };
  const fold = (logs: LocatedLog[], now: number) => timeOperations(logs, now, terms)[0];

  it("given a scheduled one is pending until its delay is over, to the second", () => {
    expect(fold([scheduled(10), salted(10)], 109)).to.include({ status: "pending", readyAt: 110, genuine: true });
    expect(fold([scheduled(10), salted(10)], 110)?.status).to.equal("ready");
  });

  it("given an execution or a cancellation is over", () => {
    expect(fold([scheduled(10), salted(10), executed(120)], 130)).to.include({ status: "done", endedAt: 120 });
    expect(fold([scheduled(10), salted(10), cancelled(20)], 130)).to.include({ status: "cancelled", endedAt: 20 });
  });

  it("given a cancelled one scheduled again waits again", () => {
    const logs = [scheduled(10), salted(10), cancelled(20), scheduled(30), salted(30)];
    expect(timeOperations(logs, 40, terms)).to.have.length(1);
    expect(fold(logs, 40)).to.include({ status: "pending", readyAt: 130, genuine: true });
  });

  it("given one that nobody executed expires, to the second, and can be scheduled again", () => {
    expect(fold([scheduled(10), salted(10)], 209)).to.include({ status: "ready", expiresAt: 210 });
    expect(fold([scheduled(10), salted(10)], 210)).to.include({ status: "expired", expiresAt: 210 });
    const again = [scheduled(10), salted(10), scheduled(300), salted(300)];
    expect(fold(again, 310)).to.include({ status: "pending", scheduledAt: 300, readyAt: 400, genuine: true });
  });

  it("given a timelock without a grace period, never expires", () => {
    const [found] = timeOperations([scheduled(10), salted(10)], 10_000, { ...terms, grace: undefined });
    expect(found).to.include({ status: "ready", expiresAt: 0 });
  });

  it("given calls that are not those of the id is not genuine", () => {
    const other = PlatformPolicy__factory.createInterface().encodeFunctionData("enableTee", [2]);
    expect(fold([scheduled(10, other), salted(10)], 40)?.genuine).to.equal(false);
    expect(fold([scheduled(10)], 40)?.genuine, "without its salt").to.equal(false);
  });

  const addresses = { policy: POLICY, registry: REGISTRY, timelock: TIMELOCK };
  it("a call is read by the contract that it goes to", () => {
    const view = readCall({ target: POLICY, value: 0n, data }, addresses);
    expect(view).to.deep.include({ name: "enableTee", lane: "loosens", contract: "policy" });
    expect(view.arguments).to.deep.equal([{ name: "kind", text: "Intel TDX", image: undefined }]);
  });

  for (const [what, call] of [
    ["to a stranger", { target: `0x${"99".repeat(20)}` as Hex, value: 0n, data }],
    ["to the wrong contract", { target: TIMELOCK, value: 0n, data }],
    ["with bytes after its arguments", { target: POLICY, value: 0n, data: concat([data, "0x00"]) as Hex }],
    ["with no data", { target: POLICY, value: 0n, data: "0x" as Hex }],
  ] as const) {
    it(`given a call ${what} does not claim to understand it`, () => {
      expect(readCall(call, addresses)).to.deep.include({ name: undefined, lane: "unknown" });
    });
  }
});

describe("explorer: lives of images", () => {
  const imageId = zeroPadValue("0x01", 32) as Hex;
  const entry = (timestamp: number, event: object) => ({ timestamp, event }) as TimedEntry<ServiceEvent>;
  const added = (at: number, activeFrom: number) =>
    entry(at, { name: "add_image_to_service", args: { imageId, activeFrom } });
  const removed = (at: number) => entry(at, { name: "remove_image_from_service", args: { imageId } });
  const retired = (at: number, activeUntil: number) =>
    entry(at, { name: "retire_image_from_service", args: { imageId, activeUntil } });

  it("given an image that waits, serves and is retired has three stretches", () => {
    expect(imageLives([added(10, 20), retired(30, 50)])[0]?.spans).to.deep.equal([
      { status: "pending", from: 10, to: 20 },
      { status: "active", from: 20, to: 30 },
      { status: "retiring", from: 30, to: 50 },
    ]);
  });

  it("given a veto ends there, and given a return lives again", () => {
    const [life] = imageLives([added(10, 20), removed(15), added(40, 60)]);
    expect(life?.removedAt).to.deep.equal([15]);
    expect(life?.spans).to.deep.equal([
      { status: "pending", from: 10, to: 15 },
      { status: "pending", from: 40, to: 60 },
      { status: "active", from: 60, to: Number.POSITIVE_INFINITY },
    ]);
  });

  it("places moments in their order between 0 and 1", () => {
    const place = placeMoments([100, 10, 1_000_000]);
    const places = [10, 100, 1_000_000, Number.POSITIVE_INFINITY].map(place);
    expect(places).to.deep.equal([...places].sort((a, b) => a - b));
    expect(places[0]).to.equal(0);
    expect(places[2]).to.equal(1);
  });
});

describe("explorer: known Safes", () => {
  it("are those that Safe publishes", () => {
    for (const version of ["1.4.1", "1.5.0"] as const) {
      expect(SAFE_RELEASES[version].proxyCodeHash).to.equal(safeProxyCodeHash(version));
      for (const { name, address } of safeRelease(version)) {
        const known = singletonAt(address.toLowerCase())?.version;
        expect(known, `${name} ${version}`).to.equal(/^safe(_l2)?$/.test(name) ? version : undefined);
      }
    }
  });
});
