// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {History} from "../registry/History.sol";

/// @notice Exposes the history library to tests, and shows what it leaves in memory.
contract HistoryHarness {
    /**
     * @notice Memory around the data, before and after.
     * @param neighbours Whether the allocations right before and right behind the data are as they were.
     * @param content keccak256 of the data's bytes.
     * @param zeroSlot The word at 0x60, which Solidity takes for zero.
     * @param freeMoved Whether the free memory pointer changed.
     */
    struct Memory {
        bool neighbours;
        bytes32 content;
        bytes32 zeroSlot;
        bool freeMoved;
    }

    bytes32 public head;

    function append(bytes32[] calldata topics, bytes calldata data) external {
        head = History.append(head, abi.encodePacked(topics, data), topics.length);
    }

    function appendDynamic(bytes32[4] calldata topics, bytes calldata data) external returns (Memory memory seen) {
        bytes memory ahead = abi.encodePacked(topics);
        bytes memory copy = data;
        bytes memory behind = abi.encodePacked(topics, topics);
        bytes32 before = keccak256(abi.encode(ahead, behind));
        uint256 free = _free();
        head = History.append(head, topics[0], topics[1], topics[2], topics[3], copy);
        bool moved = _free() != free;
        bytes32 content;
        bytes32 zeroSlot;
        assembly ("memory-safe") {
            content := keccak256(add(copy, 0x20), data.length)
            zeroSlot := mload(0x60)
        }
        seen = Memory({
            neighbours: keccak256(abi.encode(ahead, behind)) == before,
            content: content,
            zeroSlot: zeroSlot,
            freeMoved: moved
        });
    }

    /// @notice The data is what memory begins with: the words before it are Solidity's own.
    function appendDynamicFirst(
        bytes32 topic0,
        bytes32 topic1,
        bytes32 topic2,
        bytes32 topic3,
        bytes calldata data
    ) external returns (uint256 position, bytes32 zeroSlot, bool freeMoved) {
        bytes memory copy = data;
        uint256 free = _free();
        head = History.append(head, topic0, topic1, topic2, topic3, copy);
        freeMoved = _free() != free;
        assembly ("memory-safe") {
            position := copy
            zeroSlot := mload(0x60)
        }
    }

    function _free() private pure returns (uint256 pointer) {
        assembly ("memory-safe") {
            pointer := mload(0x40)
        }
    }
}
