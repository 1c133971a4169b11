import { decryptKeystoreJson, isKeystoreJson } from "ethers";
import type { HardhatPlugin } from "hardhat/types/plugins";
import { decodeUtf8 } from "../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../core/errors.ts";
import { type Key, parseKey } from "../governance/sign.ts";
import type { ChainOption, OptionValues } from "./chain-input.ts";
import type { Io } from "./io.ts";
import { safeText } from "./output.ts";

/** Where the key of a Safe's owner is taken from. */
export const SIGNER_VARIABLE = "KEYSTEAD_SIGNER_KEY";
/** Where the key of the account that pays for gas is taken from. */
export const RELAYER_VARIABLE = "KEYSTEAD_RELAYER_KEY";

/**
 * Options of every command that uses a key: where it comes from, the safest first. A key itself is never an argument: other users of a machine read
 * command lines.
 */
export const keyOptions = (variable: string): readonly ChainOption[] => [
  { flags: "--key-file <file>", description: "an encrypted key file (Web3 Secret Storage, as cast and geth write)" },
  { flags: "--password-file <file>", description: "the key file's password (default: it is asked for)" },
  {
    flags: "--keystore <name>",
    description: `the private key's name in Hardhat's keystore (default: the key in ${variable} of the environment)`,
  },
];

/** Larger than any encrypted key file. */
const KEY_FILE_LIMIT = 64 * 1024;

/** Opens an encrypted key file: ethers' own reader of Web3 Secret Storage, version 3. */
async function readKeyFile(io: Io, name: string, passwordFile: unknown): Promise<Key> {
  const { bytes } = await io.readFile(name, { limit: KEY_FILE_LIMIT, argument: "key-file" });
  const text = decodeUtf8(bytes, "key-file");
  if (!isKeystoreJson(text)) {
    throw new KeysteadError("key/not-a-key-file", `${name} is not an encrypted key file`, {
      argument: "key-file",
      remedy: "Give a file of Web3 Secret Storage, version 3: cast wallet import NAME --interactive writes one.",
    });
  }
  const password =
    typeof passwordFile === "string"
      ? decodeUtf8(
          (await io.readFile(passwordFile, { limit: KEY_FILE_LIMIT, argument: "password-file" })).bytes,
          "password-file",
        ).replace(/\r?\n$/, "")
      : await io.askSecret(`password of ${safeText(name)}`);
  let key: string;
  try {
    key = (await decryptKeystoreJson(text, password)).privateKey;
  } catch {
    // the cause may hold the password
    throw new KeysteadError("key/wrong-password", `the password does not open ${name}`, {
      argument: typeof passwordFile === "string" ? "password-file" : "key-file",
      remedy: "Check the password, and that the file is whole.",
    });
  }
  return parseKey(key, name);
}

/**
 * Takes a private key from an encrypted file, from Hardhat's keystore (both ask for a password), or from the environment.
 *
 * @param variable the environment's variable
 * @throws KeysteadError `key/missing`, `key/malformed`, `key/no-keystore`, `key/not-in-keystore`, `key/not-a-key-file`, `key/wrong-password`,
 * `input/no-answer`
 * @example
 * const key = await readKey(io, command.opts(), SIGNER_VARIABLE);
 */
export async function readKey(io: Io, options: OptionValues, variable: string): Promise<Key> {
  const { keystore, keyFile, passwordFile } = options;
  if (typeof keyFile === "string") return readKeyFile(io, keyFile, passwordFile);
  if (typeof keystore === "string") return parseKey(await readKeystore(io, keystore), `the keystore's ${keystore}`);
  const text = io.env[variable];
  if (text !== undefined && text !== "") return parseKey(text, variable);
  throw new KeysteadError("key/missing", "there is no key to use", {
    argument: "key",
    remedy: `Give an encrypted file with --key-file, an entry of Hardhat's keystore with --keystore, or ${variable} in the environment.`,
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
