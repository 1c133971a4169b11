// SPDX-License-Identifier: Apache-2.0
// solhint-disable one-contract-per-file
pragma solidity 0.8.37;

import {AccessControlUpgradeable} from "@openzeppelin/contracts-upgradeable/access/AccessControlUpgradeable.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";

import {Governed} from "../governance/Governed.sol";
import {PlatformPolicy} from "../policy/PlatformPolicy.sol";
import {ImageId, ServiceId} from "../types/Ids.sol";
import {ServiceWord} from "../registry/Words.sol";

// Next versions that nobody may deploy: each has one fault that the upgrade checks must find. Each has a version of its own as well: the validator knows contracts
// by their code alone, and what differs in unused storage only would be one contract to it.

/// @notice The policy's first two slots have changed places.
contract PlatformPolicyReordered is Governed {
    struct Gate {
        uint40 pausedUntil;
        uint8 enabledKinds;
        uint8 restrictedKinds;
        uint128 acceptedTcb;
    }

    /// @custom:storage-location erc7201:keystead.storage.PlatformPolicy
    struct PolicyStorage {
        bytes32 historyHead;
        Gate gate;
        uint64 policyVersion;
        uint40 lastUpdateBlock;
    }

    function initialize(address governor) external initializer {
        __Governed_init(governor);
    }

    function version() external pure returns (string memory) {
        return "2.0.0";
    }
}

/// @notice The gate's bit sets are wider: what was written as restricted kinds would be read as enabled ones.
contract PlatformPolicyWidened is Governed {
    struct Gate {
        uint40 pausedUntil;
        uint16 enabledKinds;
        uint16 restrictedKinds;
        uint128 acceptedTcb;
    }

    /// @custom:storage-location erc7201:keystead.storage.PlatformPolicy
    struct PolicyStorage {
        Gate gate;
        bytes32 historyHead;
        uint64 policyVersion;
        uint40 lastUpdateBlock;
    }

    function initialize(address governor) external initializer {
        __Governed_init(governor);
    }

    function version() external pure returns (string memory) {
        return "2.0.1";
    }
}

/// @notice A service's word and its head have changed places, inside the mapping.
contract KmsRegistryReordered is Governed {
    struct Service {
        bytes32 historyHead;
        ServiceWord word;
        address pendingAdmin;
        uint16 keyEpoch;
        uint40 tcbRuleEnds;
        address guardian;
        address nextGuardian;
        uint40 nextGuardianFrom;
        mapping(ImageId => uint256) images;
        mapping(bytes32 deviceId => uint40 allowedFrom) devices;
    }

    /// @custom:storage-location erc7201:keystead.storage.KmsRegistry
    struct RegistryStorage {
        mapping(ServiceId => Service) services;
    }

    /// @custom:oz-upgrades-unsafe-allow state-variable-immutable
    address public immutable POLICY;

    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor(address policyProxy) {
        POLICY = policyProxy;
    }

    function initialize(address governor) external initializer {
        __Governed_init(governor);
    }

    function version() external pure returns (string memory) {
        return "2.0.0";
    }
}

/// @notice A state variable outside every namespace, and a constructor that nobody looked at.
contract PlatformPolicyConstructed is PlatformPolicy {
    uint256 public generation;

    constructor() {
        generation = 1;
    }
}

/// @notice Nobody disabled its initializers, and its own forgets to set up what it inherits.
contract PolicyUnguarded is AccessControlUpgradeable, UUPSUpgradeable {
    function initialize(address governor) external {
        _grantRole(DEFAULT_ADMIN_ROLE, governor);
    }

    // solhint-disable-next-line no-empty-blocks
    function _authorizeUpgrade(address) internal view override onlyRole(DEFAULT_ADMIN_ROLE) {}
}

/// @notice It inherits an initializer that must run, and has none of its own.
contract GovernedUninitialized is Governed {
    function version() external pure returns (string memory) {
        return "2.0.2";
    }
}
