import { buildReportData } from "../../core/binding.ts";
import { decodeUtf8, fromHex, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { detectEvidence } from "../../core/evidence/detect.ts";
import { isJsonObject, type JsonValue, parseJson } from "../../core/json.ts";
import { hasErrno, type System } from "../system.ts";
import {
  DEVICE_TIMEOUT_MS,
  type Device,
  type DeviceEvidence,
  deviceError,
  EVIDENCE_BYTES,
  type MachineCertificates,
  requireBinding,
} from "./device.ts";

/*
 * For every device that is not known here: a program of the machine's own. It gets the report data in hex as its last argument and, as one JSON object on
 * standard input, `report_data`, `nonce`, `service_id` and `public_key` in hex (Nitro's document must name three of them). It prints either the evidence as it
 * is (a TDX quote, a SEV-SNP report or a Nitro document: binary, hex or base64), or JSON: {"tdx": {"quote"}}, {"snp": {"report", "vcek", "ask", "ark"}},
 * {"nitro": {"document"}}, all in hex.
 */

/** Hex is twice as long. */
const OUTPUT_BYTES = 4 * EVIDENCE_BYTES;

/**
 * A program that makes evidence.
 *
 * @param program program and leading arguments; no shell reads them
 * @example
 * const evidence = await createCommandDevice(createSystem(), ["/usr/bin/my-quote"]).attest(binding);
 */
export function createCommandDevice(system: System, program: readonly string[]): Device {
  const [name = ""] = program;
  return {
    name: `command ${name}`,
    attest: async (binding) => {
      const reportData = toHex(buildReportData(binding)).slice(2);
      const input = {
        report_data: reportData,
        nonce: toHex(binding.nonce).slice(2),
        service_id: binding.serviceId.slice(2),
        public_key: toHex(binding.recipientPublicKey).slice(2),
      };
      try {
        const stdin = new TextEncoder().encode(`${JSON.stringify(input)}\n`);
        const limits = { stdin, timeoutMs: DEVICE_TIMEOUT_MS, limit: OUTPUT_BYTES };
        const { code, stdout, stderr } = await system.run([...program, reportData], limits);
        if (code !== 0) {
          throw new KeysteadError(
            "device/command-failed",
            `${name} ended with ${code}: ${JSON.stringify(stderr.trim())}`,
            {
              argument: "command",
              remedy: "Run it by hand with 128 hex digits as its argument.",
              retryable: true,
              details: { code },
            },
          );
        }
        return requireBinding(parseCommandOutput(stdout), binding);
      } catch (error) {
        if (hasErrno(error, "ENOENT", "EACCES")) {
          throw new KeysteadError("device/no-command", `there is no program ${name} that may be run`, {
            argument: "command",
            remedy: "Give the program's whole path, and let it be executable.",
            cause: error,
          });
        }
        throw deviceError(error, name, "running the device command");
      }
    },
  };
}

/**
 * Reads what a device command printed.
 *
 * @throws KeysteadError `device/command-output`, `hex/malformed`
 * @example
 * parseCommandOutput(new TextEncoder().encode("0400020081…")).kind; // "tdx"
 */
export function parseCommandOutput(output: Uint8Array): DeviceEvidence {
  const detected = detectEvidence(output);
  if (detected.format === "tdx-quote") return { kind: "tdx", quote: detected.bytes };
  if (detected.format === "snp-report") return { kind: "snp", report: detected.bytes, certificates: {} };
  if (detected.format === "nitro-document") return { kind: "nitro", document: detected.bytes };
  if (output[0] !== 0x7b) throw unreadable(detected.description);
  const json = parseJson(decodeUtf8(output, "output"), "output");
  const [only, ...rest] = isJsonObject(json) ? Object.entries(json) : [];
  if (only === undefined || rest.length > 0) throw unreadable("JSON with other keys");
  const [kind, value] = only;
  if (kind === "tdx") return { kind, quote: bytesOf(value, "quote") };
  if (kind === "nitro") return { kind, document: bytesOf(value, "document") };
  if (kind !== "snp") throw unreadable(`JSON about ${JSON.stringify(kind)}`);
  const certificates: MachineCertificates = {
    endorsementKey: optional(value, "vcek") ?? optional(value, "vlek"),
    signer: optional(value, "ask") ?? optional(value, "asvk"),
    root: optional(value, "ark"),
  };
  return { kind, report: bytesOf(value, "report"), certificates };
}

function bytesOf(value: JsonValue, name: string): Uint8Array {
  const bytes = optional(value, name);
  if (bytes === undefined) throw unreadable(`JSON without ${name}`);
  return bytes;
}

function optional(value: JsonValue, name: string): Uint8Array | undefined {
  const text = isJsonObject(value) ? value[name] : undefined;
  return typeof text === "string" ? fromHex(text, name) : undefined;
}

function unreadable(what: string): KeysteadError {
  return new KeysteadError("device/command-output", `the device command printed no evidence that is known: ${what}`, {
    argument: "command",
    remedy:
      "Let it print a TDX quote, a SEV-SNP report or a Nitro document, alone or in the JSON form of src/agent/README.md.",
  });
}
