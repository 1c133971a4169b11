import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
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

function recordPath(network: string, folder: string): string {
  if (!/^[\w-]+$/.test(network)) {
    throw new KeysteadError("deployment/missing", `${JSON.stringify(network)} is no network's name`, {
      argument: "network",
      remedy: "use a network of hardhat.config.ts",
    });
  }
  return join(folder, `${network}.json`);
}
