import { sha256 } from "@noble/hashes/sha2.js";
import { fromHex, type Hex, toHex } from "../../../../core/bytes.ts";
import { KeysteadError } from "../../../../core/errors.ts";
import { computeMrConfigHash, parseMrConfig } from "../../../../core/evidence/mr-config.ts";
import { MAX_OVMF_BYTES, parseOvmf } from "../../../../core/evidence/ovmf.ts";
import { refusePage } from "../../../../core/evidence/page.ts";
import {
  computeLaunchDigest,
  type LaunchExtras,
  parseLaunchInputs,
  type SnpLaunchInputs,
} from "../../../../core/evidence/snp-launch.ts";
import type { Measurement } from "../../../../core/measurement.ts";
import type { InputFile, Io } from "../../../io.ts";
import { BLOB_LIMIT, jsonObject, measured, missingOption, TEXT_LIMIT, textOption } from "../deployment.ts";
import { fileFindings } from "../evidence-file.ts";
import type { InputReader, ReaderArguments } from "../reader.ts";

type Options = ReaderArguments["options"];

async function readLaunch(io: Io, { inputs, options }: ReaderArguments): Promise<Measurement> {
  const file = await io.readFile(inputs[0] ?? "-", { limit: MAX_OVMF_BYTES, argument: "launch-inputs" });
  const kernel = await readBlob(io, options, "kernel", "--kernel");
  const initrd = await readBlob(io, options, "initrd", "--initrd");
  const mrConfigName = textOption(options, "mrConfig");
  const mrConfig =
    mrConfigName === undefined
      ? undefined
      : await io.readFile(mrConfigName, { limit: TEXT_LIMIT, argument: "--mr-config" });
  // Only its hash is bound, but the hash of something else binds nothing that a machine has.
  if (mrConfig !== undefined) parseMrConfig(mrConfig.bytes);
  const extras: LaunchExtras = {
    kernelHash: kernel?.source.sha256,
    initrdHash: initrd?.source.sha256,
    cmdline: textOption(options, "cmdline"),
    vcpus: wholeNumber(options, "vcpus", "--vcpus"),
    vcpuType: vcpuType(options),
    guestFeatures: features(options),
  };
  const firmware = file.bytes.find((byte) => ![0x20, 0x09, 0x0a, 0x0d].includes(byte)) !== 0x7b;
  const launch = firmware ? fromFirmware(file, extras) : parseLaunchInputs(file.bytes, extras);
  const files = [file, kernel, initrd, mrConfig].filter((one) => one !== undefined);
  return {
    kind: "snp",
    input: "snp-launch",
    registers: {
      measurement: measured(
        toHex(computeLaunchDigest(launch)),
        "computed",
        file.source,
        "SNP launch digest of firmware, kernel hashes and one VMSA page per virtual CPU (QEMU, direct boot)",
      ),
      ...(mrConfig === undefined
        ? {}
        : {
            host_data: measured(
              computeMrConfigHash(mrConfig.bytes),
              "computed",
              mrConfig.source,
              "SHA-256 of dstack-mr-config-v3:, a zero byte and the file's exact bytes",
            ),
          }),
    },
    facts: {
      format: firmware ? "OVMF image and launch options" : "SNP launch inputs",
      ovmf_hash: toHex(launch.ovmfHash),
      kernel_hash: toHex(launch.kernelHash),
      initrd_hash: toHex(launch.initrdHash),
      cmdline: launch.cmdline,
      vcpus: String(launch.vcpus),
      vcpu_type: String(launch.vcpuType),
      guest_features: `0x${launch.guestFeatures.toString(16)}`,
    },
    sources: files.map(({ source }) => source),
    findings: files.flatMap(fileFindings),
    unchecked: [
      ...(firmware ? [] : ["The OVMF hash: give the firmware file itself to have it computed."]),
      ...(kernel === undefined ? ["The kernel's hash: add --kernel."] : []),
      ...(initrd === undefined ? ["The initial RAM disk's hash: add --initrd."] : []),
      ...(mrConfig === undefined
        ? ["host_data: the host chooses it. Where it binds a configuration, add --mr-config."]
        : []),
      "That the hypervisor is QEMU with direct kernel boot: others start virtual CPUs in another state, and their digests differ.",
    ],
  };
}

/** Launch inputs of a firmware file, everything else from options. */
function fromFirmware(file: InputFile, extras: LaunchExtras): SnpLaunchInputs {
  const { hash, sections, sevHashesTableGpa, sevEsResetEip } = parseOvmf(file.bytes);
  const { kernelHash, cmdline, vcpus, vcpuType: type } = extras;
  if (kernelHash === undefined) throw missingOption("--kernel", "the kernel is part of the measurement");
  if (cmdline === undefined) throw missingOption("--cmdline", "the kernel command line is part of the measurement");
  if (vcpus === undefined) throw missingOption("--vcpus", "every virtual CPU is part of the measurement");
  if (type === undefined) throw missingOption("--vcpu-type", "the CPU model is part of the measurement");
  const initrdHash: Hex = extras.initrdHash ?? toHex(sha256(new Uint8Array()));
  return {
    ovmfHash: hash,
    ovmfSections: sections,
    sevHashesTableGpa,
    sevEsResetEip,
    kernelHash: fromHex(kernelHash, "--kernel"),
    initrdHash: fromHex(initrdHash, "--initrd"),
    cmdline,
    vcpus,
    vcpuType: type,
    guestFeatures: extras.guestFeatures ?? 1n,
  };
}

async function readBlob(io: Io, options: Options, name: string, flag: string): Promise<InputFile | undefined> {
  const path = textOption(options, name);
  if (path === undefined) return undefined;
  const file = await io.readFile(path, { limit: BLOB_LIMIT, argument: flag });
  refusePage(file.bytes, flag);
  return file;
}

function wholeNumber(options: Options, name: string, flag: string): number | undefined {
  const text = textOption(options, name);
  if (text === undefined) return undefined;
  if (/^(?:0x[0-9a-f]{1,12}|[0-9]{1,12})$/i.test(text)) return Number(text);
  throw new KeysteadError("measure/option-number", `${flag} is not a whole number`, {
    argument: flag,
    remedy: "Give digits, or hex after 0x.",
  });
}

function features(options: Options): bigint | undefined {
  const value = wholeNumber(options, "guestFeatures", "--guest-features");
  return value === undefined ? undefined : BigInt(value);
}

function vcpuType(options: Options): string | number | undefined {
  const text = textOption(options, "vcpuType");
  return text !== undefined && /^[0-9]/.test(text) ? wholeNumber(options, "vcpuType", "--vcpu-type") : text;
}

/** SEV-SNP machines by what they are started with. */
export const readers: readonly InputReader[] = [
  {
    name: "snp-launch",
    summary: "what an SEV-SNP machine is started with: published launch inputs (JSON), or an OVMF image and options",
    inputs: ["launch-inputs"],
    options: [
      { flags: "--kernel <file>", description: "the kernel" },
      { flags: "--initrd <file>", description: "the initial RAM disk" },
      { flags: "--cmdline <text>", description: "the kernel command line" },
      { flags: "--vcpus <number>", description: "number of virtual CPUs" },
      { flags: "--vcpu-type <model>", description: "QEMU's CPU model, e.g. EPYC-v4, or a CPUID signature" },
      { flags: "--guest-features <number>", description: "SEV_FEATURES of the guest (default: 1)" },
      { flags: "--mr-config <file>", description: "dstack's mr-config.json, bound by host_data" },
    ],
    read: readLaunch,
    detect: (file) => jsonObject(file)?.ovmf_hash !== undefined,
  },
];
