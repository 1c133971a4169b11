// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Ownable2StepUpgradeable} from "@openzeppelin/contracts-upgradeable/access/Ownable2StepUpgradeable.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";

import {ServiceId} from "../types/Ids.sol";
import {ServiceApp} from "./ServiceApp.sol";

/**
 * @title DstackAppAdapter
 * @notice An implementation that the owner of a DstackApp puts behind its existing proxy: appId and keys stay, and so does the owner. From
 * then on a Keystead service decides. The KMS's owner is not asked.
 *
 * THE WAY IN. The owner calls `upgradeToAndCall(adapter, abi.encodeCall(confirmOwner, (owner)))`: if this code saw another owner than the
 * old code did (a proxy with another storage layout), the upgrade would undo itself.
 *
 * ROLLBACK. The owner calls `upgradeToAndCall(old implementation, "")`: the app is as it was, with the compose hashes, devices and flags that it
 * had. For this contract declares no storage: DstackApp's slots 0 to 52 are neither read nor written. What it shares with DstackApp are
 * OpenZeppelin's namespaced slots (owner, pending owner, initialized) and ERC-1967's, with the same meaning.
 *
 * A DstackApp whose upgrades are disabled cannot come here. `disableUpgrades` is not offered: renouncing the ownership ends upgrades too,
 * and rollback with them.
 */
contract DstackAppAdapter is ServiceApp, UUPSUpgradeable, Ownable2StepUpgradeable {
    /// @notice Thrown in the way in when this code sees another owner than the old code did.
    error DstackAppAdapter_OtherOwner(address expected, address actual);

    /// @param auth The deployment's DstackAuth.
    /// @param serviceId The service. Being immutable, it changes by upgrade only.
    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor(address auth, ServiceId serviceId) ServiceApp(auth, serviceId) {
        _disableInitializers();
    }

    /// @notice Fails unless this code sees the owner that is expected.
    function confirmOwner(address expected) external view {
        if (owner() != expected) revert DstackAppAdapter_OtherOwner(expected, owner());
    }

    // solhint-disable-next-line no-empty-blocks
    function _authorizeUpgrade(address) internal view override onlyOwner {}
}
