import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** What a proxy makes of an answer; it may throw `{code, message}`, which becomes the JSON-RPC error. */
export type Change = (method: string, answer: unknown, params: readonly unknown[]) => unknown;

/** An endpoint between a client and a chain, over HTTP, that may change the answers. */
export interface ProxyEndpoint {
  readonly url: string;
  change: Change;
  stop(): Promise<void>;
}

const honest: Change = (_method, answer) => answer;

/** Starts a proxy before the endpoint at `target`. */
export async function startProxy(target: string): Promise<ProxyEndpoint> {
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const call = JSON.parse(Buffer.concat(chunks).toString());
    const headers = { "content-type": "application/json" };
    const answered = await fetch(target, { method: "POST", headers, body: JSON.stringify(call) });
    const answer = (await answered.json()) as { readonly result?: unknown };
    let body: unknown = answer;
    try {
      if ("result" in answer) body = { ...answer, result: proxy.change(call.method, answer.result, call.params ?? []) };
    } catch (error) {
      body = { jsonrpc: "2.0", id: call.id, error };
    }
    response.writeHead(200, headers).end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const stop = async () => {
    server.closeAllConnections();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
  const proxy: ProxyEndpoint = { url: `http://127.0.0.1:${port}`, change: honest, stop };
  return proxy;
}
