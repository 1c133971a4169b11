import type { Eip1193Provider } from "../../src/chain/client.ts";

/** What an endpoint answered, call by call: played back, it is that endpoint at that moment. */
export interface Tape {
  readonly entries: readonly { readonly key: string; readonly method: string; readonly answer: unknown }[];
}

const keyOf = (call: { readonly method: string; readonly params?: readonly unknown[] }) =>
  `${call.method} ${JSON.stringify(call.params ?? [])}`;

/** An endpoint that passes calls on and writes down the first answer to each. */
export function recorder(honest: Eip1193Provider): Eip1193Provider & { readonly tape: () => Tape } {
  const answers = new Map<string, { key: string; method: string; answer: unknown }>();
  return {
    tape: () => ({ entries: [...answers.values()] }),
    async request(call) {
      const key = keyOf(call);
      const answer = await honest.request(call);
      if (!answers.has(key)) answers.set(key, { key, method: call.method, answer: structuredClone(answer) });
      return answer;
    },
  };
}

/** Plays a tape back, with one answer exchanged for another; what was never asked is refused. */
export function player(
  { entries }: Tape,
  altered?: { readonly key: string; readonly answer: unknown },
): Eip1193Provider {
  const answers = new Map(entries.map(({ key, answer }) => [key, answer]));
  if (altered !== undefined) answers.set(altered.key, altered.answer);
  return {
    async request(call) {
      const key = keyOf(call);
      if (!answers.has(key)) throw { code: -32000, message: "this was not asked before" };
      return structuredClone(answers.get(key));
    },
  };
}

/** One answer with one thing in it changed. */
export interface Alteration {
  readonly key: string;
  readonly method: string;
  /** Where, and to what, for a failing test's message. */
  readonly what: string;
  readonly answer: unknown;
}

const flip = (text: string): string => {
  const at = Math.max(2, Math.floor(text.length / 2));
  return `${text.slice(0, at)}${text[at] === "7" ? "8" : "7"}${text.slice(at + 1)}`;
};

/** Each is done to each value in turn; what does not apply to a value is left out. */
const WAYS: readonly ((value: unknown) => unknown)[] = [
  (value) => (typeof value === "string" ? flip(value) : undefined),
  (value) => (typeof value === "string" && value.length > 3 ? value.slice(0, -1) : undefined),
  (value) => (typeof value === "string" ? "0x" : undefined),
  (value) => (typeof value === "string" ? `0x${"0".repeat(Math.max(1, value.length - 2))}` : undefined),
  () => null,
  (value) => (Array.isArray(value) && value.length > 0 ? value.slice(1) : undefined),
  (value) => (Array.isArray(value) && value.length > 1 ? value.toReversed() : undefined),
  (value) => (Array.isArray(value) ? [...value, ...value] : undefined),
];

/** Every value of every answer, altered: `every` takes only each n-th, and all ways in turn. */
export function alterations({ entries }: Tape, every: number): readonly Alteration[] {
  const found: Alteration[] = [];
  let count = 0;
  for (const { key, method, answer } of entries) {
    const visit = (value: unknown, path: readonly (string | number)[]): void => {
      WAYS.forEach((way, at) => {
        const other = way(value);
        if (other === undefined || JSON.stringify(other) === JSON.stringify(value)) return;
        count += 1;
        if (count % every === 0) {
          const what = `${method} ${path.join(".")} way ${at}`;
          found.push({ key, method, what, answer: replaced(answer, path, other) });
        }
      });
      if (typeof value !== "object" || value === null) return;
      for (const [name, inner] of Object.entries(value)) visit(inner, [...path, name]);
    };
    visit(answer, []);
  }
  return found;
}

function replaced(value: unknown, path: readonly (string | number)[], other: unknown): unknown {
  const [name, ...rest] = path;
  if (name === undefined) return other;
  if (Array.isArray(value))
    return value.map((inner, at) => (at === Number(name) ? replaced(inner, rest, other) : inner));
  const object = value as Readonly<Record<string, unknown>>;
  return { ...object, [name]: replaced(object[name], rest, other) };
}
