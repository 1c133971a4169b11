import { expect } from "chai";
import { buildReportData } from "../../src/core/binding.ts";
import { concatBytes, fromHex, toHex } from "../../src/core/bytes.ts";
import { parseNitroDocument, parseNitroPcrs } from "../../src/core/evidence/nitro.ts";
import { buildImage } from "../../src/core/measurement.ts";
import { verifyNitroDocument } from "../../src/node/evidence/nitro.ts";
import { factsOf } from "../../src/node/facts.ts";
import { createTestNitro, type TestNitro, type TestNitroDocument } from "../../src/node/test-tee/nitro.ts";
import { errorCodeOf, jsonOf, keystead, makeFolder } from "../helpers/cli.ts";
import { errorOf } from "../helpers/errors.ts";
import { buildNitroDocument, buildNitroPcrJson, fill, NITRO_PCRS } from "../helpers/evidence.ts";
import { fieldInput } from "../helpers/field.ts";
import { ALLOWED, createTestNode, createTestTees, IMAGE, now, post, SERVICE } from "../helpers/node.ts";
import { supports } from "./supports.ts";

const AT = 1_790_000_000;
const PCRS = { 0: fill(48, 1), 1: fill(48, 2), 2: fill(48, 3) };
const NITRO = "AWS Nitro Enclaves";

describe("field: AWS Nitro", function () {
  this.timeout(120_000);
  const folder = makeFolder();
  let tee: TestNitro;
  before(async () => {
    tee = await createTestNitro({ atUnixSeconds: AT });
  });
  after(() => folder.remove());
  const verify = (document: Partial<TestNitroDocument>) =>
    verifyNitroDocument(tee.issueDocument({ pcrs: PCRS, ...document }), {
      atUnixSeconds: AT,
      unsafeTestRoots: [tee.root],
    });

  for (const [form, since] of [
    ["indefinite", "since mid-2025"],
    ["definite", "until April 2025"],
  ] as const)
    supports(NITRO, `documents ${since} (payload as a map of ${form} length)`, "verified and measured", () => {
      const { document } = verify({ form });
      expect(document.payload[0]).to.equal(form === "indefinite" ? 0xbf : 0xa9);
      expect(document.pcrs.get(2)).to.deep.equal(PCRS[2]);
      const measured = keystead(
        ["measure", "nitro", folder.write(`${form}.cose`, tee.issueDocument({ pcrs: PCRS, form })), "--json"],
        {},
      );
      expect(measured.code).to.equal(0);
      expect(jsonOf(measured).images.service.text).to.contain("nitro:pcr0=");
    });

  it("loosens nothing but the payload's root: what stood in documents before is refused as before", () => {
    const bytes = (...values: number[]) => Uint8Array.from(values);
    const payload = parseNitroDocument(buildNitroDocument({ form: "indefinite" })).payload;
    const definite = parseNitroDocument(buildNitroDocument()).payload;
    const pcrs = Buffer.from(payload).indexOf(Buffer.from([0xb0, 0x00, 0x58, 0x30]));
    const indefinitePcrs = concatBytes(
      payload.subarray(0, pcrs),
      bytes(0xbf),
      payload.subarray(pcrs + 1, pcrs + 1 + 16 * 51),
      bytes(0xff),
      payload.subarray(pcrs + 1 + 16 * 51),
    );
    const refused: readonly (readonly [string, Uint8Array, RegExp])[] = [
      ["no break", payload.subarray(0, -1), /^bytes\/truncated$/],
      ["two breaks", concatBytes(payload, bytes(0xff)), /^cbor\/trailing-bytes$/],
      ["a break for a value", concatBytes(payload.subarray(0, -1), bytes(0x61, 0x61, 0xff)), /^cbor\/unsupported$/],
      ["a definite map with a break", concatBytes(definite, bytes(0xff)), /^cbor\/trailing-bytes$/],
      ["an indefinite map of PCRs inside", indefinitePcrs, /^cbor\/not-canonical$/],
      ["an indefinite array", bytes(0x9f, 0xff), /^cbor\/not-canonical$/],
      ["an empty map", bytes(0xbf, 0xff), /^nitro\/bad-field$/],
      [
        "a key twice",
        concatBytes(payload.subarray(0, -1), bytes(0x65), Buffer.from("nonce"), bytes(0xf6, 0xff)),
        /duplicate-key$/,
      ],
      [
        "an unknown field",
        concatBytes(payload.subarray(0, -1), bytes(0x61, 0x61, 0x00, 0xff)),
        /^nitro\/unknown-field$/,
      ],
    ];
    expect(parseNitroDocument(buildNitroDocument({ rawPayload: payload })).pcrs.size).to.equal(16);
    for (const [what, rawPayload, code] of refused)
      expect(errorOf(() => parseNitroDocument(buildNitroDocument({ rawPayload }))).code, what).to.match(code);
    // The COSE_Sign1 around it stays definite: an array of four and an empty map.
    const document = buildNitroDocument({ form: "indefinite" });
    const outer = concatBytes(bytes(0x9f), document.subarray(1), bytes(0xff));
    expect(errorOf(() => parseNitroDocument(outer)).code).to.equal("cbor/not-canonical");
    const unprotected = concatBytes(document.subarray(0, 6), bytes(0xbf, 0xff), document.subarray(7));
    expect(errorOf(() => parseNitroDocument(unprotected)).code).to.equal("cbor/not-canonical");
  });

  supports(NITRO, "applications on a shared base image (Oyster, QOS)", "PCR16 and above tell them apart", async () => {
    const tees = await createTestTees();
    const images = new Map(
      [0x16, 0x17].map((byte) => {
        const { registers } = factsOf(verify({ pcrs: { ...PCRS, 16: fill(48, byte) } }), {});
        return [byte, buildImage("nitro", registers, "service", { include: ["pcr16"] }).image.registers];
      }),
    );
    try {
      const node = await createTestNode(tees);
      // A chain on which the first application's image is registered, and nothing else.
      const registered = images.get(0x16) ?? {};
      const decide = async ({ machine }: { machine: { registers: Readonly<Record<string, string>> } }) =>
        Object.entries(registered).every(([name, value]) => machine.registers[name] === value)
          ? ALLOWED
          : ({ ...ALLOWED, allowed: false, decision: "ImageUnknown" } as const);
      node.chain = { decide, decideKms: decide };
      const ask = async (pcr16: Uint8Array | undefined) => {
        const { nonce } = (await (await post(node.app, "/v1/challenge", {})).json()) as { nonce: `0x${string}` };
        const publicKey = fill(32, 9);
        const binding = { nonce: fromHex(nonce, "nonce"), serviceId: SERVICE, recipientPublicKey: publicKey };
        const document = tees.nitro.issueDocument({
          pcrs: { ...PCRS, ...(pcr16 === undefined ? {} : { 16: pcr16 }) },
          userData: buildReportData(binding),
          nonce: binding.nonce,
          publicKey,
          timestampMs: now() * 1000,
        });
        const evidence = { kind: "nitro", document: Buffer.from(document).toString("base64") };
        const request = { serviceId: SERVICE, evidence, recipientPublicKey: toHex(publicKey), nonce };
        const response = await post(node.app, "/v1/keys", request);
        const answer = (await response.json()) as { decision?: string; receipt?: { message: { imageId: string } } };
        return response.status === 200 ? answer.receipt?.message.imageId : answer.decision;
      };
      expect(await ask(fill(48, 0x16))).to.equal(IMAGE);
      expect(await ask(fill(48, 0x17))).to.equal("ImageUnknown");
      expect(await ask(undefined)).to.equal("ImageUnknown");
      await node.close();
    } finally {
      tees.folder.remove();
    }
  });

  supports(NITRO, "documents with a PCR that no image names", "measure asks a person to wave it through", () => {
    const file = folder.write(
      "pcr16.cose",
      tee.issueDocument({ pcrs: { ...PCRS, 16: fill(48, 0x16), 4: fill(48, 4) } }),
    );
    const run = (...options: string[]) => keystead(["measure", "nitro", file, ...options, "--json"]);
    const plain = run();
    expect(plain.code).to.equal(1);
    expect(jsonOf(plain).unnamed).to.deep.equal(["pcr16"]);
    expect(jsonOf(plain).measurement.findings.map(({ code }: { code: string }) => code)).to.include(
      "evidence/unnamed-register",
    );
    expect(keystead(["measure", "nitro", file]).stdout).to.contain("--allow-unnamed pcr16");
    // Another one's waiver, and one that is not there, wave nothing through.
    expect(run("--allow-unnamed", "pcr17").code).to.equal(1);
    expect(run("--allow-unnamed", "pcr16").code).to.equal(0);
    const named = run("--include", "pcr16");
    expect(named.code).to.equal(0);
    expect(jsonOf(named).images.service.text).to.contain(`pcr16=${"16".repeat(48)}`);
    // PCR4 (the instance) and zeros are nothing to wave through.
    expect(keystead(["measure", "nitro", folder.write("pcr4.cose", tee.issueDocument({ pcrs: PCRS }))]).code).to.equal(
      0,
    );
  });

  it("asks the same of the field's own document", function () {
    const file = folder.write("field.cose", fieldInput(this, "06-nitro-document-pcr16.synthetic.bin"));
    expect(keystead(["measure", "nitro", file]).code).to.equal(1);
    expect(keystead(["measure", "nitro", file, "--allow-unnamed", "pcr16"]).code).to.equal(0);
  });

  supports("nitro-cli", "describe-enclaves", "its array is read, and DEBUG_MODE is debug", () => {
    const enclave = (name: string, flags: string) => ({
      EnclaveName: name,
      EnclaveID: `i-0-enc${name}`,
      Flags: flags,
      ...JSON.parse(buildNitroPcrJson()),
    });
    const one = JSON.stringify([enclave("a", "NONE")], null, 2);
    expect(parseNitroPcrs(`Some progress\n[ E36 ] a line like nitro-cli's\n${one}`)).to.include({ debugMode: false });
    const run = (text: string) => keystead(["measure", "nitro", folder.write("enclaves.json", text), "--json"]);
    expect(run(one).code).to.equal(0);
    for (const debug of [JSON.stringify([enclave("a", "DEBUG_MODE")]), JSON.stringify(enclave("a", "DEBUG_MODE"))]) {
      const measured = run(debug);
      expect(measured.code).to.equal(1);
      expect(jsonOf(measured).unsafe).to.equal(true);
    }
    const several = run(JSON.stringify([enclave("a", "NONE"), enclave("b", "NONE")]));
    expect(several.code).to.equal(2);
    expect(errorCodeOf(several)).to.equal("nitro/several-enclaves");
    expect(several.stderr).to.contain("a, b");
    expect(errorCodeOf(run("[]"))).to.equal("nitro/no-measurements");
  });

  it("calls the field's own debug enclaves debug", function () {
    for (const name of ["07-describe-enclaves-debug.json", "07-describe-enclave-object-debug.json"]) {
      const measured = keystead(["measure", "nitro", folder.write(name, fieldInput(this, name)), "--json"]);
      expect(measured.code, name).to.equal(1);
      expect(jsonOf(measured).unsafe, name).to.equal(true);
    }
  });

  it("keeps the register names that images have: PCR0 to 31", () => {
    const pcrs = new Map([...NITRO_PCRS, [31, fill(48, 0x31)]]);
    const registers = factsOf(verify({ pcrs: Object.fromEntries(pcrs) }), {}).registers;
    expect(registers.pcr31).to.equal(toHex(fill(48, 0x31)));
  });
});
