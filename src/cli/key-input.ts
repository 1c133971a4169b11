import type { HardhatPlugin } from "hardhat/types/plugins";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { type Key, parseKey } from "../governance/sign.ts";
import type { ChainOption, OptionValues } from "./chain-input.ts";
import type { Io } from "./io.ts";

/** Where the key of a Safe's owner is taken from. */
export const SIGNER_VARIABLE = "KEYSTEAD_SIGNER_KEY";
/** Where the key of the account that pays for gas is taken from. */
export const RELAYER_VARIABLE = "KEYSTEAD_RELAYER_KEY";

/** The option of every command that uses a key. A key itself is never an argument: other users of a machine read command lines. */
export const keyOption = (variable: string): ChainOption => ({
  flags: "--keystore <name>",
  description: `the private key's name in Hardhat's keystore (default: the key in ${variable} of the environment)`,
});

/**
 * Takes a private key from the environment, or from Hardhat's keystore, which asks for its password.
 *
 * @param variable the environment's variable
 * @throws KeysteadError `key/missing`, `key/malformed`, `key/no-keystore`, `key/not-in-keystore`, `input/no-answer`
 * @example
 * const key = await readKey(io, command.opts(), SIGNER_VARIABLE);
 */
export async function readKey(io: Io, options: OptionValues, variable: string): Promise<Key> {
  const { keystore } = options;
  if (typeof keystore === "string") return parseKey(await readKeystore(io, keystore), `the keystore's ${keystore}`);
  const text = io.env[variable];
  if (text !== undefined && text !== "") return parseKey(text, variable);
  throw new KeysteadError("key/missing", "there is no key to use", {
    argument: "key",
    remedy: `Set ${variable} in the environment, or name an entry of Hardhat's keystore with --keystore.`,
  });
}

/** Hardhat asks for passwords on standard output, where nothing but the command's result may stand; so this program asks. */
const askThrough = (io: Io): HardhatPlugin => ({
  id: "keystead-prompt",
  hookHandlers: {
    userInterruptions: async () => ({
      default: async () => ({
        requestSecretInput: async (_context, asker, question) => io.askSecret(`[${asker}] ${question}`),
      }),
    }),
  },
});

/** Reads one entry through Hardhat's own plugin: files and encryption are its. */
async function readKeystore(io: Io, name: string): Promise<string> {
  let modules: readonly [typeof import("hardhat/hre"), typeof import("@nomicfoundation/hardhat-keystore")];
  try {
    modules = await Promise.all([import("hardhat/hre"), import("@nomicfoundation/hardhat-keystore")]);
  } catch (cause) {
    throw new KeysteadError("key/no-keystore", "Hardhat and its keystore are not installed here", {
      argument: "keystore",
      remedy: "Run from the repository with its development dependencies, or give the key by the environment.",
      cause,
    });
  }
  const [{ createHardhatRuntimeEnvironment }, { default: plugin }] = modules;
  const { configVariable } = await import("hardhat/config");
  const environment = await createHardhatRuntimeEnvironment({
    plugins: [plugin, askThrough(io)],
    networks: { keystead: { type: "http", url: configVariable(name) } },
  });
  const network = environment.config.networks.keystead;
  try {
    if (network?.type !== "http") throw new Error("the network is not configured as it was asked for");
    return await network.url.get();
  } catch (cause) {
    if (isKeysteadError(cause)) throw cause;
    throw new KeysteadError("key/not-in-keystore", `Hardhat's keystore gives no ${JSON.stringify(name)}`, {
      argument: "keystore",
      remedy: `Store it with npx hardhat keystore set ${name}, and check the password.`,
      cause,
    });
  }
}
