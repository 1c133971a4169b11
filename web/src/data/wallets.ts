import { type Client, connect, type Eip1193Provider } from "../../../src/chain/client.ts";
import { KeysteadError } from "../../../src/core/errors.ts";

/** A wallet that announced itself to the page (EIP-6963), or the one that stands in `window.ethereum`. */
export interface Wallet {
  readonly id: string;
  /** Its own word: shown as text. */
  readonly name: string;
  readonly provider: Eip1193Provider;
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null;
const isProvider = (value: unknown): value is Eip1193Provider => isObject(value) && typeof value.request === "function";

/**
 * Follows the wallets that announce themselves. Several may claim one name, so each is known by its id alone.
 *
 * @returns what ends it
 * @example
 * const stop = watchWallets((wallets) => show(wallets));
 */
export function watchWallets(onChange: (wallets: readonly Wallet[]) => void): () => void {
  const known = new Map<string, Wallet>();
  const add = (id: string, name: string, provider: Eip1193Provider) => {
    if (known.has(id) || known.size >= 16) return;
    known.set(id, { id, name: name.slice(0, 60), provider });
    onChange([...known.values()]);
  };
  const follow = (event: Event) => {
    const detail: unknown = event instanceof CustomEvent ? event.detail : undefined;
    if (!isObject(detail) || !isObject(detail.info) || !isProvider(detail.provider)) return;
    const { uuid, name } = detail.info;
    if (typeof uuid === "string" && typeof name === "string") add(uuid, name, detail.provider);
  };
  window.addEventListener("eip6963:announceProvider", follow);
  window.dispatchEvent(new Event("eip6963:requestProvider"));
  const injected: unknown = Reflect.get(window, "ethereum");
  if (isProvider(injected)) add("window.ethereum", "Browser wallet", injected);
  return () => window.removeEventListener("eip6963:announceProvider", follow);
}

/** A wallet's refusal or failure, as an error of ours; its words are its own. */
function walletError(cause: unknown): KeysteadError {
  const code = isObject(cause) ? cause.code : undefined;
  const said = isObject(cause) && typeof cause.message === "string" ? cause.message.slice(0, 200) : "no reason given";
  return code === 4001
    ? new KeysteadError("wallet/declined", "you declined it in the wallet", { remedy: "Nothing was signed." })
    : new KeysteadError("wallet/failed", `the wallet failed: ${said}`, {
        remedy: "Unlock it and try again; or sign with keystead sign.",
        retryable: true,
        cause,
      });
}

async function ask(wallet: Wallet, method: string, params: readonly unknown[]): Promise<unknown> {
  try {
    return await wallet.provider.request({ method, params });
  } catch (cause) {
    throw walletError(cause);
  }
}

/** An account of a wallet that is on the right chain. */
export interface Connected {
  readonly wallet: Wallet;
  readonly account: string;
  /** The chain, through the wallet: its word. */
  readonly client: Client;
}

/**
 * Asks a wallet for its account, on the proposal's chain; where it is on another, asks it to change.
 *
 * @throws KeysteadError `wallet/declined`, `wallet/failed`, `wallet/no-account`, `wallet/wrong-chain`
 * @example
 * const { account, client } = await connectWallet(wallet, operation.chainId);
 */
export async function connectWallet(wallet: Wallet, chainId: bigint): Promise<Connected> {
  const accounts = await ask(wallet, "eth_requestAccounts", []);
  const [account] = Array.isArray(accounts) ? accounts : [];
  if (typeof account !== "string" || !/^0x[0-9a-fA-F]{40}$/.test(account)) {
    throw new KeysteadError("wallet/no-account", "the wallet gives no account", {
      remedy: "Choose an account in the wallet and connect again.",
    });
  }
  const chainOf = async () => BigInt(String(await ask(wallet, "eth_chainId", [])));
  if ((await chainOf()) !== chainId) {
    await ask(wallet, "wallet_switchEthereumChain", [{ chainId: `0x${chainId.toString(16)}` }]);
    const now = await chainOf();
    if (now !== chainId) {
      throw new KeysteadError("wallet/wrong-chain", `the wallet is on chain ${now}, the proposal on ${chainId}`, {
        remedy: "Change the network in the wallet and connect again.",
      });
    }
  }
  return { wallet, account, client: await connect(wallet.provider, { chainId: Number(chainId), attempts: 1 }) };
}

/**
 * Has a wallet sign typed data.
 *
 * @throws KeysteadError `wallet/declined`, `wallet/failed`
 * @example
 * const signature = await signTyped(connected, typedDataOf(operation.chainId, planned, null));
 */
export async function signTyped({ wallet, account }: Connected, typed: object): Promise<string> {
  const signature = await ask(wallet, "eth_signTypedData_v4", [account, JSON.stringify(typed)]);
  if (typeof signature === "string") return signature;
  throw new KeysteadError("wallet/failed", "the wallet gave no signature", {
    remedy: "Try again; or sign with keystead sign.",
  });
}
