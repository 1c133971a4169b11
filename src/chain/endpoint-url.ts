import { KeysteadError } from "../core/errors.ts";

/*
 * Where an endpoint is, and what of that is a secret. A URL may hold a user and a password, and often a key in its path or query; nothing of it may come
 * back in a message, a log line or an answer, whoever wrote it there.
 */

/** An endpoint's URL, taken apart. */
export interface EndpointAddress {
  /** Without user and password. */
  readonly address: string;
  /** The header's value, where the URL has a user or a password. */
  readonly authorization: string | undefined;
  /** A text with every part of the URL that may be a secret replaced by `…`. */
  readonly scrub: (text: string) => string;
}

/** Parts of a path or query that are shorter are words (`v2`, `rpc`, `mainnet`), not keys. */
const SHORTEST_KEY = 9;

/**
 * Takes an endpoint's URL apart.
 *
 * @throws KeysteadError `chain/bad-endpoint`
 * @example
 * parseEndpoint("https://user:pass@rpc.example").address; // "https://rpc.example/"
 */
export function parseEndpoint(text: string): EndpointAddress {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw new KeysteadError("chain/bad-endpoint", "the endpoint is not an http or https URL", {
      argument: "endpoint",
      remedy: "Give a URL such as https://rpc.example.",
    });
  }
  const secrets = secretsIn(text);
  const user = decoded(url.username);
  const password = decoded(url.password);
  url.username = "";
  url.password = "";
  const authorization = user === "" && password === "" ? undefined : `Basic ${base64(`${user}:${password}`)}`;
  return { address: url.href, authorization, scrub: (words) => scrub(words, secrets) };
}

/**
 * Every part of a URL that may be a secret, in each spelling in which it may come back; longest first. Empty for what is not a URL.
 *
 * @example
 * secretsIn("https://rpc.example/v2/0123456789abcdef"); // ["/v2/0123456789abcdef", "0123456789abcdef"]
 */
export function secretsIn(text: string): readonly string[] {
  if (!URL.canParse(text)) return [];
  const { username, password, pathname, search, searchParams, hash } = new URL(text);
  const found = new Set<string>();
  const add = (part: string, shortest: number) => {
    for (const spelling of [part, decoded(part), encodeURIComponent(decoded(part))]) {
      if (spelling.length >= shortest) found.add(spelling);
    }
  };
  // a password is one at any length; a user may be a common word, and then its pair is what gives it away
  add(password, 1);
  add(username, 3);
  if (username !== "" || password !== "") {
    found.add(`${username}:${password}`);
    found.add(base64(`${decoded(username)}:${decoded(password)}`));
  }
  for (const part of pathname.split("/")) add(part, SHORTEST_KEY);
  for (const value of searchParams.values()) add(value, SHORTEST_KEY);
  if (pathname.length >= SHORTEST_KEY) found.add(pathname);
  if (search.length >= SHORTEST_KEY) found.add(search);
  if (hash.length >= SHORTEST_KEY) found.add(hash);
  return [...found].sort((a, b) => b.length - a.length);
}

/**
 * A text without given secrets.
 *
 * @example
 * scrub("key 0123456789abcdef is unknown", ["0123456789abcdef"]); // "key … is unknown"
 */
export function scrub(text: string, secrets: readonly string[]): string {
  let clean = text;
  for (const secret of secrets) clean = clean.replaceAll(secret, "…");
  return clean;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function base64(text: string): string {
  let binary = "";
  for (const byte of new TextEncoder().encode(text)) binary += String.fromCharCode(byte);
  return btoa(binary);
}
