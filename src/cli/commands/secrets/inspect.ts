import { fetchService } from "../../../agent/chain-trust.ts";
import { MAX_CIPHERTEXT_BYTES } from "../../../agent/seal-secrets.ts";
import { isoTime } from "../../../audit/table.ts";
import { parseAddress } from "../../../audit/walk.ts";
import { decodeUtf8, fromHex, type Hex, toHex } from "../../../core/bytes.ts";
import { isKeysteadError } from "../../../core/errors.ts";
import { isJsonObject, parseJson } from "../../../core/json.ts";
import { printable } from "../../../core/printable.ts";
import { hashForReceipt } from "../../../core/release.ts";
import { parseSealedSecrets } from "../../../core/sealed-secrets.ts";
import { pendingSecrets, secretsAt } from "../../../core/state.ts";
import { INTERFACES } from "../../../governance/abis.ts";
import { openChain, requireRegistry, text } from "../../chain-input.ts";
import type { Io } from "../../io.ts";
import { type ExitCode, type Output, renderTable } from "../../output.ts";
import { type SecretsOptions, usage } from "./input.ts";

/** What can be seen of sealed secrets without their key. */
interface Seen {
  /** `undefined` where only bytes were given. */
  readonly name: string | undefined;
  readonly serviceId: Hex | undefined;
  readonly bytes: number;
  readonly hash: Hex;
  /** `undefined`: these are no sealed secrets of this version. */
  readonly rootEpoch: number | undefined;
  readonly keyEpoch: number | undefined;
  /** Number of the event that published them. */
  readonly sequence?: number;
  /** From when on they count, in seconds since 1970, and whether they do at the block that was read. */
  readonly effectiveFrom?: number;
  readonly inForce?: boolean;
}

function see(
  ciphertext: Uint8Array,
  where: Partial<Pick<Seen, "name" | "serviceId" | "sequence" | "effectiveFrom" | "inForce">>,
): Seen {
  let epochs: { readonly rootEpoch: number | undefined; readonly keyEpoch: number | undefined };
  try {
    const { rootEpoch, keyEpoch } = parseSealedSecrets(ciphertext);
    epochs = { rootEpoch, keyEpoch };
  } catch (error) {
    if (!isKeysteadError(error, "secrets/malformed")) throw error;
    epochs = { rootEpoch: undefined, keyEpoch: undefined };
  }
  const { name, serviceId, ...published } = where;
  return {
    name,
    serviceId,
    bytes: ciphertext.length,
    hash: hashForReceipt(ciphertext),
    ...epochs,
    ...published,
  };
}

/** A document of `secrets seal`, calldata of `publishSealedSecrets`, or a ciphertext: JSON, hex or binary. */
function readSealed(bytes: Uint8Array): Seen {
  if (bytes[0] === 0x7b) {
    const json = parseJson(decodeUtf8(bytes, "file"), "file");
    const { ciphertext, name, serviceId } = isJsonObject(json) ? json : {};
    if (typeof ciphertext !== "string")
      throw usage("file", "file", "the JSON holds no ciphertext", "Give what keystead secrets seal wrote.");
    return see(fromHex(ciphertext, "ciphertext"), {
      ...(typeof name === "string" ? { name } : {}),
      ...(typeof serviceId === "string" ? { serviceId: serviceId as Hex } : {}),
    });
  }
  const hex = /^\s*(0x[0-9a-fA-F]+)\s*$/.exec(Buffer.from(bytes).toString("latin1"))?.[1];
  const raw = hex === undefined ? bytes : fromHex(hex, "file");
  const call = hex === undefined ? null : INTERFACES.registry.parseTransaction({ data: toHex(raw) });
  if (call?.name !== "publishSealedSecrets") return see(raw, {});
  return see(fromHex(String(call.args.ciphertext), "ciphertext"), {
    name: String(call.args.name),
    serviceId: String(call.args.serviceId) as Hex,
  });
}

/**
 * `keystead secrets inspect`: what is sealed, in a file or as a service has published it, as far as it can be seen without its key.
 *
 * @returns 1 where something is no sealed secrets of this version
 * @example
 * return inspect(io, "sealed.json", options, output);
 */
export async function inspect(
  io: Io,
  file: string | undefined,
  options: SecretsOptions,
  output: Output,
): Promise<ExitCode> {
  const service = text(options, "service");
  if ((file === undefined) === (service === undefined))
    throw usage(
      "file",
      "file",
      "what to look at is not said, or said twice",
      "Give a file, or --service with a chain.",
    );
  const seen: Seen[] = [];
  if (file !== undefined) {
    seen.push(readSealed((await io.readFile(file, { limit: 8 * MAX_CIPHERTEXT_BYTES, argument: "file" })).bytes));
  } else {
    const serviceId = parseAddress(service ?? "", "service");
    const input = await openChain(io, options);
    const { client, witnesses, fromBlock, acceptUnproven, maxAge } = input;
    const chain = { client, registry: requireRegistry(input), read: { witnesses, fromBlock }, acceptUnproven, maxAge };
    const state = await fetchService(chain, serviceId);
    for (const { name, ciphertext, publishedBy, effectiveFrom } of [
      ...secretsAt(state, state.at).values(),
      ...pendingSecrets(state, state.at),
    ]) {
      const where = { name, serviceId, sequence: publishedBy, effectiveFrom, inForce: effectiveFrom <= state.at };
      seen.push(see(fromHex(ciphertext, "ciphertext"), where));
    }
  }
  output.result({ sealed: seen }, () =>
    seen.length === 0
      ? "nothing is published"
      : renderTable(
          seen.map(({ name, bytes, rootEpoch, keyEpoch, hash, effectiveFrom = 0, inForce }) => [
            name === undefined ? "" : printable(JSON.stringify(name)),
            `${bytes}`,
            rootEpoch === undefined ? "not this version's" : `root ${rootEpoch}, key ${keyEpoch}`,
            inForce === undefined ? "" : inForce ? "yes" : `from ${isoTime(effectiveFrom)}`,
            hash,
          ]),
          ["name", "bytes", "epochs", "in force", "keccak-256"],
        ),
  );
  return seen.every(({ rootEpoch }) => rootEpoch !== undefined) ? 0 : 1;
}
