// Prepares the upgrade of both proxies to V2 on the network that `--network` names:
//
//   npx hardhat run scripts/deploy-kms-v2.ts --network sepolia
//
// It validates, deploys the new implementations, and drafts the proposal of the upgrade with its rollback under deploy/proposals (its name:
// KEYSTEAD_PROPOSAL_ID, default the next number). Run again after execution, it proves the result and records it; after a rollback, it proves that the
// previous code runs and puts the record back. Names of the new contracts: KEYSTEAD_UPGRADE_POLICY, KEYSTEAD_UPGRADE_REGISTRY.
import hre from "hardhat";
import { keepDeploymentBefore, readDeployment, readDeploymentBefore, writeDeployment } from "../deploy/record.ts";
import { applyUpgrade, findRolledBack, isExecuted, prepareUpgrade, verifyUpgraded } from "../deploy/upgrade.ts";
import { draftUpgradeProposal } from "../deploy/upgrade-proposal.ts";
import type { Deployment } from "../src/chain/deployment.ts";
import { computeStateDigest } from "../src/chain/state-digest.ts";
import { isKeysteadError, KeysteadError } from "../src/core/errors.ts";
import { headline } from "../src/governance/report.ts";

const spec = {
  id: process.env.KEYSTEAD_UPGRADE_ID ?? "v2",
  policy: process.env.KEYSTEAD_UPGRADE_POLICY ?? "PlatformPolicyV2",
  registry: process.env.KEYSTEAD_UPGRADE_REGISTRY ?? "KmsRegistryV2",
};

const connection = await hre.network.create();
const log = (line: string) => console.log(line);
const requireVerified = async (deployment: Deployment, when: string) => {
  const { differences } = await verifyUpgraded(connection, deployment);
  if (differences.length === 0) return;
  throw new KeysteadError("upgrade/verification-failed", `${when}:\n- ${differences.join("\n- ")}`, {
    remedy: "consider the rollback, and find out how they came to differ",
    details: { differences },
  });
};
try {
  const recorded = readDeployment(connection.networkName);
  const back = await findRolledBack(connection, recorded, readDeploymentBefore(connection.networkName, spec.id));
  if (back !== undefined) {
    await requireVerified(back, "after the rollback");
    log(`rolled back and verified: the previous code runs; recorded in ${writeDeployment(back)}`);
  }
  const deployment = back ?? recorded;
  const upgrade = back === undefined ? await prepareUpgrade(connection, deployment, spec, log) : undefined;
  const { contracts, safes, block } = deployment;
  const { digest } = await computeStateDigest(connection.ethers.provider, {
    registry: contracts.registry.address,
    policy: contracts.policy.address,
    fromBlock: block,
  });
  if (upgrade === undefined) log("to upgrade again, take another KEYSTEAD_UPGRADE_ID");
  else if (await isExecuted(connection, deployment, upgrade)) {
    const upgraded = applyUpgrade(deployment, upgrade);
    await requireVerified(upgraded, "after the upgrade");
    const { policyImplementation } = deployment.contracts;
    // run again after it was recorded, the record is no longer the one before
    if (policyImplementation.address !== upgrade.policyImplementation.address)
      keepDeploymentBefore(deployment, spec.id);
    log(`\nexecuted and verified; recorded in ${writeDeployment(upgraded)}`);
  } else {
    const { folder, operation, written } = await draftUpgradeProposal(connection, deployment, upgrade, spec, {
      id: process.env.KEYSTEAD_PROPOSAL_ID,
    });
    log(`\n${headline(operation).line}`);
    log(`${folder}: ${written.length === 0 ? "drafted before, byte for byte" : `wrote ${written.join(", ")}`}`);
    log(`the governance Safe ${safes.governance.address} is to schedule it; REPORT.md says what signers will see`);
    log(`next: keystead verify ${folder}, then keystead sign ${folder} --step schedule`);
  }
  log(`\nstate digest of every service, image, policy entry and role: ${digest}`);
} catch (error) {
  if (!isKeysteadError(error)) throw error;
  console.error(`\n${error.code}: ${error.message}\n${error.remedy}`);
  process.exitCode = 1;
} finally {
  await connection.close();
}
