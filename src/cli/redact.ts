import { scrub, secretsIn } from "../chain/endpoint-url.ts";
import type { Io } from "./io.ts";

/*
 * The last line of defence: whatever a command prints, no credential that it was given with the command line or the environment is in it. The rooms below do
 * not repeat any; an endpoint, a library or a mistake may.
 */

/** Options whose value is an endpoint: its path and query may be a key. */
const ENDPOINTS = /^--(rpc|witness|webhook)(?:=(.*))?$/s;
/** In the path of any other URL keys are longer than words are. */
const LONGEST_WORD = 15;
/** Environment variables that hold endpoints, and those that hold secrets as they are. */
const ENDPOINT_VARIABLE = /_URL$/;
const SECRET_VARIABLE = /^KEYSTEAD_\w*(KEY|SECRET|TOKEN|PASSPHRASE|PASSWORD)$/;

/**
 * The same outside, on which no credential of this run is printed.
 *
 * @param args the command line
 * @example
 * const io = withoutSecrets(createIo(process), process.argv.slice(2));
 */
export function withoutSecrets(io: Io, args: readonly string[]): Io {
  const secrets = secretsOf(args, io.env);
  if (secrets.length === 0) return io;
  return {
    ...io,
    print: (text) => io.print(scrub(text, secrets)),
    warn: (text) => io.warn(scrub(text, secrets)),
  };
}

function secretsOf(args: readonly string[], env: Io["env"]): readonly string[] {
  const found = new Set<string>();
  const addUrl = (url: string, isEndpoint: boolean) => {
    if (!url.includes("://")) return;
    // what is not quite a URL may hold a password all the same
    if (!URL.canParse(url) && url.includes("@")) found.add(url);
    const { username = "", password = "" } = URL.canParse(url) ? new URL(url) : {};
    for (const secret of secretsIn(url)) {
      const isLogin = [username, password].some((part) => part !== "" && secret.includes(part));
      if (isEndpoint || isLogin || secret.length > LONGEST_WORD) found.add(secret);
    }
  };
  args.forEach((argument, at) => {
    const [, , inline] = ENDPOINTS.exec(argument) ?? [];
    if (inline !== undefined) addUrl(inline, true);
    else addUrl(argument.replace(/^--[\w-]+=/, ""), ENDPOINTS.test(args[at - 1] ?? ""));
  });
  for (const [name, value] of Object.entries(env)) {
    if (value === undefined || value === "") continue;
    if (SECRET_VARIABLE.test(name) && value.length >= 8) {
      found.add(value);
      found.add(value.replace(/^0x/, ""));
    } else if (name.startsWith("KEYSTEAD_") && ENDPOINT_VARIABLE.test(name)) addUrl(value, true);
  }
  // as JSON writes it
  for (const secret of [...found]) found.add(JSON.stringify(secret).slice(1, -1));
  return [...found].sort((a, b) => b.length - a.length);
}
