// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

// solhint-disable one-contract-per-file

import {Initializable} from "@openzeppelin/contracts/proxy/utils/Initializable.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";

/**
 * @notice Implementations that must never follow KmsRegistry: the tests of the upgrade checks want each of them refused.
 */
abstract contract BadUpgrade is Initializable, UUPSUpgradeable {
    error BadUpgrade_Forbidden();

    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor(address) {
        _disableInitializers();
    }

    function _authorizeUpgrade(address) internal view override {
        if (msg.sender != address(this)) revert BadUpgrade_Forbidden();
    }
}

/// @notice Knows nothing of the storage that is there.
contract ForgetsStorage is BadUpgrade {
    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor(address policy) BadUpgrade(policy) {}

    /// @dev Makes this contract's code unlike its siblings': the plugin knows contracts by their code.
    function sibling() external pure returns (uint256) {
        return 1;
    }
}

/// @notice Gives the registry's first slot another meaning.
contract ReusesStorage is BadUpgrade {
    /// @custom:storage-location erc7201:keystead.storage.KmsRegistry
    struct RegistryStorage {
        uint256 counter;
    }

    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor(address policy) BadUpgrade(policy) {}

    /// @dev Makes this contract's code unlike its siblings': the plugin knows contracts by their code.
    function sibling() external pure returns (uint256) {
        return 2;
    }
}

/// @notice Plain storage, as a first version might have it.
contract PlainStorage is BadUpgrade {
    uint256 public first;

    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor() BadUpgrade(address(0)) {}

    /// @dev Makes this contract's code unlike its siblings': the plugin knows contracts by their code.
    function sibling() external pure returns (uint256) {
        return 3;
    }
}

/// @notice Renames a variable in the way that OpenZeppelin's plugin accepts: it may follow PlainStorage, but what it means by the slot is its own.
contract RenamesStorage is BadUpgrade {
    /// @custom:oz-renamed-from first
    uint256 public second;

    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor() BadUpgrade(address(0)) {}

    /// @dev Makes this contract's code unlike its siblings': the plugin knows contracts by their code.
    function sibling() external pure returns (uint256) {
        return 4;
    }
}
