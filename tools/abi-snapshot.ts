// Prints every selector, event topic and error selector of the contracts, their interface and role ids; compares them with snapshots/abi.json, or writes it:
//
//   node tools/abi-snapshot.ts [--check | --update]
//
// Integrators, governance tools and auditors hold these numbers in their hands: one that moves is a breaking change.
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Interface, id, toBeHex } from "ethers";
import hre from "hardhat";
import { parseMode, settleSnapshot } from "./snapshot.ts";

/** What others call. */
const CONTRACTS = ["DstackAuth", "KmsRegistry", "PlatformPolicy"] as const;
/** Interfaces with an ERC-165 id, and those they inherit, whose functions don't count. */
const INTERFACES: Readonly<Record<string, readonly string[]>> = {
  IAppAuth: [],
  IGoverned: [],
  IKmsRegistry: ["IGoverned"],
  IPlatformPolicy: ["IGoverned"],
};
const ROLES = ["keystead.GOVERNOR", "keystead.GUARDIAN"] as const;

type Table = Readonly<Record<string, string>>;

/** One contract's face to the world: signature to selector or topic. Indexed fields are marked, for they move between topics and data. */
export interface AbiSnapshot {
  readonly functions: Table;
  readonly events: Table;
  readonly errors: Table;
}

const sorted = (entries: readonly (readonly [string, string])[]): Table =>
  Object.fromEntries([...entries].sort(([a], [b]) => (a < b ? -1 : 1)));

/** The ERC-165 id: the XOR of the selectors of an interface's own functions. */
export function interfaceId(abi: Interface, inherited: readonly Interface[] = []): string {
  let value = 0n;
  abi.forEachFunction(({ selector }) => {
    if (!inherited.some((each) => each.getFunction(selector))) value ^= BigInt(selector);
  });
  return toBeHex(value, 4);
}

/** What is in an ABI. Outputs, mutability and names of fields are part of it: they are how tools decode. */
export function describeAbi(abi: Interface): AbiSnapshot {
  const functions: [string, string][] = [];
  const events: [string, string][] = [];
  const errors: [string, string][] = [];
  abi.forEachFunction((fragment) => {
    functions.push([fragment.format("full").replace(/^function /, ""), fragment.selector]);
  });
  abi.forEachEvent((fragment) => {
    events.push([fragment.format("full").replace(/^event /, ""), fragment.topicHash]);
  });
  abi.forEachError((fragment) => {
    errors.push([fragment.format("full").replace(/^error /, ""), fragment.selector]);
  });
  return { functions: sorted(functions), events: sorted(events), errors: sorted(errors) };
}

/** Everything that is pinned, from the artifacts as just built. */
export async function readAbis() {
  const read = async (name: string) => new Interface((await hre.artifacts.readArtifact(name)).abi);
  const contracts: Record<string, AbiSnapshot> = {};
  for (const name of CONTRACTS) contracts[name] = describeAbi(await read(name));
  const interfaceIds: Record<string, string> = {};
  for (const [name, inherited] of Object.entries(INTERFACES)) {
    interfaceIds[name] = interfaceId(await read(name), await Promise.all(inherited.map(read)));
  }
  return { roles: Object.fromEntries(ROLES.map((name) => [name, id(name)])), interfaceIds, contracts };
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(resolve(process.argv[1])).href) {
  const mode = parseMode(process.argv.slice(2));
  await hre.tasks.getTask("build").run({ quiet: true, noTests: true });
  const content = await readAbis();
  if (mode === "print") console.log(JSON.stringify(content, undefined, 2));
  const isSettled = await settleSnapshot(mode, { file: "snapshots/abi.json", script: "abi", content });
  process.exitCode = isSettled ? 0 : 1;
}
