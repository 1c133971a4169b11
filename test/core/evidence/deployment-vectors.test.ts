import { expect } from "chai";
import { fromHex, type Hex } from "../../../src/core/bytes.ts";
import { computeAggregates, computeComposeHash } from "../../../src/core/evidence/dstack.ts";
import {
  parseEventLog,
  readDstackFacts,
  replayEventLog,
  verifyEventLog,
} from "../../../src/core/evidence/event-log.ts";
import {
  computeMrConfigHash,
  encodeMrConfigId,
  parseMrConfig,
  verifyMrConfig,
} from "../../../src/core/evidence/mr-config.ts";
import {
  computeRtmr3,
  computeSnpWorkload,
  matchWorkload,
  parseImageFilter,
  parseSnpTable,
  parseTdxTable,
  type Rtmr3Scheme,
  resolveSnpPlatform,
} from "../../../src/core/evidence/secretvm.ts";
import { parseSnpReport, snpRegisters } from "../../../src/core/evidence/snp.ts";
import { computeLaunchDigest, parseLaunchInputs } from "../../../src/core/evidence/snp-launch.ts";
import { parseTdxQuote, tdxRegisters } from "../../../src/core/evidence/tdx.ts";
import { digest } from "../../helpers/deployment.ts";
import { errorOf } from "../../helpers/errors.ts";
import { loadVectors, NO_VECTORS, readVector, type Vector } from "../../helpers/vectors.ts";

/** Checks that belong to the verifiers of evidence, not to reading and recomputing. */
const ELSEWHERE = new Set(["quote", "report", "secp256k1-recover"]);
/** Vectors of these kinds that have only such checks, or none. */
const WITHOUT_CHECKS: readonly string[] = ["dstack-signatures"];

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
const with0x = (value: unknown): Hex => `0x${String(value)}`;
const quoteRegisters = (vector: Vector) => tdxRegisters(parseTdxQuote(readVector(vector, "quote")));
const reportRegisters = (vector: Vector) => snpRegisters(parseSnpReport(readVector(vector, "report")));

/** One function per check name of the manifest: it passes, or throws. */
const CHECKS: Readonly<Record<string, (vector: Vector) => void>> = {
  "event-log-replay-rtmr0..3": (vector) => {
    const log = parseEventLog(readVector(vector, "eventLog"));
    const { expected } = vector;
    const replayed = replayEventLog(log);
    expect(replayed).to.deep.equal({
      rtmr0: with0x(expected.rtMr0),
      rtmr1: with0x(expected.rtMr1),
      rtmr2: with0x(expected.rtMr2),
      rtmr3: with0x(expected.rtMr3),
    });
    expect(verifyEventLog(log, quoteRegisters(vector)).unchecked).to.deep.equal([]);
    const facts = readDstackFacts(log);
    expect(facts.appId).to.equal(with0x(expected.appId));
    expect(facts.composeHash).to.equal(with0x(expected.composeHash));
    expect(facts.instanceId).to.equal(with0x(expected.instanceId ?? ""));
    expect(facts.rootfsHash).to.equal(expected.rootfsHash === undefined ? undefined : with0x(expected.rootfsHash));
    expect(Buffer.from(fromHex(facts.keyProvider?.payload ?? "", "payload")).toString()).to.equal(expected.keyProvider);
    expect(log.events.filter(({ imr }) => imr === 3).map(({ name }) => name)).to.deep.equal(expected.rtmr3Events);
    expect(facts).to.deep.include({ ready: true, bootDone: true, repeated: [] });
  },
  "compose-hash": (vector) => {
    const bytes = readVector(vector, "appCompose");
    const composeHash = computeComposeHash(bytes);
    expect(composeHash).to.equal(with0x(vector.expected.composeHash));
    expect(readDstackFacts(parseEventLog(readVector(vector, "eventLog"))).composeHash).to.equal(composeHash);
    const { mr_config_id } = quoteRegisters(vector);
    if (mr_config_id !== with0x("00".repeat(48))) expect(mr_config_id).to.equal(encodeMrConfigId(1, composeHash));
  },
  "host-data-mr-config": (vector) => {
    const bytes = readVector(vector, "mrConfig");
    expect(computeMrConfigHash(bytes))
      .to.equal(with0x(vector.expected.hostData))
      .and.to.equal(reportRegisters(vector).host_data);
    verifyMrConfig(bytes, reportRegisters(vector));
    const { compose_hash, app_id } = vector.expected.mrConfig as Record<string, string>;
    expect(parseMrConfig(bytes)).to.include({
      composeHash: with0x(compose_hash),
      appId: with0x(app_id),
      keyProvider: "kms",
    });
    expect(JSON.parse(new TextDecoder().decode(bytes))).to.deep.equal(vector.expected.mrConfig);
  },
  "launch-measurement": (vector) => {
    const { measurement } = reportRegisters(vector);
    expect(measurement).to.equal(with0x(vector.expected.measurement));
    if (vector.files.launchInputs !== undefined) {
      expect(with0x(hex(computeLaunchDigest(parseLaunchInputs(readVector(vector, "launchInputs")))))).to.equal(
        measurement,
      );
      return;
    }
    const workload = snpWorkload(vector);
    expect(workload).to.deep.equal({
      measurement,
      cmdline: vector.expected.kernelCmdline,
      vcpus: vector.expected.vcpus,
    });
  },
  "registry-match": (vector) => {
    if (vector.tee === "sev-snp") {
      expect(snpWorkload(vector).measurement).to.equal(reportRegisters(vector).measurement);
      return;
    }
    const match = tdxMatch(vector);
    const name = (row: { size: string; environment: string; version: string }) =>
      `${row.size}/${row.environment}/${row.version}`;
    expect(match.candidates.map(name)).to.deep.equal(vector.expected.registryCandidates);
    expect(match.matches.map(name)).to.deep.equal([vector.expected.registryMatch]);
  },
  rtmr3: (vector) => {
    const compose = readVector(vector, "compose");
    const { expected } = vector;
    if (expected.rootfsData === undefined) {
      // A negative names no row: some row must reproduce the quote's RTMR3.
      expect(tdxMatch(vector).matches, "rows that reproduce RTMR3").to.have.length(1);
      return;
    }
    expect(computeComposeHash(compose)).to.equal(with0x(expected.composeSha256));
    const rootfs = fromHex(String(expected.rootfsData), "rootfs");
    expect(computeRtmr3({ compose, rootfs }, schemeOf(vector))).to.equal(with0x(expected.rtMr3));
    const rows = parseTdxTable(readVector(vector, "registry")).filter(
      ({ rootfs: known }) => known === with0x(expected.rootfsData),
    );
    expect(rows.map((row) => `${row.size}/${row.environment}/${row.version}`)).to.include(expected.registryMatch);
  },
};

const schemeOf = ({ expected }: Vector): Rtmr3Scheme =>
  expected.rtmr3Scheme === "dstack-events"
    ? { scheme: "dstack-events", appId: fromHex(String(expected.dstackAppId), "app id") }
    : { scheme: "extends" };

const tdxMatch = (vector: Vector) =>
  matchWorkload(
    parseTdxTable(readVector(vector, "registry")),
    quoteRegisters(vector),
    { compose: readVector(vector, "compose") },
    schemeOf(vector),
  );

const snpWorkload = (vector: Vector) => {
  const [environment, version] = String(vector.expected.registryMatch).split("/");
  const platform = resolveSnpPlatform(parseSnpTable(readVector(vector, "registry")), { environment, version });
  return computeSnpWorkload(platform, "small", { compose: readVector(vector, "compose") });
};

/** Vectors without checks of their own, by what they are. */
const SAMPLES: Readonly<Record<string, (vector: Vector) => void>> = {
  "secretvm-registry": (vector) => {
    expect(parseTdxTable(readVector(vector, "tdx"))).to.have.length(Number(vector.expected.tdxRows));
    expect(parseSnpTable(readVector(vector, "sev"))).to.have.length(Number(vector.expected.sevEntries));
  },
  "secretvm-image-json": (vector) => {
    const { image, wildcards } = parseImageFilter(readVector(vector, "image"));
    const names: Record<string, string> = { mr_td: "mrtd", mr_config: "mr_owner_config" };
    for (const [field, value] of Object.entries(vector.expected)) {
      const name = names[field] ?? field;
      if (value === null) expect(wildcards).to.include(name);
      else expect(image.registers[name]).to.equal(with0x(value));
    }
  },
};

describe("core/evidence on the deployment vectors", () => {
  const vectors = loadVectors();

  it("runs every vector of dstack and SecretVM", function () {
    if (vectors === undefined) {
      console.log(`      ${NO_VECTORS}`);
      this.skip();
    }
    const ours = vectors.filter(({ kind }) => kind === "dstack" || kind === "secretvm");
    const ran: string[] = [];
    for (const vector of ours) {
      if (WITHOUT_CHECKS.includes(vector.id)) continue;
      const sample = SAMPLES[vector.id];
      const checks = vector.checks.filter((name) => !ELSEWHERE.has(name));
      if (sample !== undefined) sample(vector);
      else if (vector.mustVerify) for (const name of checks) check(name)(vector);
      else {
        const failures = checks.map((name) => failureOf(() => check(name)(vector))).filter((why) => why !== undefined);
        expect(failures, vector.id).to.have.length(1);
        expect(failures[0], vector.id).to.include(
          vector.failure === "event-digest" ? "event-log/event-digest" : "reproduce RTMR3",
        );
      }
      expect(sample !== undefined || checks.length > 0, `${vector.id} has no check`).to.equal(true);
      ran.push(vector.id);
    }
    console.log(`      ${ran.length} vectors: ${ran.join(", ")}`);
    expect([...ran, ...WITHOUT_CHECKS].sort()).to.deep.equal(ours.map(({ id }) => id).sort());
  });

  it("refuses the forged payload though its digests replay", function () {
    const forged = vectors?.find(({ id }) => id === "dstack-neg-payload-forged");
    if (forged === undefined) {
      console.log(`      ${NO_VECTORS}`);
      this.skip();
    }
    const bytes = readVector(forged, "eventLog");
    const error = errorOf(() => parseEventLog(bytes));
    expect(error.code).to.equal("event-log/event-digest");
    expect(error.details.event).to.equal("compose-hash");
    console.log(`      1 vector: ${forged.id}`);
  });

  it("agrees with mr_aggregated's formula on a real quote", function () {
    const vector = vectors?.find(({ id }) => id === "dstack-mpc-2025-11");
    if (vector === undefined) {
      console.log(`      ${NO_VECTORS}`);
      this.skip();
    }
    const registers = quoteRegisters(vector);
    const get = (name: string): Hex => registers[name] ?? "0x";
    const log = parseEventLog(readVector(vector, "eventLog"));
    const aggregates = computeAggregates({
      variant: "tdx",
      mrtd: get("mrtd"),
      rtmr0: get("rtmr0"),
      rtmr1: get("rtmr1"),
      rtmr2: get("rtmr2"),
      rtmr3: replayEventLog(log).rtmr3,
      mrConfigId: get("mr_config_id"),
      mrOwner: get("mr_owner"),
      mrOwnerConfig: get("mr_owner_config"),
      keyProvider: readDstackFacts(log).keyProvider?.payload ?? "0x",
    });
    // TD report: MRTD at 184 of the quote, MR_CONFIG_ID, MR_OWNER and MR_OWNER_CONFIG at 232, RTMR0 to 3 at 376.
    const quote = Buffer.from(readVector(vector, "quote"));
    const joined = [quote.subarray(184, 232), quote.subarray(376, 568), quote.subarray(232, 376)];
    expect(aggregates.mrAggregated).to.equal(`0x${digest("sha256", ...joined).toString("hex")}`);
    console.log(`      1 vector: ${vector.id}`);
  });
});

function check(name: string): (vector: Vector) => void {
  const found = CHECKS[name];
  if (found === undefined) throw new Error(`no test knows the check ${name}`);
  return found;
}

/** The code or message of what `act` throws. */
function failureOf(act: () => void): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    if (error instanceof Error) return "code" in error ? `${String(error.code)} ${error.message}` : error.message;
    throw error;
  }
}
