import { KeysteadError } from "../../core/errors.ts";
import type { System } from "../system.ts";
import { createCommandDevice } from "./command.ts";
import { findConfigfs, TSM_REPORT } from "./configfs-tsm.ts";
import type { Device } from "./device.ts";
import { createDstackDevice, DSTACK_SOCKET } from "./dstack.ts";
import { createNitroDevice, NSM_DEVICE } from "./nitro.ts";

/** Devices of which only an ioctl makes evidence, and the driver whose configfs does without. */
const IOCTL_ONLY = [
  ["/dev/sev-guest", "sev-guest"],
  ["/dev/tdx_guest", "tdx-guest"],
] as const;

/** Which device to use. */
export interface DeviceChoice {
  /** Default: the first that is there, in this order. */
  readonly device?: "tsm" | "nitro" | "dstack" | "command" | undefined;
  /** Program and arguments; alone, it is what is used. */
  readonly command?: readonly string[] | undefined;
  readonly nsmHelper?: readonly string[] | undefined;
  readonly dstackSocket?: string | undefined;
  /** SEV-SNP: see `ConfigfsOptions.privilegeLevel`. */
  readonly privilegeLevel?: number | undefined;
  /** Default: the kernel's. */
  readonly tsmRoot?: string | undefined;
}

/**
 * Finds this machine's attestation device: a device command if one is given, else configfs-tsm, the Nitro security module, the dstack guest agent.
 *
 * @throws KeysteadError `device/none`; `device/needs-configfs` where only an ioctl device is there; `device/not-there` where the one asked for is not;
 * `usage/device`; those of `findConfigfs`
 * @example
 * const device = await detectDevice(createSystem());
 */
export async function detectDevice(system: System, choice: DeviceChoice = {}): Promise<Device> {
  const {
    command,
    device: wanted = command === undefined ? undefined : "command",
    dstackSocket = DSTACK_SOCKET,
  } = choice;
  if (wanted === "command") {
    if (command !== undefined && command.length > 0) return createCommandDevice(system, command);
    throw new KeysteadError("usage/device", "no device command is given", {
      argument: "command",
      remedy: "Add --command PROGRAM.",
    });
  }
  const tsmRoot = choice.tsmRoot ?? TSM_REPORT;
  const finders = {
    tsm: () => findConfigfs(system, { root: tsmRoot, privilegeLevel: choice.privilegeLevel }),
    nitro: async () => ((await system.exists(NSM_DEVICE)) ? createNitroDevice(system, choice.nsmHelper) : undefined),
    dstack: async () => ((await system.exists(dstackSocket)) ? createDstackDevice(system, dstackSocket) : undefined),
  } as const;
  for (const name of wanted === undefined ? (["tsm", "nitro", "dstack"] as const) : [wanted]) {
    const found = await finders[name]();
    if (found !== undefined) return found;
  }
  await refuseIoctl(system, tsmRoot);
  const places = { tsm: tsmRoot, nitro: NSM_DEVICE, dstack: dstackSocket };
  if (wanted !== undefined) {
    throw new KeysteadError("device/not-there", `${places[wanted]} is not there, or has no driver behind it`, {
      argument: "device",
      remedy: "Check that this machine is a confidential VM of this kind and that its guest driver is loaded.",
      details: { path: places[wanted] },
    });
  }
  throw new KeysteadError("device/none", "no attestation device was found in this machine", {
    argument: "device",
    remedy:
      "Run the agent inside a confidential VM with its guest driver loaded, or give --command. Azure's confidential VMs, which show a vTPM alone, are not supported.",
    details: { looked: [...Object.values(places), ...IOCTL_ONLY.map(([path]) => path)] },
  });
}

/** These devices take ioctls alone, which Node cannot make without native code; the same drivers show configfs-tsm since Linux 6.7. */
async function refuseIoctl(system: System, tsmRoot: string): Promise<void> {
  for (const [path, driver] of IOCTL_ONLY) {
    if (!(await system.exists(path))) continue;
    throw new KeysteadError(
      "device/needs-configfs",
      `${path} is there, but takes only ioctls, and ${tsmRoot} is not usable`,
      {
        argument: path,
        remedy: `Use Linux 6.7 or later, run modprobe ${driver} and mount -t configfs none /sys/kernel/config, or give --command.`,
        details: { path, driver },
      },
    );
  }
}
