// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/**
 * @title TeeKind
 * @notice The kinds of trusted execution environment, as numbers rather than an enum: a number that names no kind must be answered with a
 * denial or a typed error, never with the decoder's empty revert.
 */
library TeeKind {
    /// @dev Intel TDX: registers MRTD, RTMR0–3 and the SEAM and owner registers.
    uint8 internal constant TDX = 1;
    /// @dev AMD SEV-SNP: launch MEASUREMENT, HOST_DATA and the key digests.
    uint8 internal constant SEV_SNP = 2;
    /// @dev AWS Nitro Enclaves: PCR0–31.
    uint8 internal constant NITRO = 3;
    /// @dev dstack's own measurements: OS image hash, compose hash, mr_aggregated, mr_system.
    uint8 internal constant DSTACK = 4;

    /// @dev No kind, but a number for the list of devices that KMS nodes may run on, whatever their kind.
    uint8 internal constant KMS_NODES = 0;

    uint8 internal constant FIRST = TDX;
    uint8 internal constant LAST = DSTACK;

    function isKnown(uint8 kind) internal pure returns (bool) {
        return kind >= FIRST && kind <= LAST;
    }
}
