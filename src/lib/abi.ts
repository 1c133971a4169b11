/*
 * `keystead/abi`: the contracts' interfaces, one readable line a function, event or error (ethers and viem's `parseAbi` take them as they are).
 */
export { DSTACK_AUTH_ABI } from "../chain/abi/dstack-auth.ts";
export { KMS_REGISTRY_ABI } from "../chain/abi/kms-registry.ts";
export { PLATFORM_POLICY_ABI } from "../chain/abi/platform-policy.ts";
export { TIMELOCK_ABI } from "../chain/abi/timelock.ts";
