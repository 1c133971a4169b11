// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ServiceId} from "../types/Ids.sol";

/**
 * @title History
 * @notice Emits a log and folds it into a hash chain, from one and the same bytes.
 *
 *     head' = keccak256(head ‖ keccak256(topic0 ‖ … ‖ topicN ‖ data))
 *
 * The chain covers the raw log, so an auditor checks it without knowing any ABI, and one storage proof of the head
 * proves every log before it.
 * Because `record` is at once what is logged and what is hashed, no event can be emitted differently from how it is
 * chained.
 */
library History {
    /**
     * @notice Emits `record` as a log with `topics` topics and returns the chain's next head. For events of static
     * fields: there `abi.encode(topics…, fields…)` is
     * topics ‖ data.
     * @param head The chain's head so far; zero before the first event.
     * @param record The topics, 32 bytes each, followed by the log's data.
     * @param topics How many words of `record` are topics: 2, 3 or 4.
     */
    function append(bytes32 head, bytes memory record, uint256 topics) internal returns (bytes32 next) {
        assembly ("memory-safe") {
            let start := add(record, 0x20)
            let data := add(start, mul(topics, 0x20))
            let size := sub(mload(record), mul(topics, 0x20))
            switch topics
            case 2 {
                log2(data, size, mload(start), mload(add(start, 0x20)))
            }
            case 3 {
                log3(data, size, mload(start), mload(add(start, 0x20)), mload(add(start, 0x40)))
            }
            case 4 {
                log4(
                    data,
                    size,
                    mload(start),
                    mload(add(start, 0x20)),
                    mload(add(start, 0x40)),
                    mload(add(start, 0x60))
                )
            }
            default {
                invalid()
            }
            mstore(0x00, head)
            mstore(0x20, keccak256(start, mload(record)))
            next := keccak256(0x00, 0x40)
        }
    }

    /**
     * @notice The same for events with dynamic fields, whose offsets count from the start of the data: four topics
     * apart from `data`, no copy. For the length of one
     * keccak256 the topics stand in the 128 bytes before the data's first byte; what stood there is put back, but for
     * the length of `data`, which is used up.
     */
    function append(
        bytes32 head,
        bytes32 topic0,
        bytes32 topic1,
        bytes32 topic2,
        bytes32 topic3,
        bytes memory data
    ) internal returns (bytes32 next) {
        assembly ("memory-safe") {
            let size := mload(data)
            log4(add(data, 0x20), size, topic0, topic1, topic2, topic3)

            let start := sub(data, 0x60)
            let kept0 := mload(start)
            let kept1 := mload(add(start, 0x20))
            let kept2 := mload(add(start, 0x40))
            mstore(start, topic0)
            mstore(add(start, 0x20), topic1)
            mstore(add(start, 0x40), topic2)
            mstore(data, topic3)
            let record := keccak256(start, add(size, 0x80))
            mstore(start, kept0)
            mstore(add(start, 0x20), kept1)
            mstore(add(start, 0x40), kept2)

            mstore(0x00, head)
            mstore(0x20, record)
            next := keccak256(0x00, 0x40)
        }
    }

    /// @notice The next head of the chain over all services: `keccak256(head ‖ serviceId)`, 52 bytes hashed.
    function appendService(bytes32 head, ServiceId serviceId) internal pure returns (bytes32 next) {
        assembly ("memory-safe") {
            mstore(0x00, head)
            mstore(0x20, serviceId)
            next := keccak256(0x00, 0x34)
        }
    }
}
