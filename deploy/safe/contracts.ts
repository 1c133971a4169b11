import { createRequire } from "node:module";
import type { ContractNetworksConfig } from "@safe-global/protocol-kit";
import { getSingletonFactoryInfo } from "@safe-global/safe-singleton-factory";
import { concat, getCreate2Address, keccak256, ZeroHash } from "ethers";
import type { SafeVersion as KnownSafeVersion } from "../../src/chain/safe-releases.ts";
import { KeysteadError } from "../../src/core/errors.ts";
import {
  type Connection,
  fetchChainId,
  fetchSigner,
  isLocalChain,
  type Log,
  sendAndWait,
  silent,
} from "../connection.ts";

/** The Safe releases that Keystead deploys. It recognises those of src/chain/safe-releases.ts, of which 1.3.0 has no creation code on npm. */
export const SAFE_VERSIONS = ["1.4.1", "1.5.0"] as const satisfies readonly KnownSafeVersion[];
export type SafeVersion = (typeof SAFE_VERSIONS)[number];

/** One contract of a Safe release: where it lives on every chain, and the hash of its code there. */
export interface SafeContract {
  readonly name: string;
  readonly address: string;
  readonly codeHash: string;
  /** Creation code from Safe's own npm package. */
  readonly creationCode: string;
}

/** protocol-kit's name for each contract's address (`ContractNetworkConfig`). */
type KitAddress =
  | "safeSingletonAddress"
  | "safeProxyFactoryAddress"
  | "multiSendAddress"
  | "multiSendCallOnlyAddress"
  | "fallbackHandlerAddress"
  | "extensibleFallbackHandlerAddress"
  | "signMessageLibAddress"
  | "createCallAddress"
  | "simulateTxAccessorAddress";

interface Row {
  /** File in safe-deployments, which publishes the canonical address and code hash. */
  readonly published: string;
  /** File under `build/artifacts/contracts` of the release's npm package. */
  readonly artifact: string;
  readonly kit?: KitAddress;
  readonly since?: SafeVersion;
}

const ROWS: readonly Row[] = [
  { published: "safe", artifact: "Safe.sol/Safe" },
  { published: "safe_l2", artifact: "SafeL2.sol/SafeL2", kit: "safeSingletonAddress" },
  {
    published: "safe_proxy_factory",
    artifact: "proxies/SafeProxyFactory.sol/SafeProxyFactory",
    kit: "safeProxyFactoryAddress",
  },
  { published: "multi_send", artifact: "libraries/MultiSend.sol/MultiSend", kit: "multiSendAddress" },
  {
    published: "multi_send_call_only",
    artifact: "libraries/MultiSendCallOnly.sol/MultiSendCallOnly",
    kit: "multiSendCallOnlyAddress",
  },
  {
    published: "compatibility_fallback_handler",
    artifact: "handler/CompatibilityFallbackHandler.sol/CompatibilityFallbackHandler",
    kit: "fallbackHandlerAddress",
  },
  {
    published: "extensible_fallback_handler",
    artifact: "handler/ExtensibleFallbackHandler.sol/ExtensibleFallbackHandler",
    kit: "extensibleFallbackHandlerAddress",
    since: "1.5.0",
  },
  {
    published: "sign_message_lib",
    artifact: "libraries/SignMessageLib.sol/SignMessageLib",
    kit: "signMessageLibAddress",
  },
  { published: "create_call", artifact: "libraries/CreateCall.sol/CreateCall", kit: "createCallAddress" },
  {
    published: "simulate_tx_accessor",
    artifact: "accessors/SimulateTxAccessor.sol/SimulateTxAccessor",
    kit: "simulateTxAccessorAddress",
  },
];

const PACKAGES: Record<SafeVersion, string> = {
  "1.4.1": "@safe-global/safe-contracts",
  "1.5.0": "@safe-global/safe-smart-account",
};

const require = createRequire(import.meta.url);

interface Published {
  readonly deployments: { readonly canonical: { readonly address: string; readonly codeHash: string } };
}

function readArtifact(version: SafeVersion, path: string): { bytecode: string; deployedBytecode: string } {
  return require(`${PACKAGES[version]}/build/artifacts/contracts/${path}.json`);
}

/**
 * A Safe release as data: every contract's canonical address and code hash as safe-deployments publishes them, and its creation
 * code from Safe's npm package.
 *
 * @example safeRelease("1.5.0").find((c) => c.name === "safe_l2")?.address // 0xEdd160fEBBD92E350D4D398fb636302fccd67C7e
 */
export function safeRelease(version: SafeVersion): SafeContract[] {
  return ROWS.filter((row) => row.since === undefined || row.since === version).map((row) => {
    const published: Published = require(`@safe-global/safe-deployments/dist/assets/v${version}/${row.published}.json`);
    const { address, codeHash } = published.deployments.canonical;
    return { name: row.published, address, codeHash, creationCode: readArtifact(version, row.artifact).bytecode };
  });
}

/** Hash of the code that every Safe account (a proxy) of a release has. */
export function safeProxyCodeHash(version: SafeVersion): string {
  return keccak256(readArtifact(version, "proxies/SafeProxy.sol/SafeProxy").deployedBytecode);
}

/**
 * The addresses of a release in protocol-kit's form. protocol-kit needs it wherever safe-deployments lists no contracts, as on 31337.
 *
 * @param chainId the chain that the addresses are for
 */
export function contractNetworks(version: SafeVersion, chainId: bigint): ContractNetworksConfig {
  const addresses: Partial<Record<KitAddress, string>> = {};
  const release = new Map(safeRelease(version).map((contract) => [contract.name, contract.address]));
  for (const { published, kit } of ROWS) {
    const address = release.get(published);
    if (kit !== undefined && address !== undefined) addresses[kit] = address;
  }
  return { [chainId.toString()]: addresses };
}

/**
 * Makes sure that a Safe release stands at its canonical addresses. On a local chain, what is missing is deployed: Safe's singleton
 * factory from its pre-signed transaction, then each contract by CREATE2 with salt 0 from the npm artifact's creation code. In
 * every case the resulting code is compared with the hash that safe-deployments publishes. Running it again does nothing.
 *
 * @param options.mayDeploy default: on local chains only
 * @returns protocol-kit's `contractNetworks` for this chain
 * @throws KeysteadError `safe/not-on-chain` (missing, and not allowed to deploy), `safe/no-factory` (Safe signed no factory deployment for
 *   this chain id), `safe/wrong-code` (other code at a canonical address)
 * @example const networks = await ensureSafeContracts(await network.create(), "1.5.0");
 */
export async function ensureSafeContracts(
  connection: Connection,
  version: SafeVersion,
  options: { readonly log?: Log; readonly mayDeploy?: boolean } = {},
): Promise<ContractNetworksConfig> {
  const log = options.log ?? silent;
  const chainId = await fetchChainId(connection);
  const mayDeploy = options.mayDeploy ?? isLocalChain(chainId);
  let deployed = 0;
  for (const contract of safeRelease(version)) {
    let code = await connection.ethers.provider.getCode(contract.address);
    if (code === "0x") {
      if (!mayDeploy) {
        throw new KeysteadError(
          "safe/not-on-chain",
          `chain ${chainId} has no Safe ${version} ${contract.name} at ${contract.address}`,
          {
            argument: "safeVersion",
            remedy: "choose a Safe version that this chain has, or have Safe deploy it there",
          },
        );
      }
      await deployCanonical(connection, chainId, contract);
      deployed++;
      code = await connection.ethers.provider.getCode(contract.address);
    }
    const codeHash = keccak256(code);
    if (codeHash !== contract.codeHash) {
      throw new KeysteadError(
        "safe/wrong-code",
        `the code at ${contract.address} is not Safe ${version} ${contract.name}: hash ${codeHash}, published ${contract.codeHash}`,
        { remedy: "do not use this chain with this Safe version", details: { address: contract.address, codeHash } },
      );
    }
  }
  if (deployed > 0) log(`Safe ${version}: ${deployed} contracts put at their canonical addresses`);
  return contractNetworks(version, chainId);
}

async function deployCanonical(connection: Connection, chainId: bigint, contract: SafeContract): Promise<void> {
  const factory = await ensureSingletonFactory(connection, chainId);
  const lands = getCreate2Address(factory, ZeroHash, keccak256(contract.creationCode));
  if (lands !== contract.address) {
    throw new KeysteadError(
      "safe/wrong-code",
      `creation code of ${contract.name} lands on ${lands}, published address is ${contract.address}`,
      { remedy: "reinstall the pinned packages: the installed Safe package is not the release", details: { lands } },
    );
  }
  await sendAndWait(connection, { to: factory, data: concat([ZeroHash, contract.creationCode]) });
}

/** Deploys Safe's singleton factory with the transaction that Safe signed for this chain id; returns its address. */
async function ensureSingletonFactory(connection: Connection, chainId: bigint): Promise<string> {
  const info = getSingletonFactoryInfo(Number(chainId));
  if (info === undefined) {
    throw new KeysteadError("safe/no-factory", `Safe has signed no factory deployment for chain ${chainId}`, {
      argument: "chainId",
      remedy: "run the local node with chain id 31337 or 1337",
    });
  }
  const { provider } = connection.ethers;
  if ((await provider.getCode(info.address)) !== "0x") return info.address;
  const cost = BigInt(info.gasPrice) * BigInt(info.gasLimit);
  if ((await provider.getBalance(info.signerAddress)) < cost) {
    const signer = await fetchSigner(connection);
    await sendAndWait(connection, { to: info.signerAddress, value: cost }, signer.address);
  }
  const sent = await provider.broadcastTransaction(info.transaction);
  await sent.wait();
  return info.address;
}
