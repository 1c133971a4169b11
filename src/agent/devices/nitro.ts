import { decode, encode } from "cbor2";
import { type Binding, buildReportData } from "../../core/binding.ts";
import { KeysteadError } from "../../core/errors.ts";
import { hasErrno, type System } from "../system.ts";
import { DEVICE_TIMEOUT_MS, type Device, deviceError, requireBinding } from "./device.ts";

/*
 * AWS Nitro's security module. Its one interface is an ioctl on /dev/nsm (Linux: include/uapi/linux/nsm.h), which Node cannot make without native code. So
 * a helper makes it and nothing else: it reads a CBOR request from standard input and prints the CBOR answer. It is 60 lines of C in nsm-helper/, for the
 * enclave's image to build: it holds no secret and what it prints is checked here. Requests and answers: aws-nitro-enclaves-nsm-api's documentation.
 */

/** The device. */
export const NSM_DEVICE = "/dev/nsm";
/** Where the helper is looked for. */
export const NSM_HELPER = "/usr/local/bin/keystead-nsm";
/** NSM_RESPONSE_MAX_SIZE of the driver. */
const ANSWER_BYTES = 0x3000;

/**
 * The security module, through its helper.
 *
 * @param helper program and arguments
 * @example
 * const evidence = await createNitroDevice(createSystem()).attest(binding);
 */
export function createNitroDevice(system: System, helper: readonly string[] = [NSM_HELPER]): Device {
  const [program = ""] = helper;
  return {
    name: "Nitro security module",
    attest: async (binding) => {
      try {
        const limits = { stdin: encodeNsmRequest(binding), timeoutMs: DEVICE_TIMEOUT_MS, limit: ANSWER_BYTES };
        const { code, stdout, stderr } = await system.run(helper, limits);
        if (code !== 0) throw helperFailed(program, code, stderr);
        return requireBinding({ kind: "nitro", document: decodeNsmAnswer(stdout) }, binding);
      } catch (error) {
        if (hasErrno(error, "ENOENT", "EACCES")) throw noHelper(program, error);
        throw deviceError(error, NSM_DEVICE, "asking the Nitro security module");
      }
    },
  };
}

/**
 * The request for an attestation document: `{"Attestation": {"user_data", "nonce", "public_key"}}`.
 *
 * @example
 * encodeNsmRequest({ nonce, serviceId, recipientPublicKey });
 */
export function encodeNsmRequest(binding: Binding): Uint8Array {
  const fields = new Map<string, unknown>([
    ["user_data", buildReportData(binding)],
    ["nonce", binding.nonce],
    ["public_key", binding.recipientPublicKey],
  ]);
  return encode(new Map([["Attestation", fields]]));
}

/**
 * The document in the module's answer, `{"Attestation": {"document"}}`.
 *
 * The answer around the document is nobody's proof, and the module has changed how it writes maps before: a general decoder reads it. The document itself is
 * parsed strictly by whoever gets it.
 *
 * @throws KeysteadError `device/nsm-refused` {error} where the module refused, `device/nsm-answer`
 * @example
 * const document = decodeNsmAnswer(stdout);
 */
export function decodeNsmAnswer(bytes: Uint8Array): Uint8Array {
  const answer = readAnswer(bytes);
  const refused = field(answer, "Error");
  if (typeof refused === "string") {
    throw new KeysteadError("device/nsm-refused", `the Nitro security module refused: ${JSON.stringify(refused)}`, {
      argument: NSM_DEVICE,
      remedy: "See the module's error names in aws-nitro-enclaves-nsm-api.",
      details: { error: refused },
    });
  }
  const document = field(field(answer, "Attestation"), "document");
  if (document instanceof Uint8Array) return document;
  throw new KeysteadError("device/nsm-answer", "the Nitro security module's answer holds no attestation document", {
    argument: NSM_DEVICE,
    remedy: "Check that the helper is the one of this version.",
  });
}

function readAnswer(bytes: Uint8Array): unknown {
  try {
    return decode(bytes, { preferMap: true });
  } catch {
    return undefined;
  }
}

function field(value: unknown, name: string): unknown {
  return value instanceof Map ? value.get(name) : undefined;
}

function noHelper(program: string, cause: unknown): KeysteadError {
  return new KeysteadError("device/no-helper", `${NSM_DEVICE} takes an ioctl, and its helper ${program} is not there`, {
    argument: program,
    remedy: `Build src/agent/devices/nsm-helper/keystead-nsm.c into the enclave's image as ${NSM_HELPER}, or give --nsm-helper.`,
    cause,
  });
}

function helperFailed(program: string, code: number | null, stderr: string): KeysteadError {
  return new KeysteadError("device/helper-failed", `${program} ended with ${code}: ${JSON.stringify(stderr.trim())}`, {
    argument: program,
    remedy: "Run it by hand: it says which step failed.",
    details: { code },
  });
}
