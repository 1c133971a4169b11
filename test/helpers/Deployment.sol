// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC1967Proxy} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol";

import {DstackAuth} from "../../contracts/dstack/DstackAuth.sol";
import {Actor} from "../../contracts/mocks/Actor.sol";
import {KmsRegistryV2} from "../../contracts/mocks/KmsRegistryV2.sol";
import {PlatformPolicyV2} from "../../contracts/mocks/PlatformPolicyV2.sol";
import {PlatformPolicy} from "../../contracts/policy/PlatformPolicy.sol";
import {KmsRegistry} from "../../contracts/registry/KmsRegistry.sol";
import {TeeKind} from "../../contracts/types/TeeKind.sol";
import {TestImages} from "./TestImages.sol";
import {vm} from "./Vm.sol";

/// @dev The suite as deployed: `registry` and `policy` are proxies on the first implementation; governor and guardian are contracts.
struct Suite {
    KmsRegistry registry;
    PlatformPolicy policy;
    DstackAuth dstackAuth;
    address governor;
    address guardian;
    address[2] registryCode;
    address[2] policyCode;
}

/// @title Deployment
/// @notice Deploys the suite for Solidity tests.
abstract contract Deployment {
    /// @dev Any TCB status that the tests' machines report: UpToDate, SWHardeningNeeded, NotApplicable.
    uint16 internal constant USUAL_TCB = 0x0083;

    function _deploySuite() internal returns (Suite memory suite) {
        suite.governor = address(new Actor());
        suite.guardian = address(new Actor());
        suite.policyCode = [address(new PlatformPolicy()), address(new PlatformPolicyV2())];
        bytes memory start = abi.encodeCall(PlatformPolicy.initialize, (suite.governor, suite.guardian));
        suite.policy = PlatformPolicy(address(new ERC1967Proxy(suite.policyCode[0], start)));

        address policyProxy = address(suite.policy);
        suite.registryCode = [address(new KmsRegistry(policyProxy)), address(new KmsRegistryV2(policyProxy))];
        start = abi.encodeCall(KmsRegistry.initialize, (suite.governor));
        suite.registry = KmsRegistry(address(new ERC1967Proxy(suite.registryCode[0], start)));
        suite.dstackAuth = new DstackAuth(address(suite.registry), policyProxy);
    }

    /// @dev Enables every TEE kind, with the usual TCB statuses and the pool's platforms.
    function _openPolicy(Suite memory suite) internal {
        for (uint8 kind = TeeKind.FIRST; kind <= TeeKind.LAST; ++kind) {
            vm.prank(suite.governor);
            suite.policy.enableTee(kind);
            vm.prank(suite.governor);
            suite.policy.acceptTcb(kind, USUAL_TCB);
            vm.prank(suite.governor);
            suite.policy.allowPlatform(TestImages.platform(kind), "");
        }
    }
}
