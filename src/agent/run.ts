import { concatBytes, type Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import { STANDARD_PURPOSES } from "../core/key-bundle.ts";
import type { KeyRelease } from "../core/release.ts";
import { secretsAt } from "../core/state.ts";
import { type AcquireOptions, acquireKeys } from "./acquire.ts";
import { type AgentChain, checkRelease, fetchService, type ServiceNow } from "./chain-trust.ts";
import { type Destination, handOver } from "./hand-over.ts";
import { formatKeys, type KeyFormat, openPublished, selectKeys } from "./keys.ts";
import type { Opened } from "./receipt.ts";

/** What the machine wants, and where it goes. */
export interface AgentRequest extends Omit<AcquireOptions, "check" | "purposes"> {
  /** The chain as the machine sees it; undefined: it rests on pinned signers alone and opens no published secrets. */
  readonly chain: AgentChain | undefined;
  /** Which keys. Default: every standard purpose. */
  readonly purposes?: readonly string[] | undefined;
  readonly allEpochs?: boolean | undefined;
  readonly keys?: { readonly destination: Destination; readonly format: KeyFormat } | undefined;
  /** Published secrets by name. */
  readonly secrets: readonly { readonly name: string; readonly destination: Destination }[];
  /** An environment file: the keys, then what the service has published under {@link ENVIRONMENT_NAMES}. */
  readonly environment?: Destination | undefined;
  readonly receipt?: Destination | undefined;
}

/** Names under which a service publishes its environment: the usual one, and that of a sealed service. */
export const ENVIRONMENT_NAMES: readonly string[] = ["env", ""];

/** What was handed over. It holds no secret. */
export interface AgentResult {
  readonly release: KeyRelease;
  readonly testTee: boolean;
  readonly signer: Hex;
  readonly purposes: readonly string[];
  readonly secrets: readonly string[];
}

/**
 * Gets a service's keys, checks what came, and hands keys and secrets over. Nothing is written before everything was opened.
 *
 * @throws KeysteadError `usage/no-output`, `usage/no-chain`; as `acquireKeys`, `openPublished`, `handOver`
 * @example
 * await runAgent({ nodes, device, serviceId, trust, chain, keys: { destination, format: "json" }, secrets: [], waitSeconds: 600, log });
 */
export async function runAgent(request: AgentRequest): Promise<AgentResult> {
  const { chain, serviceId, purposes } = request;
  requireSense(request);
  let service: ServiceNow | undefined;
  const opened = await acquireKeys({
    ...request,
    purposes: purposes?.filter((purpose) => !STANDARD_PURPOSES.some((standard) => standard === purpose)),
    check: async ({ release }) => {
      if (chain === undefined) return;
      service = await fetchService(chain, serviceId);
      await checkRelease(chain, release, service);
    },
  });
  const written: { readonly bytes: Uint8Array; readonly destination: Destination }[] = [];
  try {
    const secrets = await prepare(request, opened, service, written);
    for (const { destination, bytes } of written) await handOver(destination, bytes);
    const { release, receipt, bundle } = opened;
    const released = [...new Set(selectKeys(bundle, request).map(({ purpose }) => purpose))];
    return { release, testTee: receipt.testTee, signer: receipt.signer, purposes: released, secrets };
  } finally {
    opened.plaintext.fill(0);
    for (const { bytes } of written) bytes.fill(0);
  }
}

/** Everything that is to be written, opened and put down; returns the names of secrets. */
async function prepare(
  request: AgentRequest,
  { bundle, receipt }: Opened,
  service: ServiceNow | undefined,
  written: { readonly bytes: Uint8Array; readonly destination: Destination }[],
): Promise<readonly string[]> {
  const names: string[] = [];
  const chosen = selectKeys(bundle, request);
  if (request.keys !== undefined) {
    const { destination, format } = request.keys;
    written.push({ destination, bytes: formatKeys(bundle, chosen, format) });
  }
  for (const { name, destination } of request.secrets) {
    if (service === undefined) throw noChain();
    written.push({ destination, bytes: await openPublished(bundle, service, name) });
    names.push(name);
  }
  if (request.environment !== undefined) {
    const parts = [formatKeys(bundle, chosen, "env")];
    for (const name of ENVIRONMENT_NAMES) {
      if (service === undefined || !secretsAt(service, service.at).has(name)) continue;
      parts.push(await openPublished(bundle, service, name));
      names.push(name);
    }
    written.push({ destination: request.environment, bytes: concatBytes(...parts) });
    for (const part of parts) part.fill(0);
  }
  if (request.receipt !== undefined) {
    const text = `${JSON.stringify(receipt, null, 2)}\n`;
    written.push({ destination: request.receipt, bytes: new TextEncoder().encode(text) });
  }
  return names;
}

function requireSense({ keys, secrets, environment, chain }: AgentRequest): void {
  if (keys === undefined && secrets.length === 0 && environment === undefined) {
    throw new KeysteadError("usage/no-output", "nothing is said about where keys go", {
      argument: "out",
      remedy: "Add --out, --environment or --secret.",
    });
  }
  if (secrets.length > 0 && chain === undefined) throw noChain();
}

function noChain(): KeysteadError {
  return new KeysteadError("usage/no-chain", "published secrets are read from the chain, and no endpoint is given", {
    argument: "rpc",
    remedy: "Add --rpc URL.",
  });
}
