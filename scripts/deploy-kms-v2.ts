// Prepares the upgrade of both proxies to V2 on the network that `--network` names:
//
//   npx hardhat run scripts/deploy-kms-v2.ts --network sepolia
//
// It validates, deploys the new implementations, and drafts the proposal of the upgrade with its rollback under deploy/proposals (its name:
// KEYSTEAD_PROPOSAL_ID, default the next number). Run again after execution, it proves the result and records it. Names of the new contracts:
// KEYSTEAD_UPGRADE_POLICY, KEYSTEAD_UPGRADE_REGISTRY.
import hre from "hardhat";
import { readDeployment, writeDeployment } from "../deploy/record.ts";
import { draftUpgradeProposal } from "../deploy/upgrade-proposal.ts";
import { applyUpgrade, isExecuted, prepareUpgrade, verifyUpgraded } from "../deploy/upgrade.ts";
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
try {
  const deployment = readDeployment(connection.networkName);
  const upgrade = await prepareUpgrade(connection, deployment, spec, log);
  const { contracts, safes, block } = deployment;
  const { digest } = await computeStateDigest(connection.ethers.provider, {
    registry: contracts.registry.address,
    policy: contracts.policy.address,
    fromBlock: block,
  });
  if (await isExecuted(connection, deployment, upgrade)) {
    const upgraded = applyUpgrade(deployment, upgrade);
    const { differences } = await verifyUpgraded(connection, upgraded);
    if (differences.length > 0) {
      throw new KeysteadError("upgrade/verification-failed", `after the upgrade:\n- ${differences.join("\n- ")}`, {
        remedy: "consider the rollback, and find out how they came to differ",
        details: { differences },
      });
    }
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
