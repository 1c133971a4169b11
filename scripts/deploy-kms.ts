// Deploys Keystead on the network that `--network` names, from deploy/parameters/<network>.json:
//
//   npx hardhat run scripts/deploy-kms.ts --network sepolia
//
// Interrupted, the same command resumes. What it checks and refuses: deploy/README.md
import hre from "hardhat";
import { deployKms } from "../deploy/kms.ts";
import { readParameters } from "../deploy/parameters.ts";
import { isKeysteadError } from "../src/core/errors.ts";

const connection = await hre.network.create();
try {
  const parameters = readParameters(connection.networkName);
  const { contracts, safes, roles } = await deployKms(connection, parameters, (line) => console.log(line));
  console.log("\ndeployed and verified:");
  for (const [name, { address, codeHash }] of Object.entries(contracts)) {
    console.log(`  ${name.padEnd(23)} ${address}  code ${codeHash}`);
  }
  for (const [name, { address, threshold, owners }] of Object.entries(safes)) {
    console.log(`  ${`${name} Safe`.padEnd(23)} ${address}  ${threshold} of ${owners.length}`);
  }
  console.log("\nroles, from every role event since deployment:");
  for (const { contract, role, holders } of roles) {
    console.log(`  ${contract.padEnd(9)} ${role.padEnd(19)} ${holders.join(", ") || "nobody"}`);
  }
} catch (error) {
  if (!isKeysteadError(error)) throw error;
  console.error(`\n${error.code}: ${error.message}\n${error.remedy}`);
  process.exitCode = 1;
} finally {
  await connection.close();
}
