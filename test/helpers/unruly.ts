import { createServer, type RequestListener } from "node:http";
import type { Fetch } from "../../src/agent/http.ts";

/* Servers that do what no server should, and the count of how far they were followed. */

/** A body that does not end for anybody who sets a limit, and how many bytes of it were taken. */
export interface Endless {
  readonly response: (status?: number, start?: string) => Response;
  taken: number;
  /** Whether whoever read it said that it wants no more. */
  cancelled: boolean;
}

/** Whoever sets none is to fail, and not to hang. */
const ENOUGH = 64 * 1024 * 1024;
const CHUNK = new Uint8Array(64 * 1024).fill(0x20);

/** Makes an answer that goes on far beyond any limit. */
export function endless(): Endless {
  const made: Endless = {
    taken: 0,
    cancelled: false,
    response: (status = 200, start = "") => {
      let first: Uint8Array | undefined = new TextEncoder().encode(start);
      const stream = new ReadableStream<Uint8Array>(
        {
          pull(controller) {
            const chunk = first !== undefined && first.length > 0 ? first : CHUNK;
            first = undefined;
            made.taken += chunk.length;
            controller.enqueue(chunk);
            if (made.taken > ENOUGH) controller.close();
          },
          cancel() {
            made.cancelled = true;
          },
        },
        { highWaterMark: 0 },
      );
      return new Response(stream, { status });
    },
  };
  return made;
}

/** A real server on this machine, for what only a real `fetch` does: redirects, answers that hang. */
export async function startServer(
  listener: RequestListener,
): Promise<{ readonly url: string; readonly stop: () => Promise<void> }> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}`,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** A `fetch` that answers by the path; what has no answer is 404. Keeps the paths that were asked for. */
export function fetchFrom(answers: (path: string) => Response | undefined): Fetch & { readonly asked: string[] } {
  const asked: string[] = [];
  const answer: Fetch = async (url) => {
    const { pathname, search } = new URL(url);
    asked.push(pathname + search);
    return answers(pathname + search) ?? new Response("", { status: 404 });
  };
  return Object.assign(answer, { asked });
}

/** An answer in JSON. */
export const json = (value: unknown, status = 200, type = "application/json"): Response =>
  new Response(JSON.stringify(value), { status, headers: { "content-type": type } });
