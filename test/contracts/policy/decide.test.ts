import { expect } from "chai";
import { ZeroHash } from "ethers";
import fc from "fast-check";
import { network } from "hardhat";
import { image, imageId, KIND, measured, PLATFORM, tdxImage } from "../../helpers/images.ts";
import { DECISIONS, decide, UNKNOWN_KINDS } from "../../helpers/policy.ts";
import { deployOpenSuite, deploySuite, type Suite, TCB } from "../../helpers/suite.ts";

const connection = await network.create();
const { loadFixture } = connection.networkHelpers;
const device = measured("device", 32);
const QUESTION = { kind: KIND.tdx, platformId: imageId(PLATFORM.tdx), deviceId: device, tcbStatus: TCB.upToDate };

/** The policy with a platform of each kind, restricted devices for TDX, a KMS image, a revoked platform. */
async function deployRestricted(on: typeof connection): Promise<Suite> {
  const suite = await deployOpenSuite(on);
  const governor = suite.policy.connect(suite.governor);
  await governor.allowDevice(KIND.tdx, device);
  await governor.restrictDevices(KIND.tdx);
  await governor.allowKmsImage(tdxImage("kms"), "");
  await governor.allowPlatform(image(KIND.snp, { 0: measured("revoked") }), "");
  await governor.revokePlatform(imageId(image(KIND.snp, { 0: measured("revoked") })), "");
  return suite;
}

describe("PlatformPolicy: decide", () => {
  it("given a new deployment, every question is denied", async () => {
    const suite = await loadFixture(deploySuite);
    for (const [name, kind] of Object.entries(KIND)) {
      const platformId = imageId(PLATFORM[name as keyof typeof PLATFORM]);
      expect(await decide(suite, { ...QUESTION, kind, platformId })).to.equal("TeeSuspended");
    }
  });

  it("given several faults, the first in the order of Decision is the answer", async () => {
    const suite = await loadFixture(deployRestricted);
    const governor = suite.policy.connect(suite.governor);
    const guardian = suite.policy.connect(suite.guardian);
    const bad = { ...QUESTION, platformId: imageId(PLATFORM.snp), deviceId: ZeroHash, tcbStatus: TCB.outOfDate };
    const nowhere = { ...bad, platformId: ZeroHash };
    await guardian.suspendTee(KIND.tdx, "");
    await guardian.pauseRelease(3600, "");
    expect(await decide(suite, nowhere)).to.equal("ReleasePaused");
    await governor.resumeRelease();
    expect(await decide(suite, nowhere)).to.equal("TeeSuspended");
    await governor.enableTee(KIND.tdx);
    expect(await decide(suite, nowhere)).to.equal("TcbNotAccepted");
    expect(await decide(suite, { ...nowhere, tcbStatus: 0 })).to.equal("PlatformNotAllowed");
    expect(await decide(suite, { ...bad, tcbStatus: 0 })).to.equal("PlatformKindMismatch");
    expect(await decide(suite, { ...QUESTION, deviceId: ZeroHash })).to.equal("DeviceNotAllowed");
    expect(await decide(suite, QUESTION)).to.equal("Allowed");
  });

  it("each condition alone is enough to deny", async () => {
    const suite = await loadFixture(deployRestricted);
    const guardian = suite.policy.connect(suite.guardian);
    const cases: readonly [string, () => Promise<unknown>][] = [
      ["ReleasePaused", () => guardian.pauseRelease(60, "")],
      ["TeeSuspended", () => guardian.suspendTee(KIND.tdx, "")],
      ["TcbNotAccepted", () => guardian.rejectTcb(KIND.tdx, 1)],
      ["PlatformNotAllowed", () => guardian.revokePlatform(QUESTION.platformId, "")],
      ["DeviceNotAllowed", () => guardian.revokeDevice(KIND.tdx, device)],
    ];
    for (const [decision, act] of cases) {
      const snapshot = await connection.networkHelpers.takeSnapshot();
      expect(await decide(suite, QUESTION)).to.equal("Allowed");
      await act();
      expect(await decide(suite, QUESTION)).to.equal(decision);
      await snapshot.restore();
    }
  });

  it("what is revoked or suspended for one kind leaves the others allowed", async () => {
    const suite = await loadFixture(deployOpenSuite);
    const guardian = suite.policy.connect(suite.guardian);
    await guardian.suspendTee(KIND.tdx, "");
    await guardian.rejectTcb(KIND.snp, 1);
    await guardian.restrictDevices(KIND.nitro);
    const answers = [];
    for (const [name, kind] of Object.entries(KIND)) {
      const platformId = imageId(PLATFORM[name as keyof typeof PLATFORM]);
      answers.push(await decide(suite, { ...QUESTION, kind, platformId }));
    }
    expect(answers).to.deep.equal(["TeeSuspended", "TcbNotAccepted", "DeviceNotAllowed", "Allowed"]);
  });

  it("TCB statuses: exactly the accepted ones pass; Revoked, and a number that names none, never", async () => {
    const suite = await loadFixture(deployOpenSuite);
    const governor = suite.policy.connect(suite.governor);
    await governor.acceptTcb(KIND.tdx, 0x03bf);
    // All other kinds accept everything too: a shift past 16 bits would read a neighbour's set.
    for (const kind of [KIND.snp, KIND.nitro, KIND.dstack]) await governor.acceptTcb(kind, 0x03bf);
    const accepted: number[] = [];
    for (let tcbStatus = 0; tcbStatus < 256; tcbStatus++) {
      const answer = await decide(suite, { ...QUESTION, tcbStatus });
      if (answer === "Allowed") accepted.push(tcbStatus);
      else expect(answer).to.equal("TcbNotAccepted");
    }
    expect(accepted).to.deep.equal([0, 1, 2, 3, 4, 5, 7, 8, 9]);
  });

  it("given a number that names no kind, it is denied whatever is enabled", async () => {
    const suite = await loadFixture(deployOpenSuite);
    for (const kind of UNKNOWN_KINDS) {
      expect(await decide(suite, { ...QUESTION, kind }), `kind ${kind}`).to.equal("TeeSuspended");
    }
  });

  const id32 = fc.oneof(
    fc.constantFrom(...Object.values(PLATFORM).map(imageId), imageId(tdxImage("kms")), device, ZeroHash),
    fc.constant(imageId(image(KIND.snp, { 0: measured("revoked") }))),
    fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => `0x${Buffer.from(bytes).toString("hex")}`),
  );
  const questions = fc.record({
    kind: fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 0, max: 5 }) }, fc.integer({ min: 0, max: 255 })),
    platformId: id32,
    deviceId: id32,
    tcbStatus: fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 0, max: 9 }) }, fc.integer({ min: 0, max: 255 })),
  });

  it("never reverts for random input, and agrees with a model of the rules", async () => {
    const suite = await loadFixture(deployRestricted);
    const kinds = new Map(
      Object.entries(PLATFORM).map(([name, bytes]) => [imageId(bytes), KIND[name as keyof typeof KIND]]),
    );
    const seen = new Map<string, number>();
    await fc.assert(
      fc.asyncProperty(questions, async (question) => {
        const { kind, platformId, deviceId, tcbStatus } = question;
        const platformKind = kinds.get(platformId);
        let expected = "Allowed";
        if (kind < 1 || kind > 4) expected = "TeeSuspended";
        else if (![0, 1, 7].includes(tcbStatus)) expected = "TcbNotAccepted";
        else if (platformKind === undefined) expected = "PlatformNotAllowed";
        else if (platformKind !== kind) expected = "PlatformKindMismatch";
        else if (kind === KIND.tdx && deviceId !== device) expected = "DeviceNotAllowed";
        expect(await decide(suite, question)).to.equal(expected);
        seen.set(expected, (seen.get(expected) ?? 0) + 1);
      }),
      { numRuns: 400 },
    );
    expect(seen.size, `decisions met: ${[...seen.keys()].join(", ")}`).to.be.greaterThan(3);
  });

  it("authorizeKms never reverts for random input, and allows nothing but its images", async () => {
    const suite = await loadFixture(deployRestricted);
    await fc.assert(
      fc.asyncProperty(id32, questions, async (kmsId, { platformId, deviceId, tcbStatus }) => {
        const answer = DECISIONS[Number(await suite.policy.authorizeKms(kmsId, platformId, deviceId, tcbStatus))];
        // A KMS node is up to date, or of a TEE without TCB levels; then the policy decides as for services.
        const isKms = kmsId === imageId(tdxImage("kms"));
        const isCurrent = tcbStatus === 0 || tcbStatus === 7;
        const asked = await decide(suite, { kind: KIND.tdx, platformId, deviceId, tcbStatus });
        const expected = isKms ? (isCurrent ? asked : "TcbNotAccepted") : "KmsImageNotAllowed";
        expect(answer).to.equal(expected);
      }),
      { numRuns: 200 },
    );
  });
});
