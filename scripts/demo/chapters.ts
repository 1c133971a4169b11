import { createHash } from "node:crypto";
import CliTable from "cli-table3";
import { keccak256, toUtf8Bytes } from "ethers";
import { prepareUpgrade } from "../../deploy/upgrade.ts";
import { auditSuite } from "../../src/audit/all.ts";
import { auditTable, timelineTable } from "../../src/audit/table.ts";
import { connect } from "../../src/chain/client.ts";
import { compareStates, computeStateDigest } from "../../src/chain/state-digest.ts";
import { type Hex, toHex } from "../../src/core/bytes.ts";
import { encodeImage, formatImage, imageId } from "../../src/core/image.ts";
import { chapter, check, detail, did, refused } from "./stage.ts";
import {
  byGuardian,
  bySafe,
  DAY,
  decide,
  execute,
  mined,
  operation,
  outcomeOf,
  outcomeOfSafe,
  outcomeOfSending,
  schedule,
  type World,
  wait,
} from "./world.ts";

/** A measurement as a TEE would report it: SHA-384, 48 bytes. */
const measured = (label: string): Hex => `0x${createHash("sha384").update(label).digest("hex")}`;

const FIRMWARE = { mrtd: measured("firmware"), rtmr1: measured("kernel"), rtmr2: measured("command line and initrd") };

/** A TDX VM: firmware, kernel and command line as on the allowed platform, and a workload of its own in RTMR3. */
function vm(workload: string) {
  const registers = { ...FIRMWARE, rtmr0: measured("VM size"), rtmr3: measured(workload) };
  const bytes = encodeImage({ kind: "tdx", registers });
  return { bytes: toHex(bytes), id: imageId(bytes) };
}

const PLATFORM_IMAGE = { kind: "tdx", registers: FIRMWARE } as const;
const PLATFORM = toHex(encodeImage(PLATFORM_IMAGE));
const PLATFORM_ID = imageId(encodeImage(PLATFORM_IMAGE));
const TDX = 1;
const UP_TO_DATE = 0;
const NOTICE = 7 * DAY;

const V1 = vm("wallet 1.0");
const V2 = vm("wallet 2.0");
const VAULT = vm("vault, final");
const INTRUDER = vm("wallet 2.0 with a back door");

/** What a node asks for a machine that runs `image` on the platform. */
const machine = (serviceId: string, image: { id: string }) => ({
  serviceId,
  imageId: image.id,
  platformId: PLATFORM_ID,
  deviceId: keccak256(toUtf8Bytes("device")),
  tcbStatus: UP_TO_DATE,
});

const short = (hex: string) => `${hex.slice(0, 10)}…${hex.slice(-4)}`;
const saltOf = (name: string) => keccak256(toUtf8Bytes(`demo/${name}`));

/** Service ids that later chapters ask about. */
export interface Services {
  readonly wallet: string;
}

export async function governanceOpensThePlatform(world: World): Promise<void> {
  chapter(
    "Governance opens a platform",
    "Nothing is allowed at first. Loosening goes governance Safe (2 of 3) → timelock → execution, in public, with a veto for the guardian.",
  );
  const { policy, deployer, deployment } = world;
  const to = deployment.contracts.policy.address;
  const opening = operation(world, "open-tdx", [
    { to, data: policy.interface.encodeFunctionData("enableTee", [TDX]) },
    { to, data: policy.interface.encodeFunctionData("acceptTcb", [TDX, 1 << UP_TO_DATE]) },
    { to, data: policy.interface.encodeFunctionData("allowPlatform", [PLATFORM, "TDX reference firmware and OS"]) },
  ]);
  await refused("a single key allows a platform", "AccessControlUnauthorizedAccount", () =>
    outcomeOfSending(world, deployer, to, opening.calls[2]?.data ?? "0x"),
  );
  await schedule(world, opening, "enable TDX, accept UpToDate, allow one platform");
  detail(`platform ${formatImage(PLATFORM_IMAGE).slice(0, 60)}…`);
  await refused("execution before the delay is over", "TimelockUnexpectedOperationState", () =>
    outcomeOfSafe(() => bySafe(world, opening.execute)),
  );
  await wait(world, deployment.delaySeconds, "everyone can see what is coming; the guardian could cancel");
  await execute(world, opening);
  check("the platform is allowed", (await policy.platform(PLATFORM_ID)).state === 1n);
}

export async function services(world: World): Promise<Services> {
  chapter(
    "A service that may be upgraded",
    "createService and addImageToService. The first image is active at once; every later one waits out the notice period, so that users see it coming.",
  );
  const { registry, ada, eve, deployment } = world;
  const config = {
    admin: ada.address,
    noticePeriod: NOTICE,
    description: "a wallet that keeps its state over upgrades",
    devices: [],
    requireUpToDateTcb: true,
  };
  const wallet = await registry.serviceIdFor(ada.address, saltOf("wallet"));
  const created = await mined(registry.createService(config, saltOf("wallet")));
  did(`createService: ${wallet}, upgradeable, notice period 7 days (${created.gasUsed} gas)`);
  const first = await mined(registry.addImageToService(wallet, V1.bytes, "wallet 1.0"));
  did(`addImageToService: wallet 1.0 ${short(V1.id)} (${first.gasUsed} gas)`);
  check("wallet 1.0 may have the keys", (await decide(world, machine(wallet, V1))) === "Allowed");

  const to = deployment.contracts.registry.address;
  await refused("a stranger adds an image", "KmsRegistry_NotAdmin", () =>
    outcomeOfSending(
      world,
      eve,
      to,
      registry.interface.encodeFunctionData("addImageToService", [wallet, INTRUDER.bytes, "trust me"]),
    ),
  );
  check(
    "a machine with an unknown image is denied",
    (await decide(world, machine(wallet, INTRUDER))) === "ImageUnknown",
  );

  const second = await mined(registry.addImageToService(wallet, V2.bytes, "wallet 2.0"));
  did(`addImageToService: wallet 2.0 ${short(V2.id)} (${second.gasUsed} gas)`);
  check("wallet 2.0 is pending, and denied", (await decide(world, machine(wallet, V2))) === "ImagePending");
  await wait(world, NOTICE, "the notice period");
  check("wallet 2.0 may have the keys", (await decide(world, machine(wallet, V2))) === "Allowed");

  const { timestamp } = (await world.connection.ethers.provider.getBlock("latest")) ?? { timestamp: 0 };
  await mined(registry.retireImageFromService(wallet, V1.id, timestamp + 30 * DAY));
  did("retireImageFromService: wallet 1.0 has 30 days left");
  check("wallet 1.0 still may have the keys", (await decide(world, machine(wallet, V1))) === "Allowed");
  await wait(world, 30 * DAY, "the grace window");
  check("wallet 1.0 is retired, and denied", (await decide(world, machine(wallet, V1))) === "ImageRetired");
  return { wallet };
}

export async function sealedService(world: World): Promise<void> {
  chapter(
    "A service that never changes",
    "addSecretKeyByImage: one image, no admin, for ever. Nobody can add another, its creator included.",
  );
  const { registry, ada, deployment } = world;
  const vault = await registry.serviceIdFor(ada.address, saltOf("vault"));
  const created = await mined(
    registry.addSecretKeyByImage(VAULT.bytes, [], true, saltOf("vault"), "a vault that nobody can change", "0x"),
  );
  did(`addSecretKeyByImage: ${vault} (${created.gasUsed} gas)`);
  check("its image may have the keys", (await decide(world, machine(vault, VAULT))) === "Allowed");
  check("another image is denied", (await decide(world, machine(vault, V2))) === "ImageUnknown");

  const to = deployment.contracts.registry.address;
  const add = registry.interface.encodeFunctionData("addImageToService", [vault, V2.bytes, "an upgrade after all"]);
  await refused("its creator adds an image", "KmsRegistry_NotAdmin", () => outcomeOfSending(world, ada, to, add));
  const again = registry.interface.encodeFunctionData("createService", [
    { admin: ada.address, noticePeriod: 0, description: "", devices: [], requireUpToDateTcb: false },
    saltOf("vault"),
  ]);
  await refused(
    "its upgradeability flipped, by creating it again as upgradeable",
    "KmsRegistry_ServiceAlreadyExists",
    () => outcomeOfSending(world, ada, to, again),
  );
  await refused("its upgradeability flipped, by governance", "KmsRegistry_NotAdmin", () =>
    outcomeOf(world, deployment.contracts.timelock.address, to, add),
  );
  const { upgradeable, admin } = await registry.service(vault);
  check("it has no admin and is not upgradeable", !upgradeable && BigInt(admin) === 0n);
}

export async function emergency(world: World, { wallet }: Services): Promise<void> {
  chapter(
    "An emergency",
    "The platform's firmware turns out to be broken. Tightening needs no timelock: the guardian Safe revokes it in one transaction.",
  );
  const { policy, deployment, connection } = world;
  const to = deployment.contracts.policy.address;
  const before = await connection.ethers.provider.getBlock("latest");
  const reason = "firmware advisory 2026-11";
  const { blockNumber } = await byGuardian(
    world,
    to,
    policy.interface.encodeFunctionData("revokePlatform", [PLATFORM_ID, reason]),
  );
  did(`revokePlatform by the guardian Safe: ${reason}`);
  check("it took one block, no waiting", blockNumber - (before?.number ?? 0) === 1);
  check(
    "every machine on that platform is denied",
    (await decide(world, machine(wallet, V2))) === "PlatformNotAllowed",
  );
  const allow = policy.interface.encodeFunctionData("allowPlatform", [PLATFORM, "please"]);
  await refused("the guardian allows it again", "AccessControlUnauthorizedAccount", () =>
    outcomeOfSafe(() => byGuardian(world, to, allow)),
  );
  const again = operation(world, "allow-platform-again", [
    { to, data: policy.interface.encodeFunctionData("allowPlatform", [PLATFORM, "firmware fixed, same measurement"]) },
  ]);
  await schedule(world, again, "allow the platform again");
  await wait(world, deployment.delaySeconds, "what was revoked comes back through the slow lane only");
  await execute(world, again);
  check("wallet 2.0 may have the keys again", (await decide(world, machine(wallet, V2))) === "Allowed");
}

export async function upgradeAndBack(world: World, { wallet }: Services, folder: string): Promise<void> {
  chapter(
    "Both contracts are upgraded, and rolled back",
    "A second version of each is checked, deployed and put behind the proxies through the timelock, in one operation. Then the way back, prepared beforehand.",
  );
  const { registry, policy, deployer, deployment, connection } = world;
  const { contracts } = deployment;
  const spec = { id: "v2", policy: "PlatformPolicyV2", registry: "KmsRegistryV2" };
  const { operation: forward, rollback, ...next } = await prepareUpgrade(connection, deployment, spec, did, { folder });

  const upgradeTo = registry.interface.encodeFunctionData("upgradeTo", [next.registryImplementation.address]);
  await refused("a single key upgrades", "AccessControlUnauthorizedAccount", () =>
    outcomeOfSending(world, deployer, contracts.registry.address, upgradeTo),
  );
  await schedule(world, forward, "both proxies to version 2");
  await refused("the upgrade before its delay is over", "TimelockUnexpectedOperationState", () =>
    outcomeOfSafe(() => bySafe(world, forward.execute)),
  );
  await schedule(world, rollback, "both proxies back, executable only after the upgrade");
  await wait(world, deployment.delaySeconds, "the timelock");

  const steps = [
    [forward, "2.0.0", "the upgrade"],
    [rollback, "1.0.0", "the rollback"],
  ] as const;
  for (const [step, version, name] of steps) {
    await execute(world, step);
    const block = await connection.ethers.provider.getBlockNumber();
    const versions = [await registry.version(), await policy.version()];
    check(
      `both contracts are at ${version}`,
      versions.every((v) => v === version),
    );
    const source = {
      registry: contracts.registry.address,
      policy: contracts.policy.address,
      fromBlock: deployment.block,
    };
    const { provider } = connection.ethers;
    const before = await computeStateDigest(provider, source, block - 1);
    const after = await computeStateDigest(provider, source, block);
    check(
      `${name} left all ${before.entries.size} values of state as they were (digest ${short(after.digest)})`,
      before.digest === after.digest && compareStates(before, after).length === 0,
    );
    check("machines are served as before", (await decide(world, machine(wallet, V2))) === "Allowed");
  }
  check(
    "the proxies run the first implementations again",
    (await registry.implementation()) === contracts.registryImplementation.address &&
      (await policy.implementation()) === contracts.policyImplementation.address,
  );
}

export async function audit({ connection, deployment }: World): Promise<void> {
  chapter(
    "The audit",
    "An outsider with nothing but an RPC endpoint: every event is folded into its hash chain, the chain is held against the contract's head, all state is rebuilt from event logs alone and compared with what the contracts answer.",
  );
  const client = await connect(connection.provider, { chainId: Number(deployment.chainId) });
  const { contracts, block } = deployment;
  const suite = await auditSuite(client, {
    registry: contracts.registry.address.toLowerCase() as Hex,
    policy: contracts.policy.address.toLowerCase() as Hex,
    fromBlock: block,
  });
  const audits = [
    { name: "policy", ...suite.policy },
    ...suite.services.map((own) => ({ name: own.serviceId, ...own })),
  ];
  for (const { name, entries, verdict, differences, head, faults } of audits) {
    check(`${name}: ${entries.length} events fold to the head on chain, ${short(head)}`, faults.length === 0);
    check(`${name}: the state rebuilt from logs is what the contract answers`, differences.length === 0);
    did(`${name}: ${verdict}`);
  }
  check(
    "two services and the policy were found, and all of it is proven",
    audits.length === 3 && suite.verdict === "proven",
  );

  for (const { name, entries } of audits) {
    console.log(`\n${name}`);
    print(timelineTable(entries));
  }
  console.log();
  print(auditTable(suite));
  did(`audited at block ${suite.block.number} with ${suite.calls} JSON-RPC calls`);
}

function print({
  head,
  rows,
}: {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
}): void {
  const table = new CliTable({ head: [...head], style: { head: [], border: [], compact: true } });
  table.push(...rows.map((row) => row.map((text) => (text.length > 64 ? `${text.slice(0, 63)}…` : text))));
  console.log(table.toString());
}
