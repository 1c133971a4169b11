import { requireCurrentEpoch } from "../../../agent/chain-trust.ts";
import { parseNodeUrl } from "../../../agent/http.ts";
import { verifySecretsKey } from "../../../agent/receipt.ts";
import { fetchSecretsKey } from "../../../agent/seal-secrets.ts";
import { parseAddress } from "../../../audit/walk.ts";
import { decodeUtf8, type Hex } from "../../../core/bytes.ts";
import { KeysteadError } from "../../../core/errors.ts";
import type { DeploymentId, SecretsKey } from "../../../core/release.ts";
import { parseMessage, type SecretsKeyAnswer, secretsKeySchema } from "../../../core/release-wire.ts";
import { computeServiceId } from "../../../core/service-id.ts";
import { text } from "../../chain-input.ts";
import type { Io } from "../../io.ts";
import type { TrustInput } from "../../trust-input.ts";

/** What the commands under `secrets` share. */
export interface SecretsOptions {
  readonly [name: string]: unknown;
  readonly node: readonly string[];
  readonly signer: readonly string[];
}

/** A saved key has a few hundred bytes. */
const KEY_LIMIT = 16 * 1024;

/** A wrong use of the command line. */
export const usage = (code: string, argument: string, message: string, remedy: string): KeysteadError =>
  new KeysteadError(`usage/${code}`, message, { argument, remedy });

/**
 * The service by its id, or by who is going to create it.
 *
 * @throws KeysteadError `usage/service`, `audit/bad-address`
 * @example
 * readServiceId({ creator: "0x…", salt: "0x…" }, { chainId, registry });
 */
export function readServiceId(options: SecretsOptions, deployment: DeploymentId): Hex {
  const [id, creator, salt] = ["service", "creator", "salt"].map((name) => text(options, name));
  if (id !== undefined && creator === undefined && salt === undefined) return parseAddress(id, "service");
  if (id === undefined && creator !== undefined && salt !== undefined && /^0x[0-9a-fA-F]{64}$/.test(salt))
    return computeServiceId(deployment, parseAddress(creator, "creator"), salt.toLowerCase() as Hex);
  throw usage(
    "service",
    "service",
    "which service is not said",
    "Give --service ID, or --creator ADDRESS and --salt 32 bytes for one to come.",
  );
}

/**
 * The service's environment key from a node or a file, checked to be signed by this deployment's KMS and, with an endpoint, to be of the current epoch.
 *
 * @throws KeysteadError `usage/key`; as `askNode` for the last node, `verifySecretsKey` and `requireCurrentEpoch`
 * @example
 * const { key } = await readSecretsKey(io, options, serviceId, trust);
 */
export async function readSecretsKey(
  io: Io,
  options: SecretsOptions,
  serviceId: Hex,
  { trust, chain }: TrustInput,
): Promise<{ readonly key: SecretsKey; readonly answer: SecretsKeyAnswer }> {
  const file = text(options, "key");
  if ((file === undefined) === (options.node.length === 0))
    throw usage("key", "key", "where the key comes from is not said, or said twice", "Give --node URL or --key FILE.");
  const verify = async (answer: SecretsKeyAnswer) => {
    const key = await verifySecretsKey(answer, serviceId, trust);
    const toCome = options.creation === true || text(options, "creator") !== undefined;
    if (chain !== undefined) await requireCurrentEpoch(chain, key, toCome);
    return { key, answer };
  };
  if (file !== undefined) {
    const { bytes } = await io.readFile(file, { limit: KEY_LIMIT, argument: "key" });
    const answer = parseMessage(secretsKeySchema, decodeUtf8(bytes, "key"), "key");
    return await verify(answer);
  }
  let failure: unknown;
  for (const node of options.node.map(parseNodeUrl)) {
    try {
      return await verify(await fetchSecretsKey(node, serviceId));
    } catch (error) {
      failure = error;
    }
  }
  throw failure;
}
