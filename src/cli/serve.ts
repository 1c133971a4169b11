import { createServer as createHttpServer, type Server } from "node:http";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { getRequestListener } from "@hono/node-server";
import type { Hono } from "hono";
import { KeysteadError } from "../core/errors.ts";

/** Where and how to serve. */
export interface ServeOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  /** PEM: the chain of certificates and its private key; without them plain HTTP. */
  readonly tls?: { readonly cert: Uint8Array; readonly key: Uint8Array } | undefined;
}

/** A server that listens. */
export interface Serving {
  /** With the port that it got. */
  readonly url: string;
  /** Stops listening, drops open connections and waits until that is done. */
  close(): Promise<void>;
}

/** Milliseconds for a request's headers, and for the whole of it: nothing here takes uploads from slow callers. */
const HEADERS_TIMEOUT = 10_000;
const REQUEST_TIMEOUT = 30_000;

/**
 * Serves an application over HTTP, or over TLS where a certificate is given.
 *
 * @throws KeysteadError `serve/tls` for files that are no certificate and its key; `serve/listen` {host, port} where the address can't be had
 * @example
 * const serving = await serveApp(createVmUpdatesApp(options), { host: "127.0.0.1", port: 0 });
 * await fetch(`${serving.url}/vm_updates`);
 * await serving.close();
 */
export async function serveApp(app: Pick<Hono, "fetch">, { host, port, tls }: ServeOptions): Promise<Serving> {
  const listener = getRequestListener((request, env) => app.fetch(request, env));
  const server = createServer(tls, listener);
  server.headersTimeout = HEADERS_TIMEOUT;
  server.requestTimeout = REQUEST_TIMEOUT;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) => {
      reject(
        new KeysteadError("serve/listen", `cannot listen on ${host} port ${port}: ${cause.message}`, {
          argument: "port",
          remedy:
            cause.code === "EADDRINUSE"
              ? "Choose another --port, or stop what uses it."
              : "Choose another --host or --port.",
          details: { host, port },
          cause,
        }),
      );
    });
    server.listen(port, host, resolve);
  });
  const { port: actual } = server.address() as AddressInfo;
  const shown = host.includes(":") ? `[${host}]` : host;
  return {
    url: `${tls === undefined ? "http" : "https"}://${shown}:${actual}`,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function createServer(tls: ServeOptions["tls"], listener: ReturnType<typeof getRequestListener>): Server {
  if (tls === undefined) return createHttpServer(listener);
  try {
    return createHttpsServer(
      { cert: Buffer.from(tls.cert), key: Buffer.from(tls.key), minVersion: "TLSv1.2" },
      listener,
    );
  } catch (cause) {
    throw new KeysteadError("serve/tls", "the certificate and the key do not make a TLS server", {
      argument: "tls-cert",
      remedy: "Give PEM files: the certificate chain, and the private key of its first certificate.",
      cause,
    });
  }
}

/**
 * Waits for the process to be asked to end (SIGINT, SIGTERM).
 *
 * @example
 * await untilStopped();
 * await serving.close();
 */
export function untilStopped(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => resolve());
  });
}
