// Moves a DstackApp under a Keystead service, keeping its appId and keys, and back:
//
//   KEYSTEAD_APP=0x… KEYSTEAD_SERVICE=0x… npx hardhat run scripts/dstack-app.ts --network base
//
// The first run checks the app, deploys the adapter and prints the transaction that the app's owner sends, and the one that undoes it. Run again, it
// says which of the two sides the app is on, with everything checked. DstackAuth is the deployment record's, or KEYSTEAD_AUTH.
import hre from "hardhat";
import {
  adoptionCall,
  adoptionFile,
  checkAdoption,
  prepareAdoption,
  readAdoption,
  rollbackCall,
  writeAdoption,
} from "../deploy/dstack-app.ts";
import { readDeployment } from "../deploy/record.ts";
import { isKeysteadError, KeysteadError } from "../src/core/errors.ts";

const required = (name: string): string => {
  const value = process.env[name];
  if (value !== undefined && /^0x[0-9a-fA-F]{40}$/.test(value)) return value;
  throw new KeysteadError("usage/missing", `${name} is not 20 bytes in hex`, {
    argument: name,
    remedy: `Set ${name}: KEYSTEAD_APP is the app's address, KEYSTEAD_SERVICE the service's id.`,
  });
};

const connection = await hre.network.create();
try {
  const app = required("KEYSTEAD_APP");
  const file = adoptionFile(connection.networkName, app);
  let adoption = readAdoption(file);
  if (adoption === undefined) {
    const auth = process.env.KEYSTEAD_AUTH ?? readDeployment(connection.networkName).contracts.dstackAuth.address;
    const wanted = { app, auth, serviceId: required("KEYSTEAD_SERVICE") };
    adoption = await prepareAdoption(connection, wanted, (line) => console.log(line));
    writeAdoption(file, adoption);
    console.log(`kept in ${file}`);
  }
  const side = await checkAdoption(connection, adoption);
  console.log(
    side === "adopted"
      ? `\nIN FORCE: service ${adoption.serviceId} decides for app ${adoption.app}`
      : `\nNOT YET: the old implementation ${adoption.previous} decides for app ${adoption.app}`,
  );
  const { to, data } = side === "adopted" ? rollbackCall(adoption) : adoptionCall(adoption);
  console.log(side === "adopted" ? "\nto undo it," : "\nto put the adapter in,");
  console.log(`the owner ${adoption.owner} sends\n  to    ${to}\n  value 0\n  data  ${data}`);
} catch (error) {
  if (!isKeysteadError(error)) throw error;
  console.error(`\n${error.code}: ${error.message}\n${error.remedy}`);
  process.exitCode = 1;
} finally {
  await connection.close();
}
