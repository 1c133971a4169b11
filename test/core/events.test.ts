import { expect } from "chai";
import { Interface, type LogDescription } from "ethers";
import fc from "fast-check";
import { KMS_REGISTRY_ABI } from "../../src/chain/abi/kms-registry.ts";
import { PLATFORM_POLICY_ABI } from "../../src/chain/abi/platform-policy.ts";
import { type Hex, toHex } from "../../src/core/bytes.ts";
import { isKeysteadError } from "../../src/core/errors.ts";
import {
  decodeGovernedEvent,
  decodePolicyEvent,
  decodeServiceEvent,
  GOVERNED_EVENTS,
  isGovernedLog,
  POLICY_EVENTS,
  type RawLog,
  SERVICE_EVENTS,
  topicOf,
} from "../../src/core/events.ts";
import { KmsRegistry__factory, PlatformPolicy__factory } from "../../typechain-types/index.ts";
import { errorOf } from "../helpers/errors.ts";
import { logOf } from "../helpers/logs.ts";

const snake = (name: string) => name.replace(/(?<!^)([A-Z])/g, "_$1").toLowerCase();
const written = (table: Readonly<Record<string, readonly string[]>>) =>
  Object.entries(table).map(([name, [solidityName, ...fields]]) => ({ name, solidityName, fields }));
const compiled = (abi: Interface) => {
  const found: { name: string; solidityName: string; fields: string[]; topic0: string }[] = [];
  abi.forEachEvent((event) => {
    const fields = event.inputs.map(({ type, indexed, name }) => `${type} ${indexed ? "indexed " : ""}${name}`);
    found.push({ name: snake(event.name), solidityName: event.name, fields, topic0: event.topicHash });
  });
  return found;
};

describe("events", () => {
  for (const [contract, table, abi] of [
    ["KmsRegistry", SERVICE_EVENTS, KmsRegistry__factory.createInterface()],
    ["PlatformPolicy", POLICY_EVENTS, PlatformPolicy__factory.createInterface()],
  ] as const) {
    it(`the tables are ${contract}'s compiled events, field by field and topic by topic`, () => {
      const own = [...written(table), ...written(GOVERNED_EVENTS)].map((event) => ({
        ...event,
        topic0: topicOf(event.name as keyof typeof GOVERNED_EVENTS),
      }));
      const byName = (a: { name: string }, b: { name: string }) => a.name.localeCompare(b.name);
      expect(own.sort(byName)).to.deep.equal(compiled(abi).sort(byName));
    });
  }

  it("the interfaces for run time are the compiled ones", () => {
    expect([...KMS_REGISTRY_ABI]).to.deep.equal(KmsRegistry__factory.createInterface().format());
    expect([...PLATFORM_POLICY_ABI]).to.deep.equal(PlatformPolicy__factory.createInterface().format());
  });

  const registry = new Interface(KMS_REGISTRY_ABI);
  const policy = new Interface(PLATFORM_POLICY_ABI);
  /** A value for any field: `bits` picks it, so that every run differs. */
  const valueFor = (type: string, seed: Uint8Array): unknown => {
    if (type === "bool") return (seed[0] ?? 0) % 2 === 0;
    if (type === "string") return new TextDecoder("utf-8", { ignoreBOM: true }).decode(seed);
    if (type === "bytes") return toHex(seed);
    if (type.startsWith("uint")) {
      const bits = BigInt(Math.min(Number(type.slice(4)), 53));
      return BigInt(toHex(seed.length === 0 ? Uint8Array.of(0) : seed)) & (2n ** bits - 1n);
    }
    const width = type === "address" ? 20 : Number(type.slice(5));
    return `0x${toHex(seed)
      .slice(2)
      .padEnd(2 * width, "7")
      .slice(0, 2 * width)}`;
  };

  it("what ethers encodes is decoded to the same values, for every event", () => {
    for (const [abi, decode, tables] of [
      [registry, decodeServiceEvent, SERVICE_EVENTS],
      [policy, decodePolicyEvent, POLICY_EVENTS],
      [policy, decodeGovernedEvent, GOVERNED_EVENTS],
    ] as const) {
      for (const { name, solidityName, fields } of written(tables)) {
        const types = fields.map((field) => field.split(" ")[0] ?? "");
        fc.assert(
          fc.property(fc.array(fc.uint8Array({ maxLength: 100 }), { minLength: 9, maxLength: 9 }), (seeds) => {
            const values = types.map((type, at) => valueFor(type, seeds[at] ?? new Uint8Array()));
            const log = logOf(abi, solidityName ?? "", values);
            const decoded = decode(log);
            expect(decoded.name).to.equal(name);
            const description = abi.parseLog(log as unknown as LogDescription & { topics: string[]; data: string });
            const theirs = description?.args.toArray().map((value) => String(value).toLowerCase());
            expect(Object.values(decoded.args).map((value) => String(value).toLowerCase())).to.deep.equal(theirs);
          }),
          { numRuns: 25 },
        );
      }
    }
  });

  describe("given malformed data", () => {
    const sample = () =>
      logOf(registry, "AddImageToService", [
        `0x${"11".repeat(20)}`,
        `0x${"22".repeat(20)}`,
        `0x${"33".repeat(32)}`,
        "0x0102030405",
        "text",
        7,
        1,
        0,
      ]);
    const dataWith = (word: number, value: string): Hex => {
      const at = 2 + 64 * word;
      const { data } = sample();
      return `0x${data.slice(2, at)}${value.padStart(64, "0")}${data.slice(at + 64)}`;
    };
    const cases: readonly [string, () => RawLog, string][] = [
      ["no topics", () => ({ ...sample(), topics: [] }), "event/unknown"],
      ["an unknown topic", () => ({ ...sample(), topics: [`0x${"99".repeat(32)}`] }), "event/unknown"],
      ["a topic too few", () => ({ ...sample(), topics: sample().topics.slice(0, 3) }), "event/malformed"],
      ["no data", () => ({ ...sample(), data: "0x" }), "event/malformed"],
      [
        "a word too many",
        () => ({ ...sample(), data: `${sample().data}${"00".repeat(32)}` as Hex }),
        "event/malformed",
      ],
      ["a word too few", () => ({ ...sample(), data: sample().data.slice(0, -64) as Hex }), "event/malformed"],
      ["an offset into the head", () => ({ ...sample(), data: dataWith(0, "20") }), "event/malformed"],
      ["both offsets at one place", () => ({ ...sample(), data: dataWith(1, "a0") }), "event/malformed"],
      ["an offset beyond all memory", () => ({ ...sample(), data: dataWith(0, "f".repeat(64)) }), "event/malformed"],
      ["a length beyond the data", () => ({ ...sample(), data: dataWith(5, "ffffffffffff") }), "event/malformed"],
      ["a length beyond all memory", () => ({ ...sample(), data: dataWith(5, "f".repeat(64)) }), "event/malformed"],
      [
        "padding that is not zero",
        () => ({ ...sample(), data: dataWith(6, `0102030405${"0".repeat(53)}1`) }),
        "event/malformed",
      ],
      ["a uint40 of 41 bits", () => ({ ...sample(), data: dataWith(2, "10000000000") }), "event/malformed"],
      ["a uint32 of 33 bits", () => ({ ...sample(), data: dataWith(3, "100000000") }), "event/malformed"],
      [
        "a service id of 21 bytes",
        () => ({ ...sample(), topics: sample().topics.with(1, `0x${"11".repeat(21)}${"00".repeat(11)}`) }),
        "event/malformed",
      ],
      [
        "an address of 21 bytes",
        () => ({ ...sample(), topics: sample().topics.with(2, `0x${"00".repeat(11)}${"22".repeat(21)}`) }),
        "event/malformed",
      ],
      [
        "a bool of 2",
        () => {
          const log = logOf(registry, "SetDevice", [
            `0x${"11".repeat(20)}`,
            `0x${"22".repeat(20)}`,
            `0x${"33".repeat(32)}`,
            true,
            7,
            1,
            0,
          ]);
          return { ...log, data: `0x${"2".padStart(64, "0")}${log.data.slice(66)}` };
        },
        "event/malformed",
      ],
      [
        "a version above 2^53",
        () => logOf(policy, "EnableTee", [1, `0x${"22".repeat(20)}`, 2n ** 53n, 0]),
        "event/malformed",
      ],
    ];
    for (const [what, make, code] of cases) {
      it(`${what} is ${code}`, () => {
        const decode = what === "a version above 2^53" ? decodePolicyEvent : decodeServiceEvent;
        expect(errorOf(() => decode(make())).code).to.equal(code);
      });
    }

    it("any bytes give an event or a KeysteadError, and what is accepted encodes back to the same bytes", () => {
      const topics = sample().topics;
      fc.assert(
        fc.property(fc.nat(9), fc.uint8Array({ minLength: 32, maxLength: 32 }), (word, bytes) => {
          const log = { ...sample(), topics, data: dataWith(word, toHex(bytes).slice(2)) };
          try {
            const { args } = decodeServiceEvent(log);
            const again = logOf(registry, "AddImageToService", Object.values(args));
            if (!String(args.serviceId).includes("\ufffd") && !JSON.stringify(args).includes("\ufffd")) {
              expect(again.data).to.equal(log.data);
            }
          } catch (error) {
            if (!isKeysteadError(error)) throw error;
          }
        }),
        { numRuns: 500 },
      );
    });

    it("text that is no UTF-8 stops nothing", () => {
      const event = decodeServiceEvent({ ...sample(), data: dataWith(8, `ff${"78".repeat(3)}${"00".repeat(28)}`) });
      expect(event.name === "add_image_to_service" && event.args.description).to.equal("\ufffdxxx");
    });
  });

  it("roles and upgrades are told apart from what must be chained", () => {
    const granted = logOf(registry, "RoleGranted", [
      `0x${"01".repeat(32)}`,
      `0x${"02".repeat(20)}`,
      `0x${"03".repeat(20)}`,
    ]);
    expect(isGovernedLog(granted)).to.equal(true);
    expect(isGovernedLog(logOf(policy, "EnableTee", [1, `0x${"22".repeat(20)}`, 1, 0]))).to.equal(false);
    expect(isGovernedLog({ ...granted, topics: [] })).to.equal(false);
  });

  it("a name that no table holds has no topic", () => {
    expect(errorOf(() => topicOf("no_such_event" as "upgraded")).code).to.equal("event/unknown");
  });
});
