// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {IKmsRegistry} from "../registry/IKmsRegistry.sol";
import {ImageId, ServiceId} from "../types/Ids.sol";
import {DstackAuth} from "./DstackAuth.sol";
import {DstackImages} from "./DstackImages.sol";
import {IAppAuth} from "./IAppAuth.sol";

/**
 * @title ServiceApp
 * @notice One dstack app whose rules are those of a Keystead service. dstack derives an app's keys from its appId, the address of its
 * contract: an app that keeps its address keeps its keys.
 *
 * A DstackKms asks this contract as it asks any app (`isAppAllowed`); it answers what DstackAuth says of the service. The OS image list
 * of that DstackKms and the platform policy of Keystead must both allow a machine: the DstackKms checks its own list first.
 *
 * No storage of its own. Which service is immutable in the code.
 *
 * dstack's setters (addComposeHash and the others) are not here: a call of one fails with `ServiceApp_ManagedInRegistry`, which says where
 * the rules are.
 */
abstract contract ServiceApp is IAppAuth, IERC165 {
    /// @notice Thrown in the constructor when the adapter has no code.
    error ServiceApp_NotAContract(address account);
    /// @notice Thrown in the constructor when the registry has no such service.
    error ServiceApp_ServiceUnknown(ServiceId serviceId);
    /// @notice Thrown for any function that is not here: the app's rules are changed in the registry, under this service.
    error ServiceApp_ManagedInRegistry(address registry, ServiceId serviceId);

    /// @custom:oz-upgrades-unsafe-allow state-variable-immutable
    DstackAuth public immutable AUTH;
    /// @custom:oz-upgrades-unsafe-allow state-variable-immutable
    IKmsRegistry public immutable KMS_REGISTRY;
    /// @custom:oz-upgrades-unsafe-allow state-variable-immutable
    ServiceId public immutable SERVICE_ID;

    /// @param auth The deployment's DstackAuth.
    /// @param serviceId The service whose images, devices and TCB rule decide for this app.
    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor(address auth, ServiceId serviceId) {
        if (auth.code.length == 0) revert ServiceApp_NotAContract(auth);
        IKmsRegistry registry = DstackAuth(auth).KMS_REGISTRY();
        if (!registry.service(serviceId).exists) revert ServiceApp_ServiceUnknown(serviceId);
        AUTH = DstackAuth(auth);
        KMS_REGISTRY = registry;
        SERVICE_ID = serviceId;
    }

    /// @dev dstack's management functions, and anything else that is not here.
    fallback() external {
        revert ServiceApp_ManagedInRegistry(address(KMS_REGISTRY), SERVICE_ID);
    }

    /// @inheritdoc IAppAuth
    function isAppAllowed(AppBootInfo calldata bootInfo) external view returns (bool, string memory) {
        if (bootInfo.appId != address(this)) return (false, "App id is another app's");
        AppBootInfo memory machine = bootInfo;
        machine.appId = address(ServiceId.unwrap(SERVICE_ID));
        return AUTH.isAppAllowed(machine);
    }

    /// @return Whether the compose hash alone is an active image of the service. Images that name more (an OS image, say) are not found
    /// by a compose hash: see the registry.
    function allowedComposeHashes(bytes32 composeHash) external view returns (bool) {
        bytes32 imageId = DstackImages.idOf(DstackImages.COMPOSE_HASH, composeHash);
        return KMS_REGISTRY.isImageActive(SERVICE_ID, ImageId.wrap(imageId));
    }

    /// @return Whether the service names the device: false where it lets any device count.
    function allowedDeviceIds(bytes32 deviceId) external view returns (bool) {
        if (allowAnyDevice()) return false;
        (bool allowed, ) = KMS_REGISTRY.isDeviceAllowed(SERVICE_ID, deviceId);
        return allowed;
    }

    /// @return Whether the service asks for a TCB that is up to date.
    function requireTcbUpToDate() external view returns (bool) {
        return KMS_REGISTRY.service(SERVICE_ID).requireUpToDateTcb;
    }

    /// @return Whether any device counts, for images that are listed now.
    function allowAnyDevice() public view returns (bool) {
        return !KMS_REGISTRY.service(SERVICE_ID).restrictDevices;
    }

    /// @notice IAppAuth alone: dstack's management interface is not here, nor are key epochs and launch tickets (dstack 0.6.4 and later),
    /// whose KMS takes this app as a legacy one.
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IAppAuth).interfaceId || interfaceId == type(IERC165).interfaceId;
    }
}
