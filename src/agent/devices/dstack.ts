import { buildReportData } from "../../core/binding.ts";
import { decodeUtf8, fromHex, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { isJsonObject, parseJson } from "../../core/json.ts";
import type { System } from "../system.ts";
import { DEVICE_TIMEOUT_MS, type Device, deviceError, requireBinding } from "./device.ts";

/*
 * The dstack guest agent, for containers that see its socket and no device: POST /GetQuote {"report_data"} over /var/run/dstack.sock (dstack's guest API,
 * "Get Quote"). The quote is an ordinary TDX quote: the agent's word is not needed for anything.
 */

/** Where dstack mounts it into a container that asks for it. */
export const DSTACK_SOCKET = "/var/run/dstack.sock";

/** The quote in hex, with an event log of some hundred events. */
const ANSWER_BYTES = 4 * 1024 * 1024;

/**
 * The guest agent behind a socket.
 *
 * @example
 * const evidence = await createDstackDevice(createSystem()).attest(binding);
 */
export function createDstackDevice(system: System, socket: string = DSTACK_SOCKET): Device {
  const wrong = (what: string, details: Readonly<Record<string, unknown>> = {}) =>
    new KeysteadError("device/dstack-answer", `the dstack guest agent ${what}`, {
      argument: socket,
      remedy: "Check dstack's version and the guest agent's log; GetQuote needs dstack 0.5 or later on Intel TDX.",
      details,
    });
  return {
    name: "dstack guest agent",
    attest: async (binding) => {
      try {
        const body = JSON.stringify({ report_data: toHex(buildReportData(binding)).slice(2) });
        const limits = { timeoutMs: DEVICE_TIMEOUT_MS, limit: ANSWER_BYTES };
        const answer = await system.post(socket, "/GetQuote", body, limits);
        if (answer.status !== 200) throw wrong(`answered ${answer.status}`, { status: answer.status });
        const json = parseJson(decodeUtf8(answer.body, "GetQuote"), "GetQuote");
        const quote = isJsonObject(json) ? json.quote : undefined;
        if (typeof quote !== "string" || quote === "") throw wrong("gave no quote");
        return requireBinding({ kind: "tdx", quote: fromHex(quote, "quote") }, binding);
      } catch (error) {
        throw deviceError(error, socket, "asking the dstack guest agent");
      }
    },
  };
}
