import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HDNodeWallet, Mnemonic } from "ethers";
import hre from "hardhat";
import { startAnvil } from "../../deploy/anvil.ts";
import type { Connection } from "../../deploy/connection.ts";
import { deployKms } from "../../deploy/kms.ts";
import { parseParameters } from "../../deploy/parameters.ts";
import { type Client, connect } from "../../src/chain/client.ts";
import { type Deployment, formatDeployment } from "../../src/chain/deployment.ts";
import { connectToAnvil } from "./anvil.ts";
import { type CliRun, keysteadAsync, keysteadHere } from "./cli.ts";

/** Hours that operations wait. */
export const DELAY = 48 * 3600;

/** The development nodes' own accounts, in order. */
const PEOPLE = ["deployer", "alice", "bob", "carol", "dave", "erin", "frank", "relayer", "stranger"] as const;
export type Person = (typeof PEOPLE)[number];

const phrase = Mnemonic.fromPhrase("test test test test test test test test test test test junk");
const walletOf = (person: Person) => HDNodeWallet.fromMnemonic(phrase, `m/44'/60'/0'/0/${PEOPLE.indexOf(person)}`);

/** A person's address and key on any development node. */
export const WHO: Readonly<Record<Person, { readonly address: string; readonly key: string }>> = Object.fromEntries(
  PEOPLE.map((person) => {
    const { address, privateKey } = walletOf(person);
    return [person, { address, key: privateKey }];
  }),
) as Readonly<Record<Person, { readonly address: string; readonly key: string }>>;

/** A whole deployment on a node that the command line can reach. */
export interface GovernedChain {
  readonly name: "anvil" | "hardhat";
  readonly url: string;
  readonly connection: Connection;
  readonly client: Client;
  readonly deployment: Deployment;
  /** The deployment's record. */
  readonly record: string;
  /** Where proposals go. */
  readonly proposals: string;
  readonly folder: string;
  /** Runs `keystead` with this person's key for signing and for gas. */
  run(person: Person | undefined, args: readonly string[]): Promise<CliRun>;
  /** The same with any environment. */
  runWith(environment: Readonly<Record<string, string>>, args: readonly string[]): Promise<CliRun>;
  /** The same as a process of its own. */
  spawn(person: Person | undefined, args: readonly string[]): Promise<CliRun>;
  /** The environment of such a process. */
  environment(person: Person | undefined): Readonly<Record<string, string>>;
  passTime(seconds: number): Promise<void>;
  /** A new file beside the record. */
  write(name: string, text: string): string;
  stop(): Promise<void>;
}

/** Where a node's HTTP endpoint comes from: anvil has one; Hardhat's own chain gets a server. */
async function startNode(
  name: "anvil" | "hardhat",
  args: readonly string[] = [],
): Promise<{ url: string; stop: () => Promise<void> }> {
  if (name === "anvil") {
    // Instrumented for coverage, the contracts are larger than a chain allows
    return startAnvil({ args: [...args, ...(hre.globalOptions.coverage ? ["--disable-code-size-limit"] : [])] });
  }
  const server = await hre.network.createServer("default", "127.0.0.1", 0);
  const { address, port } = await server.listen();
  return { url: `http://${address}:${port}`, stop: () => server.close() };
}

/**
 * Deploys everything with a 2-of-3 governance Safe (alice, bob, carol), a 2-of-2 guardian Safe (dave, erin) and a 48 h timelock.
 */
export async function startGovernedChain(
  name: "anvil" | "hardhat",
  options: { readonly safeVersion?: "1.4.1" | "1.5.0"; readonly anvilArgs?: readonly string[] } = {},
): Promise<GovernedChain> {
  const node = await startNode(name, options.anvilArgs);
  const folder = mkdtempSync(join(tmpdir(), "keystead-e2e-"));
  const connection = await connectToAnvil(node.url);
  const deployment = await deployKms(
    connection,
    parseParameters({
      safeVersion: options.safeVersion ?? "1.5.0",
      governance: { owners: [WHO.alice.address, WHO.bob.address, WHO.carol.address], threshold: 2 },
      guardian: { owners: [WHO.dave.address, WHO.erin.address], threshold: 2 },
      delaySeconds: DELAY,
    }),
    undefined,
    { folder },
  );
  const record = join(folder, "record.json");
  writeFileSync(record, formatDeployment(deployment));
  const proposals = join(folder, "proposals");
  mkdirSync(proposals);
  const environment = (person: Person | undefined) => ({
    KEYSTEAD_RPC_URL: node.url,
    ...(person === undefined ? {} : { KEYSTEAD_SIGNER_KEY: WHO[person].key, KEYSTEAD_RELAYER_KEY: WHO[person].key }),
  });
  return {
    ...{ name, url: node.url, connection, deployment, record, proposals, folder, environment },
    client: await connect(node.url, { chainId: 31337 }),
    run: (person, args) => keysteadHere(args, environment(person)),
    runWith: (env, args) => keysteadHere(args, env),
    spawn: (person, args) => keysteadAsync(args, { env: environment(person) }),
    passTime: async (seconds) => {
      await connection.provider.request({ method: "evm_increaseTime", params: [seconds] });
      await connection.provider.request({ method: "evm_mine", params: [] });
    },
    write: (file, text) => {
      const path = join(folder, file);
      writeFileSync(path, text);
      return path;
    },
    stop: async () => {
      await connection.close();
      await node.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
