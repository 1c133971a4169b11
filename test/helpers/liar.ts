import type { Eip1193Provider } from "../../src/chain/client.ts";

/** An endpoint that passes calls on and may change the answers; it counts calls by method. */
export interface Liar extends Eip1193Provider {
  readonly counts: Map<string, number>;
}

/** Stands between a client and an honest provider. `lie` gets the answer and gives what is told instead; it may throw. */
export function liar(
  honest: Eip1193Provider,
  lie: (method: string, answer: unknown, params: readonly unknown[]) => unknown = (_method, answer) => answer,
): Liar {
  const counts = new Map<string, number>();
  return {
    counts,
    async request(call) {
      counts.set(call.method, (counts.get(call.method) ?? 0) + 1);
      const answer = structuredClone(await honest.request(call));
      return lie(call.method, answer, call.params ?? []);
    },
  };
}
