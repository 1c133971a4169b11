import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Anvil, startAnvil } from "../../deploy/anvil.ts";
import { silent } from "../../deploy/connection.ts";
import { deployKms } from "../../deploy/kms.ts";
import { readParameters } from "../../deploy/parameters.ts";
import { byGuardian, bySafe, DAY, enter, HOUR, operation, type World } from "../../scripts/demo/world.ts";
import { fromHex, type Hex, toHex } from "../../src/core/bytes.ts";
import { encodeImage, type Image, imageId } from "../../src/core/image.ts";
import { connectToAnvil } from "../helpers/anvil.ts";
import { measured } from "../helpers/images.ts";

/*
 * A deployment as its auditors find it, on a real anvil behind real Safes: an open platform and a closed one, something scheduled, something cancelled,
 * services of every sort, and texts that must do nothing.
 */

const reg = (byte: number, width = 48): Hex => `0x${byte.toString(16).padStart(2, "0").repeat(width)}`;

/** The registers of the synthetic quote of test/helpers/evidence.ts. */
const MACHINE = { mrtd: reg(0xa0), rtmr0: reg(0xb0), rtmr1: reg(0xb1), rtmr2: reg(0xb2), rtmr3: reg(0xb3) };
const OS = { mrtd: MACHINE.mrtd, rtmr1: MACHINE.rtmr1, rtmr2: MACHINE.rtmr2 };

export const IMAGES = {
  v1: tdx(measured("wallet 1.0")),
  withdrawn: tdx(measured("wallet 1.5")),
  v2: tdx(MACHINE.rtmr3),
  v3: tdx(measured("wallet 3.0")),
  enclave: { kind: "nitro", registers: { pcr0: reg(0xc0), pcr1: reg(0xc1), pcr2: reg(0xc2) } },
  guest: { kind: "snp", registers: { measurement: reg(0xa1), host_data: reg(0xa2, 32) } },
  vault: { kind: "dstack", registers: { os_image_hash: reg(0x51, 32), compose_hash: reg(0x52, 32) } },
} as const satisfies Record<string, Image>;

export const PLATFORMS = {
  tdx: { kind: "tdx", registers: OS },
  snp: { kind: "snp", registers: { measurement: reg(0xa1) } },
  nitro: { kind: "nitro", registers: { pcr1: reg(0xc1) } },
  dstack: { kind: "dstack", registers: { os_image_hash: reg(0x51, 32) } },
  next: { kind: "tdx", registers: { ...OS, mrtd: measured("firmware 2") as Hex } },
} as const satisfies Record<string, Image>;

function tdx(rtmr3: string): Image {
  return { kind: "tdx", registers: { ...MACHINE, rtmr3: rtmr3 as Hex } };
}

/** Text as hostile as the contract takes it: markup, a script, a reversed file name, escapes for terminals, a length of exactly 512 bytes. */
export const HOSTILE = (() => {
  const head =
    '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script> \u202Egpj.exe\u202C \u001b[2J\u200b';
  return head + "W".repeat(512 - Buffer.byteLength(head));
})();

export const bytesOf = (image: Image): Hex => toHex(encodeImage(image));
export const idOf = (image: Image): Hex => imageId(fromHex(bytesOf(image), "image"));

/** What stands on the chain. */
export interface Explored {
  readonly anvil: Anvil;
  readonly world: World;
  readonly services: Readonly<Record<"wallet" | "vault" | "solo" | "slow" | "renounced" | "hostile", Hex>>;
  /** The operation that waits. */
  readonly pending: Hex;
  stop(): Promise<void>;
}

/** Deploys and tells everything. */
export async function seedExplored(): Promise<Explored> {
  const anvil = await startAnvil();
  const folder = mkdtempSync(join(tmpdir(), "keystead-web-"));
  const connection = await connectToAnvil(anvil.url);
  const stop = async () => {
    await connection.close();
    await anvil.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const parameters = { ...readParameters("anvil"), delaySeconds: 12 * HOUR };
    const deployment = await deployKms(connection, parameters, silent, { folder });
    const world = await enter(connection, deployment, parameters);
    await openPolicy(world);
    const services = await tellServices(world);
    const pending = await scheduleMore(world);
    return { anvil, world, services, pending, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Lets time pass. */
export async function pass({ connection }: World, seconds: number): Promise<void> {
  await connection.provider.request({ method: "evm_increaseTime", params: [seconds] });
  await connection.provider.request({ method: "evm_mine", params: [] });
}

async function openPolicy(world: World): Promise<void> {
  const { policy, deployment } = world;
  const to = deployment.contracts.policy.address;
  const calls = [1, 2, 3, 4].flatMap((kind) => [
    { to, data: policy.interface.encodeFunctionData("enableTee", [kind]) },
    { to, data: policy.interface.encodeFunctionData("acceptTcb", [kind, kind === 3 ? 0x80 : 0x03]) },
  ]);
  for (const [name, image] of Object.entries(PLATFORMS)) {
    if (name === "next") continue;
    const data = policy.interface.encodeFunctionData("allowPlatform", [bytesOf(image), `${name} reference platform`]);
    calls.push({ to, data });
  }
  const opening = operation(world, "001-open", calls);
  await bySafe(world, opening.schedule);
  await pass(world, deployment.delaySeconds);
  await bySafe(world, opening.execute);
  const revoke = policy.interface.encodeFunctionData("revokePlatform", [idOf(PLATFORMS.snp), "advisory 2026-11"]);
  await byGuardian(world, to, revoke);
}

async function tellServices(world: World) {
  const { registry, deployment, ada, eve, connection } = world;
  const salt = (name: string) => measured(`salt of ${name}`, 32);
  const config = { admin: ada.address, noticePeriod: 7 * DAY, description: "", devices: [], requireUpToDateTcb: false };
  const idOfService = async (name: string, creator = ada.address) =>
    (await registry.serviceIdFor(creator, salt(name))) as Hex;
  const safe = deployment.safes.governance.address;
  const throughSafe = (data: string) =>
    bySafe(
      {
        ...world,
        deployment: { ...deployment, contracts: { ...deployment.contracts, timelock: deployment.contracts.registry } },
      },
      data,
    );

  const wallet = await idOfService("wallet");
  await (
    await registry.createService(
      { ...config, admin: safe, requireUpToDateTcb: true, description: "A wallet that keeps its state over upgrades" },
      salt("wallet"),
    )
  ).wait();
  const add = (id: string, image: Image, description: string) =>
    registry.interface.encodeFunctionData("addImageToService", [id, bytesOf(image), description]);
  await throughSafe(registry.interface.encodeFunctionData("acceptServiceAdmin", [wallet]));
  await throughSafe(add(wallet, IMAGES.v1, "wallet 1.0"));
  await throughSafe(registry.interface.encodeFunctionData("setServiceGuardian", [wallet, eve.address]));
  await throughSafe(add(wallet, IMAGES.withdrawn, "wallet 1.5, withdrawn"));
  await throughSafe(add(wallet, IMAGES.v2, "wallet 2.0"));
  await pass(world, 2 * DAY);
  await (
    await registry.connect(eve).removeImageFromService(wallet, idOf(IMAGES.withdrawn), "built from the wrong branch")
  ).wait();
  await pass(world, 6 * DAY);
  const { timestamp } = (await connection.ethers.provider.getBlock("latest")) ?? { timestamp: 0 };
  const end = timestamp + 20 * DAY;
  await throughSafe(registry.interface.encodeFunctionData("retireImageFromService", [wallet, idOf(IMAGES.v1), end]));
  await throughSafe(registry.interface.encodeFunctionData("rotateServiceKey", [wallet]));
  await throughSafe(
    registry.interface.encodeFunctionData("publishSealedSecrets", [wallet, "REGISTRY_TOKEN", "0x5ec7e7"]),
  );

  const vault = await idOfService("vault");
  await (
    await registry.addSecretKeyByImage(
      bytesOf(IMAGES.vault),
      [],
      false,
      salt("vault"),
      "A vault that nobody can change",
      "0x",
    )
  ).wait();

  const solo = await idOfService("solo");
  await (
    await registry.createService({ ...config, noticePeriod: 0, description: "A bot with one admin key" }, salt("solo"))
  ).wait();
  await (await registry.addImageToService(solo, bytesOf(IMAGES.guest), "guest 1")).wait();

  const slow = await idOfService("slow");
  await (
    await registry.createServiceWithImage(
      {
        ...config,
        admin: deployment.contracts.timelock.address,
        noticePeriod: 30 * DAY,
        description: "A bridge behind the timelock",
      },
      salt("slow"),
      bytesOf(IMAGES.enclave),
      "enclave 1",
    )
  ).wait();

  // an admin that did not create the service itself accepts: the timelock like any other, after its delay
  const acceptance = operation(world, "002-accept-bridge", [
    {
      to: deployment.contracts.registry.address,
      data: registry.interface.encodeFunctionData("acceptServiceAdmin", [slow]),
    },
  ]);
  await bySafe(world, acceptance.schedule);

  const renounced = await idOfService("renounced");
  await (
    await registry.createServiceWithImage(
      { ...config, description: "Once upgradeable, renounced" },
      salt("renounced"),
      bytesOf(tdx(measured("renounced"))),
      "the last one",
    )
  ).wait();
  await (await registry.renounceServiceAdmin(renounced)).wait();

  const hostile = await idOfService("hostile", eve.address);
  await (
    await registry
      .connect(eve)
      .createServiceWithImage(
        { ...config, admin: eve.address, description: HOSTILE },
        salt("hostile"),
        bytesOf(tdx(measured("hostile"))),
        HOSTILE,
      )
  ).wait();
  await pass(world, 3 * DAY);
  await bySafe(world, acceptance.execute);
  await throughSafe(add(wallet, IMAGES.v3, "wallet 3.0"));
  return { wallet, vault, solo, slow, renounced, hostile };
}

async function scheduleMore(world: World): Promise<Hex> {
  const { policy, deployment } = world;
  const to = deployment.contracts.policy.address;
  const dropped = operation(world, "003-dropped", [
    { to, data: policy.interface.encodeFunctionData("acceptTcb", [1, 1 << 4]) },
  ]);
  await bySafe(world, dropped.schedule);
  await byGuardian(world, deployment.contracts.timelock.address, dropped.cancel);
  const next = operation(world, "004-next", [
    { to, data: policy.interface.encodeFunctionData("allowPlatform", [bytesOf(PLATFORMS.next), HOSTILE]) },
    { to, data: policy.interface.encodeFunctionData("acceptTcb", [1, 1 << 2]) },
  ]);
  await bySafe(world, next.schedule);
  await pass(world, 3 * HOUR);
  return next.operationId as Hex;
}
