import { expect } from "chai";
import { toBeHex } from "ethers";
import fc from "fast-check";
import { INTERFACES } from "../../src/governance/abis.ts";
import { type DecodedCall, decodeCall, flattenCalls, renderCalls } from "../../src/governance/decode.ts";
import { type Call, encodeMultiSend, hex } from "../../src/governance/safe-hash.ts";
import { addressOf, CONTRACTS, PARTIES } from "../helpers/governance.ts";
import { PLATFORM } from "../helpers/images.ts";

const ZERO = `0x${"00".repeat(20)}`;
const context = { contracts: CONTRACTS, safes: [PARTIES.governance.address] };

const encode = (contract: keyof typeof INTERFACES, method: string, ...args: readonly unknown[]) =>
  hex(INTERFACES[contract].encodeFunctionData(method, args));
const on = (contract: "policy" | "registry" | "timelock", method: string, ...args: readonly unknown[]): Call => ({
  to: CONTRACTS[contract],
  value: 0n,
  data: encode(contract, method, ...args),
});
const schedule = (...calls: readonly Call[]): Call =>
  on(
    "timelock",
    "scheduleBatch",
    calls.map(({ to }) => to),
    calls.map(({ value }) => value),
    calls.map(({ data }) => data),
    ...[`0x${"00".repeat(32)}`, `0x${"44".repeat(32)}`, 172_800n],
  );
const safeTransaction = (call: Call, operation = 0, gasPrice = 0n): Call => ({
  ...{ to: PARTIES.governance.address, value: 0n },
  data: encode("safe", "execTransaction", call.to, call.value, call.data, operation, 0, 0, gasPrice, ZERO, ZERO, "0x"),
});
const sentences = (call: DecodedCall): readonly string[] => flattenCalls([call]).map(({ words }) => words.sentence);
const warnings = (call: DecodedCall) =>
  flattenCalls([call]).flatMap((one) => one.warnings.map(({ severity }) => severity));

describe("decode", () => {
  it("goes from the Safe through MultiSend, timelock and upgrade down to the initialiser", () => {
    const init = encode("policy", "enableTee", 1);
    const upgrade = on("policy", "upgradeToAndCall", addressOf(30), init);
    const multi: Call = {
      to: PARTIES.governance.multiSend,
      value: 0n,
      data: encodeMultiSend([schedule(upgrade), schedule(on("registry", "upgradeTo", addressOf(31)))]),
    };
    const decoded = decodeCall(safeTransaction(multi, 1), context);
    expect(sentences(decoded)).to.deep.equal([
      "let this Safe make the call below BY DELEGATECALL",
      "make the calls below, all of them or none",
      "schedule the calls below, to be executed after 48 h",
      `replace this contract's code by ${addressOf(30)}, and make the call below in it`,
      "let keys be released to TDX machines",
      "schedule the calls below, to be executed after 48 h",
      `replace this contract's code by ${addressOf(31)}, with no call`,
    ]);
    expect(warnings(decoded)).to.deep.equal([]);
  });

  it("opens a registry's multicall", () => {
    const inner = encode("registry", "rotateServiceKey", `0x${"5e".repeat(20)}`);
    const decoded = decodeCall(on("registry", "multicall", [inner, inner]), context);
    expect(decoded.calls.map(({ signature }) => signature)).to.deep.equal(Array(2).fill("rotateServiceKey(bytes20)"));
  });

  it("shows what nobody knows as unknown", () => {
    for (const data of ["0xdeadbeef", "0x01", `0x${"00".repeat(36)}`] as const) {
      const decoded = decodeCall({ to: addressOf(9), value: 1n, data }, context);
      expect(decoded.words.sentence).to.match(/^UNKNOWN CALL/);
      expect(warnings(decoded), "unknown, and ether leaves").to.deep.equal(["unsure", "unsafe"]);
    }
  });

  it("is not sure of a known function at an address that it does not know", () => {
    const decoded = decodeCall({ ...on("policy", "enableTee", 1), to: addressOf(9) }, context);
    expect([decoded.contract, decoded.signature, warnings(decoded)]).to.deep.equal([
      undefined,
      "enableTee(uint8)",
      ["unsure"],
    ]);
  });

  it("takes calldata that is encoded otherwise than here for unknown", () => {
    const good = on("policy", "enableTee", 1);
    for (const data of [`${good.data}00`, good.data.replace(/0{60}/, `01${"0".repeat(58)}`)]) {
      expect(decodeCall({ ...good, data: hex(data) }, context).signature).to.equal(undefined);
    }
  });

  it("warns of a DELEGATECALL elsewhere, of gas paid back, of value that is not taken, of lists that don't fit", () => {
    const enable = on("policy", "enableTee", 1);
    expect(warnings(decodeCall(safeTransaction(enable, 1), context))).to.deep.equal(["unsafe"]);
    expect(warnings(decodeCall(safeTransaction(enable, 0, 1n), context))).to.deep.equal(["unsafe"]);
    expect(warnings(decodeCall({ ...enable, value: 1n }, context))).to.deep.equal(["unsafe"]);
    const uneven = on(
      "timelock",
      "executeBatch",
      [CONTRACTS.policy],
      [],
      [enable.data],
      `0x${"00".repeat(32)}`,
      `0x${"00".repeat(32)}`,
    );
    expect(warnings(decodeCall(uneven, context))).to.deep.equal(["unsafe"]);
    const packed = hex(
      INTERFACES.multiSend.encodeFunctionData("multiSend", [`0x01${addressOf(9).slice(2)}${"00".repeat(64)}`]),
    );
    expect(warnings(decodeCall({ to: PARTIES.governance.multiSend, value: 0n, data: packed }, context))).to.include(
      "unsafe",
    );
  });

  it("keeps text as text", () => {
    const hostile = 'ok"\n2. policy: nothing \u202Egnp\u001b[2J\u200b';
    const decoded = decodeCall(on("policy", "allowPlatform", PLATFORM.tdx, hostile), context);
    const lines = renderCalls([decoded]).join("\n");
    expect(lines.split("\n")).to.have.length(2);
    expect(lines).to.include('\\"\\n2. policy: nothing \\u{202e}gnp');
    for (const char of ["\u202e", "\u001b", "\u200b"]) expect(lines.includes(char)).to.equal(false);
  });

  it("says of an image that the contract will refuse", () => {
    const decoded = decodeCall(on("policy", "allowPlatform", "0x0101", "x"), context);
    expect(decoded.words.sentence).to.include("NO IMAGE THAT THE CONTRACT TAKES");
  });

  it("ends, however deep calls lie in one another, and however many", () => {
    let deep = on("policy", "enableTee", 1);
    for (let i = 0; i < 40; i++) deep = schedule(deep);
    expect(warnings(decodeCall(deep, context))).to.include("unsafe");
    const many = on("registry", "multicall", Array(2000).fill("0x"));
    expect(warnings(decodeCall(many, context))).to.include("unsafe");
  });

  it("never throws, whatever the bytes", () => {
    const selectors = Object.values(INTERFACES).flatMap((abi) => {
      const found: string[] = [];
      abi.forEachFunction((item) => found.push(item.selector));
      return found;
    });
    const word = fc.oneof(
      fc.bigInt({ min: 0n, max: 300n }).map((n) => toBeHex(n, 32).slice(2)),
      fc.bigInt({ min: 0n, max: (1n << 256n) - 1n }).map((n) => toBeHex(n, 32).slice(2)),
    );
    fc.assert(
      fc.property(
        fc.constantFrom(...selectors),
        fc.array(word, { maxLength: 16 }),
        fc.constantFrom(...Object.values(CONTRACTS), addressOf(9), PARTIES.governance.multiSend),
        (selector, words, to) => {
          const decoded = decodeCall({ to, value: 0n, data: hex(`${selector}${words.join("")}`) }, context);
          expect(renderCalls([decoded])).to.not.have.length(0);
        },
      ),
      { numRuns: 500 },
    );
  });
});
