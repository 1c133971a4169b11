// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

/**
 * @title GovernanceTimelock
 * @notice OpenZeppelin's TimelockController with the roles that Keystead publishes, complete when the constructor returns:
 *
 *     governance Safe   PROPOSER, EXECUTOR, CANCELLER
 *     guardian Safe     CANCELLER
 *     the timelock      DEFAULT_ADMIN (every change of roles waits out the delay)
 *
 * Why a subclass at all: TimelockController's constructor makes cancellers of proposers alone. A second canceller who may not propose would
 * need an admin from outside for a moment, or an operation scheduled after deployment, during which the guardian could stop nothing.
 *
 * The one rule added: a role goes to accounts with code alone, for ever. An EIP-7702 delegation (code `0xef0100 ‖ address`) does not count as
 * code, and neither does address(0), so execution cannot be opened to everyone.
 */
contract GovernanceTimelock is TimelockController {
    /// @dev The first three bytes of an EIP-7702 delegation designator.
    bytes3 private constant DELEGATION_PREFIX = 0xef0100;

    /// @notice Thrown when a role would go to an account without code, or to one whose code is an EIP-7702 delegation.
    error GovernanceTimelock_NotAContract(address account);

    /// @param minDelay Seconds between scheduling and execution, at the least.
    /// @param governanceSafe Proposes, executes, cancels.
    /// @param guardianSafe Cancels, and nothing else.
    constructor(
        uint256 minDelay,
        address governanceSafe,
        address guardianSafe
    ) TimelockController(minDelay, _only(governanceSafe), _only(governanceSafe), address(0)) {
        _grantRole(CANCELLER_ROLE, guardianSafe);
    }

    /// @dev Every grant passes here, the constructor's too; the timelock itself has no code yet while it is being constructed.
    function _grantRole(bytes32 role, address account) internal override returns (bool) {
        if (account != address(this) && !_isContract(account)) revert GovernanceTimelock_NotAContract(account);
        return super._grantRole(role, account);
    }

    function _isContract(address account) private view returns (bool) {
        if (account.code.length == 0) return false;
        bytes3 prefix;
        assembly ("memory-safe") {
            mstore(0x00, 0)
            extcodecopy(account, 0x00, 0x00, 3)
            prefix := mload(0x00)
        }
        return prefix != DELEGATION_PREFIX;
    }

    function _only(address account) private pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = account;
    }
}
