import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { getAddress, Interface, ZeroAddress } from "ethers";
import { KeysteadError } from "../src/core/errors.ts";
import { isJsonObject, parseJson } from "../src/core/json.ts";
import { DstackAppAdapter__factory, DstackAuth__factory } from "../typechain-types/index.ts";
import { type Connection, type Log, silent } from "./connection.ts";

/*
 * A DstackApp of somebody else's DstackKms moves under a Keystead service and back, without a new appId: its owner puts DstackAppAdapter behind the
 * proxy. Here everything is prepared and checked; the owner sends the transaction.
 */

/** Where ERC-1967 keeps the implementation, and OpenZeppelin 5 the owner (ERC-7201, `openzeppelin.storage.Ownable`). */
const IMPLEMENTATION_SLOT = "0x360894a13ba1a3210667c828492db98dca3e2076cc3735a920a3ca505d382bbc";
const OWNER_SLOT = "0x9016d09d72d40fdae2fd8ceac6b6234c7706214fd39c1cd1e609a0528c199300";
/** DstackApp's storage: slots 0 to 3 and a gap of 49. Byte 0 of slot 1 says that upgrades are disabled. */
const DSTACK_APP_SLOTS = 53;
const FLAGS_SLOT = 1;
const APP = new Interface([
  "function owner() view returns (address)",
  "function upgradeToAndCall(address newImplementation, bytes data) payable",
  "function confirmOwner(address expected) view",
]);

/** What is to stand behind an app, and what stood there. */
export interface AppAdoption {
  /** The DstackApp's proxy: its appId. */
  readonly app: string;
  readonly owner: string;
  /** The implementation before: where the rollback leads. */
  readonly previous: string;
  readonly adapter: string;
  readonly auth: string;
  readonly serviceId: string;
}

/** A transaction for the owner to send to the app. */
export interface OwnerCall {
  readonly to: string;
  readonly data: string;
}

/** The owner's transaction that puts the adapter behind the app; it undoes itself if the adapter saw another owner. */
export function adoptionCall({ app, owner, adapter }: AppAdoption): OwnerCall {
  const guard = APP.encodeFunctionData("confirmOwner", [owner]);
  return { to: app, data: APP.encodeFunctionData("upgradeToAndCall", [adapter, guard]) };
}

/** The owner's transaction that puts the old implementation back. */
export function rollbackCall({ app, previous }: AppAdoption): OwnerCall {
  return { to: app, data: APP.encodeFunctionData("upgradeToAndCall", [previous, "0x"]) };
}

/**
 * Checks an app, deploys the adapter for its service, and simulates the owner's transaction and the rollback after it.
 *
 * @throws KeysteadError `dstack-app/not-an-app` (no UUPS proxy with an owner where OpenZeppelin 5 keeps it), `dstack-app/frozen` (its upgrades are disabled),
 *   `dstack-app/no-service`, `dstack-app/refused` (the simulation failed)
 * @example
 * const adoption = await prepareAdoption(connection, { app, auth, serviceId });
 */
export async function prepareAdoption(
  connection: Connection,
  wanted: Pick<AppAdoption, "app" | "auth" | "serviceId">,
  log: Log = silent,
): Promise<AppAdoption> {
  const app = getAddress(wanted.app);
  const { owner, previous } = await readApp(connection, app);
  log(`app ${app}: owner ${owner}, implementation ${previous}`);
  await requireService(connection, wanted);
  const contract = await connection.ethers.deployContract("DstackAppAdapter", [wanted.auth, wanted.serviceId]);
  await contract.waitForDeployment();
  const adoption = { ...wanted, app, owner, previous, adapter: await contract.getAddress() };
  await simulate(connection, owner, adoptionCall(adoption), "the upgrade");
  log(`adapter ${adoption.adapter} deployed; the owner's transaction was simulated`);
  return adoption;
}

/**
 * Which side of the move an app is on, with everything checked that must hold there.
 *
 * @returns `adopted`: the service decides; `before`: the old implementation does
 * @throws KeysteadError `dstack-app/changed` {differences}: neither as planned nor as before
 * @example
 * if ((await checkAdoption(connection, adoption)) === "adopted") console.log("in force");
 */
export async function checkAdoption(connection: Connection, adoption: AppAdoption): Promise<"adopted" | "before"> {
  const provider = connection.ethers.provider;
  const { app, owner, previous, adapter, auth, serviceId } = adoption;
  const implementation = addressIn(await provider.getStorage(app, IMPLEMENTATION_SLOT));
  const differences: string[] = [];
  const compare = (what: string, actual: string, expected: string) => {
    if (actual.toLowerCase() !== expected.toLowerCase()) differences.push(`${what} is ${actual}, not ${expected}`);
  };
  if (implementation !== getAddress(previous)) compare("the implementation", implementation, adapter);
  compare("the stored owner", addressIn(await provider.getStorage(app, OWNER_SLOT)), owner);
  if (differences.length === 0 && implementation === getAddress(adapter)) {
    const seen = DstackAppAdapter__factory.connect(app, provider);
    compare("the owner", await seen.owner(), owner);
    compare("the service", await seen.SERVICE_ID(), serviceId);
    compare("DstackAuth", await seen.AUTH(), auth);
  }
  if (differences.length > 0) {
    throw new KeysteadError("dstack-app/changed", `the app is not as prepared:\n- ${differences.join("\n- ")}`, {
      argument: "app",
      remedy: "Find out who changed it before anything else; a changed owner is to be prepared again.",
      details: { differences },
    });
  }
  return implementation === getAddress(adapter) ? "adopted" : "before";
}

/**
 * Everything that DstackApp stores outside of mappings, to be compared before and after.
 *
 * @returns one word a slot
 * @example
 * expect(await readAppStorage(connection, app)).to.deep.equal(before);
 */
export async function readAppStorage(connection: Connection, app: string): Promise<readonly string[]> {
  const slots = [...Array.from({ length: DSTACK_APP_SLOTS }, (_, slot) => slot), OWNER_SLOT];
  return Promise.all(slots.map((slot) => connection.ethers.provider.getStorage(app, slot)));
}

/** Where prepared adoptions are kept. */
export const APPS_FOLDER = join(import.meta.dirname, "dstack-apps");

/** The file in which a prepared adoption is kept. */
export const adoptionFile = (network: string, app: string, folder = APPS_FOLDER): string =>
  join(folder, `${network}-${app.toLowerCase()}.json`);

/** Keeps a prepared adoption, so that a second run checks it and the rollback is known. */
export function writeAdoption(file: string, adoption: AppAdoption): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${JSON.stringify(adoption, null, 2)}\n`);
}

/**
 * A kept adoption; undefined where none was prepared.
 *
 * @throws KeysteadError `dstack-app/bad-record`
 */
export function readAdoption(file: string): AppAdoption | undefined {
  if (!existsSync(file)) return undefined;
  const value = parseJson(readFileSync(file, "utf8"), "record");
  const take = (name: keyof AppAdoption): string => {
    const text = isJsonObject(value) ? value[name] : undefined;
    if (typeof text === "string" && /^0x[0-9a-fA-F]{40}$/.test(text)) return text;
    throw new KeysteadError("dstack-app/bad-record", `${file} has no ${name} of 20 bytes in hex`, {
      argument: "record",
      remedy: "Remove the file and prepare again.",
    });
  };
  return {
    app: take("app"),
    owner: take("owner"),
    previous: take("previous"),
    adapter: take("adapter"),
    auth: take("auth"),
    serviceId: take("serviceId"),
  };
}

const addressIn = (word: string): string => getAddress(`0x${word.slice(-40)}`);

async function readApp(connection: Connection, app: string): Promise<{ owner: string; previous: string }> {
  const provider = connection.ethers.provider;
  const notAnApp = (why: string) =>
    new KeysteadError("dstack-app/not-an-app", `${app} cannot take the adapter: ${why}`, {
      argument: "app",
      remedy: "Give the app's own address, the proxy that deployAndRegisterApp made.",
    });
  const previous = addressIn(await provider.getStorage(app, IMPLEMENTATION_SLOT));
  if (previous === ZeroAddress) throw notAnApp("it is not an ERC-1967 proxy");
  const stored = addressIn(await provider.getStorage(app, OWNER_SLOT));
  const answer = await provider.call({ to: app, data: APP.encodeFunctionData("owner") }).catch(() => "0x");
  const owner = answer.length === 66 ? addressIn(answer) : ZeroAddress;
  if (owner === ZeroAddress) throw notAnApp("it has no owner, so nobody can upgrade it");
  if (owner !== stored) throw notAnApp(`its owner ${owner} is not where OpenZeppelin 5 keeps it (${stored} is)`);
  if (BigInt(await provider.getStorage(app, FLAGS_SLOT)) % 256n !== 0n) {
    throw new KeysteadError("dstack-app/frozen", `the upgrades of ${app} are disabled for ever`, {
      argument: "app",
      remedy: "Create a new app (KeysteadApp, registerApp): its keys are new.",
    });
  }
  return { owner, previous };
}

async function requireService(connection: Connection, wanted: Pick<AppAdoption, "auth" | "serviceId">): Promise<void> {
  const { ethers } = connection;
  const auth = DstackAuth__factory.connect(wanted.auth, ethers.provider);
  const registered = await auth.registeredApps(getAddress(wanted.serviceId)).catch(() => false);
  if (registered === true) return;
  throw new KeysteadError(
    "dstack-app/no-service",
    `the registry behind ${wanted.auth} has no service ${wanted.serviceId}`,
    {
      argument: "service",
      remedy: "Create the service first, with the images that run today.",
    },
  );
}

async function simulate(connection: Connection, from: string, call: OwnerCall, what: string): Promise<void> {
  try {
    await connection.ethers.provider.call({ ...call, from });
  } catch (cause) {
    throw new KeysteadError("dstack-app/refused", `${what} would fail: ${String(cause)}`, {
      argument: "app",
      remedy:
        "Nothing was changed. Read the reason; an app with disabled upgrades or another storage layout cannot move.",
      cause,
    });
  }
}
