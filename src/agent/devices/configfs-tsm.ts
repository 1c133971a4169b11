import { randomBytes } from "node:crypto";
import { buildReportData } from "../../core/binding.ts";
import { KeysteadError } from "../../core/errors.ts";
import { parseSnpReport } from "../../core/evidence/snp.ts";
import { hasErrno, type System } from "../system.ts";
import { chooseCertificates, parseCertificateTable } from "./certificate-table.ts";
import { type Device, type DeviceEvidence, deviceError, EVIDENCE_BYTES, requireBinding } from "./device.ts";

/*
 * Reports through the kernel's configfs-tsm, Linux 6.7 and later (Documentation/ABI/testing/configfs-tsm-report): TDX's tdx_guest and SEV-SNP's sev_guest.
 *
 *   mkdir report/NAME        an entry of our own; the driver is its provider
 *   write inblob             64 bytes of report data; counts generation up by one, when the file is closed
 *   read  outblob            makes the report where inblob has changed since the last
 *   read  auxblob            SEV-SNP: the host's certificate table
 *   read  generation         unchanged but for our own writes: nobody else wrote to this entry
 *   rmdir report/NAME
 *
 * An error while a file is closed is lost: that our write was taken is seen from the generation alone.
 */

/** Where the kernel shows it. */
export const TSM_REPORT = "/sys/kernel/config/tsm/report";

const PROVIDERS = { tdx_guest: "tdx", sev_guest: "snp" } as const;
type Provider = keyof typeof PROVIDERS;
/** Another writer in an entry with a random name is a fault, or an attack: not a race to win. */
const ATTEMPTS = 3;
const SMALL = 4096;

/** What may be chosen. */
export interface ConfigfsOptions {
  /** Default: {@link TSM_REPORT}. */
  readonly root?: string | undefined;
  /** SEV-SNP: the VMPL that the report is to name, 0 to 3. Default: the driver's. */
  readonly privilegeLevel?: number | undefined;
  /** Names entries; default: random. */
  readonly name?: (() => string) | undefined;
}

/**
 * Looks for configfs-tsm with a provider that we know.
 *
 * @returns undefined where the kernel does not show it, or has no driver behind it
 * @throws KeysteadError `device/unknown-provider` {provider}, `device/no-permission`, …
 * @example
 * const device = await findConfigfs(createSystem());
 */
export async function findConfigfs(system: System, options: ConfigfsOptions = {}): Promise<Device | undefined> {
  const root = options.root ?? TSM_REPORT;
  if (!(await system.exists(root))) return undefined;
  let provider: Provider;
  try {
    provider = await withEntry(system, root, options, (path) => readProvider(system, path));
  } catch (error) {
    if (hasErrno(error, "ENXIO", "ENOTTY")) return undefined; // configfs without a driver
    throw deviceError(error, root, "asking configfs-tsm for its provider");
  }
  return { name: `configfs-tsm (${provider})`, attest: (binding) => attest(system, root, options, binding) };
}

async function attest(
  system: System,
  root: string,
  options: ConfigfsOptions,
  binding: Parameters<Device["attest"]>[0],
): Promise<DeviceEvidence> {
  const reportData = buildReportData(binding);
  for (let attempt = 1; ; attempt += 1) {
    try {
      const evidence = await withEntry(system, root, options, (path) => report(system, path, options, reportData));
      return requireBinding(evidence, binding);
    } catch (error) {
      const again = error instanceof KeysteadError && error.code === "device/conflict" && attempt < ATTEMPTS;
      if (!again) throw deviceError(error, root, "making a report");
    }
  }
}

async function report(
  system: System,
  path: string,
  { privilegeLevel }: ConfigfsOptions,
  reportData: Uint8Array,
): Promise<DeviceEvidence> {
  const kind = PROVIDERS[await readProvider(system, path)];
  const before = await readGeneration(system, path);
  let writes = 1;
  if (kind === "snp" && privilegeLevel !== undefined) {
    await system.write(`${path}/privlevel`, new TextEncoder().encode(`${privilegeLevel}`));
    writes += 1;
  }
  await system.write(`${path}/inblob`, reportData);
  const outblob = await system.read(`${path}/outblob`, EVIDENCE_BYTES);
  const auxblob = kind === "snp" ? await readAuxblob(system, path) : undefined;
  const after = await readGeneration(system, path);
  if (after !== before + BigInt(writes)) {
    throw new KeysteadError(
      "device/conflict",
      `generation of ${path} went from ${before} to ${after} where ${writes} write(s) were ours`,
      {
        argument: path,
        remedy: "Something else writes to the agent's own entry: find out what runs as root in this machine.",
        retryable: true,
        details: { before, after, writes },
      },
    );
  }
  if (outblob.length === 0) {
    throw new KeysteadError("device/empty", `${path}/outblob is empty`, {
      argument: path,
      remedy: "See the kernel's log; the host's quoting service may be down.",
      retryable: true,
    });
  }
  if (kind === "tdx") return { kind, quote: outblob };
  const table = auxblob === undefined ? {} : parseCertificateTable(auxblob);
  return { kind, report: outblob, certificates: chooseCertificates(parseSnpReport(outblob), table) };
}

/** Makes an entry, and removes it whatever happens. */
async function withEntry<T>(
  system: System,
  root: string,
  { name = () => `keystead-${process.pid}-${randomBytes(8).toString("hex")}` }: ConfigfsOptions,
  use: (path: string) => Promise<T>,
): Promise<T> {
  const path = `${root}/${name()}`;
  await system.makeDirectory(path);
  try {
    return await use(path);
  } finally {
    await system.removeDirectory(path).catch(() => {}); // an entry left behind harms nobody
  }
}

async function readProvider(system: System, path: string): Promise<Provider> {
  const provider = (await readText(system, `${path}/provider`)).trim();
  if (Object.hasOwn(PROVIDERS, provider)) return provider as Provider;
  throw new KeysteadError(
    "device/unknown-provider",
    `the kernel's report provider ${JSON.stringify(provider)} is not known`,
    {
      argument: path,
      remedy: "Intel TDX (tdx_guest) and AMD SEV-SNP (sev_guest) are known; for others give --command.",
      details: { provider },
    },
  );
}

async function readGeneration(system: System, path: string): Promise<bigint> {
  const text = (await readText(system, `${path}/generation`)).trim();
  if (/^\d{1,20}$/.test(text)) return BigInt(text);
  throw new KeysteadError("device/failed", `${path}/generation holds no number`, {
    argument: path,
    remedy: "This is no configfs-tsm of Linux: check what is mounted there.",
  });
}

async function readText(system: System, path: string): Promise<string> {
  return new TextDecoder("latin1").decode(await system.read(path, SMALL));
}

/** A host need not give certificates, and an older kernel need not have the file. */
async function readAuxblob(system: System, path: string): Promise<Uint8Array | undefined> {
  try {
    const bytes = await system.read(`${path}/auxblob`, EVIDENCE_BYTES);
    return bytes.length === 0 ? undefined : bytes;
  } catch (error) {
    if (hasErrno(error, "ENOENT", "ENXIO", "EACCES")) return undefined;
    throw error;
  }
}
