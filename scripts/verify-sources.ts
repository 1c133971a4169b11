// Publishes the sources of a recorded deployment to Sourcify, Blockscout and Etherscan, proxies included:
//
//   npx hardhat run scripts/verify-sources.ts --network sepolia
//
// Etherscan wants a key: `npx hardhat keystore set ETHERSCAN_API_KEY`. Build from the commit that was deployed.
import hre from "hardhat";
import { readDeployment } from "../deploy/record.ts";
import { verifySources } from "../deploy/sources.ts";
import { isKeysteadError } from "../src/core/errors.ts";

const network = hre.globalOptions.network ?? "default";
try {
  const verified = await verifySources(readDeployment(network), (line) => console.log(line));
  console.log(`${verified} verifications stand`);
} catch (error) {
  if (!isKeysteadError(error)) throw error;
  console.error(`\n${error.code}: ${error.message}\n${error.remedy}`);
  process.exitCode = 1;
}
