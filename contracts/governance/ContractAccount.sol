// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/**
 * @title ContractAccount
 * @notice Tells an account that acts by its code from one that acts by a key.
 */
library ContractAccount {
    /// @dev The first three bytes of an EIP-7702 delegation designator, `0xef0100 ‖ address`.
    bytes3 private constant DELEGATION_PREFIX = 0xef0100;

    /// @dev Whether `account` has code now, and that code is not an EIP-7702 delegation: behind one is still a single key. An account inside its own constructor has no
    /// code yet. One that destroys itself in the transaction that created it has code until that transaction ends.
    function isContract(address account) internal view returns (bool) {
        if (account.code.length == 0) return false;
        bytes3 prefix;
        assembly ("memory-safe") {
            mstore(0x00, 0)
            extcodecopy(account, 0x00, 0x00, 3)
            prefix := mload(0x00)
        }
        return prefix != DELEGATION_PREFIX;
    }
}
