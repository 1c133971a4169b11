// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/**
 * @title TcbStatus
 * @notice TCB statuses as bit positions: Intel's names for TDX (PCS API v4, and the two relaunch statuses of the quote verification library 1.22);
 * SEV-SNP is judged UpToDate or OutOfDate by its verifier. A set of accepted statuses is a `uint16` with these bits.
 */
library TcbStatus {
    uint8 internal constant UP_TO_DATE = 0;
    uint8 internal constant SW_HARDENING_NEEDED = 1;
    uint8 internal constant CONFIGURATION_NEEDED = 2;
    uint8 internal constant CONFIGURATION_AND_SW_HARDENING_NEEDED = 3;
    uint8 internal constant OUT_OF_DATE = 4;
    uint8 internal constant OUT_OF_DATE_CONFIGURATION_NEEDED = 5;
    /// @dev Never acceptable: no set may contain it.
    uint8 internal constant REVOKED = 6;
    /// @dev The TEE reports no TCB level at all (AWS Nitro).
    uint8 internal constant NOT_APPLICABLE = 7;
    uint8 internal constant RELAUNCH_ADVISED = 8;
    uint8 internal constant RELAUNCH_ADVISED_CONFIGURATION_NEEDED = 9;

    /// @dev The statuses that governance may accept: bits 0 to 9 but for REVOKED.
    uint16 internal constant ACCEPTABLE = 0x03bf;

    /// @return Whether `status` is in the set `accepted`. A number that names no status is in no set.
    function isIn(uint8 status, uint16 accepted) internal pure returns (bool) {
        return (uint256(accepted) >> status) & 1 == 1;
    }
}
