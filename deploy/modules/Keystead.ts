import { buildModule } from "@nomicfoundation/hardhat-ignition/modules";

/** Fully qualified, because build systems of users may hold another contract of the same name. */
const PROXY = "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol:ERC1967Proxy";

/**
 * The whole of Keystead's contracts, in the order in which each needs the one before: timelock → policy → registry → adapter. Each proxy
 * is initialised by its own constructor, so nobody can come in between, and the deployer appears in no argument.
 *
 * Parameters: `governanceSafe`, `guardianSafe` (addresses), `delaySeconds`.
 */
export default buildModule("Keystead", (m) => {
  const governanceSafe = m.getParameter<string>("governanceSafe");
  const guardianSafe = m.getParameter<string>("guardianSafe");
  const delaySeconds = m.getParameter<bigint>("delaySeconds");

  const timelock = m.contract("GovernanceTimelock", [delaySeconds, governanceSafe, guardianSafe], { id: "timelock" });

  const policyImplementation = m.contract("PlatformPolicy", [], { id: "policyImplementation" });
  const policyInit = m.encodeFunctionCall(policyImplementation, "initialize", [timelock, guardianSafe], {
    id: "policyInit",
  });
  const policy = m.contract(PROXY, [policyImplementation, policyInit], { id: "policy" });

  const registryImplementation = m.contract("KmsRegistry", [policy], { id: "registryImplementation" });
  const registryInit = m.encodeFunctionCall(registryImplementation, "initialize", [timelock], { id: "registryInit" });
  const registry = m.contract(PROXY, [registryImplementation, registryInit], { id: "registry" });

  const dstackAuth = m.contract("DstackAuth", [registry, policy], { id: "dstackAuth" });

  return { timelock, policyImplementation, policy, registryImplementation, registry, dstackAuth };
});
