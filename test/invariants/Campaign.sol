// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Deployment} from "../helpers/Deployment.sol";
import {vm} from "../helpers/Vm.sol";
import {World} from "./World.sol";
import {AttackHandler} from "./handlers/AttackHandler.sol";
import {GovernanceHandler} from "./handlers/GovernanceHandler.sol";
import {PolicyHandler} from "./handlers/PolicyHandler.sol";
import {RegistryHandler} from "./handlers/RegistryHandler.sol";

/// @title Campaign
/// @notice A world with an open policy and two services in it, and the handlers that act on it.
abstract contract Campaign is Deployment {
    World internal world;
    RegistryHandler internal registryHandler;
    PolicyHandler internal policyHandler;
    AttackHandler internal attackHandler;
    GovernanceHandler internal governanceHandler;

    function setUp() public virtual {
        vm.warp(1_700_000_000);
        vm.roll(18_000_000);
        world = new World(_deploySuite());
        _createHandlers();
        policyHandler.open();
        registryHandler.createWithImage(1);
        registryHandler.createSealed(2);
    }

    /// @notice Read by the test runner: what it calls at random.
    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](4);
        targets[0] = address(registryHandler);
        targets[1] = address(policyHandler);
        targets[2] = address(attackHandler);
        targets[3] = address(governanceHandler);
    }

    /// @dev Sets the four handlers to contracts of the test file itself: Hardhat makes artifacts of those alone, and the runner knows a target by its artifact.
    function _createHandlers() internal virtual;

    /// @dev An assertion that reaches the runner only when it fails: what is asked a million times must be cheap.
    function _must(bool condition, string memory message) internal pure {
        if (!condition) vm.assertTrue(false, message);
    }

    /// @dev Fails if a handler saw a transition that the invariant forbids.
    function _assertNothingFound(uint256 invariantNumber) internal view {
        vm.assertEq(world.found(invariantNumber), "", "a forbidden transition");
    }
}
