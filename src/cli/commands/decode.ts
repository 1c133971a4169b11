import { type Deployment, parseDeployment } from "../../chain/deployment.ts";
import { decodeUtf8, fromHex, type Hex, toHex } from "../../core/bytes.ts";
import { KeysteadError } from "../../core/errors.ts";
import {
  type DecodeContext,
  type DecodedCall,
  decodeCall,
  flattenCalls,
  renderCalls,
} from "../../governance/decode.ts";
import { checkStatedHash, type ForeignDocument, readForeign } from "../../governance/foreign.ts";
import { parseAddress } from "../../governance/parameters.ts";
import type { CommandModule } from "../command.ts";
import type { Io } from "../io.ts";
import type { ExitCode } from "../output.ts";

/** Larger than any calldata or batch file. */
const LIMIT = 4 * 1024 * 1024;

/**
 * What a deployment's addresses are, from its record.
 *
 * @throws KeysteadError `deployment/invalid`, and those of reading files
 */
export async function readDeploymentFile(io: Io, path: string): Promise<Deployment> {
  const file = await io.readFile(path, { limit: LIMIT, argument: "deployment" });
  return parseDeployment(decodeUtf8(file.bytes, "deployment"));
}

/** The addresses of a deployment, for decoding. */
export function deploymentContext({ contracts, safes }: Deployment): DecodeContext {
  return {
    contracts: {
      policy: contracts.policy.address,
      registry: contracts.registry.address,
      timelock: contracts.timelock.address,
    },
    safes: [safes.governance.address, safes.guardian.address],
  };
}

/** 2 where a call could not be read for certain, else 1 where one is unsafe, else 0. */
export function judgeCalls(calls: readonly DecodedCall[]): ExitCode {
  const warnings = flattenCalls(calls).flatMap((call) => call.warnings);
  if (warnings.some(({ severity }) => severity === "unsafe")) return 1;
  return warnings.length > 0 ? 2 : 0;
}

/** Decoded calls as JSON output carries them. */
export const callsJson = (calls: readonly DecodedCall[]): unknown =>
  JSON.parse(JSON.stringify(calls, (_, value) => (typeof value === "bigint" ? value.toString() : value)));

interface Options {
  readonly to?: string;
  readonly value?: string;
  readonly deployment?: string;
}

/** Calls whose target may be unknown, as that of bare calldata, and what else a document says. */
interface Input extends Omit<ForeignDocument, "kind" | "calls"> {
  readonly calls: readonly { readonly to: string | undefined; readonly value: bigint; readonly data: Hex }[];
}

async function readInput(io: Io, input: string, { to, value = "0" }: Options): Promise<Input> {
  if (!/^\d{1,78}$/.test(value)) {
    throw new KeysteadError("decode/bad-value", `value is ${JSON.stringify(value)}, no number of wei`, {
      argument: "value",
      remedy: "Give a whole decimal number.",
    });
  }
  const address = to === undefined ? undefined : parseAddress(to, "to");
  const one = (data: Hex) => ({
    calls: [{ to: address, value: BigInt(value), data }],
    ...{ safes: [], remarks: [], stated: [] },
  });
  if (/^0x[0-9a-fA-F]*$/.test(input)) return one(toHex(fromHex(input, "data")));
  const file = await io.readFile(input, { limit: LIMIT, argument: "input" });
  const text = decodeUtf8(file.bytes, "input").trim();
  return /^[{[]/.test(text) ? readForeign(text) : one(toHex(fromHex(text, "data")));
}

/** `keystead decode HEX|FILE`. */
export const command: CommandModule = {
  register(decode, context) {
    decode
      .argument(
        "<input>",
        "calldata (0x…), or a file with calldata, a Transaction Builder batch or a transaction of the Safe service; - for standard input",
      )
      .option("--to <address>", "whom the calldata is sent to")
      .option("--value <wei>", "with how much")
      .option("--deployment <file>", "a deployment's record, which says what the addresses are")
      .addHelpText(
        "after",
        "\nExits 0 where everything was read, 1 where something is unsafe, 2 where something could not be read for certain.",
      )
      .action(
        context.action(async (input: string) => {
          const options = decode.opts<Options>();
          const { calls, safes, remarks, stated } = await readInput(context.io, input, options);
          const record =
            options.deployment === undefined ? undefined : await readDeploymentFile(context.io, options.deployment);
          const known = record === undefined ? {} : deploymentContext(record);
          const hashes = record === undefined ? [] : stated.map((each) => checkStatedHash(record.chainId, each));
          const decoded = calls.map((call) =>
            decodeCall(call, { ...known, safes: [...(known.safes ?? []), ...safes] }),
          );
          const hashLines = hashes.flatMap((each) =>
            each === undefined
              ? ["It pays for gas: its hash is not computed here"]
              : [`domain ${each.domainHash}`, `message ${each.messageHash}`, `safeTxHash ${each.safeTxHash}`],
          );
          context
            .output()
            .result({ format: "keystead.decoded/1", calls: callsJson(decoded), remarks, hashes }, () =>
              [...remarks, ...hashLines, ...renderCalls(decoded)].join("\n"),
            );
          return judgeCalls(decoded);
        }),
      );
  },
};
