// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {GovernanceInvariants} from "./GovernanceInvariants.sol";
import {LaneInvariants} from "./LaneInvariants.sol";
import {Liveliness} from "./Liveliness.sol";
import {ServiceInvariants} from "./ServiceInvariants.sol";
import {World} from "./World.sol";
import {AttackHandler} from "./handlers/AttackHandler.sol";
import {GovernanceHandler} from "./handlers/GovernanceHandler.sol";
import {PolicyHandler} from "./handlers/PolicyHandler.sol";
import {RegistryHandler} from "./handlers/RegistryHandler.sol";

contract People is RegistryHandler {
    constructor(World world) RegistryHandler(world) {}
}

contract Lanes is PolicyHandler {
    constructor(World world) PolicyHandler(world) {}
}

contract Outsiders is AttackHandler {
    constructor(World world) AttackHandler(world) {}
}

contract Governors is GovernanceHandler {
    constructor(World world) GovernanceHandler(world) {}
}

/**
 * @title Invariants
 * @notice All seven after every action of one campaign, and the proof that they are not vacuous. One campaign, for the runner would repeat the same actions for each
 * function; one contract, for the compiler builds the whole world into each contract that starts it.
 */
contract Invariants is ServiceInvariants, LaneInvariants, GovernanceInvariants, Liveliness {
    function invariant_allSevenHold() public view {
        for (uint256 n = 1; n <= 7; ++n) _check(n);
    }

    function _createHandlers() internal override {
        registryHandler = new People(world);
        policyHandler = new Lanes(world);
        attackHandler = new Outsiders(world);
        governanceHandler = new Governors(world);
    }

    function _check(uint256 invariantNumber) private view {
        if (invariantNumber == 1) _upgradeabilityIsFinal();
        else if (invariantNumber == 2) _imagesAreActiveInTheirTimeAlone();
        else if (invariantNumber == 3) _noticeGrowsAndHistoryIsComplete();
        else if (invariantNumber == 4) _onlyGovernorAndOwnAdminLoosen();
        else if (invariantNumber == 5) _rolesBelongToContractsAndPausesEnd();
        else if (invariantNumber == 6) _upgradesChangeNothing();
        else _authorizeAlwaysAnswers();
    }
}
