// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";

import {vm} from "../helpers/Vm.sol";
import {Campaign} from "./Campaign.sol";

/**
 * @title GovernanceInvariants
 * @notice Invariants 5 and 6: who rules, and what an upgrade may do.
 *
 * 5. GOVERNOR_ROLE and GUARDIAN_ROLE are never held by an account without code (an EIP-7702 delegation is none); role admins never change; a pause always ends.
 *    Forbidden: a grant to such an account; a holder of DEFAULT_ADMIN_ROLE; no governor at all; a pause that ends more than 14 days ahead, or that is started
 *    while one is in force.
 *
 * 6. An upgrade leaves every service, image, head and policy value as it was: V1 to V2, V2 to V1, to itself, with and without a call. Compared before and after each.
 */
abstract contract GovernanceInvariants is Campaign {
    bytes32 private constant GOVERNOR = keccak256("keystead.GOVERNOR");
    bytes32 private constant GUARDIAN = keccak256("keystead.GUARDIAN");

    function _rolesBelongToContractsAndPausesEnd() internal view {
        _assertNothingFound(5);
        _checkRoles(world.REGISTRY());
        _checkRoles(world.POLICY());
        uint256 until = world.POLICY().releasePausedUntil();
        vm.assertLe(until, vm.getBlockTimestamp() + 14 days, "a pause that is too long");
        _must(until == world.pausedUntil(), "a pause that no event names");
    }

    function _upgradesChangeNothing() internal view {
        _assertNothingFound(6);
    }

    function _checkRoles(IAccessControl target) private view {
        _must(target.getRoleAdmin(GOVERNOR) == GOVERNOR, "the governors' admin changed");
        _must(target.getRoleAdmin(GUARDIAN) == GOVERNOR, "the guardians' admin changed");
        _must(target.hasRole(GOVERNOR, world.deployed().governor), "nobody governs");
        for (uint256 i = 0; i < world.ACCOUNTS(); ++i) {
            address account = world.accounts(i);
            _must(!target.hasRole(bytes32(0), account), "a third power");
            bool holds = target.hasRole(GOVERNOR, account) || target.hasRole(GUARDIAN, account);
            bool contractual = i >= 5 && i <= 8; // see World.accounts
            _must(!holds || contractual, "a role in the hands of a single key");
        }
    }
}
