// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {console} from "hardhat/console.sol";

import {vm} from "../helpers/Vm.sol";
import {Campaign} from "./Campaign.sol";
import {AttackHandler} from "./handlers/AttackHandler.sol";
import {GovernanceHandler} from "./handlers/GovernanceHandler.sol";
import {PolicyHandler} from "./handlers/PolicyHandler.sol";
import {RegistryHandler} from "./handlers/RegistryHandler.sol";

/**
 * @title Liveliness
 * @notice That the invariants are not vacuous: in one fixed run, every action of every handler succeeds, those that can be refused are, and
 * answers do turn into Allowed.
 */
abstract contract Liveliness is Campaign {
    uint256 private constant STEPS = 1500;

    string[44] private _actions = [
        "create",
        "createWithImage",
        "createSealed",
        "addImage",
        "addImages",
        "removeImage",
        "retireImage",
        "rotateKey",
        "publishSecrets",
        "extendNotice",
        "setGuardian",
        "setDevice",
        "setTcbRule",
        "transferAdmin",
        "acceptAdmin",
        "renounceAdmin",
        "batch",
        "batchCreate",
        "removeImages",
        "withdrawSecrets",
        "startDevices",
        "allowPlatform",
        "enableTee",
        "acceptTcb",
        "allowDevice",
        "unrestrictDevices",
        "allowKmsImage",
        "publishIdentity",
        "setGatewayAppId",
        "setAppImplementation",
        "extendPause",
        "resumeRelease",
        "revokePlatform",
        "suspendTee",
        "rejectTcb",
        "revokeDevice",
        "restrictDevices",
        "revokeKmsImage",
        "revokeIdentity",
        "pauseRelease",
        "upgrade",
        "grantRole",
        "revokeRole",
        "renounceRole"
    ];

    bytes4[] private _registrySelectors = [
        RegistryHandler.addImage.selector,
        RegistryHandler.addImages.selector,
        RegistryHandler.removeImage.selector,
        RegistryHandler.retireImage.selector,
        RegistryHandler.rotateKey.selector,
        RegistryHandler.publishSecrets.selector,
        RegistryHandler.extendNotice.selector,
        RegistryHandler.setGuardian.selector,
        RegistryHandler.setDevice.selector,
        RegistryHandler.setTcbRule.selector,
        RegistryHandler.transferAdmin.selector,
        RegistryHandler.acceptAdmin.selector,
        RegistryHandler.renounceAdmin.selector,
        RegistryHandler.batch.selector,
        RegistryHandler.passTime.selector,
        RegistryHandler.create.selector,
        RegistryHandler.createWithImage.selector,
        RegistryHandler.createSealed.selector,
        RegistryHandler.batchCreate.selector,
        RegistryHandler.removeImages.selector,
        RegistryHandler.withdrawSecrets.selector,
        RegistryHandler.startDevices.selector
    ];
    bytes4[] private _policySelectors = [
        PolicyHandler.allowPlatform.selector,
        PolicyHandler.enableTee.selector,
        PolicyHandler.acceptTcb.selector,
        PolicyHandler.allowDevice.selector,
        PolicyHandler.unrestrictDevices.selector,
        PolicyHandler.allowKmsImage.selector,
        PolicyHandler.publishIdentity.selector,
        PolicyHandler.setDstackFacts.selector,
        PolicyHandler.extendPause.selector,
        PolicyHandler.resumeRelease.selector,
        PolicyHandler.revokePlatform.selector,
        PolicyHandler.suspendTee.selector,
        PolicyHandler.rejectTcb.selector,
        PolicyHandler.revokeDevice.selector,
        PolicyHandler.restrictDevices.selector,
        PolicyHandler.revokeKmsImage.selector,
        PolicyHandler.revokeIdentity.selector,
        PolicyHandler.pauseRelease.selector
    ];
    bytes4[] private _governanceSelectors = [
        GovernanceHandler.upgradeRegistry.selector,
        GovernanceHandler.upgradePolicy.selector,
        GovernanceHandler.upgradeToNothing.selector,
        GovernanceHandler.grantRole.selector,
        GovernanceHandler.revokeRole.selector,
        GovernanceHandler.renounceRole.selector,
        GovernanceHandler.abandon.selector,
        AttackHandler.grant.selector,
        AttackHandler.seize.selector,
        AttackHandler.meddle.selector
    ];

    function test_everyActionSucceedsAtLeastOnce() public {
        // The seventh service is refused a place, so creations come from a few worlds, one after the other.
        uint256[44] memory counts;
        uint256 releases = 0;
        uint256 attacks = 0;
        for (uint256 round = 0; round < 5; ++round) {
            if (round != 0) setUp();
            for (uint256 i = 0; i < STEPS / 5; ++i) {
                world.watch(i % 40 == 0);
                _step(uint256(keccak256(abi.encode(round, i))));
            }
            world.watch(true);
            for (uint256 a = 0; a < counts.length; ++a) counts[a] += world.succeeded(_actions[a]);
            releases += world.releases();
            attacks +=
                world.refused("attack: grant") +
                world.refused("attack: seize") +
                world.refused("attack: meddle");
        }
        for (uint256 a = 0; a < counts.length; ++a) {
            console.log(_actions[a], counts[a]);
            vm.assertGt(counts[a], 0, _actions[a]);
        }
        console.log("refusals that became Allowed", releases);
        console.log("attacks refused", attacks);
        vm.assertGt(releases, 0, "nothing became acceptable");
        vm.assertGt(attacks, 20, "nobody attacked");
    }

    function _step(uint256 seed) private {
        uint256 which = seed % 50;
        address target;
        bytes4 selector;
        if (which < 22) (target, selector) = (address(registryHandler), _registrySelectors[which]);
        else if (which < 40) (target, selector) = (address(policyHandler), _policySelectors[which - 22]);
        else if (which < 47) (target, selector) = (address(governanceHandler), _governanceSelectors[which - 40]);
        else (target, selector) = (address(attackHandler), _governanceSelectors[which - 40]);
        // solhint-disable-next-line avoid-low-level-calls
        (bool ok, ) = target.call(abi.encodePacked(selector, seed));
        vm.assertTrue(ok, "a handler failed");
    }
}
