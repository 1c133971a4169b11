import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { Deployment } from "./deployment.ts";
import type { ProvenState } from "./proven.ts";
import { IMPLEMENTATION_SLOT } from "./slots.ts";

/** A contract's code: where it is, and keccak-256 of it. */
export interface PinnedCode {
  readonly address: Hex;
  readonly codeHash: Hex;
}

/** A proxy, and the implementations that are understood here. Another one may lay out its storage otherwise: then nothing is decided. */
export interface ProxyPin extends PinnedCode {
  readonly name: "registry" | "policy";
  readonly implementations: readonly PinnedCode[];
}

/** The deployment that decisions are read from. */
export interface PinnedDeployment {
  readonly chainId: number;
  readonly registry: ProxyPin;
  readonly policy: ProxyPin;
  readonly dstackAuth: Hex;
  /** The block in which the deployment began: scans start there. */
  readonly fromBlock: number;
}

/**
 * Pins what a deployment's record says, and implementations that came later by upgrade.
 *
 * @param later implementations that this version understands as well
 * @example
 * const pinned = pinDeployment(parseDeployment(text));
 */
export function pinDeployment(
  record: Deployment,
  later: { readonly registry?: readonly PinnedCode[]; readonly policy?: readonly PinnedCode[] } = {},
): PinnedDeployment {
  const { contracts } = record;
  const proxy = (name: "registry" | "policy"): ProxyPin => ({
    name,
    ...lowerCode(contracts[name]),
    implementations: [lowerCode(contracts[`${name}Implementation`]), ...(later[name] ?? []).map(lowerCode)],
  });
  return {
    chainId: Number(record.chainId),
    registry: proxy("registry"),
    policy: proxy("policy"),
    dstackAuth: lower(contracts.dstackAuth.address),
    fromBlock: record.block,
  };
}

/**
 * Checks that a proxy is the one that was pinned and runs an implementation that was pinned, by proof at one block.
 *
 * @returns the implementation
 * @throws KeysteadError `chain/unknown-implementation` {contract, implementation, codeHash}; as `ProvenState.prove`
 * @example
 * await checkPin(state, pinned.registry);
 */
export async function checkPin(state: ProvenState, pin: ProxyPin): Promise<Hex> {
  const word = await state.read((read) => read(pin.address, IMPLEMENTATION_SLOT));
  const proxyHash = await state.codeHash(pin.address);
  if (proxyHash !== pin.codeHash) throw unknown(pin, pin.address, proxyHash, "the proxy itself");
  const implementation: Hex = `0x${word.toString(16).padStart(40, "0")}`;
  const known = pin.implementations.find(({ address }) => address === implementation);
  if (known === undefined) throw unknown(pin, implementation, undefined, "its implementation");
  const codeHash = await state.codeHash(implementation);
  if (codeHash !== known.codeHash) throw unknown(pin, implementation, codeHash, "its implementation");
  return implementation;
}

function unknown(pin: ProxyPin, implementation: Hex, codeHash: Hex | undefined, what: string): KeysteadError {
  return new KeysteadError(
    "chain/unknown-implementation",
    `${pin.name} ${pin.address} runs code that is not pinned here: ${what}, at ${implementation}`,
    {
      argument: "implementations",
      remedy: "Verify the upgrade. If this version of keystead understands it, pin the new implementation.",
      details: { contract: pin.name, implementation, codeHash },
    },
  );
}

function lowerCode({ address, codeHash }: { readonly address: string; readonly codeHash: string }): PinnedCode {
  return { address: lower(address), codeHash: lower(codeHash) };
}

function lower(hex: string): Hex {
  return hex.toLowerCase() as Hex;
}
