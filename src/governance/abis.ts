import { Interface } from "ethers";
import { KMS_REGISTRY_ABI } from "../chain/abi/kms-registry.ts";
import { PLATFORM_POLICY_ABI } from "../chain/abi/platform-policy.ts";
import { TIMELOCK_ABI } from "../chain/abi/timelock.ts";

/** The contracts whose calls governance understands. */
export type ContractName = "policy" | "registry" | "timelock" | "safe" | "multiSend";

/** Safe's own functions that change who controls it, or carry another transaction: the same in 1.3.0, 1.4.1 and 1.5.0. */
const SAFE_FUNCTIONS = [
  "function execTransaction(address to, uint256 value, bytes data, uint8 operation, uint256 safeTxGas, uint256 baseGas, uint256 gasPrice, address gasToken, address refundReceiver, bytes signatures) payable returns (bool success)",
  "function addOwnerWithThreshold(address owner, uint256 _threshold)",
  "function removeOwner(address prevOwner, address owner, uint256 _threshold)",
  "function swapOwner(address prevOwner, address oldOwner, address newOwner)",
  "function changeThreshold(uint256 _threshold)",
  "function enableModule(address module)",
  "function disableModule(address prevModule, address module)",
  "function setGuard(address guard)",
  "function setModuleGuard(address moduleGuard)",
  "function changeMasterCopy(address _masterCopy)",
  "function setFallbackHandler(address handler)",
  "function approveHash(bytes32 hashToApprove)",
];

/** What each contract understands. */
export const INTERFACES: Readonly<Record<ContractName, Interface>> = {
  policy: new Interface(PLATFORM_POLICY_ABI),
  registry: new Interface(KMS_REGISTRY_ABI),
  timelock: new Interface(TIMELOCK_ABI),
  safe: new Interface(SAFE_FUNCTIONS),
  multiSend: new Interface(["function multiSend(bytes transactions) payable"]),
};
