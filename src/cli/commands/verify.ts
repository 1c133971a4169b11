import { basename, resolve } from "node:path";
import { readBuilds } from "../../governance/build.ts";
import { renderCalls } from "../../governance/decode.ts";
import { readProposal } from "../../governance/folder.ts";
import { gasWarning } from "../../governance/gas.ts";
import { type Verification, verifyProposal } from "../../governance/verify.ts";
import { type ChainVerification, verifyOnChain } from "../../governance/verify-chain.ts";
import type { OptionValues } from "../chain-input.ts";
import type { CommandModule } from "../command.ts";
import { type Output, renderTable, safeText } from "../output.ts";
import { addChainOptions, openProposalChain } from "../proposal-chain.ts";
import { callsJson, judgeCalls, readDeploymentFile } from "./decode.ts";

function renderVerification(found: Verification, chain: ChainVerification | undefined, output: Output): string {
  const { bold, green, red, yellow } = output.colors;
  const gas = found.operation === undefined ? undefined : gasWarning(found.operation);
  const agreed = chain === undefined ? "DERIVED AS PROPOSED" : "DERIVED AS PROPOSED, AND THE CHAIN AGREES";
  const verdict =
    !found.ok || chain?.ok === false
      ? red("MISMATCH: do not sign")
      : found.warnings.length > 0
        ? yellow(`${agreed}, but read the warnings: not every call is safe or could be read`)
        : green(agreed);
  const sections = [
    `${bold(verdict)}${found.headline === undefined ? "" : `\n${bold(found.headline)}`}`,
    [...found.differences, ...(chain?.differences ?? [])]
      .map(({ field, code, message }) => `${red("differs")} ${safeText(`${field}: ${message} (${code})`)}`)
      .join("\n"),
    safeText(renderCalls(found.calls).join("\n")),
    ...(gas === undefined ? [] : [`${red("unsafe")} ${gas}`]),
    ...found.transactions.map(({ step, file, safe, hashes }) =>
      [
        bold(`${step} (${file}), Safe ${safe.address}, nonce ${safe.nonce}`),
        renderTable([
          ["domain hash", hashes.domainHash],
          ["message hash", hashes.messageHash],
          ["(safeTxHash)", hashes.safeTxHash],
        ]),
      ].join("\n"),
    ),
    chain === undefined
      ? ""
      : `${bold("The chain")}\n${renderTable(chain.facts.map(({ what, found: is }) => [what, is]))}`,
    `${bold("Not checked")}\n${uncheckedOf(found, chain)
      .map((item) => `- ${safeText(item)}`)
      .join("\n")}`,
  ];
  return sections.filter((section) => section !== "").join("\n\n");
}

/** What neither the folder nor the chain was asked. */
const uncheckedOf = ({ unchecked }: Verification, chain: ChainVerification | undefined): readonly string[] =>
  chain === undefined ? unchecked : [...unchecked.filter((item) => !item.startsWith("the chain:")), ...chain.unchecked];

const chainJson = (chain: ChainVerification | undefined): unknown =>
  chain === undefined
    ? null
    : JSON.parse(JSON.stringify(chain, (_, value) => (typeof value === "bigint" ? value.toString() : value)));

/** `keystead verify DIR`. */
export const command: CommandModule = {
  register(verify, context) {
    verify
      .argument("<folder>", "a proposal's folder")
      .option("--deployment <file>", "the deployment's record, which the addresses must agree with")
      .option("--build [folder]", "compare new implementations with what was built here (default folder: artifacts)");
    addChainOptions(verify, true)
      .addHelpText(
        "after",
        `
Without --rpc nothing but the folder is looked at. With it: code of Safes, singletons, timelock, proxies and targets, Safe releases and nonces,
roles, the delay, where the operation and its predecessor stand, what moved since it was proposed. Storage and code are proven where the endpoint
offers proofs; --witness compares with a second endpoint.

Exits 0 where everything is as derived, 1 where something differs or is unsafe, 2 where something could not be checked.`,
      )
      .action(
        context.action(async (folder: string) => {
          const options = verify.opts<OptionValues>();
          const files = await readProposal(folder);
          const record = typeof options.deployment === "string" ? options.deployment : undefined;
          const deployment = record === undefined ? undefined : await readDeploymentFile(context.io, record);
          const found = verifyProposal(files, {
            folder: basename(resolve(folder)),
            ...(deployment === undefined ? {} : { deployment }),
          });
          let chain: ChainVerification | undefined;
          if (options.rpc !== undefined && found.ok && found.operation !== undefined) {
            const { build } = options;
            const builds =
              build === undefined ? undefined : await readBuilds(typeof build === "string" ? build : undefined);
            const at = await openProposalChain(context.io, options, found.operation.chainId);
            chain = await verifyOnChain(at.chain.client, at.block, found.operation, { ...at, deployment, builds });
          }
          const { differences, headline, warnings, transactions } = found;
          const ok = found.ok && chain?.ok !== false;
          const output = context.output();
          output.result(
            {
              format: "keystead.verification/1",
              ...{ ok, headline: headline ?? null, differences, warnings, unchecked: uncheckedOf(found, chain) },
              chain: chainJson(chain),
              calls: callsJson(found.calls),
              transactions: transactions.map(({ file, step, safe, hashes }) => ({
                ...{ file, step, safe: safe.address, nonce: safe.nonce.toString() },
                ...hashes,
              })),
            },
            () => renderVerification(found, chain, output),
          );
          return ok && gasWarning(found.operation) === undefined ? judgeCalls(found.calls) : 1;
        }),
      );
  },
};
