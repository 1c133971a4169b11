import { toBeHex, toQuantity } from "ethers";
import hre from "hardhat";
import { type Anvil, startAnvil } from "../../deploy/anvil.ts";
import type { Connection } from "../../deploy/connection.ts";
import { connectToAnvil } from "../helpers/anvil.ts";

/** A chain client under test: both are started afresh, and both can pretend to be a public chain by its id. */
export interface Chain {
  readonly name: "hardhat" | "anvil";
  readonly connection: Connection;
  readonly anvil?: Anvil;
  stop(): Promise<void>;
}

/** The two chain clients that every deployment test runs on. */
export const CLIENTS = ["hardhat", "anvil"] as const;

/** Starts a fresh chain of one client. */
export async function startChain(client: (typeof CLIENTS)[number], chainId = 31337): Promise<Chain> {
  if (client === "hardhat") {
    const connection = await hre.network.create({ network: "default", override: { chainId } });
    return { name: client, connection, stop: () => connection.close() };
  }
  // Instrumented for coverage, the contracts are larger than a chain allows; Hardhat's own network lifts the limit by itself.
  const anvil = await startAnvil({ chainId, args: hre.globalOptions.coverage ? ["--disable-code-size-limit"] : [] });
  const connection = await connectToAnvil(anvil.url, chainId);
  const stop = async () => {
    await connection.close();
    await anvil.stop();
  };
  return { name: client, connection, anvil, stop };
}

/** Addresses of the connection's accounts: the deployer first, then people who own Safes, then strangers. */
export async function fetchActors(connection: Connection) {
  const addresses = (await connection.ethers.getSigners()).map((signer) => signer.address);
  const [deployer = "", alice = "", bob = "", carol = "", dave = "", erin = "", frank = "", stranger = ""] = addresses;
  return { deployer, alice, bob, carol, dave, erin, frank, stranger };
}

/** Puts code at an address, which only a development node can. */
export async function setCode({ name, connection }: Chain, address: string, code: string): Promise<void> {
  await connection.provider.request({ method: `${name}_setCode`, params: [address, code] });
}

/** Writes one storage slot, which only a development node can. */
export async function setSlot(
  { name, connection }: Chain,
  address: string,
  slot: bigint,
  value: string,
): Promise<void> {
  const params = [address, name === "hardhat" ? toQuantity(slot) : toBeHex(slot, 32), value];
  await connection.provider.request({ method: `${name}_setStorageAt`, params });
}

/** Moves the chain's clock and mines a block. */
export async function passTime({ connection }: Chain, seconds: number): Promise<void> {
  await connection.provider.request({ method: "evm_increaseTime", params: [seconds] });
  await connection.provider.request({ method: "evm_mine", params: [] });
}
