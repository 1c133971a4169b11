import { decodeUtf8, type Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { isJsonObject, type JsonValue, parseJson } from "../core/json.ts";

/**
 * The service of a machine, from the file in which the machine says what it is: SecretVM's `system_info.json` or `secret-vm.json` (`service_id`), or
 * dstack's `.instance_info` (`app_id`, which is the service's id as it stands).
 *
 * The file is not measured: it says which service a machine claims, not which one it may have the keys of.
 *
 * @returns undefined where `service_id` is there and empty: the machine has no service
 * @throws KeysteadError `text/not-utf8`, `json/*`, `system-info/no-service` where neither field is there, `system-info/service-id` for what is no id, or
 * for two ids that differ
 * @example
 * parseSystemInfo(bytes); // "0x6b0f…", 20 bytes
 */
export function parseSystemInfo(bytes: Uint8Array): Hex | undefined {
  const value = parseJson(decodeUtf8(bytes, "system-info"), "system-info");
  const { service_id: service, app_id: app } = isJsonObject(value) ? value : {};
  if (service === undefined && app === undefined) {
    throw new KeysteadError(
      "system-info/no-service",
      "the file names no service: it has neither service_id nor app_id",
      {
        argument: "system-info",
        remedy: "Give the machine's system_info.json, secret-vm.json or .instance_info, or name the service.",
      },
    );
  }
  const ids = [readId(service), readId(app)].filter((id) => id !== undefined);
  if (new Set(ids).size > 1) throw refuse("service_id and app_id name two services");
  return ids[0];
}

function readId(value: JsonValue | undefined): Hex | undefined {
  if (value === undefined || value === "") return undefined;
  const [, digits] = typeof value === "string" ? (/^(?:0x)?([0-9a-fA-F]{40})$/.exec(value) ?? []) : [];
  if (digits === undefined) throw refuse("the service's id is not 20 bytes of hex");
  return `0x${digits.toLowerCase()}`;
}

function refuse(message: string): KeysteadError {
  return new KeysteadError("system-info/service-id", message, {
    argument: "system-info",
    remedy: "Check the file: a service of this project has 40 hex digits.",
  });
}
