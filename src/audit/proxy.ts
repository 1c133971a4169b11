import { keccak_256 } from "@noble/hashes/sha3.js";
import { type Block, blockParameter } from "../chain/block.ts";
import type { Client } from "../chain/client.ts";
import { IMPLEMENTATION_SLOT } from "../chain/slots.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import type { HeadBasis } from "../core/history.ts";
import { tryProof } from "./anchor.ts";
import type { AuditFault } from "./result.ts";

/** Which code a proxy runs at a block. Whether it is the code that was published is for whoever has the published hashes to say. */
export interface ProxyCode {
  readonly address: Hex;
  /** keccak-256 of the proxy's own code. */
  readonly proxyCodeHash: Hex;
  /** The implementation (ERC-1967). */
  readonly implementation: Hex;
  /** keccak-256 of the implementation's code. */
  readonly codeHash: Hex;
  readonly basis: HeadBasis;
  /** A false proof: nothing of this endpoint is to be believed. */
  readonly faults: readonly AuditFault[];
}

/**
 * Reads which code a proxy runs: by storage proof where the endpoint offers that, otherwise by its word.
 *
 * @throws KeysteadError `chain/…` when the endpoint can't be asked
 * @example
 * const { implementation, codeHash } = await fetchProxyCode(client, block, registry);
 */
export async function fetchProxyCode(client: Client, block: Block, address: Hex): Promise<ProxyCode> {
  const faults: AuditFault[] = [];
  const proxy = await tryProof(client, block, address, [IMPLEMENTATION_SLOT]);
  if ("values" in proxy) {
    const implementation: Hex = `0x${(proxy.values[0] ?? 0n).toString(16).padStart(40, "0")}`;
    const own = await tryProof(client, block, implementation, []);
    if ("values" in own) {
      const { codeHash } = own;
      return { address, proxyCodeHash: proxy.codeHash, implementation, codeHash, basis: "proof", faults };
    }
    faults.push(...own.faults);
  } else faults.push(...proxy.faults);
  const tag = blockParameter(block.number);
  const slot = String(await client.request("eth_getStorageAt", [address, IMPLEMENTATION_SLOT, tag]));
  const implementation: Hex = `0x${slot.slice(-40).toLowerCase()}`;
  const hashOf = async (account: Hex) =>
    toHex(keccak_256(fromHex(String(await client.request("eth_getCode", [account, tag])), "code")));
  return {
    address,
    proxyCodeHash: await hashOf(address),
    implementation,
    codeHash: await hashOf(implementation),
    basis: "view",
    faults,
  };
}
