// SPDX-License-Identifier: Apache-2.0
// solhint-disable one-contract-per-file
pragma solidity 0.8.37;

/**
 * @dev What every request and every event of a service needs, in one storage word, low bits first:
 *
 *     admin:160 ‖ noticePeriod:24 ‖ flags:8 ‖ sequence:32 ‖ lastUpdateBlock:32
 *
 * A word and not a struct: an event changes three of these fields, and the compiler writes a packed struct field by
 * field, 200 gas each. After 2^32 - 1 events a service takes no further one (that many cost 38 Tgas, a quarter of all that
 * Ethereum holds in a year; days of a chain with 100 Mgas a second: whoever pays for them stops a service whose admin key
 * they hold, which they can do for less). 2^32 blocks of a quarter of a second take 34 years; a block too far would make a
 * pointer for speed useless, nothing else.
 */
type ServiceWord is uint256;

/**
 * @dev An image under a service, in one storage word, low bits first:
 *
 *     activeFrom:40 ‖ activeUntil:40 ‖ state:8 ‖ kind:8 ‖ mask:32 ‖ restrictsDevices:8
 *
 * `restrictsDevices`: whether its service had a list of devices when the image was listed, so that a request need not
 * read the service.
 */
type ImageWord is uint256;

using ServiceWords for ServiceWord global;
using ImageWords for ImageWord global;

/// @title ServiceWords
/// @notice Reads and changes a ServiceWord. Zero is a service that does not exist.
library ServiceWords {
    uint8 internal constant EXISTS = 1;
    uint8 internal constant UPGRADEABLE = 2;
    /// @dev Thrown after the 4,294,967,295th event of a service: no further one can be numbered.
    error ServiceWords_NoEventLeft();

    /// @dev It has had its first image.
    uint8 internal constant SEEDED = 4;
    uint8 internal constant REQUIRE_UP_TO_DATE_TCB = 8;
    uint8 internal constant RESTRICT_DEVICES = 16;

    uint256 private constant NOTICE_SHIFT = 160;
    uint256 private constant FLAGS_SHIFT = 184;
    uint256 private constant SEQUENCE_SHIFT = 192;
    uint256 private constant BLOCK_SHIFT = 224;

    /// @dev A service before its first event.
    function create(address admin_, uint24 noticePeriod_, uint8 flags_) internal pure returns (ServiceWord) {
        return
            ServiceWord.wrap(
                uint160(admin_) | (uint256(noticePeriod_) << NOTICE_SHIFT) | (uint256(flags_) << FLAGS_SHIFT)
            );
    }

    function admin(ServiceWord word) internal pure returns (address) {
        return address(uint160(ServiceWord.unwrap(word)));
    }

    function noticePeriod(ServiceWord word) internal pure returns (uint24) {
        return uint24(ServiceWord.unwrap(word) >> NOTICE_SHIFT);
    }

    function sequence(ServiceWord word) internal pure returns (uint32) {
        return uint32(ServiceWord.unwrap(word) >> SEQUENCE_SHIFT);
    }

    function lastUpdateBlock(ServiceWord word) internal pure returns (uint256) {
        return ServiceWord.unwrap(word) >> BLOCK_SHIFT;
    }

    function has(ServiceWord word, uint8 flag) internal pure returns (bool) {
        return ServiceWord.unwrap(word) & (uint256(flag) << FLAGS_SHIFT) != 0;
    }

    function with(ServiceWord word, uint8 flag) internal pure returns (ServiceWord) {
        return ServiceWord.wrap(ServiceWord.unwrap(word) | (uint256(flag) << FLAGS_SHIFT));
    }

    function withAdmin(ServiceWord word, address admin_) internal pure returns (ServiceWord) {
        return ServiceWord.wrap(((ServiceWord.unwrap(word) >> NOTICE_SHIFT) << NOTICE_SHIFT) | uint160(admin_));
    }

    function withNoticePeriod(ServiceWord word, uint24 noticePeriod_) internal pure returns (ServiceWord) {
        uint256 others = ServiceWord.unwrap(word) & ~(uint256(type(uint24).max) << NOTICE_SHIFT);
        return ServiceWord.wrap(others | (uint256(noticePeriod_) << NOTICE_SHIFT));
    }

    /// @dev The word after one more event, in this block.
    function next(ServiceWord word) internal view returns (ServiceWord) {
        if (sequence(word) == type(uint32).max) revert ServiceWords_NoEventLeft();
        uint256 number;
        unchecked {
            number = uint256(sequence(word)) + 1;
        }
        uint256 others = ServiceWord.unwrap(word) & ((1 << SEQUENCE_SHIFT) - 1);
        return ServiceWord.wrap(others | (number << SEQUENCE_SHIFT) | (block.number << BLOCK_SHIFT));
    }
}

/// @title ImageWords
/// @notice Reads and changes an ImageWord. Zero is an image that the service never listed.
library ImageWords {
    uint8 internal constant UNKNOWN = 0;
    uint8 internal constant LISTED = 1;
    uint8 internal constant REMOVED = 2;

    uint256 private constant UNTIL_SHIFT = 40;
    uint256 private constant STATE_SHIFT = 80;
    uint256 private constant KIND_SHIFT = 88;
    uint256 private constant MASK_SHIFT = 96;
    uint256 private constant DEVICES_SHIFT = 128;

    /// @dev A listed image without an end.
    function list(
        uint40 activeFrom_,
        uint8 kind_,
        uint32 mask_,
        bool restrictsDevices_
    ) internal pure returns (ImageWord) {
        return
            ImageWord.wrap(
                uint256(activeFrom_) |
                    (uint256(LISTED) << STATE_SHIFT) |
                    (uint256(kind_) << KIND_SHIFT) |
                    (uint256(mask_) << MASK_SHIFT) |
                    (restrictsDevices_ ? 1 << DEVICES_SHIFT : 0)
            );
    }

    function activeFrom(ImageWord word) internal pure returns (uint40) {
        return uint40(ImageWord.unwrap(word));
    }

    function activeUntil(ImageWord word) internal pure returns (uint40) {
        return uint40(ImageWord.unwrap(word) >> UNTIL_SHIFT);
    }

    function state(ImageWord word) internal pure returns (uint8) {
        return uint8(ImageWord.unwrap(word) >> STATE_SHIFT);
    }

    function kind(ImageWord word) internal pure returns (uint8) {
        return uint8(ImageWord.unwrap(word) >> KIND_SHIFT);
    }

    function mask(ImageWord word) internal pure returns (uint32) {
        return uint32(ImageWord.unwrap(word) >> MASK_SHIFT);
    }

    function restrictsDevices(ImageWord word) internal pure returns (bool) {
        return (ImageWord.unwrap(word) >> DEVICES_SHIFT) & 1 == 1;
    }

    function hasEnded(ImageWord word) internal view returns (bool) {
        uint40 until = activeUntil(word);
        return until != 0 && block.timestamp >= until;
    }

    /// @dev Pending, active or retiring: neither removed nor past its end.
    function isListed(ImageWord word) internal view returns (bool) {
        if (state(word) != LISTED) return false;
        uint40 until = activeUntil(word);
        return until == 0 || block.timestamp < until;
    }

    function withActiveUntil(ImageWord word, uint40 activeUntil_) internal pure returns (ImageWord) {
        uint256 others = ImageWord.unwrap(word) & ~(uint256(type(uint40).max) << UNTIL_SHIFT);
        return ImageWord.wrap(others | (uint256(activeUntil_) << UNTIL_SHIFT));
    }

    /// @dev For a listed image.
    function removed(ImageWord word) internal pure returns (ImageWord) {
        return ImageWord.wrap(ImageWord.unwrap(word) ^ (uint256(LISTED ^ REMOVED) << STATE_SHIFT));
    }
}
