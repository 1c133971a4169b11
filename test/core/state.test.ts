import { expect } from "chai";
import { Interface } from "ethers";
import { KMS_REGISTRY_ABI } from "../../src/chain/abi/kms-registry.ts";
import { PLATFORM_POLICY_ABI } from "../../src/chain/abi/platform-policy.ts";
import type { Hex } from "../../src/core/bytes.ts";
import { decodePolicyEvent, decodeServiceEvent, type PolicyEvent, type ServiceEvent } from "../../src/core/events.ts";
import { foldAll } from "../../src/core/history.ts";
import { rebuildPolicy } from "../../src/core/policy-state.ts";
import {
  imageHeader,
  imageStatus,
  rebuildService,
  type TimedEntry,
  viewService,
  ZERO_ADDRESS,
  pendingSecrets,
  secretsAt,
} from "../../src/core/state.ts";
import { imageId, PLATFORM, tdxImage } from "../helpers/images.ts";
import { logOf } from "../helpers/logs.ts";

const SERVICE: Hex = `0x${"51".repeat(20)}`;
const ADMIN: Hex = `0x${"ad".repeat(20)}`;
const GUARDIAN: Hex = `0x${"60".repeat(20)}`;
const NEXT: Hex = `0x${"61".repeat(20)}`;
const DEVICE: Hex = `0x${"de".repeat(32)}`;
const IMAGE = tdxImage("a");
const ID = imageId(IMAGE) as Hex;
const OTHER = tdxImage("b");
const OTHER_ID = imageId(OTHER) as Hex;

type Told = readonly [name: string, fields: readonly unknown[], timestamp?: number];

function service(...told: readonly Told[]): readonly TimedEntry<ServiceEvent>[] {
  const abi = new Interface(KMS_REGISTRY_ABI);
  return told.map(([name, fields, timestamp = 1000], at) => {
    const log = logOf(abi, name, [SERVICE, ...fields, at + 1, at], { blockNumber: at + 1 });
    return { sequence: at + 1, log, event: decodeServiceEvent(log), timestamp };
  });
}

function policy(...told: readonly Told[]): readonly TimedEntry<PolicyEvent>[] {
  const abi = new Interface(PLATFORM_POLICY_ABI);
  return told.map(([name, fields, timestamp = 1000], at) => {
    const log = logOf(abi, name, [...fields, at + 1, at], { blockNumber: at + 1 });
    return { sequence: at + 1, log, event: decodePolicyEvent(log), timestamp };
  });
}

const CREATED: Told = ["CreateService", [ADMIN, ZERO_ADDRESS, 60, true, "text"]];
const ADDED: Told = ["AddImageToService", [ADMIN, ID, IMAGE, "v1", 2000]];

describe("rebuilt service", () => {
  it("without events does not exist", () => {
    expect(viewService(rebuildService([]), 5)).to.deep.include({ exists: false, admin: ZERO_ADDRESS, sequence: 0 });
  });

  it("counts, points and hashes as its events do", () => {
    const entries = service(CREATED, ADDED);
    const view = viewService(rebuildService(entries), 5);
    const historyHead = foldAll(entries.map(({ log }) => log));
    expect(view).to.deep.include({ exists: true, upgradeable: true, sequence: 2, lastUpdateBlock: 2, historyHead });
  });

  it("has its guardian changed at the very second, not before", () => {
    const state = rebuildService(service(CREATED, ["SetServiceGuardian", [ADMIN, NEXT, GUARDIAN, 5000]]));
    expect(viewService(state, 4999)).to.deep.include({
      guardian: GUARDIAN,
      nextGuardian: NEXT,
      nextGuardianFrom: 5000,
    });
    expect(viewService(state, 5000)).to.deep.include({
      guardian: NEXT,
      nextGuardian: ZERO_ADDRESS,
      nextGuardianFrom: 0,
    });
  });

  it("lets a guardian that left stop what was announced before, for one notice period, whoever came after it", () => {
    const dismissed: Told = ["SetServiceGuardian", [ADMIN, ZERO_ADDRESS, GUARDIAN, 5000]];
    const named: Told = ["SetServiceGuardian", [ADMIN, NEXT, ZERO_ADDRESS, 5010]];
    for (const state of [
      rebuildService(service(CREATED, dismissed)),
      rebuildService(service(CREATED, dismissed, named)),
    ]) {
      expect(viewService(state, 5059)).to.deep.include({ formerGuardian: GUARDIAN, formerGuardianUntil: 5060 });
      expect(viewService(state, 5060)).to.deep.include({ formerGuardian: ZERO_ADDRESS, formerGuardianUntil: 0 });
    }
    const early = viewService(rebuildService(service(CREATED, dismissed)), 4999);
    expect(early).to.deep.include({ guardian: GUARDIAN, formerGuardian: ZERO_ADDRESS });
  });

  it("that was offered at its creation is its creator's until the other accepts", () => {
    const offered: Told = ["CreateService", [ADMIN, NEXT, 60, true, "text"]];
    expect(viewService(rebuildService(service(offered)), 5)).to.deep.include({ admin: ADMIN, pendingAdmin: NEXT });
    const accepted: Told = ["AcceptServiceAdmin", [NEXT, ADMIN]];
    const after = viewService(rebuildService(service(offered, accepted)), 5);
    expect(after).to.deep.include({ admin: NEXT, pendingAdmin: ZERO_ADDRESS });
  });

  it("has its TCB rule lapse at the very second, and come back for good", () => {
    const lapsing: Told = ["SetRequireUpToDateTcb", [ADMIN, false, 5000]];
    const state = rebuildService(service(CREATED, lapsing));
    expect(viewService(state, 4999)).to.deep.include({ requireUpToDateTcb: true, tcbRuleEnds: 5000 });
    expect(viewService(state, 5000)).to.deep.include({ requireUpToDateTcb: false, tcbRuleEnds: 0 });
    const back = rebuildService(service(CREATED, lapsing, ["SetRequireUpToDateTcb", [ADMIN, true, 4000]]));
    expect(viewService(back, 9_999_999)).to.deep.include({ requireUpToDateTcb: true, tcbRuleEnds: 0 });
  });

  it("has images that are pending, active, retiring and retired at the very second", () => {
    const retired: Told = ["RetireImageFromService", [ADMIN, ID, 0, 3000]];
    const image = rebuildService(service(CREATED, ADDED)).images.get(ID);
    const ending = rebuildService(service(CREATED, ADDED, retired)).images.get(ID);
    if (image === undefined || ending === undefined) throw new Error("no image");
    expect([1999, 2000, 2999, 3000].map((now) => imageStatus(image, now))).to.deep.equal([
      "pending",
      "active",
      "active",
      "active",
    ]);
    expect([1999, 2000, 2999, 3000].map((now) => imageStatus(ending, now))).to.deep.equal([
      "pending",
      "retiring",
      "retiring",
      "retired",
    ]);
  });

  it("keeps removed images, and lists one that comes back afresh", () => {
    const removed: Told = ["RemoveImageFromService", [ADMIN, ID, "bad"]];
    const gone = rebuildService(service(CREATED, ADDED, removed)).images.get(ID);
    expect(gone).to.deep.include({ listing: "removed", reason: "bad", description: "v1", listedBy: 2 });
    expect(gone && imageStatus(gone, 2500)).to.equal("removed");
    const again: Told = ["AddImageToService", [ADMIN, ID, IMAGE, "v2", 9000]];
    const back = rebuildService(service(CREATED, ADDED, removed, again)).images.get(ID);
    expect(back).to.deep.equal({
      imageId: ID,
      image: IMAGE,
      kind: 1,
      mask: 31,
      description: "v2",
      activeFrom: 9000,
      activeUntil: 0,
      listing: "listed",
      restrictsDevices: false,
      listedBy: 4,
    });
  });

  it("that is sealed has no admin, and its image is active from the time that is logged", () => {
    const state = rebuildService(service(["AddSecretKeyByImage", [ADMIN, ID, IMAGE, false, "", 7777], 9999]));
    expect(viewService(state, 8000)).to.deep.include({ upgradeable: false, admin: ZERO_ADDRESS, noticePeriod: 0 });
    expect(state.images.get(ID)?.activeFrom).to.equal(7777);
  });

  it("binds images to its devices from the first such event on; the one of an immutable service in any case", () => {
    const device: Told = ["SetDevice", [ADMIN, DEVICE, true, 1000]];
    const later: Told = ["AddImageToService", [ADMIN, OTHER_ID, OTHER, "v2", 9000]];
    const { images } = rebuildService(service(CREATED, ADDED, device, later));
    expect([images.get(ID)?.restrictsDevices, images.get(OTHER_ID)?.restrictsDevices]).to.deep.equal([false, true]);
    const only = rebuildService(service(["AddSecretKeyByImage", [ADMIN, ID, IMAGE, false, "", 7777]], device));
    expect(only.images.get(ID)?.restrictsDevices).to.equal(true);
  });

  it("restricts devices exactly if it has such events, and remembers those taken off", () => {
    expect(rebuildService(service(CREATED)).restrictDevices).to.equal(false);
    const state = rebuildService(
      service(CREATED, ["SetDevice", [ADMIN, DEVICE, true, 1000]], ["SetDevice", [ADMIN, DEVICE, false, 1500]]),
    );
    expect(state.restrictDevices).to.equal(true);
    expect([...state.devices]).to.deep.equal([[DEVICE, 0]]);
  });

  it("has the latest ciphertext of a name that is in force, and knows those to come", () => {
    const state = rebuildService(
      service(
        CREATED,
        ["PublishSealedSecrets", [ADMIN, "env", "0x01", 1000]],
        ["PublishSealedSecrets", [ADMIN, "env", "0x02", 2000]],
        ["PublishSealedSecrets", [ADMIN, "env", "0x03", 3000]],
      ),
    );
    const inForce = (now: number) => secretsAt(state, now).get("env")?.ciphertext;
    expect([999, 1000, 1999, 2000, 3000].map(inForce)).to.deep.equal([undefined, "0x01", "0x01", "0x02", "0x03"]);
    expect(pendingSecrets(state, 1999).map(({ publishedBy }) => publishedBy)).to.deep.equal([3, 4]);
  });

  it("forgets secrets that were withdrawn before they were in force, and no others", () => {
    const told: readonly Told[] = [
      CREATED,
      ["PublishSealedSecrets", [ADMIN, "env", "0x01", 1000]],
      ["PublishSealedSecrets", [ADMIN, "env", "0x02", 2000]],
      ["PublishSealedSecrets", [ADMIN, "other", "0x03", 3000]],
    ];
    const left = (since: number, before: number) => {
      const { secrets } = rebuildService(
        service(...told, ["WithdrawPendingSecrets", [GUARDIAN, "why", since, before]]),
      );
      return [...secrets.values()].flat().map(({ ciphertext }) => ciphertext);
    };
    expect(left(1000, 2 ** 40 - 1)).to.deep.equal(["0x01"]);
    expect(left(1999, 3000), "by a guardian that left: what takes effect later stays").to.deep.equal(["0x01", "0x03"]);
    expect(left(3000, 2 ** 40 - 1)).to.deep.equal(["0x01", "0x02", "0x03"]);
    const again = rebuildService(
      service(
        ...told,
        ["WithdrawPendingSecrets", [GUARDIAN, "why", 1500, 2 ** 40 - 1]],
        ["PublishSealedSecrets", [ADMIN, "env", "0x04", 2500]],
      ),
    );
    expect(secretsAt(again, 2500).get("env")?.ciphertext, "what comes after it counts").to.equal("0x04");
  });

  it("names the events that were not understood", () => {
    const entries = service(CREATED, ADDED).map((entry, at) => (at === 1 ? { ...entry, event: undefined } : entry));
    expect(rebuildService(entries)).to.deep.include({ notUnderstood: [2], sequence: 2 });
  });
});

describe("rebuilt policy", () => {
  const id = imageId(PLATFORM.tdx) as Hex;
  it("has entries since the time of the block that set them", () => {
    const state = rebuildPolicy(
      policy(["AllowPlatform", [id, ADMIN, PLATFORM.tdx, "p"], 1000], ["RevokePlatform", [id, ADMIN, "bad"], 2000]),
    );
    expect(state.platforms.get(id)).to.deep.include({
      state: "revoked",
      since: 2000,
      reason: "bad",
      description: "p",
      kind: 1,
    });
  });
  it("has a lifted pause end at the time of the block that lifted it", () => {
    const state = rebuildPolicy(
      policy(["PauseRelease", [ADMIN, 9000, "why"], 5000], ["ResumeRelease", [ADMIN, 9000], 6000]),
    );
    expect(state.pausedUntil).to.equal(6000);
  });
  it("keeps kinds apart", () => {
    const { tees } = rebuildPolicy(
      policy(["EnableTee", [1, ADMIN]], ["AcceptTcb", [2, ADMIN, 0, 5]], ["SuspendTee", [1, ADMIN, ""]]),
    );
    expect(tees.get(1)).to.deep.include({ enabled: false, acceptedTcb: 0 });
    expect(tees.get(2)).to.deep.include({ enabled: false, acceptedTcb: 5 });
  });
});

describe("imageHeader", () => {
  it("reads kind and mask, and zero from what is too short", () => {
    expect(imageHeader("0x01040000000aff")).to.deep.equal({ kind: 4, mask: 10 });
    expect(imageHeader("0x0104000000")).to.deep.equal({ kind: 0, mask: 0 });
  });
});
