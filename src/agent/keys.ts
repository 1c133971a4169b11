import { fromHex, joinBytes } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { type KeyBundle, type ReleasedKey, STANDARD_PURPOSES } from "../core/key-bundle.ts";
import { openSecrets, parseSealedSecrets } from "../core/sealed-secrets.ts";
import { pendingSecrets, secretsAt } from "../core/state.ts";
import type { ServiceNow } from "./chain-trust.ts";

/*
 * Which of the released keys are handed over, and in what form. Keys are written as bytes from beginning to end: a string could not be wiped.
 */

/** How keys are written. */
export type KeyFormat = "json" | "env" | "raw";

/** Which keys. */
export interface KeyChoice {
  /** Default: every purpose in the answer. */
  readonly purposes?: readonly string[] | undefined;
  /** Every epoch, not the current one alone. */
  readonly allEpochs?: boolean | undefined;
}

/**
 * The chosen keys: of the service's current epoch and the KMS's newest root, or of all.
 *
 * @throws KeysteadError `agent/no-key` {purpose}
 * @example
 * selectKeys(bundle, { purposes: ["disk"] });
 */
export function selectKeys(bundle: KeyBundle, { purposes, allEpochs }: KeyChoice): readonly ReleasedKey[] {
  const newest = newestRoot(bundle);
  const current = (key: ReleasedKey) => key.keyEpoch === bundle.keyEpoch && key.rootEpoch === newest;
  const chosen = bundle.keys.filter(
    (key) => (purposes?.includes(key.purpose) ?? true) && (allEpochs === true || current(key)),
  );
  for (const purpose of purposes ?? STANDARD_PURPOSES) {
    if (chosen.some((key) => key.purpose === purpose && current(key))) continue;
    throw new KeysteadError(
      "agent/no-key",
      `the node's answer holds no key for ${JSON.stringify(purpose)} of the current epoch`,
      {
        argument: "purpose",
        remedy: "Use versions of node and agent that fit each other.",
        details: { purpose },
      },
    );
  }
  return chosen;
}

/**
 * Writes keys down. The caller wipes the result.
 *
 * `json`: one object, one key a line · `env`: `KEYSTEAD_KEY_DISK=<hex>` lines, with `_E<key epoch>_R<root epoch>` for keys that are not the current ones ·
 * `raw`: the bytes of exactly one key.
 *
 * @throws KeysteadError `agent/not-one-key` where `raw` has to write several
 * @example
 * const bytes = formatKeys(bundle, selectKeys(bundle, {}), "json");
 */
export function formatKeys(bundle: KeyBundle, keys: readonly ReleasedKey[], format: KeyFormat): Uint8Array {
  if (format === "raw") {
    const [only, ...rest] = keys;
    if (only !== undefined && rest.length === 0) return only.key.slice();
    throw new KeysteadError("agent/not-one-key", `raw output is one key, and ${keys.length} are chosen`, {
      argument: "format",
      remedy: "Choose one with --purpose, without --all-epochs.",
      details: { keys: keys.length },
    });
  }
  if (format === "env") {
    const newest = newestRoot(bundle);
    return concatOnce(
      keys.flatMap(({ purpose, keyEpoch, rootEpoch, key }) => {
        const name = `KEYSTEAD_KEY_${purpose.toUpperCase().replaceAll("-", "_")}`;
        const old = keyEpoch === bundle.keyEpoch && rootEpoch === newest ? "" : `_E${keyEpoch}_R${rootEpoch}`;
        return [ascii(`${name}${old}=`), hexOf(key), ascii("\n")];
      }),
    );
  }
  const head = {
    service_id: bundle.serviceId,
    chain_id: bundle.chainId.toString(),
    registry: bundle.registry,
    key_epoch: bundle.keyEpoch,
  };
  const parts = [ascii(`${JSON.stringify(head).slice(0, -1)},"keys":[`)];
  for (const [index, { purpose, keyEpoch, rootEpoch, key }] of keys.entries()) {
    const text = JSON.stringify({ purpose, key_epoch: keyEpoch, root_epoch: rootEpoch }).slice(0, -1);
    parts.push(ascii(`${index === 0 ? "" : ","}\n${text},"key":"`), hexOf(key), ascii('"}'));
  }
  return concatOnce([...parts, ascii("\n]}\n")]);
}

/**
 * Opens secrets that a service has published and that are in force, with the released keys. Those that still wait out the notice period do not count.
 *
 * @param name as published; empty: the secrets that came with a sealed service
 * @returns the plaintext: wipe it
 * @throws KeysteadError `agent/no-secrets` {name}, `agent/no-env-key` {rootEpoch, keyEpoch}, `secrets/malformed`, `seal/not-opened`
 * @example
 * const env = await openPublished(bundle, await fetchService(chain, serviceId), "env");
 */
export async function openPublished(
  bundle: KeyBundle,
  service: Pick<ServiceNow, "secrets" | "at">,
  name: string,
): Promise<Uint8Array> {
  const inForce = secretsAt(service, service.at);
  const published = inForce.get(name);
  if (published === undefined) {
    const from = pendingSecrets(service, service.at).find((each) => each.name === name)?.effectiveFrom;
    const when =
      from === undefined ? "" : ` yet: they wait out the notice period until ${new Date(from * 1000).toISOString()}`;
    const message = `the service has no secrets in force under ${JSON.stringify(name)}${when}`;
    throw new KeysteadError("agent/no-secrets", message, {
      argument: "secret",
      remedy:
        from === undefined
          ? "Publish them: keystead secrets seal, then keystead service publish-secrets."
          : "Wait until then. Secrets published before a service's first image are in force at once.",
      details: { name, published: [...inForce.keys()], ...(from === undefined ? {} : { effectiveFrom: from }) },
    });
  }
  const bytes = fromHex(published.ciphertext, "ciphertext");
  const { rootEpoch, keyEpoch } = parseSealedSecrets(bytes);
  const found = bundle.keys.find(
    (key) => key.purpose === "env" && key.rootEpoch === rootEpoch && key.keyEpoch === keyEpoch,
  );
  if (found === undefined) {
    throw new KeysteadError("agent/no-env-key", "the secrets are sealed to a key of epochs that were not released", {
      argument: "secret",
      remedy: "Seal them anew to the key that a node of this KMS gives now.",
      details: { rootEpoch, keyEpoch },
    });
  }
  const { chainId, registry, serviceId } = bundle;
  return openSecrets(bytes, found.key, { chainId, registry, serviceId, name });
}

const newestRoot = ({ keys }: KeyBundle): number =>
  keys.reduce((newest, { rootEpoch }) => Math.max(newest, rootEpoch), 0);

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Hex digits as bytes, without a string in between. */
function hexOf(key: Uint8Array): Uint8Array {
  const digit = (value: number) => (value < 10 ? 0x30 : 0x57) + value;
  const out = new Uint8Array(2 * key.length);
  for (const [index, byte] of key.entries()) {
    out[2 * index] = digit(byte >> 4);
    out[2 * index + 1] = digit(byte & 15);
  }
  return out;
}

/** Joins parts and wipes them. */
function concatOnce(parts: readonly Uint8Array[]): Uint8Array {
  const all = joinBytes(parts);
  for (const part of parts) part.fill(0);
  return all;
}
