// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {KmsRegistry} from "../registry/KmsRegistry.sol";

/// @notice A next version for upgrade tests and the demo: one appended namespace, one new function, everything else as it was.
/// @custom:oz-upgrades-unsafe-allow missing-initializer
contract KmsRegistryV2 is KmsRegistry {
    /// @custom:storage-location erc7201:keystead.storage.KmsRegistryV2
    struct V2Storage {
        uint256 generation;
    }

    // keccak256(abi.encode(uint256(keccak256("keystead.storage.KmsRegistryV2")) - 1)) & ~bytes32(uint256(0xff))
    bytes32 private constant V2_STORAGE = 0xe35d93118cba8c751f03374652971379f523b4de93e7846c6f63c7cb42679500;

    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor(address policyProxy) KmsRegistry(policyProxy) {}

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
