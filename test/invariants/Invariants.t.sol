// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {GovernanceInvariants} from "./GovernanceInvariants.sol";
import {LaneInvariants} from "./LaneInvariants.sol";
import {Liveliness} from "./Liveliness.sol";
import {ServiceInvariants} from "./ServiceInvariants.sol";

/**
 * @title Invariants
 * @notice All seven after every action of one campaign, and the proof that they are not vacuous. One campaign, for the runner would repeat the same actions for each
 * function; one contract, for the compiler builds the whole world into each contract that starts it.
 */
contract Invariants is ServiceInvariants, LaneInvariants, GovernanceInvariants, Liveliness {
    function invariant_allSevenHold() public view {
        _upgradeabilityIsFinal(); // 1
        _imagesAreActiveInTheirTimeAlone(); // 2
        _noticeGrowsAndHistoryIsComplete(); // 3
        _onlyGovernorAndOwnAdminLoosen(); // 4
        _rolesBelongToContractsAndPausesEnd(); // 5
        _upgradesChangeNothing(); // 6
        _authorizeAlwaysAnswers(); // 7
    }
}
