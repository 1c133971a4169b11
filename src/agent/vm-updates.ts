import type { AddressInfo } from "node:net";
import { serve } from "@hono/node-server";
import { createVmUpdatesApp } from "../audit/vm-updates-app.ts";
import { auditService } from "../audit/walk.ts";
import type { Hex } from "../core/bytes.ts";
import { KeysteadError } from "../core/errors.ts";
import type { AgentChain } from "./chain-trust.ts";

/** A server that runs. */
export interface RunningServer {
  readonly port: number;
  stop(): Promise<void>;
}

/**
 * Serves the service's `/vm_updates` from this machine.
 *
 * @param port 0: a free one
 * @param maxAge how old, in seconds, the newest block may be
 * @throws KeysteadError `agent/port` where it is taken
 * @example
 * const server = await startVmUpdates(chain, serviceId, { host: "0.0.0.0", port: VM_UPDATES_PORT });
 */
export async function startVmUpdates(
  chain: AgentChain,
  serviceId: Hex,
  { host, port, maxAge }: { readonly host: string; readonly port: number; readonly maxAge?: number | undefined },
): Promise<RunningServer> {
  const app = createVmUpdatesApp({
    serviceId,
    maxAge,
    read: () => auditService(chain.client, chain.registry, serviceId, chain.read),
  });
  return new Promise((resolve, reject) => {
    const server = serve({ fetch: app.fetch, hostname: host, port }, (address: AddressInfo) =>
      resolve({
        port: address.port,
        stop: () => new Promise((done) => server.close(() => done())),
      }),
    );
    server.once("error", (cause) =>
      reject(
        new KeysteadError("agent/port", `${host}:${port} cannot be listened on`, {
          argument: "vm-updates",
          remedy: "Choose a free port, or 0 for any.",
          cause,
        }),
      ),
    );
  });
}
