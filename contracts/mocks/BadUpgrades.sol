// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Initializable} from "@openzeppelin/contracts/proxy/utils/Initializable.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";

/**
 * @notice Implementations that must never follow KmsRegistry: the tests of the upgrade checks want each of them refused.
 */
abstract contract BadUpgrade is Initializable, UUPSUpgradeable {
    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor(address) {
        _disableInitializers();
    }

    function _authorizeUpgrade(address) internal view override {
        require(msg.sender == address(this));
    }
}

/// @notice Knows nothing of the storage that is there.
contract ForgetsStorage is BadUpgrade {
    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor(address policy) BadUpgrade(policy) {}
}

/// @notice Gives the registry's first slot another meaning.
contract ReusesStorage is BadUpgrade {
    /// @custom:storage-location erc7201:keystead.storage.KmsRegistry
    struct RegistryStorage {
        uint256 counter;
    }

    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor(address policy) BadUpgrade(policy) {}
}
