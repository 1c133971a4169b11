import { expect } from "chai";
import { detectEvidence } from "../../../src/core/evidence/detect.ts";
import { parseNitroDocument } from "../../../src/core/evidence/nitro.ts";
import { parseSnpReport, type SnpTcb } from "../../../src/core/evidence/snp.ts";
import { parseTdxQuote } from "../../../src/core/evidence/tdx.ts";
import { errorOf } from "../../helpers/errors.ts";
import { loadVectors, NO_VECTORS, readVector, type Vector } from "../../helpers/vectors.ts";

/** What the parser itself must refuse, by the manifest's reason, and how. All other negatives parse: they fail when they are verified. */
const REFUSED: Readonly<Record<string, string>> = {
  "tdx-neg-truncated": "bytes/truncated",
  "tdx-neg-trailing": "tdx/trailing-bytes",
  "snp-neg-truncated": "snp/wrong-length",
  "nitro-neg-truncated": "bytes/truncated",
};

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const optionalHex = (bytes: Uint8Array | undefined): string | null => (bytes === undefined ? null : hex(bytes));

/** Each field that the manifest may expect of a quote, as the parser gives it. */
function tdxFields(bytes: Uint8Array): Record<string, unknown> {
  const quote = parseTdxQuote(bytes);
  const { body } = quote;
  const fields: Record<string, unknown> = {
    quoteVersion: quote.header.version,
    teeType: `0x${quote.header.teeType.toString(16).padStart(8, "0")}`,
    debug: quote.debug,
    reportDataHex: hex(body.reportData),
    quoteBytes: bytes.length,
    signedAndSignatureBytes: quote.length,
    trailingPaddingBytes: quote.padding,
  };
  for (const [name, value] of Object.entries(body)) if (value instanceof Uint8Array) fields[name] = hex(value);
  return fields;
}

function snpFields(bytes: Uint8Array): Record<string, unknown> {
  const report = parseSnpReport(bytes);
  const tcb = (value: SnpTcb) => hex(value.bytes);
  return {
    product: report.product,
    version: report.version,
    guestSvn: report.guestSvn,
    policy: `0x${report.policy.value.toString(16)}`,
    familyId: hex(report.familyId),
    imageId: hex(report.imageId),
    vmpl: report.vmpl,
    platformInfo: `0x${report.platformInfo.toString(16)}`,
    signingKey: report.signingKey.toUpperCase(),
    authorKeyEn: Number(report.authorKeyEnabled),
    maskChipKey: Number(report.maskChipKey),
    reportDataHex: hex(report.reportData),
    measurement: hex(report.measurement),
    hostData: hex(report.hostData),
    idKeyDigest: hex(report.idKeyDigest),
    authorKeyDigest: hex(report.authorKeyDigest),
    reportId: hex(report.reportId),
    reportIdMa: hex(report.reportIdMa),
    chipId: hex(report.chipId),
    currentTcb: tcb(report.currentTcb),
    reportedTcb: tcb(report.reportedTcb),
    committedTcb: tcb(report.committedTcb),
    launchTcb: tcb(report.launchTcb),
    currentBuild: report.current.build,
    currentMinor: report.current.minor,
    currentMajor: report.current.major,
    debug: report.policy.debug,
    migrateMa: report.policy.migrateMa,
    smt: report.policy.smt,
    signatureAlgo: 1,
    // the endorsement key's TCB, where the vector's chain is right: the same numbers, decoded from the certificate
    vekTcb: {
      bootloader: report.reportedTcb.bootloader,
      tee: report.reportedTcb.tee,
      snp: report.reportedTcb.snp,
      ucode: report.reportedTcb.microcode,
      fmc: report.reportedTcb.fmc ?? null,
    },
  };
}

function nitroFields(bytes: Uint8Array): Record<string, unknown> {
  const document = parseNitroDocument(bytes);
  return {
    moduleId: document.moduleId,
    digest: document.digest,
    timestampMs: Number(document.timestampMs),
    debug: document.debug,
    pcrs: Object.fromEntries([...document.pcrs].map(([index, value]) => [String(index), hex(value)])),
    userDataHex: optionalHex(document.userData),
    nonceHex: optionalHex(document.nonce),
    publicKeyHex: optionalHex(document.publicKey),
  };
}

/** The evidence in a vector's files: which role, which parser, and the fields that it must at least be compared on. */
const PARSERS: Readonly<
  Record<string, { read(bytes: Uint8Array): Record<string, unknown>; format: string; must: readonly string[] }>
> = {
  quote: {
    read: tdxFields,
    format: "tdx-quote",
    must: [
      "mrTd",
      "rtMr0",
      "rtMr1",
      "rtMr2",
      "rtMr3",
      "mrSeam",
      "mrSignerSeam",
      "mrConfigId",
      "mrOwner",
      "mrOwnerConfig",
    ],
  },
  report: { read: snpFields, format: "snp-report", must: ["measurement", "hostData", "debug", "policy"] },
  document: { read: nitroFields, format: "nitro-document", must: ["pcrs", "debug"] },
};

describe("core/evidence against the vectors", () => {
  const vectors = loadVectors();
  const covered: string[] = [];

  after(() => {
    if (covered.length > 0) console.log(`      vectors read (${covered.length}): ${covered.join(" ")}`);
  });

  if (vectors === undefined) {
    it("reads every vector", function () {
      console.log(`      ${NO_VECTORS}`);
      this.skip();
    });
    return;
  }

  const cases = vectors.flatMap((vector) =>
    Object.entries(PARSERS).flatMap(([role, parser]) =>
      vector.files[role] === undefined ? [] : [{ vector, role, parser }],
    ),
  );

  it("has evidence of every kind among them", () => {
    for (const role of Object.keys(PARSERS))
      expect(
        cases.some((one) => one.role === role),
        role,
      ).to.equal(true);
    for (const id of Object.keys(REFUSED))
      expect(
        cases.some(({ vector }) => vector.id === id),
        id,
      ).to.equal(true);
  });

  for (const { vector, role, parser } of cases) {
    const refused = REFUSED[vector.id];
    it(`${vector.id}: ${refused ?? "every expected field"}`, () => {
      const bytes = readVector(vector, role);
      if (refused === undefined) compare(vector, parser, bytes);
      else expect(errorOf(() => parser.read(bytes)).code).to.equal(refused);
      covered.push(vector.id);
    });
  }

  function compare(vector: Vector, parser: (typeof PARSERS)[string], bytes: Uint8Array): void {
    const actual = parser.read(bytes);
    if (!vector.mustVerify) delete actual.vekTcb;
    const shared = Object.keys(vector.expected).filter((name) => actual[name] !== undefined);
    expect(shared).to.include.members([...parser.must]);
    for (const name of shared) expect(actual[name], name).to.deep.equal(vector.expected[name]);
    expect(shared.length, "fields compared").to.be.greaterThan(0);
    expect(detectEvidence(bytes).format).to.equal(parser.format);
  }
});
