import { handOver, parseDestination } from "../../../agent/hand-over.ts";
import { checkSecrets, MAX_CIPHERTEXT_BYTES, type SecretsKind, sealForService } from "../../../agent/seal-secrets.ts";
import { type Hex, toHex } from "../../../core/bytes.ts";
import { INTERFACES } from "../../../governance/abis.ts";
import { text } from "../../chain-input.ts";
import type { Io } from "../../io.ts";
import type { ExitCode, Output } from "../../output.ts";
import { openTrust } from "../../trust-input.ts";
import { readSecretsKey, readServiceId, type SecretsOptions, usage } from "./input.ts";

/** What a document of sealed secrets says that it is. */
export const SEALED_FORMAT = "keystead.sealed-secrets/1";

/**
 * `keystead secrets seal`: a file of secrets as ciphertext and calldata. Prints nothing of the file.
 *
 * @example
 * return seal(io, ".env", { service: "0x…", node: ["https://kms.example"], … }, output);
 */
export async function seal(io: Io, name: string, options: SecretsOptions, output: Output): Promise<ExitCode> {
  const { bytes } = await io.readFile(name, { limit: MAX_CIPHERTEXT_BYTES, argument: "file" });
  const { kind, count } = checkSecrets(bytes, text(options, "kind") as SecretsKind | undefined);
  const creation = options.creation === true;
  const published = text(options, "name");
  if (creation && published !== undefined)
    throw usage("name", "name", "what comes with a service's creation has no name", "Leave out --name or --creation.");
  if (published === "") throw usage("name", "name", "the name is empty", "Give a name, e.g. env.");
  const input = await openTrust(io, options, options.signer);
  const serviceId = readServiceId(options, input.trust);
  const { key } = await readSecretsKey(io, options, serviceId, input);
  const { chainId, registry } = input.trust;
  const context = { chainId, registry, serviceId, name: creation ? "" : (published ?? DEFAULT_NAMES[kind]) };
  const ciphertext: Hex = toHex(await sealForService(bytes, key, context));
  bytes.fill(0);
  const call = creation
    ? {}
    : {
        to: registry,
        calldata: INTERFACES.registry.encodeFunctionData("publishSealedSecrets", [serviceId, context.name, ciphertext]),
      };
  const document = {
    format: SEALED_FORMAT,
    chainId: chainId.toString(),
    registry,
    serviceId,
    name: context.name,
    rootEpoch: key.rootEpoch,
    keyEpoch: key.keyEpoch,
    bytes: ciphertext.length / 2 - 1,
    ciphertext,
    ...call,
  };
  const out = text(options, "out");
  if (out !== undefined) {
    await handOver(parseDestination(out, "out"), new TextEncoder().encode(`${JSON.stringify(document, null, 2)}\n`));
  }
  if (out === "-") return 0;
  const what = kind === "raw" ? "secrets" : `${count} ${kind === "env" ? "variables" : "registries"}`;
  output.result(document, () =>
    [
      `sealed ${what} to service ${serviceId}, root epoch ${key.rootEpoch}, key epoch ${key.keyEpoch}: ${document.bytes} bytes`,
      creation
        ? `sealedSecrets of addSecretKeyByImage: ${out === undefined ? ciphertext : `in ${out}`}`
        : `publishSealedSecrets as ${JSON.stringify(context.name)}, to ${registry}: ${"calldata" in call && out === undefined ? call.calldata : `calldata in ${out}`}`,
      ...(creation
        ? ["Next: keystead service create-sealed, with it as --secrets."]
        : [
            "Next: keystead service publish-secrets sends it (a Safe: keystead propose publish-secrets), with it as --ciphertext.",
          ]),
    ].join("\n"),
  );
  return 0;
}

const DEFAULT_NAMES: Readonly<Record<SecretsKind, string>> = { env: "env", registry: "registry", raw: "secrets" };
