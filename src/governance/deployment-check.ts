import { getAddress, Interface, id, keccak256, toBeHex, ZeroAddress } from "ethers";
import { DSTACK_AUTH_ABI } from "../chain/abi/dstack-auth.ts";
import { mapLimited } from "../chain/client.ts";
import { compareCode } from "../chain/code.ts";
import { DEPLOYED_CONTRACTS, type DeployedContractName, type Deployment } from "../chain/deployment.ts";
import { callView } from "../chain/reads.ts";
import { foldRoles, type RoleLog, type RoleState, scanRoleLogs } from "../chain/roles.ts";
import { fromHex, type Hex, toHex } from "../core/bytes.ts";
import { compareRoles, type GovernedContract, type Party, ROLE_MATRIX } from "../protocol/roles.ts";
import { INTERFACES } from "./abis.ts";
import type { Build } from "./build.ts";
import {
  holdsRoleIn,
  INITIALIZERS_DISABLED,
  implementationIn,
  initializedIn,
  roleAdminIn,
  type WitnessedReader,
} from "./witnessed.ts";

const PROXY = "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol:ERC1967Proxy";

/** What each contract must have been built from: a record's own word is not enough. */
export const PUBLISHED_SOURCES: Readonly<Record<DeployedContractName, string>> = {
  timelock: "contracts/governance/GovernanceTimelock.sol:GovernanceTimelock",
  policyImplementation: "contracts/policy/PlatformPolicy.sol:PlatformPolicy",
  policy: PROXY,
  registryImplementation: "contracts/registry/KmsRegistry.sol:KmsRegistry",
  registry: PROXY,
  dstackAuth: "contracts/dstack/DstackAuth.sol:DstackAuth",
};

/** The roles of a deployment as read from its logs, in the order of the published matrix; what deviates from it included. */
export type ObservedRoles = Deployment["roles"];

/** One deviation: `contract: what`, and what kind it is of. */
export interface Deviation {
  readonly code: "code" | "implementation" | "uninitialised" | "wiring" | "delay" | "roles";
  readonly message: string;
}

/** ERC-1967: one below the hash of the field's name, so that no mapping can reach it. */
const erc1967Slot = (name: string): Hex =>
  toHex(fromHex(toBeHex(BigInt(id(`eip1967.proxy.${name}`)) - 1n, 32), "slot"));

const DSTACK_AUTH = new Interface(DSTACK_AUTH_ABI);

/**
 * Each contract's code: as recorded, built from the published source with its immutables masked and checked, created by the recorded transaction.
 *
 * @param builds what each contract must have been built from
 * @throws KeysteadError as `Client.request`
 * @example
 * await checkDeployedCode(reader, deployment, builds); // []
 */
export async function checkDeployedCode(
  reader: WitnessedReader,
  { contracts }: Deployment,
  builds: Readonly<Record<DeployedContractName, Build>>,
): Promise<readonly Deviation[]> {
  const known = Object.values(contracts).map((contract) => contract.address);
  const found: Deviation[] = [];
  const add = (message: string) => found.push({ code: "code", message });
  for (const name of DEPLOYED_CONTRACTS) {
    const { address, source, codeHash, transaction, block } = contracts[name];
    const build = builds[name];
    const code = await reader.code(address);
    if (code === "0x") {
      add(`${name}: there is no code at ${address}`);
      continue;
    }
    if (keccak256(code) !== codeHash) add(`${name}: its code hash is ${keccak256(code)}, recorded is ${codeHash}`);
    if (source !== build.source) add(`${name}: it is recorded as ${source}, not ${build.source}`);
    // A proxy points to an implementation, an implementation to itself and the policy, the adapter to both proxies.
    for (const difference of compareCode(code, build, known)) add(`${name}: ${difference}`);
    const receipt = await reader.client.request("eth_getTransactionReceipt", [transaction]);
    const { blockNumber, contractAddress } = Object(receipt);
    const created = typeof contractAddress === "string" && getAddress(contractAddress) === address;
    if (!created || Number(blockNumber) !== block) {
      add(`${name}: transaction ${transaction} did not create it in block ${block}`);
    }
  }
  return found;
}

/**
 * What the contracts hold: implementation slots, initialisers, the registry's and the adapter's references, the timelock's delay. Without the right
 * code nothing that a contract says about itself means anything.
 *
 * @throws KeysteadError `chain/not-this-contract`; as `Client.request`
 * @example
 * await checkDeployedState(reader, deployment); // []
 */
export async function checkDeployedState(
  reader: WitnessedReader,
  { contracts, delaySeconds }: Deployment,
): Promise<readonly Deviation[]> {
  const { client, block } = reader;
  const found: Deviation[] = [];
  const expect = (code: Deviation["code"], what: string, is: unknown, wanted: unknown) => {
    if (is !== wanted) found.push({ code, message: `${what} is ${is}, not ${wanted}` });
  };
  const ask = async (abi: Interface, address: string, view: string): Promise<unknown> =>
    (await callView(client, abi, toHex(fromHex(address, "address")), block, view, []))[0];
  for (const [name, implementation] of [
    ["policy", contracts.policyImplementation.address],
    ["registry", contracts.registryImplementation.address],
  ] as const) {
    const { address } = contracts[name];
    expect(
      "implementation",
      `${name}: the implementation slot`,
      await implementationIn(reader, address),
      implementation,
    );
    expect(
      "implementation",
      `${name}: implementation()`,
      await ask(INTERFACES[name], address, "implementation"),
      implementation,
    );
    expect("implementation", `${name}: the ERC-1967 admin slot`, await reader.slot(address, erc1967Slot("admin")), 0n);
    expect(
      "implementation",
      `${name}: the ERC-1967 beacon slot`,
      await reader.slot(address, erc1967Slot("beacon")),
      0n,
    );
    expect("uninitialised", `${name}: being initialised`, (await initializedIn(reader, address)) > 0n, true);
    expect(
      "uninitialised",
      `${name}Implementation: the initialised version`,
      await initializedIn(reader, implementation),
      INITIALIZERS_DISABLED,
    );
  }
  const { registry, policy, dstackAuth, timelock } = contracts;
  expect("wiring", "registry: POLICY()", await ask(INTERFACES.registry, registry.address, "POLICY"), policy.address);
  expect(
    "wiring",
    "dstackAuth: KMS_REGISTRY()",
    await ask(DSTACK_AUTH, dstackAuth.address, "KMS_REGISTRY"),
    registry.address,
  );
  expect(
    "wiring",
    "dstackAuth: PLATFORM_POLICY()",
    await ask(DSTACK_AUTH, dstackAuth.address, "PLATFORM_POLICY"),
    policy.address,
  );
  const delay = await ask(INTERFACES.timelock, timelock.address, "getMinDelay");
  expect("delay", "timelock: getMinDelay()", delay, BigInt(delaySeconds));
  return found;
}

/**
 * Who sent the transactions that created the contracts.
 *
 * @throws KeysteadError as `Client.request`
 * @example
 * (await fetchDeployers(reader, deployment)).has("0x…");
 */
export async function fetchDeployers(
  { client }: WitnessedReader,
  { contracts }: Deployment,
): Promise<ReadonlySet<string>> {
  const deployers = new Set<string>();
  for (const name of DEPLOYED_CONTRACTS) {
    const receipt = await client.request("eth_getTransactionReceipt", [contracts[name].transaction]);
    const { from } = Object(receipt);
    if (typeof from === "string" && /^0x[0-9a-fA-F]{40}$/.test(from)) deployers.add(getAddress(from));
  }
  return deployers;
}

/**
 * The roles of timelock, policy and registry, compared with the published matrix, both ways. AccessControl lists nobody, so that its logs alone name
 * holders; but whoever is known here (offices, their owners, deployers, everybody, and all that any log names) is looked up in storage, which counts.
 *
 * @throws KeysteadError as `scanLogs`
 * @example
 * (await checkDeployedRoles(reader, deployment)).deviations; // []
 */
export async function checkDeployedRoles(
  reader: WitnessedReader,
  deployment: Deployment,
): Promise<{ readonly deviations: readonly Deviation[]; readonly roles: ObservedRoles }> {
  const { contracts, safes } = deployment;
  const known = [
    ...[contracts.timelock.address, ZeroAddress, ...(await fetchDeployers(reader, deployment))],
    ...Object.values(safes).flatMap(({ address, owners }) => [address, ...owners]),
  ];
  const parties: Record<Party, string> = {
    timelock: contracts.timelock.address,
    governanceSafe: safes.governance.address,
    guardianSafe: safes.guardian.address,
  };
  const deviations: Deviation[] = [];
  const roles: { contract: string; role: string; holders: readonly string[] }[] = [];
  for (const name of ["timelock", "policy", "registry"] as const satisfies readonly GovernedContract[]) {
    const { address, block } = contracts[name];
    const target = toHex(fromHex(address, name));
    const logs = await scanRoleLogs(reader.client, target, block, reader.block.number);
    const { state, hidden } = await rolesIn(reader, name, address, logs, known);
    for (const message of hidden) deviations.push({ code: "roles", message });
    for (const message of compareRoles(name, state, parties)) deviations.push({ code: "roles", message });
    for (const row of ROLE_MATRIX.filter((entry) => entry.contract === name)) {
      roles.push({ contract: name, role: row.role, holders: state.holders.get(row.id) ?? [] });
    }
  }
  return { deviations, roles };
}

/** Roles as storage has them, of everybody who is known; and what logs say otherwise. */
async function rolesIn(
  reader: WitnessedReader,
  contract: GovernedContract,
  address: string,
  logs: readonly RoleLog[],
  known: readonly string[],
): Promise<{ readonly state: RoleState; readonly hidden: readonly string[] }> {
  const said = foldRoles(logs);
  const named = logs.flatMap(({ topics: [event, , account = ""] }) =>
    event === ROLE_ADMIN_CHANGED ? [] : [`0x${account.slice(-40)}`],
  );
  const accounts = [...new Set([...known, ...named].map((account) => getAddress(account)))];
  const rows = ROLE_MATRIX.filter((entry) => entry.contract === contract);
  const roles = [...new Set([...rows.map(({ id: role }) => role), ...said.holders.keys(), ...said.admins.keys()])];
  const upgradeable = contract !== "timelock";
  const holders = new Map<string, readonly string[]>();
  const admins = new Map<string, string>();
  const hidden: string[] = [];
  for (const role of roles) {
    const name = rows.find(({ id: known }) => known === role)?.role ?? `unknown role ${role}`;
    const held = await mapLimited(accounts, CONCURRENCY, (account) =>
      holdsRoleIn(reader, address, upgradeable, role, account),
    );
    for (const [at, account] of accounts.entries()) {
      if (held[at] === (said.holders.get(role)?.includes(account) ?? false)) continue;
      const does = held[at] ? ["holds", "does not"] : ["does not hold", "does"];
      hidden.push(`${contract}: ${account} ${does[0]} ${name} by storage, by the endpoint's logs it ${does[1]}`);
    }
    const now = accounts.filter((_, at) => held[at]).sort();
    if (now.length > 0) holders.set(role, now);
    const admin = await roleAdminIn(reader, address, upgradeable, role);
    if (admin !== DEFAULT_ADMIN) admins.set(role, admin);
    if (admin !== (said.admins.get(role) ?? DEFAULT_ADMIN))
      hidden.push(`${contract}: ${name} is administered by ${admin} by storage, and not by the endpoint's logs`);
  }
  return { state: { holders, admins }, hidden };
}

const ROLE_ADMIN_CHANGED = id("RoleAdminChanged(bytes32,bytes32,bytes32)");
const DEFAULT_ADMIN: Hex = `0x${"00".repeat(32)}`;
const CONCURRENCY = 8;
