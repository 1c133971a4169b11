// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TeeKind} from "../types/TeeKind.sol";

/**
 * @title ImageCodec
 * @notice One canonical encoding for the measurements of every TEE, and the refusal of all that is not canonical.
 *
 * ENCODING
 *
 *     version:u8 = 1 ‖ kind:u8 ‖ mask:u32 big-endian ‖ one 48-byte value per set bit of the mask, in ascending order of the bits
 *
 * Values shorter than 48 bytes are padded with zeros on the right. The id of an image is the keccak256 of these bytes, so there
 * must be exactly one encoding of each meaning: unknown bits, another length and non-zero padding are rejected.
 *
 * REGISTERS BY BIT (width in bytes where it is not 48)
 *
 *     1 TDX      0 mrtd · 1 rtmr0 · 2 rtmr1 · 3 rtmr2 · 4 rtmr3 · 5 mr_seam · 6 mr_signer_seam · 7 mr_config_id · 8 mr_owner
 *                9 mr_owner_config
 *     2 SEV-SNP  0 measurement · 1 host_data (32) · 2 id_key_digest · 3 author_key_digest · 4 family_id (16) · 5 image_id (16)
 *     3 NITRO    0 to 31 pcr0 to pcr31
 *     4 DSTACK   0 os_image_hash (32) · 1 compose_hash (32) · 2 mr_aggregated (32) · 3 mr_system (32)
 *
 * USES
 *
 * A register that an image leaves out matches anything. So what may be left out depends on what the image is for:
 *
 *     SERVICE    TDX mrtd, rtmr1–3 · SEV-SNP measurement · NITRO pcr0–2 · DSTACK compose_hash
 *     SEALED     the same, and for SEV-SNP host_data or id_key_digest, for DSTACK os_image_hash: an image that can never be
 *                replaced says what runs, not only on which platform
 *     PLATFORM   TDX mrtd · SEV-SNP measurement · NITRO pcr1 · DSTACK os_image_hash
 *     KMS        what SEALED needs, or for DSTACK mr_aggregated alone, which covers firmware, OS and application
 *
 * IDENTITY REGISTERS
 *
 * The registers that say what code runs, or who vouches for it, are never zero where they are present, in any use: those required
 * for SEALED or KMS but host_data. Zero means "not measured": a Nitro enclave in debug mode reports zero PCRs, and a TDX workload
 * that extends nothing into RTMR3 is bound to nothing. Other registers may be zero: an MRCONFIGID or HOST_DATA of zero is a fact
 * worth pinning.
 *
 * There is no way to encode "any image".
 */
library ImageCodec {
    /// @notice Thrown when the encoding's first byte is not the version that this contract knows.
    error ImageCodec_WrongVersion(uint8 version);
    /// @notice Thrown when no TEE has this number.
    error ImageCodec_UnknownKind(uint8 kind);
    /// @notice Thrown when the mask has bits that name no register of the kind.
    error ImageCodec_UnknownRegisters(uint8 kind, uint32 bits);
    /// @notice Thrown when registers that the use requires are left out.
    error ImageCodec_MissingRegisters(uint8 kind, uint32 bits);
    /// @notice Thrown when the length is not 6 + 48 × registers (or below the 6 bytes of the header).
    error ImageCodec_WrongLength(uint256 expected, uint256 actual);
    /// @notice Thrown when a value shorter than 48 bytes is not followed by zeros.
    error ImageCodec_NonZeroPadding(uint8 kind, uint8 register);
    /// @notice Thrown when an identity register is all zeros.
    error ImageCodec_ZeroRegister(uint8 kind, uint8 register);

    // Registers by bit, kind by kind.

    uint256 private constant TDX_MRTD = 1 << 0;
    uint256 private constant TDX_RTMR0 = 1 << 1;
    uint256 private constant TDX_RTMR1 = 1 << 2;
    uint256 private constant TDX_RTMR2 = 1 << 3;
    uint256 private constant TDX_RTMR3 = 1 << 4;
    uint256 private constant TDX_MR_SEAM = 1 << 5;
    uint256 private constant TDX_MR_SIGNER_SEAM = 1 << 6;
    uint256 private constant TDX_MR_CONFIG_ID = 1 << 7;
    uint256 private constant TDX_MR_OWNER = 1 << 8;
    uint256 private constant TDX_MR_OWNER_CONFIG = 1 << 9;

    uint256 private constant SNP_MEASUREMENT = 1 << 0;
    uint256 private constant SNP_HOST_DATA = 1 << 1;
    uint256 private constant SNP_ID_KEY_DIGEST = 1 << 2;
    uint256 private constant SNP_AUTHOR_KEY_DIGEST = 1 << 3;
    uint256 private constant SNP_FAMILY_ID = 1 << 4;
    uint256 private constant SNP_IMAGE_ID = 1 << 5;

    uint256 private constant NITRO_PCR0 = 1 << 0;
    uint256 private constant NITRO_PCR1 = 1 << 1;
    uint256 private constant NITRO_PCR2 = 1 << 2;
    uint256 private constant NITRO_PCR0_TO_31 = type(uint32).max;

    uint256 internal constant DSTACK_OS_IMAGE_HASH = 1 << 0;
    uint256 internal constant DSTACK_COMPOSE_HASH = 1 << 1;
    uint256 internal constant DSTACK_MR_AGGREGATED = 1 << 2;
    uint256 internal constant DSTACK_MR_SYSTEM = 1 << 3;

    // Tables of masks: 32 bits for each kind, from bit 32 × kind on.

    uint256 private constant MASK_SHIFT = 5;
    uint256 private constant TDX = uint256(TeeKind.TDX) << MASK_SHIFT;
    uint256 private constant SNP = uint256(TeeKind.SEV_SNP) << MASK_SHIFT;
    uint256 private constant NITRO = uint256(TeeKind.NITRO) << MASK_SHIFT;
    uint256 private constant DSTACK = uint256(TeeKind.DSTACK) << MASK_SHIFT;

    uint256 private constant TDX_CODE = TDX_MRTD | TDX_RTMR1 | TDX_RTMR2 | TDX_RTMR3;
    uint256 private constant NITRO_CODE = NITRO_PCR0 | NITRO_PCR1 | NITRO_PCR2;
    uint256 private constant DSTACK_CODE = DSTACK_OS_IMAGE_HASH | DSTACK_COMPOSE_HASH;

    // What each use requires: all registers of its mask, or all of the other one where it has two.

    uint256 private constant SERVICE =
        (TDX_CODE << TDX) | (SNP_MEASUREMENT << SNP) | (NITRO_CODE << NITRO) | (DSTACK_COMPOSE_HASH << DSTACK);
    uint256 private constant SEALED =
        (TDX_CODE << TDX) |
            ((SNP_MEASUREMENT | SNP_HOST_DATA) << SNP) |
            (NITRO_CODE << NITRO) |
            (DSTACK_CODE << DSTACK);
    uint256 private constant SEALED_BY_ID_KEY =
        (TDX_CODE << TDX) |
            ((SNP_MEASUREMENT | SNP_ID_KEY_DIGEST) << SNP) |
            (NITRO_CODE << NITRO) |
            (DSTACK_CODE << DSTACK);
    uint256 private constant KMS = SEALED;
    uint256 private constant KMS_BY_AGGREGATE =
        (TDX_CODE << TDX) |
            ((SNP_MEASUREMENT | SNP_ID_KEY_DIGEST) << SNP) |
            (NITRO_CODE << NITRO) |
            (DSTACK_MR_AGGREGATED << DSTACK);
    uint256 private constant PLATFORM =
        (TDX_MRTD << TDX) | (SNP_MEASUREMENT << SNP) | (NITRO_PCR1 << NITRO) | (DSTACK_OS_IMAGE_HASH << DSTACK);

    uint256 private constant TDX_KNOWN =
        TDX_CODE | TDX_RTMR0 | TDX_MR_SEAM | TDX_MR_SIGNER_SEAM | TDX_MR_CONFIG_ID | TDX_MR_OWNER | TDX_MR_OWNER_CONFIG;
    uint256 private constant SNP_NARROW_16 = SNP_FAMILY_ID | SNP_IMAGE_ID;
    uint256 private constant SNP_KNOWN =
        SNP_MEASUREMENT | SNP_HOST_DATA | SNP_ID_KEY_DIGEST | SNP_AUTHOR_KEY_DIGEST | SNP_NARROW_16;
    uint256 private constant DSTACK_KNOWN = DSTACK_CODE | DSTACK_MR_AGGREGATED | DSTACK_MR_SYSTEM;

    uint256 private constant KNOWN =
        (TDX_KNOWN << TDX) | (SNP_KNOWN << SNP) | (NITRO_PCR0_TO_31 << NITRO) | (DSTACK_KNOWN << DSTACK);
    uint256 private constant IDENTITY = (SEALED | SEALED_BY_ID_KEY | KMS_BY_AGGREGATE) & ~(SNP_HOST_DATA << SNP);
    uint256 private constant NARROW_32 = (SNP_HOST_DATA << SNP) | (DSTACK_KNOWN << DSTACK);
    uint256 private constant NARROW_16 = SNP_NARROW_16 << SNP;

    uint8 private constant VERSION = 1;
    uint256 private constant HEADER_BYTES = 6;
    uint256 private constant VALUE_BYTES = 48;

    /// @notice Checks an image of an upgradeable service.
    /// @return id keccak256 of the bytes.
    /// @return kind The TEE kind (see TeeKind).
    /// @return mask Which registers the image names, by bit.
    function checkService(bytes calldata image) internal pure returns (bytes32 id, uint8 kind, uint32 mask) {
        return _check(image, SERVICE, SERVICE);
    }

    /// @notice Checks an image that can never be replaced. Returns as `checkService`.
    function checkSealed(bytes calldata image) internal pure returns (bytes32 id, uint8 kind, uint32 mask) {
        return _check(image, SEALED, SEALED_BY_ID_KEY);
    }

    /// @notice Checks a platform. Returns as `checkService`.
    function checkPlatform(bytes calldata image) internal pure returns (bytes32 id, uint8 kind, uint32 mask) {
        return _check(image, PLATFORM, PLATFORM);
    }

    /// @notice Checks an image that may run as a KMS node. Returns as `checkService`.
    function checkKms(bytes calldata image) internal pure returns (bytes32 id, uint8 kind, uint32 mask) {
        return _check(image, KMS, KMS_BY_AGGREGATE);
    }

    /// @dev Canonical, and names all registers of `required` or all of `otherwise`.
    function _check(
        bytes calldata image,
        uint256 required,
        uint256 otherwise
    ) private pure returns (bytes32 id, uint8 kind, uint32 mask) {
        if (image.length < HEADER_BYTES) revert ImageCodec_WrongLength(HEADER_BYTES, image.length);
        uint256 header = uint48(bytes6(image));
        uint256 version = header >> 40;
        kind = uint8(header >> 32);
        mask = uint32(header);
        if (version != VERSION) revert ImageCodec_WrongVersion(uint8(version));
        uint256 known = _of(KNOWN, kind);
        if (known == 0) revert ImageCodec_UnknownKind(kind);
        if (mask & ~known != 0) revert ImageCodec_UnknownRegisters(kind, uint32(mask & ~known));
        uint256 missing = _of(required, kind) & ~uint256(mask);
        if (missing != 0 && _of(otherwise, kind) & ~uint256(mask) != 0) {
            revert ImageCodec_MissingRegisters(kind, uint32(missing));
        }
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
        // No overflow: `rest` is not zero where it shrinks, `position` ends at 6 + 32 * 48.
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
        return (table >> (uint256(kind) << MASK_SHIFT)) & type(uint32).max;
    }
}
