import type { CommandResult, SocketAnswer, System } from "../../src/agent/system.ts";

/** A file-system error as Node throws it. */
export function errno(code: string, path = ""): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}

/** What a driver behind configfs-tsm makes of report data. */
export interface FakeDriver {
  readonly provider: string;
  /** Makes a report; a string is an errno that the driver fails with. */
  readonly report: (inblob: Uint8Array, privilegeLevel: number) => Uint8Array | string;
  /** SEV-SNP: what the host gives beside it. */
  readonly auxblob?: Uint8Array | undefined;
}

interface Entry {
  inblob: Uint8Array;
  privilegeLevel: number;
  written: number;
  read: number;
  outblob: Uint8Array | undefined;
}

/** A simulated kernel: configfs-tsm by Linux's rules (drivers/virt/coco/guest/report.c), and whatever devices, programs and sockets a test puts there. */
export interface FakeKernel extends System {
  readonly root: string;
  readonly entries: ReadonlyMap<string, unknown>;
  /** Every write to configfs, in order: file name and bytes. */
  readonly writes: readonly (readonly [file: string, bytes: Uint8Array])[];
  /** Somebody else writes to every entry there is. */
  disturb(bytes: Uint8Array): void;
}

/** What stands in a simulated machine. */
export interface FakeMachine {
  /** `undefined`: configfs is not mounted. `null`: mounted, and no driver behind it. */
  readonly driver?: FakeDriver | null;
  /** Other paths that exist. */
  readonly paths?: readonly string[];
  readonly run?: ((program: readonly string[], stdin: Uint8Array) => CommandResult) | undefined;
  readonly post?: ((socket: string, path: string, body: string) => SocketAnswer) | undefined;
  /** Called before a file of configfs is read. */
  readonly beforeRead?: (file: string, kernel: FakeKernel) => void;
  /** Writes that are lost when the file is closed, as the kernel loses their errors. */
  readonly loseWrites?: boolean;
}

/** Makes a simulated machine. */
export function createFakeKernel(machine: FakeMachine): FakeKernel {
  const root = "/sys/kernel/config/tsm/report";
  const { driver } = machine;
  const entries = new Map<string, Entry>();
  const writes: [string, Uint8Array][] = [];
  const locate = (path: string): [Entry, string] => {
    const at = path.lastIndexOf("/");
    const entry = entries.get(path.slice(0, at));
    if (entry === undefined) throw errno("ENOENT", path);
    return [entry, path.slice(at + 1)];
  };
  const generate = (entry: Entry, path: string): Uint8Array => {
    if (entry.inblob.length === 0) throw errno("EINVAL", path);
    if (entry.outblob === undefined || entry.read !== entry.written) {
      const made = driver?.report(entry.inblob, entry.privilegeLevel) ?? "ENOTTY";
      if (typeof made === "string") throw errno(made, path);
      entry.outblob = made;
      entry.read = entry.written;
    }
    return entry.outblob;
  };
  const kernel: FakeKernel = {
    root,
    entries,
    writes,
    disturb: (bytes) => {
      for (const entry of entries.values()) {
        entry.inblob = bytes;
        entry.written += 1;
      }
    },
    exists: async (path) =>
      (path === root && driver !== undefined) || entries.has(path) || (machine.paths ?? []).includes(path),
    makeDirectory: async (path) => {
      if (driver === undefined) throw errno("ENOENT", path);
      if (driver === null) throw errno("ENXIO", path);
      if (entries.has(path)) throw errno("EEXIST", path);
      entries.set(path, { inblob: new Uint8Array(), privilegeLevel: 0, written: 0, read: 0, outblob: undefined });
    },
    removeDirectory: async (path) => {
      if (!entries.delete(path)) throw errno("ENOENT", path);
    },
    read: async (path, limit) => {
      machine.beforeRead?.(path.slice(path.lastIndexOf("/") + 1), kernel);
      const [entry, file] = locate(path);
      const text = (value: string) => new TextEncoder().encode(`${value}\n`);
      let bytes: Uint8Array;
      if (file === "provider") bytes = text(driver?.provider ?? "");
      else if (file === "generation") bytes = text(`${entry.written}`);
      else if (file === "outblob") bytes = generate(entry, path);
      else if (file === "auxblob" && driver?.auxblob !== undefined) {
        generate(entry, path);
        bytes = driver.auxblob;
      } else if (file === "inblob") throw errno("EACCES", path);
      else throw errno("ENOENT", path);
      if (bytes.length > limit) throw new Error(`${path} is longer than ${limit}`);
      return bytes;
    },
    write: async (path, bytes) => {
      const [entry, file] = locate(path);
      writes.push([file, bytes]);
      if (machine.loseWrites) return;
      if (file === "inblob") {
        if (bytes.length > 64) throw errno("EINVAL", path);
        entry.inblob = bytes;
      } else if (file === "privlevel") {
        const level = Number(new TextDecoder().decode(bytes));
        if (!Number.isInteger(level) || level < 0 || level > 3) throw errno("EINVAL", path);
        entry.privilegeLevel = level;
      } else throw errno("EACCES", path);
      entry.written += 1;
    },
    run: async (program, { stdin }) => {
      if (machine.run === undefined) throw errno("ENOENT", program[0]);
      return machine.run(program, stdin);
    },
    post: async (socket, path, body) => {
      if (machine.post === undefined) throw errno("ECONNREFUSED", socket);
      return machine.post(socket, path, body);
    },
  };
  return kernel;
}

/** A SEV-SNP host's certificate table, as GHCB has it. */
export function certificateTable(certificates: Readonly<Record<string, Uint8Array>>): Uint8Array {
  const all = Object.entries(certificates);
  let offset = 24 * (all.length + 1);
  const head = Buffer.alloc(offset);
  for (const [index, [guid, der]] of all.entries()) {
    head.write(guid.replaceAll("-", ""), 24 * index, "hex");
    head.writeUInt32LE(offset, 24 * index + 16);
    head.writeUInt32LE(der.length, 24 * index + 20);
    offset += der.length;
  }
  return new Uint8Array(Buffer.concat([head, ...all.map(([, der]) => der)]));
}
