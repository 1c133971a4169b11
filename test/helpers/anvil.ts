import hre from "hardhat";
import type { Connection } from "./suite.ts";

const SENDING = ["eth_sendTransaction", "eth_sendRawTransaction"];
/** Longer than any block takes; what is not in one by then never will be. */
const PATIENCE_MS = 30_000;

/**
 * Connects to an anvil. A transaction that was sent is in a block before the next line of a test runs, as on Hardhat's own chain: anvil answers as soon as
 * it has a transaction, and mines it in a task of its own, on a busy machine after the next question.
 */
export async function connectToAnvil(url: string, chainId?: number): Promise<Connection> {
  const override = chainId === undefined ? { url } : { url, chainId };
  const connection = await hre.network.create({ network: "anvil", override });
  const { provider } = connection;
  const ask = provider.request.bind(provider);
  let mining = true;
  provider.request = async (call) => {
    const answer = await ask(call);
    if (call.method === "evm_setAutomine") mining = Array.isArray(call.params) && call.params[0] === true;
    if (!mining || !SENDING.includes(call.method)) return answer;
    const deadline = Date.now() + PATIENCE_MS;
    const mined = () => ask({ method: "eth_getTransactionReceipt", params: [answer] });
    while ((await mined()) === null) {
      if (Date.now() > deadline) throw new Error(`${answer} is not mined`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return answer;
  };
  return connection;
}
