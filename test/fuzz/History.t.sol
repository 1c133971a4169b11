// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {History} from "../../contracts/registry/History.sol";
import {Vm, vm} from "../helpers/Vm.sol";

/// @title HistoryFuzz
/// @notice Both ways to append log exactly what they were given, and return the fold of exactly what was logged.
contract HistoryFuzz {
    function testFuzz_oneRecord(bytes32 head, bytes32[4] memory topics, bytes memory data, uint8 count) public {
        uint256 n = 2 + (count % 3);
        bytes memory record = "";
        for (uint256 i = 0; i < n; ++i) record = abi.encodePacked(record, topics[i]);
        record = abi.encodePacked(record, data);
        vm.recordLogs();
        bytes32 next = History.append(head, record, n);
        _check(head, next, topics, n, data);
    }

    function testFuzz_topicsApart(bytes32 head, bytes32[4] memory topics, bytes memory data) public {
        bytes memory before = abi.encodePacked("stands right before the data", topics[3], topics[2]);
        bytes memory copy = abi.encodePacked(data);
        bytes memory behind = abi.encodePacked("stands right behind the data", topics[1], topics[0]);
        (bytes32 hashBefore, bytes32 hashBehind) = (keccak256(before), keccak256(behind));
        vm.recordLogs();
        bytes32 next = History.append(head, topics[0], topics[1], topics[2], topics[3], copy);
        vm.assertEq(keccak256(before), hashBefore, "memory before the data changed");
        vm.assertEq(keccak256(behind), hashBehind, "memory behind the data changed");
        _check(head, next, topics, 4, data);
    }

    /// @dev Two logs that differ in anything, or in order, give different heads.
    function testFuzz_everyPartCounts(bytes32 head, bytes32[4] memory topics, bytes32 word, uint256 part) public {
        bytes32 first = History.append(head, topics[0], topics[1], topics[2], topics[3], abi.encode(word));
        part %= 6;
        bytes32 flip = bytes32(uint256(1) << (uint256(word) % 256));
        if (part < 4) topics[part] ^= flip;
        else if (part == 4) head ^= flip;
        else word ^= flip;
        bytes32 second = History.append(head, topics[0], topics[1], topics[2], topics[3], abi.encode(word));
        vm.assertTrue(first != second, "a change that the chain does not show");
    }

    function testFuzz_aRecordHasTwoToFourTopics(uint256 topics) public {
        vm.assume(topics < 2 || topics > 4);
        // solhint-disable-next-line avoid-low-level-calls
        (bool ok, ) = address(this).call(abi.encodeCall(this.append, (new bytes(160), topics)));
        vm.assertTrue(!ok, "a record with another number of topics");
    }

    function append(bytes memory record, uint256 topics) external returns (bytes32) {
        return History.append(0, record, topics);
    }

    function _check(bytes32 head, bytes32 next, bytes32[4] memory topics, uint256 n, bytes memory data) private {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        vm.assertEq(logs.length, 1, "not one log");
        vm.assertEq(logs[0].topics.length, n, "another number of topics");
        bytes memory raw = "";
        for (uint256 i = 0; i < n; ++i) {
            vm.assertEq(logs[0].topics[i], topics[i], "another topic");
            raw = abi.encodePacked(raw, topics[i]);
        }
        vm.assertEq(logs[0].data, data, "other data");
        vm.assertEq(next, keccak256(abi.encodePacked(head, keccak256(abi.encodePacked(raw, data)))), "another head");
    }
}
