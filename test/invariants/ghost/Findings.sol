// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/**
 * @title Findings
 * @notice What the handlers saw that must not happen, by invariant. A handler's own revert would be taken for a refused action, so a forbidden transition is
 * written down here, and the invariant that it breaks fails on it.
 */
abstract contract Findings {
    /// @dev Forbidden transitions, in words; the index is the invariant's number (see README.md).
    string[8] private _found;

    function found(uint256 invariantNumber) external view returns (string memory) {
        return _found[invariantNumber];
    }

    function _expect(bool condition, uint256 invariantNumber, string memory finding) internal {
        if (!condition && bytes(_found[invariantNumber]).length == 0) _found[invariantNumber] = finding;
    }

    /// @dev The head of a hash chain after one more log, from nothing but the log.
    function _fold(bytes32 head, bytes32[] memory topics, bytes memory data) internal pure returns (bytes32) {
        bytes memory record = "";
        for (uint256 i = 0; i < topics.length; ++i) record = bytes.concat(record, topics[i]);
        return keccak256(bytes.concat(head, keccak256(bytes.concat(record, data))));
    }

    function _word(bytes memory data, uint256 index) internal pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := mload(add(add(data, 0x20), mul(index, 0x20)))
        }
    }

    function _account(bytes32 topic) internal pure returns (address) {
        return address(uint160(uint256(topic)));
    }
}
