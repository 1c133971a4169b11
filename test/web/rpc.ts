import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { httpTransport } from "../../src/chain/http.ts";
import { liar } from "../helpers/liar.ts";

/** What a lying endpoint gives in place of an honest answer. */
export type Lie = (method: string, answer: unknown, params: readonly unknown[]) => unknown;

/** An endpoint that pages may ask, between them and an honest one. */
export interface LyingEndpoint {
  readonly url: string;
  close(): Promise<void>;
}

const CORS = { "access-control-allow-origin": "*", "access-control-allow-headers": "content-type" };

/** Starts an endpoint that answers as the honest one does, but for what `lie` makes of it. A lie that throws `{code, message}` is an error answer. */
export async function startLiar(honest: string, lie: Lie): Promise<LyingEndpoint> {
  const provider = liar(httpTransport(honest, 30_000), lie);
  const server = createServer(async (request, response) => {
    if (request.method === "OPTIONS") return response.writeHead(204, CORS).end();
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const call = JSON.parse(Buffer.concat(chunks).toString("utf8"));
    const answer = await provider.request({ method: call.method, params: call.params }).then(
      (result) => ({ result }),
      (error: { code?: number; message?: string }) => ({
        error: { code: error.code ?? -32603, message: error.message ?? String(error) },
      }),
    );
    response.writeHead(200, { ...CORS, "content-type": "application/json" });
    return response.end(JSON.stringify({ jsonrpc: "2.0", id: call.id, ...answer }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
