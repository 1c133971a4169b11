import { randomBytes } from "node:crypto";
import { parseAddress } from "../../audit/walk.ts";
import { secretsIn } from "../../chain/endpoint-url.ts";
import { parseDeployment } from "../../chain/deployment.ts";
import { decodeUtf8 } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import { RPC_VARIABLE } from "../chain-input.ts";
import type { CommandContext, CommandModule } from "../command.ts";
import { createExplorerApp } from "../explorer/app.ts";
import { loadExplorer } from "../explorer/build.ts";
import type { Io } from "../io.ts";
import { serveApp, untilStopped } from "../serve.ts";

const DEFAULT_PORT = 29344;
const RECORD_LIMIT = 1024 * 1024;

interface Options {
  readonly rpc?: string;
  readonly witness?: string;
  readonly registry?: string;
  readonly policy?: string;
  readonly timelock?: string;
  readonly fromBlock?: string;
  readonly chainId?: string;
  readonly deployment?: string;
  readonly port: string;
}

/** The page's address fragment: which deployment it opens with; the same names as web/src/settings.ts. */
async function fragmentOf(io: Io, options: Options, rpc: string | undefined): Promise<string> {
  const params = new URLSearchParams();
  const set = (name: string, value: string | undefined) => {
    if (value !== undefined) params.set(name, value);
  };
  set("rpc", rpc);
  set("witness", endpointOf(options.witness, "witness"));
  if (options.deployment !== undefined) {
    if (options.registry !== undefined || options.policy !== undefined || options.timelock !== undefined) {
      throw new KeysteadError("usage/two-sources", "addresses are given twice", {
        argument: "deployment",
        remedy: "Leave out the addresses: the record has them.",
      });
    }
    const file = await io.readFile(options.deployment, { limit: RECORD_LIMIT, argument: "deployment" });
    const { contracts, block, chainId } = parseDeployment(decodeUtf8(file.bytes, "deployment"));
    set("registry", contracts.registry.address);
    set("policy", contracts.policy.address);
    set("timelock", contracts.timelock.address);
    set("from", String(block));
    set("chain", String(chainId));
  } else {
    for (const name of ["registry", "policy", "timelock"] as const) {
      const address = options[name];
      set(name, address === undefined ? undefined : parseAddress(address, name));
    }
    set("from", wholeNumber(options.fromBlock, "from-block"));
    set("chain", wholeNumber(options.chainId, "chain-id"));
  }
  const text = params.toString();
  return text === "" ? "" : `#/overview?${text}`;
}

function wholeNumber(value: string | undefined, argument: string): string | undefined {
  if (value === undefined || /^\d{1,15}$/.test(value)) return value;
  throw new KeysteadError("usage/number", `${JSON.stringify(value)} is no whole number`, {
    argument,
    remedy: "Give decimal digits.",
  });
}

function endpointOf(rpc: string | undefined, argument: string): string | undefined {
  if (rpc === undefined || rpc === "") return undefined;
  if (URL.canParse(rpc) && /^https?:$/.test(new URL(rpc).protocol)) return rpc;
  throw new KeysteadError("chain/bad-endpoint", "the endpoint is no http or https URL", {
    argument,
    remedy: "Give a URL such as https://rpc.example.",
  });
}

/** `keystead explore`: the explorer in a browser. */
export const command: CommandModule = {
  register(command, { io, output, action }: CommandContext) {
    command
      .option("--rpc <url>", `the endpoint; the page may then connect to no other (or ${RPC_VARIABLE})`)
      .option("--witness <url>", "another endpoint, which must have the same block")
      .option("--registry <address>", "the registry's proxy")
      .option("--policy <address>", "the policy's proxy")
      .option("--timelock <address>", "the timelock (default: whoever governs the policy)")
      .option("--from-block <n>", "scan from this block: the one of the deployment")
      .option("--chain-id <n>", "the chain that must answer")
      .option("--deployment <file>", "the deployment's record, in place of addresses")
      .option("--port <n>", "on 127.0.0.1; 0: a free one", String(DEFAULT_PORT))
      .action(
        action(async (options: Options) => {
          const rpc = endpointOf(options.rpc ?? io.env[RPC_VARIABLE], "rpc");
          const fragment = await fragmentOf(io, options, rpc);
          const port = Number(wholeNumber(options.port, "port"));
          const files = await loadExplorer((line) => io.warn(`${line}\n`));
          const endpoints = [rpc, options.witness].filter((url) => url !== undefined);
          // A link is printed: where it would hold a key, it leads to the one that does, and nobody else can guess it.
          const hidden = endpoints.some((endpoint) => secretsIn(endpoint).length > 0);
          const opening = hidden ? { path: `/open/${randomBytes(16).toString("hex")}`, fragment } : undefined;
          const app = createExplorerApp(files, rpc === undefined ? [] : endpoints, opening);
          const server = await serveApp(app, { host: "127.0.0.1", port });
          const url = opening === undefined ? `${server.url}/${fragment}` : `${server.url}${opening.path}`;
          output().result({ url }, () => `The explorer is at ${url}\nCtrl-C ends it.`);
          await untilStopped();
          await server.close();
          return 0;
        }),
      );
  },
};
