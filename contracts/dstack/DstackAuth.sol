// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {IPlatformPolicy} from "../policy/IPlatformPolicy.sol";
import {IKmsRegistry} from "../registry/IKmsRegistry.sol";
import {Decision} from "../types/Decision.sol";
import {ImageId, PlatformId, ServiceId} from "../types/Ids.sol";
import {TcbStatus} from "../types/TcbStatus.sol";
import {TeeKind} from "../types/TeeKind.sol";
import {DstackImages} from "./DstackImages.sol";
import {IAppAuth} from "./IAppAuth.sol";

/**
 * @title DstackAuth
 * @notice Keystead's answers in dstack's words. A dstack deployment that points at this address instead of a DstackKms keeps its KMS
 * and tools as they are, and gains notice periods, instant revocation and provable history.
 *
 * STATELESS. No storage, no owner, no proxy: it asks KmsRegistry and PlatformPolicy, whose proxies are immutable here.
 *
 * TRANSLATION
 *
 *     appId          the service id, as it stands
 *     composeHash…   an image of kind DSTACK. A service may register compose_hash alone or with any of os_image_hash, mr_aggregated,
 *                    mr_system; a registered image counts when all its registers equal the machine's. So the candidates are
 *                    compose_hash beside each subset of the other three. A KMS node's image names os_image_hash and compose_hash, or
 *                    mr_aggregated, beside any of the others.
 *     osImageHash    a platform of kind DSTACK that names os_image_hash alone
 *     tcbStatus      Intel's name; a name that is not known is a denial
 *
 * If no candidate is allowed, the reason is that of the candidate that got furthest in the order of the checks (see Decision).
 *
 * A measurement of zero means that dstack-kms was given none: a zero OS image hash is denied, an app's zero compose hash too, and any
 * other register of zero matches no image that names it.
 *
 * VIEWS OF DSTACK'S TOOLS are answered where Keystead knows the answer. There is no `kmsInfo`: the KMS's keys are not recorded here; and
 * no `owner`: nobody can change this contract, and who governs the policy is on its own roles.
 *
 * FAIL CLOSED. dstack's other fields (instanceId, advisoryIds) decide nothing. Reasons are ASCII. A number that is no decision here, from
 * a registry or policy that is newer, is a denial.
 */
contract DstackAuth is IAppAuth, IERC165 {
    /// @notice Thrown in the constructor when a proxy has no code.
    error DstackAuth_NotAContract(address account);

    /// @dev What a name that is not known translates to; in no set of accepted statuses.
    uint8 private constant NO_TCB_STATUS = type(uint8).max;

    IKmsRegistry public immutable KMS_REGISTRY;
    IPlatformPolicy public immutable PLATFORM_POLICY;

    /// @param registryProxy The KmsRegistry proxy.
    /// @param policyProxy The PlatformPolicy proxy.
    constructor(address registryProxy, address policyProxy) {
        if (registryProxy.code.length == 0) revert DstackAuth_NotAContract(registryProxy);
        if (policyProxy.code.length == 0) revert DstackAuth_NotAContract(policyProxy);
        KMS_REGISTRY = IKmsRegistry(registryProxy);
        PLATFORM_POLICY = IPlatformPolicy(policyProxy);
    }

    /// @inheritdoc IAppAuth
    function isAppAllowed(AppBootInfo calldata bootInfo) external view returns (bool, string memory) {
        uint8 tcbStatus = _tcbStatus(bootInfo.tcbStatus);
        if (tcbStatus == NO_TCB_STATUS) return (false, "TCB status is not known");
        if (bootInfo.composeHash == 0) return (false, "Compose hash is missing");
        if (bootInfo.osImageHash == 0) return (false, "OS image hash is missing");
        return
            _answer(
                _authorizeBest(
                    ServiceId.wrap(bytes20(bootInfo.appId)),
                    _platformId(bootInfo.osImageHash),
                    DstackImages.candidatesOf(bootInfo),
                    bootInfo.deviceId,
                    tcbStatus
                )
            );
    }

    /// @notice Whether this machine may run as a KMS node and receive the root keys.
    /// @return isAllowed The answer.
    /// @return reason Why not, in ASCII; empty if allowed.
    function isKmsAllowed(AppBootInfo calldata bootInfo) external view returns (bool isAllowed, string memory reason) {
        uint8 tcbStatus = _tcbStatus(bootInfo.tcbStatus);
        if (tcbStatus == NO_TCB_STATUS) return (false, "TCB status is not known");
        if (bootInfo.osImageHash == 0) return (false, "OS image hash is missing");

        PlatformId platformId = _platformId(bootInfo.osImageHash);
        uint256 telling = uint256(Decision.KmsImageNotAllowed);
        for (uint256 mask = 1; mask <= DstackImages.ALL; ++mask) {
            if (!_isKmsImage(mask) || !DstackImages.isMeasured(mask, bootInfo)) continue;
            ImageId imageId = ImageId.wrap(DstackImages.idOf(mask, bootInfo));
            uint256 decision = PLATFORM_POLICY.authorizeKms(imageId, platformId, bootInfo.deviceId, tcbStatus);
            if (decision == uint256(Decision.Allowed)) return (true, "");
            if (decision != uint256(Decision.KmsImageNotAllowed)) telling = decision;
        }
        return _answer(telling);
    }

    /// @return Whether the OS image is on the policy's list of platforms.
    function allowedOsImages(bytes32 osImageHash) external view returns (bool) {
        return PLATFORM_POLICY.platform(_platformId(osImageHash)).state == IPlatformPolicy.EntryState.Allowed;
    }

    /// @return Whether the policy's list of KMS images names this mr_aggregated alone.
    function kmsAllowedAggregatedMrs(bytes32 mrAggregated) external view returns (bool) {
        ImageId imageId = ImageId.wrap(DstackImages.idOf(DstackImages.MR_AGGREGATED, mrAggregated));
        return PLATFORM_POLICY.kmsImage(imageId).state == IPlatformPolicy.EntryState.Allowed;
    }

    /// @return Whether the policy lets KMS nodes run on the device: by the list of KMS nodes and by that of kind DSTACK, where they
    /// are restricted.
    function kmsAllowedDeviceIds(bytes32 deviceId) external view returns (bool) {
        return _mayUse(TeeKind.KMS_NODES, deviceId) && _mayUse(TeeKind.DSTACK, deviceId);
    }

    /// @return The gateway that dstack machines are told to use.
    function gatewayAppId() external view returns (string memory) {
        return PLATFORM_POLICY.gatewayAppId();
    }

    /// @return The app implementation that dstack's tools are told about.
    function appImplementation() external view returns (address) {
        return PLATFORM_POLICY.appImplementation();
    }

    /// @return Whether the app is a service here.
    function registeredApps(address appId) external view returns (bool) {
        return KMS_REGISTRY.service(ServiceId.wrap(bytes20(appId))).exists;
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IAppAuth).interfaceId || interfaceId == type(IERC165).interfaceId;
    }

    /* TRANSLATION */

    /**
     * @dev Asks the registry once about all candidates. The call is written around the array, in the bytes that `candidatesOf` leaves
     * before it: encoding would copy it. A registry that fails, or answers with less than a word, says nothing that is a decision.
     */
    function _authorizeBest(
        ServiceId serviceId,
        PlatformId platformId,
        ImageId[] memory candidates,
        bytes32 deviceId,
        uint8 tcbStatus
    ) private view returns (uint256 decision) {
        address registry = address(KMS_REGISTRY);
        bytes4 selector = IKmsRegistry.authorizeBest.selector;
        bytes20 service = ServiceId.unwrap(serviceId);
        decision = type(uint256).max;
        assembly ("memory-safe") {
            let call_ := sub(candidates, 0xa4) // CALL_HEAD_BYTES
            mstore(call_, selector)
            mstore(add(call_, 0x04), service)
            mstore(add(call_, 0x24), platformId)
            mstore(add(call_, 0x44), 0xa0) // where the array's length stands, from the first argument on
            mstore(add(call_, 0x64), deviceId)
            mstore(add(call_, 0x84), tcbStatus)
            let size := add(0xc4, shl(5, mload(candidates)))
            let answered := staticcall(gas(), registry, call_, size, 0x00, 0x20)
            if and(answered, gt(returndatasize(), 0x1f)) {
                decision := mload(0x00)
            }
        }
    }

    /// @dev What ImageCodec requires of a KMS image.
    function _isKmsImage(uint256 mask) private pure returns (bool) {
        uint256 both = DstackImages.COMPOSE_HASH | DstackImages.OS_IMAGE_HASH;
        return mask & both == both || mask & DstackImages.MR_AGGREGATED != 0;
    }

    function _platformId(bytes32 osImageHash) private pure returns (PlatformId) {
        return PlatformId.wrap(DstackImages.idOf(DstackImages.OS_IMAGE_HASH, osImageHash));
    }

    function _mayUse(uint8 list, bytes32 deviceId) private view returns (bool) {
        return !PLATFORM_POLICY.teeRules(list).devicesRestricted || PLATFORM_POLICY.isDeviceListed(list, deviceId);
    }

    /// @dev Intel's names (DCAP, PCS API v4). An empty status is what dstack reports for a Nitro enclave, which has no TCB levels.
    function _tcbStatus(string calldata name) private pure returns (uint8) {
        if (bytes(name).length == 8 && bytes8(bytes(name)) == "UpToDate") return TcbStatus.UP_TO_DATE;
        bytes32 hash = keccak256(bytes(name));
        if (hash == keccak256("SWHardeningNeeded")) return TcbStatus.SW_HARDENING_NEEDED;
        if (hash == keccak256("ConfigurationNeeded")) return TcbStatus.CONFIGURATION_NEEDED;
        if (hash == keccak256("ConfigurationAndSWHardeningNeeded")) {
            return TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED;
        }
        if (hash == keccak256("OutOfDate")) return TcbStatus.OUT_OF_DATE;
        if (hash == keccak256("OutOfDateConfigurationNeeded")) {
            return TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED;
        }
        if (hash == keccak256("Revoked")) return TcbStatus.REVOKED;
        if (hash == keccak256("")) return TcbStatus.NOT_APPLICABLE;
        if (hash == keccak256("RelaunchAdvised")) return TcbStatus.RELAUNCH_ADVISED;
        if (hash == keccak256("RelaunchAdvisedConfigurationNeeded")) {
            return TcbStatus.RELAUNCH_ADVISED_CONFIGURATION_NEEDED;
        }
        return NO_TCB_STATUS;
    }

    /// @dev A number that is no decision here is a denial.
    function _answer(uint256 decision) private pure returns (bool isAllowed, string memory reason) {
        if (decision == uint256(Decision.Allowed)) return (true, "");
        if (decision > uint256(type(Decision).max)) return (false, "Denied");
        return (false, _reason(Decision(decision)));
    }

    /// @dev Where dstack has a sentence for the case, it is dstack's.
    function _reason(Decision decision) private pure returns (string memory) {
        if (decision == Decision.ServiceUnknown) return "App not registered";
        if (decision == Decision.ImageUnknown) return "Compose hash not allowed";
        if (decision == Decision.ImageRemoved) return "Compose hash was removed";
        if (decision == Decision.ImagePending) return "Compose hash is inside its notice period";
        if (decision == Decision.ImageRetired) return "Compose hash is retired";
        if (decision == Decision.ServiceTcbNotUpToDate) return "TCB status is not up to date";
        if (decision == Decision.ServiceDeviceNotAllowed) return "Device not allowed";
        if (decision == Decision.ReleasePaused) return "Key release is paused";
        if (decision == Decision.TeeSuspended) return "TEE kind is not enabled";
        if (decision == Decision.TcbNotAccepted) return "TCB status is not accepted";
        if (decision == Decision.PlatformNotAllowed) return "OS image is not allowed";
        if (decision == Decision.PlatformKindMismatch) return "OS image is of another TEE kind";
        if (decision == Decision.DeviceNotAllowed) return "Device is not allowed by the platform policy";
        if (decision == Decision.KmsImageNotAllowed) return "KMS image is not allowed";
        if (decision == Decision.PolicyUnavailable) return "Platform policy did not answer";
        return "Denied";
    }
}
