import { fromHex, type Hex, isZero } from "../../../core/bytes.ts";
import { KeysteadError } from "../../../core/errors.ts";
import type { DstackFacts } from "../../../core/evidence/event-log.ts";
import {
  encodeMrConfigId,
  encodeMrConfigIdV2,
  parseMrConfig,
  verifyMrConfig,
} from "../../../core/evidence/mr-config.ts";
import type { Io } from "../../io.ts";
import { TEXT_LIMIT } from "./deployment.ts";
import type { ReaderOption } from "./reader.ts";

/** The document that a version 3 MR_CONFIG_ID is the hash of. */
export const MR_CONFIG_OPTION: ReaderOption = {
  flags: "--mr-config <file>",
  description: "the machine's mr-config.json, bound by MR_CONFIG_ID of version 3",
};

/**
 * Holds a quote's MR_CONFIG_ID against what the event log says of the machine.
 *
 * @param mrConfig the document's file name, where it was given
 * @returns what could not be checked, as sentences
 * @throws KeysteadError `dstack/config-id` {mrConfigId, expected}: it names another configuration, so the machine was started with one and says another;
 * `mr-config/*`; `measure/option-conflict` for a document that a quote of another version does not bind
 * @example
 * const unchecked = await checkConfigId(io, quote.registers.mr_config_id, facts, undefined);
 */
export async function checkConfigId(
  io: Io,
  configId: Hex,
  facts: DstackFacts,
  mrConfig: string | undefined,
): Promise<readonly string[]> {
  const bytes = fromHex(configId, "mr_config_id");
  const version = bytes[0] ?? 0;
  if (mrConfig !== undefined && version !== 3) {
    throw new KeysteadError(
      "measure/option-conflict",
      `MR_CONFIG_ID of the quote is not of version 3, which binds ${mrConfig}`,
      {
        argument: "--mr-config",
        remedy: "Leave the document out: nothing in this quote speaks of it.",
      },
    );
  }
  if (isZero(bytes)) return ["Which configuration the machine was started with: MR_CONFIG_ID of the quote is zero."];
  if (version < 1 || version > 3) {
    return [`MR_CONFIG_ID: version ${version} is not known, so what it binds was not compared (${configId}).`];
  }
  const { composeHash, appId, keyProvider } = facts;
  if (version === 3) {
    if (mrConfig === undefined) return ["MR_CONFIG_ID: it is of version 3, the hash of a document: add --mr-config."];
    const document = await io.readFile(mrConfig, { limit: TEXT_LIMIT, argument: "--mr-config" });
    verifyMrConfig(document.bytes, { mr_config_id: configId });
    const config = parseMrConfig(document.bytes);
    const differs = config.composeHash !== composeHash || (config.appId !== undefined && config.appId !== appId);
    if (differs) throw otherConfiguration(configId, undefined);
    return [];
  }
  if (composeHash === undefined) return ["MR_CONFIG_ID: the log has no compose hash to compare it with."];
  if (version === 1) {
    const expected = encodeMrConfigId(1, composeHash);
    if (configId !== expected) throw otherConfiguration(configId, expected);
    return [];
  }
  const { name, id } = keyProvider ?? {};
  // The event has the id in hex (dstack-util, KeyProviderInfo).
  const providerId: Hex | undefined =
    id !== undefined && /^(?:[0-9a-fA-F]{2})*$/.test(id) ? `0x${id.toLowerCase()}` : undefined;
  if (appId === undefined || name === undefined || providerId === undefined) {
    return ["MR_CONFIG_ID: it is of version 2, and the log does not name app id and key provider to compute it from."];
  }
  const expected = encodeMrConfigIdV2({ composeHash, appId, keyProvider: name, keyProviderId: providerId });
  if (expected === undefined)
    return [`MR_CONFIG_ID: it is of version 2, and the key provider ${name} has no number there.`];
  if (configId !== expected) throw otherConfiguration(configId, expected);
  return [];
}

function otherConfiguration(mrConfigId: Hex, expected: Hex | undefined): KeysteadError {
  return new KeysteadError(
    "dstack/config-id",
    "MR_CONFIG_ID of the quote is of another configuration than the one that the event log tells of",
    {
      argument: "--quote",
      remedy:
        "Give quote and log of one machine in one call. If they are, distrust the machine: it was started with something else.",
      details: { mrConfigId, ...(expected === undefined ? {} : { expected }) },
    },
  );
}
