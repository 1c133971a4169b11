// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PlatformPolicy} from "../policy/PlatformPolicy.sol";

/// @notice A next version for upgrade tests and the demo: one appended namespace, one new function, everything else as it was.
/// @custom:oz-upgrades-unsafe-allow missing-initializer
contract PlatformPolicyV2 is PlatformPolicy {
    /// @custom:storage-location erc7201:keystead.storage.PlatformPolicyV2
    struct V2Storage {
        uint256 generation;
    }

    // keccak256(abi.encode(uint256(keccak256("keystead.storage.PlatformPolicyV2")) - 1)) & ~bytes32(uint256(0xff))
    bytes32 private constant V2_STORAGE = 0x1db3c05c39134ba9d7643e3bc8c174bcf5eeefc953506dc05e82612c0066ea00;

    function setGeneration(uint256 generation_) external onlyGovernor {
        _v2Storage().generation = generation_;
    }

    function generation() external view returns (uint256) {
        return _v2Storage().generation;
    }

    function version() external pure override returns (string memory) {
        return "2.0.0";
    }

    function _v2Storage() private pure returns (V2Storage storage $) {
        assembly {
            $.slot := V2_STORAGE
        }
    }
}
