import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Deployment, formatDeployment, parseDeployment } from "../src/chain/deployment.ts";
import { KeysteadError } from "../src/core/errors.ts";

/** Where deployments are recorded, and where Ignition keeps its journals. */
export const DEPLOYMENTS_FOLDER = join(import.meta.dirname, "deployments");

/**
 * Reads what was deployed on a network.
 *
 * @param folder default `deploy/deployments`
 * @throws KeysteadError `deployment/missing`, `deployment/invalid`
 * @example readDeployment("sepolia").contracts.registry.address
 */
export function readDeployment(network: string, folder = DEPLOYMENTS_FOLDER): Deployment {
  const path = recordPath(network, folder);
  if (!existsSync(path)) {
    const known = existsSync(folder) ? readdirSync(folder).filter((file) => file.endsWith(".json")) : [];
    throw new KeysteadError("deployment/missing", `no deployment is recorded for network ${network}`, {
      argument: "network",
      remedy: `run \`npx hardhat run scripts/deploy-kms.ts --network ${network}\` first; recorded: ${known.join(", ") || "none"}`,
    });
  }
  const deployment = parseDeployment(readFileSync(path, "utf8"));
  if (deployment.network !== network) {
    throw new KeysteadError("deployment/invalid", `${network}.json records a deployment on ${deployment.network}`, {
      argument: "network",
      remedy: "restore the file from version control",
    });
  }
  return deployment;
}

/** Writes a deployment's record, whole or not at all; returns its path. */
export function writeDeployment(deployment: Deployment, folder = DEPLOYMENTS_FOLDER): string {
  const path = recordPath(deployment.network, folder);
  mkdirSync(folder, { recursive: true });
  writeFileSync(`${path}.new`, formatDeployment(deployment));
  renameSync(`${path}.new`, path);
  return path;
}

/**
 * Keeps a record beside the one that an upgrade replaces, under the upgrade's id, so that it can be put back after a rollback.
 *
 * @returns its path
 * @example keepDeploymentBefore(deployment, "v2"); // deploy/deployments/sepolia-v2/before.json
 */
export function keepDeploymentBefore(deployment: Deployment, upgrade: string, folder = DEPLOYMENTS_FOLDER): string {
  const path = beforePath(deployment.network, upgrade, folder);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.new`, formatDeployment(deployment));
  renameSync(`${path}.new`, path);
  return path;
}

/**
 * What {@link keepDeploymentBefore} kept; undefined where nothing was.
 *
 * @throws KeysteadError `deployment/invalid`
 * @example readDeploymentBefore("sepolia", "v2")?.contracts.policyImplementation.address
 */
export function readDeploymentBefore(
  network: string,
  upgrade: string,
  folder = DEPLOYMENTS_FOLDER,
): Deployment | undefined {
  const path = beforePath(network, upgrade, folder);
  return existsSync(path) ? parseDeployment(readFileSync(path, "utf8")) : undefined;
}

/** In the folder of the upgrade's journal. */
function beforePath(network: string, upgrade: string, folder: string): string {
  recordPath(network, folder);
  return join(folder, `${network}-${upgrade}`, "before.json");
}

function recordPath(network: string, folder: string): string {
  if (!/^[\w-]+$/.test(network)) {
    throw new KeysteadError("deployment/missing", `${JSON.stringify(network)} is no network's name`, {
      argument: "network",
      remedy: "use a network of hardhat.config.ts",
    });
  }
  return join(folder, `${network}.json`);
}
