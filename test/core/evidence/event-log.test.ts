import { expect } from "chai";
import type { Hex } from "../../../src/core/bytes.ts";
import {
  computeEventDigest,
  encodeEvent,
  parseEventLog,
  parseEventLogFile,
  readDstackFacts,
  replayEventLog,
  replayToBootDone,
  verifyEventLog,
} from "../../../src/core/evidence/event-log.ts";
import {
  APP_ID,
  bootEvent,
  bootLog,
  COMPOSE_HASH,
  digest,
  INSTANCE_ID,
  json,
  KEY_PROVIDER,
  OS_IMAGE_HASH,
  type RawEvent,
  replayRaw,
  runtimeEvent,
  utf8,
  v1Preimage,
} from "../../helpers/deployment.ts";
import { errorOf } from "../../helpers/errors.ts";

const codeOf = (log: unknown) => errorOf(() => parseEventLog(json(log))).code;
const changed = (index: number, changes: Partial<RawEvent>): RawEvent[] =>
  bootLog().map((event, at) => (at === index ? { ...event, ...changes } : event));
const at = (name: string) => bootLog().findIndex(({ event }) => event === name);
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

describe("core/evidence/event-log", () => {
  describe("digests", () => {
    it("are dstack's own for v1", () => {
      expect(hex(computeEventDigest("app-id", Buffer.from("deadbeef", "hex"), 1))).to.equal(
        "67b4be4efed0893cfa2bb1d35dca209ad8348b4c97f980807bcde8b9a0f26398dd0923d6eccb5aa2096d98046da8740f",
      );
    });

    it("are over canonical JSON for v2, text unescaped but for what JSON must escape", () => {
      const text = (name: string) => new TextDecoder().decode(encodeEvent(name, Uint8Array.of(0xab, 0xcd), 2));
      expect(text("compose-hash")).to.equal('{"name":"compose-hash","payload":"abcd","type":134217729}');
      expect(text('é\n"\u0001')).to.equal('{"name":"é\\n\\"\\u0001","payload":"abcd","type":134217729}');
    });

    it("replay dstack's synthetic boot to its RTMR3", () => {
      const log = [
        runtimeEvent("system-preparing"),
        runtimeEvent("app-id", APP_ID),
        runtimeEvent("compose-hash", COMPOSE_HASH),
        runtimeEvent("instance-id", INSTANCE_ID),
        runtimeEvent("boot-mr-done"),
      ];
      expect(replayEventLog(parseEventLog(json(log))).rtmr3).to.equal(
        "0x51e6737cc37085e270f04c1719caf0bb97a2d7e4396f570793ce9d61da7672cfeb07f01e154cb615295785002e931c47",
      );
    });
  });

  for (const version of [1, 2] as const) {
    it(`replays all four registers of a v${version} log and the state at boot-mr-done`, () => {
      const raw = bootLog(version);
      const log = parseEventLog(json(raw));
      const replayed = replayEventLog(log);
      for (const imr of [0, 1, 2, 3] as const) expect(replayed[`rtmr${imr}`]).to.equal(replayRaw(raw, imr));
      const boot = raw.slice(0, raw.findIndex(({ event }) => event === "boot-mr-done") + 1);
      expect(replayToBootDone(log)).to.equal(replayRaw(boot, 3)).and.not.to.equal(replayed.rtmr3);
    });
  }

  it("mixes v1 and v2, and fills in digests that a stripped log leaves empty", () => {
    const raw = bootLog().map((event, index) =>
      index % 2 ? event : runtimeEvent(event.event, event.event_payload, 2),
    );
    const stripped = raw.filter(({ imr }) => imr === 3).map((event) => ({ ...event, digest: "" }));
    expect(replayEventLog(parseEventLog(json(stripped))).rtmr3).to.equal(replayRaw(raw, 3));
  });

  it("refuses a payload, name, type or version that its digest is not of", () => {
    const compose = at("compose-hash");
    const forged = errorOf(() => parseEventLog(json(changed(compose, { event_payload: "00".repeat(32) }))));
    expect(forged.code).to.equal("event-log/event-digest");
    expect(forged.details).to.include({ index: compose, event: "compose-hash" });
    expect(codeOf(changed(compose, { event: "compose-hush" }))).to.equal("event-log/event-digest");
    expect(codeOf(changed(compose, { version: 2 }))).to.equal("event-log/event-digest");
    expect(codeOf(changed(compose, { digest: "00".repeat(48) }))).to.equal("event-log/event-digest");
    expect(codeOf(changed(compose, { event_type: 4 }))).to.equal("event-log/unknown-event-type");
    expect(codeOf(changed(compose, { version: 3 }))).to.equal("event-log/unknown-version");
  });

  it("refuses a v1 name with a colon before system-ready: two events would share its digest", () => {
    const preimage = v1Preimage("app-id:a", Buffer.from("b"));
    expect(digest("sha384", preimage)).to.deep.equal(digest("sha384", v1Preimage("app-id", Buffer.from("a:b"))));
    const twin = runtimeEvent("app-id:a", Buffer.from("b").toString("hex"));
    expect(codeOf([twin])).to.equal("event-log/ambiguous-name");
    expect(() => parseEventLog(json([runtimeEvent("system-ready"), twin]))).not.to.throw();
    expect(() => parseEventLog(json([runtimeEvent("app-id:a", "", 2)]))).not.to.throw();
  });

  it("refuses what is not a log", () => {
    const good = runtimeEvent("app-id", APP_ID);
    for (const bad of [
      {},
      [1],
      [{ ...good, imr: 4 }],
      [{ ...good, imr: "3" }],
      [{ ...good, event_type: -1 }],
      [{ ...good, event_type: 2 ** 32 }],
      [{ ...good, event: 1 }],
      [{ ...good, event_payload: "0" }],
      [{ ...good, event_payload: "0x00" }],
      [{ ...good, surprise: true }],
      [{ ...good, hash_input: "00" }],
      [{ ...bootEvent(0, 1), digest: "00" }],
      [{ ...bootEvent(0, 1), digest: "" }],
    ]) {
      expect(codeOf(bad), JSON.stringify(bad)).to.equal("event-log/malformed");
    }
    expect(codeOf(Array(10_001).fill(good))).to.equal("event-log/too-many-events");
    expect(errorOf(() => parseEventLog(utf8('[{"imr":3,"imr":0}]'))).code).to.equal("json/duplicate-key");
    expect(errorOf(() => parseEventLog(Uint8Array.of(0xff))).code).to.equal("text/not-utf8");
  });

  it("takes a preimage that agrees", () => {
    const good = {
      ...runtimeEvent("app-id", APP_ID),
      hash_input: v1Preimage("app-id", Buffer.from(APP_ID, "hex")).toString("hex"),
    };
    expect(parseEventLog(json([good])).events).to.have.length(1);
  });

  it("reads facts before system-ready only, the first of each name", () => {
    const facts = readDstackFacts(parseEventLog(json(bootLog())));
    expect(facts).to.deep.include({
      appId: `0x${APP_ID}`,
      composeHash: `0x${COMPOSE_HASH}`,
      instanceId: `0x${INSTANCE_ID}`,
      osImageHash: `0x${OS_IMAGE_HASH}`,
      rootfsHash: undefined,
      keyProvider: { payload: `0x${KEY_PROVIDER}`, name: "kms", id: "abcd" },
      bootDone: true,
      ready: true,
      repeated: [],
      applicationEvents: ["compose-hash"],
    });
    const late = readDstackFacts(parseEventLog(json([runtimeEvent("system-ready"), runtimeEvent("app-id", APP_ID)])));
    expect(late.appId).to.equal(undefined);
    const twice = readDstackFacts(
      parseEventLog(json([runtimeEvent("compose-hash", COMPOSE_HASH), runtimeEvent("compose-hash", "ff".repeat(32))])),
    );
    expect(twice.composeHash).to.equal(`0x${COMPOSE_HASH}`);
    expect(twice.repeated).to.deep.equal(["compose-hash"]);
    expect(twice.ready).to.equal(false);
    expect(readDstackFacts(parseEventLog(json([runtimeEvent("instance-id")]))).instanceId).to.equal("0x");
    const short = errorOf(() => readDstackFacts(parseEventLog(json([runtimeEvent("app-id", "11")]))));
    expect(short.code).to.equal("event-log/fact-length");
  });

  describe("verifyEventLog", () => {
    const log = () => parseEventLog(json(bootLog()));

    it("checks every register given, and says which one differs", () => {
      const registers = replayEventLog(log());
      expect(verifyEventLog(log(), registers)).to.deep.equal({
        checked: ["rtmr0", "rtmr1", "rtmr2", "rtmr3"],
        unchecked: [],
      });
      for (const name of ["rtmr0", "rtmr1", "rtmr2", "rtmr3"] as const) {
        const other: Hex = `0x${"ee".repeat(48)}`;
        const error = errorOf(() => verifyEventLog(log(), { ...registers, [name]: other }));
        expect(error.code).to.equal("event-log/rtmr-mismatch");
        expect(error.details).to.include({ register: name, given: other });
      }
    });

    it("never passes over RTMR3, and lists what a stripped log cannot show", () => {
      const registers = replayEventLog(log());
      const stripped = parseEventLog(json(bootLog().filter(({ imr }) => imr === 3)));
      expect(verifyEventLog(stripped, registers)).to.deep.equal({
        checked: ["rtmr3"],
        unchecked: ["rtmr0", "rtmr1", "rtmr2"],
      });
      const empty = parseEventLog(json([]));
      expect(errorOf(() => verifyEventLog(empty, registers)).code).to.equal("event-log/rtmr-mismatch");
    });
  });

  it("takes a quote response as well as a bare log", () => {
    const bare = json(bootLog());
    for (const event_log of [bootLog(), JSON.stringify(bootLog())]) {
      const { log, quote } = parseEventLogFile(json({ quote: "0400", event_log, report_data: "00" }));
      expect(replayEventLog(log)).to.deep.equal(replayEventLog(parseEventLog(bare)));
      expect([...(quote ?? [])]).to.deep.equal([4, 0]);
    }
    expect(parseEventLogFile(bare).quote).to.equal(undefined);
    expect(errorOf(() => parseEventLogFile(json({ quote: "00" }))).code).to.equal("event-log/malformed");
    expect(errorOf(() => parseEventLogFile(json({ event_log: "[" }))).code).to.equal("json/malformed");
  });
});
