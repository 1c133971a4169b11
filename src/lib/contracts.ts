/*
 * `keystead/contracts`: the contracts as typed ethers clients, with every function, event and struct. For calls and transactions; what a view answers is an
 * endpoint's word: to know, use `keystead/audit`.
 */
import type { ContractRunner } from "ethers";
import type { DstackAuth } from "../../typechain-types/contracts/dstack/DstackAuth.ts";
import type { GovernanceTimelock } from "../../typechain-types/contracts/governance/GovernanceTimelock.ts";
import type { PlatformPolicy } from "../../typechain-types/contracts/policy/PlatformPolicy.ts";
import type { KmsRegistry } from "../../typechain-types/contracts/registry/KmsRegistry.ts";
import { DstackAuth__factory } from "../../typechain-types/factories/contracts/dstack/DstackAuth__factory.ts";
import { GovernanceTimelock__factory } from "../../typechain-types/factories/contracts/governance/GovernanceTimelock__factory.ts";
import { PlatformPolicy__factory } from "../../typechain-types/factories/contracts/policy/PlatformPolicy__factory.ts";
import { KmsRegistry__factory } from "../../typechain-types/factories/contracts/registry/KmsRegistry__factory.ts";
import type { Deployment } from "../chain/deployment.ts";

export {
  type DstackAuth,
  DstackAuth__factory,
  type GovernanceTimelock,
  GovernanceTimelock__factory,
  type KmsRegistry,
  KmsRegistry__factory,
  type PlatformPolicy,
  PlatformPolicy__factory,
};

/** The contracts of one deployment. */
export interface Contracts {
  readonly registry: KmsRegistry;
  readonly policy: PlatformPolicy;
  readonly dstackAuth: DstackAuth;
  readonly timelock: GovernanceTimelock;
}

/**
 * The contracts of a deployment's record, for a provider (to read) or a signer (to write).
 *
 * @example
 * const { registry } = connectContracts(parseDeployment(text), await provider.getSigner());
 * await registry.addImageToService(serviceId, encodeImage(image), "v2");
 */
export function connectContracts({ contracts }: Pick<Deployment, "contracts">, runner: ContractRunner): Contracts {
  return {
    registry: KmsRegistry__factory.connect(contracts.registry.address, runner),
    policy: PlatformPolicy__factory.connect(contracts.policy.address, runner),
    dstackAuth: DstackAuth__factory.connect(contracts.dstackAuth.address, runner),
    timelock: GovernanceTimelock__factory.connect(contracts.timelock.address, runner),
  };
}
