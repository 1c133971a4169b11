import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import type { Command } from "commander";
import { toWireEvidence } from "../../agent/acquire.ts";
import { detectDevice } from "../../agent/devices/detect.ts";
import { withKds } from "../../agent/devices/kds.ts";
import { createSystem } from "../../agent/system.ts";
import { type Hex, toHex } from "../../core/bytes.ts";
import { isKeysteadError, KeysteadError } from "../../core/errors.ts";
import { checkNode } from "../../node/check.ts";
import { CONFIG_VARIABLE, type NodeConfig, readNodeConfig } from "../../node/config.ts";
import { buildIdentityBinding, hashEvidence } from "../../node/identity.ts";
import type { Attest } from "../../node/join.ts";
import { createKeyRing, type RootSecret } from "../../node/keys.ts";
import { loadDeployment, loadRoots, type NodeSurroundings, openFileStore } from "../../node/load.ts";
import { startNode } from "../../node/server.ts";
import { type OptionValues, text } from "../chain-input.ts";
import type { CommandContext, CommandModule } from "../command.ts";
import { renderTable } from "../output.ts";
import { repeatable } from "../repeatable.ts";

const PASSPHRASE_VARIABLE = "KEYSTEAD_ROOT_PASSPHRASE";

const HELP = `
Environment: ${PASSPHRASE_VARIABLE} is the root file's passphrase where root.passphraseFile names none;
KEYSTEAD_NODE__LISTEN__PORT=8701 stands before listen.port, and so for every setting. Settings: src/node/README.md.`;

interface Options extends OptionValues {
  readonly evidenceArg?: readonly string[];
}

/** Where evidence of this machine comes from: its device, or a program that stands in for one. */
function readAttest(options: Options): Attest {
  const program = text(options, "evidenceCommand");
  return async (binding) => {
    const command = program === undefined ? undefined : [program, ...(options.evidenceArg ?? [])];
    const choice = command === undefined ? {} : ({ device: "command", command } as const);
    const device = await detectDevice(createSystem(), choice).catch((error: unknown) => {
      if (!isKeysteadError(error, "device/none")) throw error;
      throw new KeysteadError(error.code, error.message, {
        argument: "evidence-command",
        remedy: "Run this inside a confidential VM with its guest driver loaded, or give --evidence-command.",
        details: error.details,
        cause: error,
      });
    });
    // On bare metal the host hands out no VCEK: it is AMD's.
    return toWireEvidence(await withKds(device).attest(binding));
  };
}

async function open(
  { io }: CommandContext,
  options: Options,
): Promise<{ readonly config: NodeConfig; readonly surroundings: NodeSurroundings }> {
  const file = text(options, "config") ?? io.env[CONFIG_VARIABLE];
  if (file === undefined) {
    throw new KeysteadError("usage/config", "no configuration is named", {
      argument: "config",
      remedy: `Add --config FILE, or set ${CONFIG_VARIABLE}.`,
    });
  }
  const config = await readNodeConfig(file, io.env);
  const passphrase = io.env[PASSPHRASE_VARIABLE];
  // Programs that this one starts must not inherit it.
  delete process.env[PASSPHRASE_VARIABLE];
  return { config, surroundings: { passphrase, attest: readAttest(options) } };
}

async function run(context: CommandContext, options: Options): Promise<0> {
  const { config, surroundings } = await open(context, options);
  const node = await startNode(config, surroundings);
  const die = (what: string) => (error: unknown) => {
    // Names and places alone: a message could quote anything.
    const frames = error instanceof Error ? (error.stack ?? "").split("\n").filter((line) => /^\s+at /.test(line)) : [];
    node.log.fatal({ what, name: error instanceof Error ? error.name : typeof error, frames }, "a defect: stopping");
    process.exit(70);
  };
  process.once("uncaughtException", die("uncaughtException"));
  process.once("unhandledRejection", die("unhandledRejection"));
  const stop = new AbortController();
  const signals = ["SIGTERM", "SIGINT"].map((signal) => once(process, signal, { signal: stop.signal }));
  const end = await Promise.race([node.failure, ...signals]);
  stop.abort();
  await node.close();
  if (isKeysteadError(end)) throw end;
  return 0;
}

function readHex(given: string, bytes: number, argument: string): Hex {
  const text = given.toLowerCase();
  if (new RegExp(`^0x[0-9a-f]{${2 * bytes}}$`).test(text)) return text as Hex;
  throw new KeysteadError("usage/join", `--${argument} is not ${bytes} bytes in hex`, {
    argument,
    remedy: `Give 0x and ${2 * bytes} hex digits, as the policy publishes them: keystead audit --policy.`,
  });
}

/** The root secrets' public face. */
async function identity(context: CommandContext, options: Options): Promise<0> {
  const output = context.output();
  const { config, surroundings } = await open(context, options);
  const loaded = await loadDeployment(config);
  const deployment = { chainId: BigInt(loaded.pinned.chainId), registry: loaded.pinned.registry.address };
  // A node that has no root yet has no identity: it does not join for this.
  const { join: _, ...alone } = config;
  const ring = createKeyRing(await loadRoots(alone, loaded, surroundings), deployment);
  ring.wipe();
  const { rootEpoch, environmentKey, receiptSigner } = ring;
  let evidenceHash: Hex | undefined;
  const file = text(options, "evidenceOut");
  if (file !== undefined && surroundings.attest !== undefined) {
    const evidence = await surroundings.attest(buildIdentityBinding(ring));
    evidenceHash = hashEvidence(evidence);
    await writeFile(file, `${JSON.stringify(evidence, null, 2)}\n`);
  }
  const value = {
    chain_id: String(deployment.chainId),
    registry: deployment.registry,
    root_epoch: rootEpoch,
    environment_key: environmentKey,
    receipt_signer: receiptSigner,
    evidence_hash: evidenceHash ?? null,
    evidence_nonce: toHex(buildIdentityBinding(ring).nonce),
  };
  output.result(value, () =>
    [
      renderTable([
        ["root epoch", String(rootEpoch)],
        ["environment key", environmentKey],
        ["receipt signer", receiptSigner],
        ["evidence hash", evidenceHash ?? "none: add --evidence-out FILE in the TEE"],
      ]),
      "",
      "To publish it: keystead propose publish-kms-identity with these values.",
    ].join("\n"),
  );
  return 0;
}

async function check(context: CommandContext, options: Options): Promise<0 | 1 | 2> {
  const output = context.output();
  const { config, surroundings } = await open(context, options);
  const findings = await checkNode(config, surroundings);
  const failed = findings.filter(({ state }) => state === "failed");
  output.result({ ok: failed.length === 0, checks: findings }, () =>
    renderTable(
      findings.map(({ check: name, state, detail }) => {
        const { green, red, yellow } = output.colors;
        const paint = { ok: green, warning: yellow, failed: red }[state];
        return [{ text: state === "failed" ? "FAILED" : state, paint }, name, detail];
      }),
    ),
  );
  return failed.length === 0 ? 0 : 1;
}

async function init(context: CommandContext, options: Options): Promise<0> {
  const { config, surroundings } = await open(context, options);
  await loadDeployment(config);
  const store = await openFileStore(config, surroundings);
  await store.create();
  context
    .output()
    .result({ written: store.description }, () =>
      [
        `A new root secret is in the ${store.description}.`,
        "Nobody can restore it: keep a copy of the file, and its passphrase elsewhere.",
        "Next: keystead node identity, for what the policy is to publish of this KMS; keystead node check; keystead node run.",
      ].join("\n"),
    );
  return 0;
}

async function rotateRoot(context: CommandContext, options: Options): Promise<0> {
  const { config, surroundings } = await open(context, options);
  const epoch = await (await openFileStore(config, surroundings)).rotate();
  context
    .output()
    .result(
      { root_epoch: epoch },
      () => `Root epoch ${epoch} is added. Restart the node; its identity changes with it.`,
    );
  return 0;
}

async function join(context: CommandContext, url: string, options: Options): Promise<0 | 1> {
  const { config, surroundings } = await open(context, options);
  const [environmentKey, receiptSigner] = [text(options, "environmentKey"), text(options, "receiptSigner")];
  if (environmentKey === undefined || receiptSigner === undefined || config.root.store !== "file") {
    throw new KeysteadError("usage/join", "a node joins with a root file, and knows whom it joins", {
      argument: "join",
      remedy:
        "Give --environment-key and --receipt-signer as the policy publishes them (keystead audit --policy), and root.store: file.",
    });
  }
  const expected = {
    environmentKey: readHex(environmentKey, 32, "environment-key"),
    receiptSigner: readHex(receiptSigner, 20, "receipt-signer"),
  };
  const loaded = await loadDeployment(config);
  const store = await openFileStore(config, surroundings);
  const there = await store.load().catch((error: unknown) => {
    if (isKeysteadError(error, "root/not-found")) return undefined;
    throw error;
  });
  if (there !== undefined) {
    for (const { secret } of there) secret.fill(0);
    throw new KeysteadError("root/exists", `the ${store.description} is there already`, {
      argument: "root",
      remedy:
        "This node has its root: start it. After a rotation on another node, move the file away, and join by the new identity.",
    });
  }
  let roots: readonly RootSecret[];
  try {
    roots = await loadRoots({ ...config, join: { url, ...expected } }, loaded, surroundings);
  } catch (error) {
    // A denial is an answer; everything else is a failure to get one.
    if (!isKeysteadError(error, "join/refused") || error.details.code !== "release/denied") throw error;
    context.output().error(error);
    return 1;
  }
  for (const { secret } of roots) secret.fill(0);
  context
    .output()
    .result(
      { joined: true, root_epochs: roots.length },
      () =>
        `Joined: ${roots.length} root epoch${roots.length === 1 ? "" : "s"} received, in the ${store.description}. Next: keystead node check, then keystead node run.`,
    );
  return 0;
}

/** `keystead node`. */
export const command: CommandModule = {
  register(command: Command, context: CommandContext) {
    const add = (name: string, description: string) =>
      command
        .command(name, name === "run" ? { isDefault: true } : {})
        .description(description)
        .option("--config <file>", `the node's configuration (or ${CONFIG_VARIABLE} in the environment)`)
        .addHelpText("after", HELP);
    const withEvidence = (added: Command) =>
      added
        .option("--evidence-command <program>", "a program that makes this machine's evidence, in place of its device")
        .addOption(repeatable("--evidence-arg <argument>", "an argument of that program; repeatable"));
    withEvidence(add("run", "run the node until SIGTERM or SIGINT")).action(
      context.action((options: Options) => run(context, options)),
    );
    add("check", "check configuration, address, evidence, receipts, root secret and chain, and start nothing").action(
      context.action((options: Options) => check(context, options)),
    );
    add("init", "make a new root secret in the configured file").action(
      context.action((options: Options) => init(context, options)),
    );
    withEvidence(add("join <url>", "get the root secrets from a running node, as a machine that the policy allows"))
      .option("--environment-key <key>", "the KMS's environment key, as the policy publishes it")
      .option("--receipt-signer <address>", "the KMS's receipt signer, as the policy publishes it")
      .action(context.action((url: string, options: Options) => join(context, url, options)));
    withEvidence(add("identity", "what to publish of this KMS (publishKmsIdentity)"))
      .option("--evidence-out <file>", "make evidence that binds the identity to this machine, and write it there")
      .action(context.action((options: Options) => identity(context, options)));
    add("rotate-root", "add a root secret with the next epoch to the file").action(
      context.action((options: Options) => rotateRoot(context, options)),
    );
  },
};
