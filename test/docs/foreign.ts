/*
 * What documents name and this repository does not have, each with where it is from. Nothing of Keystead's own belongs here: a name that is listed here is
 * not checked.
 */

/** Files of users' own deployments, and of other projects. */
export const FOREIGN_PATHS: ReadonlySet<string> = new Set([
  // dstack and SecretVM: what a deployment is described by
  "app.json",
  "app-compose.json",
  "docker-compose.yaml",
  // made by deploying on that network
  "deployments/<network>.json",
  "deploy/deployments/sepolia.json",
]);

/** Names of other systems. */
export const FOREIGN_NAMES: ReadonlySet<string> = new Set([
  // DstackKms and DstackApp of dstack
  "addOsImageHash",
  "addComposeHash",
  "removeComposeHash",
  "addKmsAggregatedMr",
  "addKmsDevice",
  "addDevice",
  // OpenZeppelin's Ownable
  "renounceOwnership",
  // SecretVM's KMS contract
  "add_env_by_service",
]);
