// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ImageCodec} from "../registry/ImageCodec.sol";
import {ImageId} from "../types/Ids.sol";
import {TeeKind} from "../types/TeeKind.sol";
import {IAppAuth} from "./IAppAuth.sol";

/**
 * @title DstackImages
 * @notice The ids of the canonical images of kind DSTACK (see ImageCodec) that describe a machine which dstack-kms reports.
 */
library DstackImages {
    // Registers of an image of kind DSTACK.
    uint256 internal constant OS_IMAGE_HASH = ImageCodec.DSTACK_OS_IMAGE_HASH;
    uint256 internal constant COMPOSE_HASH = ImageCodec.DSTACK_COMPOSE_HASH;
    uint256 internal constant MR_AGGREGATED = ImageCodec.DSTACK_MR_AGGREGATED;
    uint256 internal constant MR_SYSTEM = ImageCodec.DSTACK_MR_SYSTEM;
    uint256 internal constant ALL = OS_IMAGE_HASH | COMPOSE_HASH | MR_AGGREGATED | MR_SYSTEM;

    /// @dev `version ‖ kind ‖ mask` of an image with no register, 6 bytes: what every encoding starts with.
    uint256 private constant HEADER = (1 << 40) | (uint256(TeeKind.DSTACK) << 32);

    /// @dev A selector and five words.
    uint256 internal constant CALL_HEAD_BYTES = 0xa4;
    uint256 private constant HEADER_BYTES = 6;
    uint256 private constant VALUE_BYTES = 48;

    /// @dev Whether dstack-kms reported all registers of `mask`: zero means that it was given none.
    function isMeasured(uint256 mask, IAppAuth.AppBootInfo calldata bootInfo) internal pure returns (bool) {
        if (mask & OS_IMAGE_HASH != 0 && bootInfo.osImageHash == 0) return false;
        if (mask & COMPOSE_HASH != 0 && bootInfo.composeHash == 0) return false;
        if (mask & MR_AGGREGATED != 0 && bootInfo.mrAggregated == 0) return false;
        return mask & MR_SYSTEM == 0 || bootInfo.mrSystem != 0;
    }

    /// @dev The id of the image that names the registers of `mask`, with the machine's values.
    function idOf(uint256 mask, IAppAuth.AppBootInfo calldata bootInfo) internal pure returns (bytes32 id) {
        uint256 start = _begin(mask);
        uint256 end = start + HEADER_BYTES;
        if (mask & OS_IMAGE_HASH != 0) end = _put(end, bootInfo.osImageHash);
        if (mask & COMPOSE_HASH != 0) end = _put(end, bootInfo.composeHash);
        if (mask & MR_AGGREGATED != 0) end = _put(end, bootInfo.mrAggregated);
        if (mask & MR_SYSTEM != 0) end = _put(end, bootInfo.mrSystem);
        assembly ("memory-safe") {
            id := keccak256(start, sub(end, start))
        }
    }

    /// @dev The id of the image that names one register.
    function idOf(uint256 register, bytes32 value) internal pure returns (bytes32 id) {
        uint256 start = _begin(register);
        uint256 end = _put(start + HEADER_BYTES, value);
        assembly ("memory-safe") {
            id := keccak256(start, sub(end, start))
        }
    }

    /**
     * @dev The ids of all images that name compose_hash and describe the machine: compose_hash beside each measured subset of the other
     * three, the two that most images are first. Before the array lie CALL_HEAD_BYTES that nothing uses, for the call that asks about it.
     *
     * One buffer holds the longest encoding, os_image_hash ‖ compose_hash ‖ mr_aggregated ‖ mr_system, each in its 48 bytes. An encoding
     * is a stretch of it behind a header; without os_image_hash, the stretch begins 48 bytes later, and the header overwrites the end of
     * os_image_hash's padding. For mr_system without mr_aggregated, it takes that one's place.
     */
    function candidatesOf(IAppAuth.AppBootInfo calldata bootInfo) internal pure returns (ImageId[] memory candidates) {
        uint256 next; // where the next id goes
        // compose_hash alone, the second choice, before the buffer below is filled.
        bytes32 alone = idOf(COMPOSE_HASH, bootInfo.composeHash);
        assembly ("memory-safe") {
            candidates := add(mload(0x40), CALL_HEAD_BYTES)
            next := add(candidates, 0x20)
            mstore(0x40, add(next, 0x220)) // room for eight, and for the buffer
        }
        // One word between the ids and the buffer, which writing a header zeroes.
        uint256 buffer = next + 0x120;
        uint256 compose = buffer + VALUE_BYTES;
        uint256 third = _put(_put(buffer + HEADER_BYTES, bootInfo.osImageHash), bootInfo.composeHash);
        bytes32 aggregated = bootInfo.mrAggregated;
        bytes32 system = bootInfo.mrSystem;
        uint256 both = OS_IMAGE_HASH | COMPOSE_HASH;
        next = _push(next, buffer, third, both);
        assembly ("memory-safe") {
            mstore(next, alone)
        }
        next += 32;
        if (system != 0) next = _push(next, buffer, _put(third, system), both | MR_SYSTEM);
        if (aggregated != 0) {
            uint256 fourth = _put(third, aggregated);
            next = _push(next, buffer, fourth, both | MR_AGGREGATED);
            if (system != 0) next = _push(next, buffer, _put(fourth, system), both | MR_AGGREGATED | MR_SYSTEM);
            next = _push(next, compose, fourth, COMPOSE_HASH | MR_AGGREGATED);
            if (system != 0) next = _push(next, compose, fourth + VALUE_BYTES, ALL & ~OS_IMAGE_HASH);
        }
        if (system != 0) next = _push(next, compose, _put(third, system), COMPOSE_HASH | MR_SYSTEM);
        assembly ("memory-safe") {
            mstore(candidates, shr(5, sub(sub(next, candidates), 0x20)))
        }
    }

    /// @dev Puts a header before `start`'s values, and the id of what lies between `start` and `end` into the word at `next`.
    function _push(uint256 next, uint256 start, uint256 end, uint256 mask) private pure returns (uint256) {
        uint256 header = HEADER | mask;
        assembly ("memory-safe") {
            mstore(sub(start, 26), header) // its last 6 bytes are `start`'s first
            mstore(next, keccak256(start, sub(end, start)))
        }
        unchecked {
            return next + 32;
        }
    }

    /// @dev Begins an encoding, in memory that is its own: what stands between two statements may use what is free.
    function _begin(uint256 mask) private pure returns (uint256 start) {
        uint256 header = HEADER | mask;
        assembly ("memory-safe") {
            start := mload(0x40)
            mstore(0x40, add(start, 0x100))
            mstore(start, shl(208, header))
        }
    }

    /// @dev One value of 32 bytes and its 16 bytes of padding; 16 more are overwritten.
    function _put(uint256 position, bytes32 value) private pure returns (uint256) {
        assembly ("memory-safe") {
            mstore(position, value)
            mstore(add(position, 32), 0)
        }
        unchecked {
            return position + VALUE_BYTES;
        }
    }
}
