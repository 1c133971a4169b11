// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/**
 * @title ImageCodec
 * @notice One canonical encoding for the measurements of every TEE, and the refusal of all that is not canonical.
 *
 * ENCODING
 *
 *     version:u8 = 1 ‖ kind:u8 ‖ mask:u16 big-endian ‖ one 48-byte value per set bit of the mask, in ascending order of the bits
 *
 * Values shorter than 48 bytes are padded with zeros on the right. The id of an image is the keccak256 of these bytes, so there must be exactly
 * one encoding of each meaning: unknown bits, another length and non-zero padding are refused.
 *
 * REGISTERS BY BIT (width in bytes where it is not 48)
 *
 *     1 TDX      0 mrtd · 1 rtmr0 · 2 rtmr1 · 3 rtmr2 · 4 rtmr3 · 5 mr_seam · 6 mr_signer_seam · 7 mr_config_id · 8 mr_owner · 9 mr_owner_config
 *     2 SEV-SNP  0 measurement · 1 host_data (32) · 2 id_key_digest · 3 author_key_digest · 4 family_id (16) · 5 image_id (16)
 *     3 NITRO    0 pcr0 · 1 pcr1 · 2 pcr2 · 3 pcr3 · 4 pcr4 · 8 pcr8
 *     4 DSTACK   0 os_image_hash (32) · 1 compose_hash (32) · 2 mr_aggregated (32) · 3 mr_system (32)
 *
 * USES
 *
 * A register that an image leaves out matches anything. So what may be left out depends on what the image is for:
 *
 *     SERVICE    TDX mrtd, rtmr1–3 · SEV-SNP measurement · NITRO pcr0–2 · DSTACK compose_hash
 *     SEALED     the same, and for DSTACK os_image_hash too: an image that can never be replaced names its operating system
 *     PLATFORM   TDX mrtd · SEV-SNP measurement · NITRO pcr1 · DSTACK os_image_hash
 *
 * IDENTITY REGISTERS
 *
 * The registers that say what code runs (those required for SEALED) are never zero where they are present, in any use. Zero means "not measured": a
 * Nitro enclave in debug mode reports zero PCRs, and a TDX workload that extends nothing into RTMR3 is bound to nothing. Other registers may be
 * zero: an MRCONFIGID of zero is a fact worth pinning.
 *
 * There is no way to encode "any image".
 */
library ImageCodec {
    /// @notice Thrown when the encoding's first byte is not the version that this contract knows.
    error ImageCodec_WrongVersion(uint8 version);
    /// @notice Thrown when no TEE has this number.
    error ImageCodec_UnknownKind(uint8 kind);
    /// @notice Thrown when the mask has bits that name no register of the kind.
    error ImageCodec_UnknownRegisters(uint8 kind, uint16 bits);
    /// @notice Thrown when registers that the use requires are left out.
    error ImageCodec_MissingRegisters(uint8 kind, uint16 bits);
    /// @notice Thrown when the length is not 4 + 48 × registers (or below the 4 bytes of the header).
    error ImageCodec_WrongLength(uint256 expected, uint256 actual);
    /// @notice Thrown when a value shorter than 48 bytes is not followed by zeros.
    error ImageCodec_NonZeroPadding(uint8 kind, uint8 register);
    /// @notice Thrown when an identity register is all zeros.
    error ImageCodec_ZeroRegister(uint8 kind, uint8 register);

    // Masks of registers, 16 bits for each kind: DSTACK, NITRO, SEV-SNP, TDX, and none for 0.

    /// @dev What an image under an upgradeable service must name.
    uint256 internal constant SERVICE = 0x0002_0007_0001_001d_0000;
    /// @dev What an image that can never be replaced must name.
    uint256 internal constant SEALED = 0x0003_0007_0001_001d_0000;
    /// @dev What a platform must name.
    uint256 internal constant PLATFORM = 0x0001_0002_0001_0001_0000;

    uint256 private constant KNOWN = 0x000f_011f_003f_03ff_0000;
    uint256 private constant IDENTITY = SEALED;
    uint256 private constant NARROW_32 = 0x000f_0000_0002_0000_0000;
    uint256 private constant NARROW_16 = 0x0000_0000_0030_0000_0000;

    uint8 private constant VERSION = 1;
    uint256 private constant HEADER_BYTES = 4;
    uint256 private constant VALUE_BYTES = 48;

    /**
     * @notice Checks that `image` is canonical and fit for its use.
     * @param required SERVICE, SEALED or PLATFORM.
     * @return id keccak256 of the bytes.
     * @return kind The TEE kind (see TeeKind).
     * @return mask Which registers the image names, by bit.
     */
    function check(bytes calldata image, uint256 required) internal pure returns (bytes32 id, uint8 kind, uint16 mask) {
        if (image.length < HEADER_BYTES) revert ImageCodec_WrongLength(HEADER_BYTES, image.length);
        uint256 header = uint32(bytes4(image));
        kind = uint8(header >> 16);
        mask = uint16(header);
        if (header >> 24 != VERSION) revert ImageCodec_WrongVersion(uint8(header >> 24));
        uint256 known = _of(KNOWN, kind);
        if (known == 0) revert ImageCodec_UnknownKind(kind);
        if (mask & ~known != 0) revert ImageCodec_UnknownRegisters(kind, uint16(mask & ~known));
        uint256 missing = _of(required, kind) & ~uint256(mask);
        if (missing != 0) revert ImageCodec_MissingRegisters(kind, uint16(missing));
        _checkValues(image, kind, mask);
        assembly ("memory-safe") {
            // Hashed in free memory that nothing keeps: `keccak256(image)` would allocate a copy.
            let copy := mload(0x40)
            calldatacopy(copy, image.offset, image.length)
            id := keccak256(copy, image.length)
        }
    }

    /**
     * @dev The values, in one pass that only takes notes, for the length is known at its end and comes first among the refusals. Two words are read for each
     * value: its first 32 bytes and its last 32. Reading past the end of calldata yields zeros.
     */
    function _checkValues(bytes calldata image, uint8 kind, uint256 mask) private pure {
        uint256 zero = 0; // registers that are all zeros
        uint256 padded = 0; // registers whose padding is not
        uint256 narrow = _of(NARROW_32 | NARROW_16, kind);
        uint256 position = HEADER_BYTES;
        // No overflow: `rest` is not zero where it shrinks, `position` ends at 4 + 16 * 48.
        unchecked {
            for (uint256 rest = mask; rest != 0; rest &= rest - 1) {
                uint256 head;
                uint256 tail;
                assembly ("memory-safe") {
                    let value := add(image.offset, position)
                    head := calldataload(value)
                    tail := calldataload(add(value, 16))
                }
                if (head | tail == 0) zero |= _lowestBit(rest);
                else if (narrow != 0 && _hasPadding(kind, _lowestBit(rest), tail)) padded |= _lowestBit(rest);
                position += VALUE_BYTES;
            }
        }
        if (image.length != position) revert ImageCodec_WrongLength(position, image.length);
        uint256 faults = padded | (zero & _of(IDENTITY, kind));
        if (faults == 0) return;
        uint8 register = 0;
        while ((faults >> register) & 1 == 0) ++register;
        if ((padded >> register) & 1 == 1) revert ImageCodec_NonZeroPadding(kind, register);
        revert ImageCodec_ZeroRegister(kind, register);
    }

    /// @dev Whether bytes beyond a narrow register's width are set. `tail` is the value from its 17th byte on.
    function _hasPadding(uint8 kind, uint256 bit, uint256 tail) private pure returns (bool) {
        if (_of(NARROW_16, kind) & bit != 0) return tail != 0;
        return _of(NARROW_32, kind) & bit != 0 && uint128(tail) != 0;
    }

    function _lowestBit(uint256 bits) private pure returns (uint256) {
        unchecked {
            return bits & (0 - bits);
        }
    }

    /// @dev A kind's mask out of a table; 0 for a number that names no kind.
    function _of(uint256 table, uint8 kind) private pure returns (uint256) {
        return (table >> (uint256(kind) << 4)) & 0xffff;
    }
}
