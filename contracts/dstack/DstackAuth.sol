// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {IPlatformPolicy} from "../policy/IPlatformPolicy.sol";
import {IKmsRegistry} from "../registry/IKmsRegistry.sol";
import {ImageCodec} from "../registry/ImageCodec.sol";
import {BootRequest, Decision} from "../types/Decision.sol";
import {ImageId, PlatformId, ServiceId} from "../types/Ids.sol";
import {TcbStatus} from "../types/TcbStatus.sol";
import {TeeKind} from "../types/TeeKind.sol";
import {IAppAuth} from "./IAppAuth.sol";

/**
 * @title DstackAuth
 * @notice Keystead's answers in dstack's words. A dstack deployment that points at this address instead of a DstackKms keeps its KMS and tools as they are, and gains
 * notice periods, instant revocation and provable history.
 *
 * STATELESS. No storage, no owner, no proxy: it asks KmsRegistry and PlatformPolicy, whose proxies are immutable here.
 *
 * TRANSLATION
 *
 *     appId          the service id, as it stands
 *     composeHash…   an image of kind DSTACK. A service may register compose_hash alone or with any of os_image_hash, mr_aggregated, mr_system; a registered image
 *                    counts when all its registers equal the machine's. So the candidates are the subsets of {os_image_hash, mr_aggregated, mr_system}
 *                    beside compose_hash, tried in that order of masks until one is allowed.
 *     osImageHash    a platform of kind DSTACK that names os_image_hash alone
 *     tcbStatus      Intel's name; a name that is not known is a denial
 *
 * If no candidate is allowed, the reason is that of the last candidate that the service has ever listed, or else that none is.
 *
 * A measurement of zero means that dstack-kms was given none. A zero compose or OS image hash is denied, and a zero mr_aggregated or mr_system matches no
 * image that names it.
 *
 * FAIL CLOSED. dstack's other fields (instanceId, advisoryIds) decide nothing. Reasons are ASCII.
 */
contract DstackAuth is IAppAuth, IERC165 {
    /// @notice Thrown in the constructor when a proxy has no code.
    error DstackAuth_NotAContract(address account);

    // Registers of an image of kind DSTACK.
    uint256 private constant OS_IMAGE_HASH = ImageCodec.DSTACK_OS_IMAGE_HASH;
    uint256 private constant COMPOSE_HASH = ImageCodec.DSTACK_COMPOSE_HASH;
    uint256 private constant MR_AGGREGATED = ImageCodec.DSTACK_MR_AGGREGATED;
    uint256 private constant MR_SYSTEM = ImageCodec.DSTACK_MR_SYSTEM;
    uint256 private constant ALL = OS_IMAGE_HASH | COMPOSE_HASH | MR_AGGREGATED | MR_SYSTEM;

    /// @dev What a name that is not known translates to; in no set of accepted statuses.
    uint8 private constant NO_TCB_STATUS = type(uint8).max;

    /// @dev `version ‖ kind ‖ mask` of an image with no register: what the encoding of every candidate starts with.
    uint256 private constant HEADER = (1 << 40) | (uint256(TeeKind.DSTACK) << 32);

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

        BootRequest memory request = BootRequest({
            deviceId: bootInfo.deviceId,
            tcbStatus: tcbStatus,
            serviceId: ServiceId.wrap(bytes20(bootInfo.appId)),
            imageId: ImageId.wrap(_idOf(COMPOSE_HASH, bootInfo.composeHash)),
            platformId: PlatformId.wrap(_idOf(OS_IMAGE_HASH, bootInfo.osImageHash))
        });
        Decision decision = KMS_REGISTRY.authorize(request);
        if (decision == Decision.Allowed) return (true, "");
        if (decision == Decision.ServiceUnknown) return (false, _reason(decision));

        Decision telling = decision;
        for (uint256 mask = COMPOSE_HASH + 1; mask <= ALL; ++mask) {
            if (!_isCandidate(mask, bootInfo)) continue;
            request.imageId = ImageId.wrap(_imageId(mask, bootInfo));
            decision = KMS_REGISTRY.authorize(request);
            if (decision == Decision.Allowed) return (true, "");
            if (decision != Decision.ImageUnknown) telling = decision;
        }
        return (false, _reason(telling));
    }

    /// @notice Whether this machine may run as a KMS node and receive the root keys.
    /// @return isAllowed The answer.
    /// @return reason Why not, in ASCII; empty if allowed.
    function isKmsAllowed(AppBootInfo calldata bootInfo) external view returns (bool isAllowed, string memory reason) {
        uint8 tcbStatus = _tcbStatus(bootInfo.tcbStatus);
        if (tcbStatus == NO_TCB_STATUS) return (false, "TCB status is not known");
        if (bootInfo.composeHash == 0) return (false, "Compose hash is missing");
        if (bootInfo.osImageHash == 0) return (false, "OS image hash is missing");

        PlatformId platformId = PlatformId.wrap(_idOf(OS_IMAGE_HASH, bootInfo.osImageHash));
        Decision telling = Decision.KmsImageNotAllowed;
        for (uint256 mask = COMPOSE_HASH | OS_IMAGE_HASH; mask <= ALL; ++mask) {
            if (!_isCandidate(mask, bootInfo)) continue;
            ImageId imageId = ImageId.wrap(_imageId(mask, bootInfo));
            Decision decision = PLATFORM_POLICY.authorizeKms(imageId, platformId, bootInfo.deviceId, tcbStatus);
            if (decision == Decision.Allowed) return (true, "");
            if (decision != Decision.KmsImageNotAllowed) telling = decision;
        }
        return (false, _reason(telling));
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

    /// @dev Every candidate names compose_hash; a register that dstack-kms left at zero can't be named.
    function _isCandidate(uint256 mask, AppBootInfo calldata bootInfo) private pure returns (bool) {
        if (mask & COMPOSE_HASH == 0) return false;
        if (mask & MR_AGGREGATED != 0 && bootInfo.mrAggregated == 0) return false;
        return mask & MR_SYSTEM == 0 || bootInfo.mrSystem != 0;
    }

    /// @dev The id of the canonical image that names one register.
    function _idOf(uint256 mask, bytes32 value) private pure returns (bytes32 id) {
        uint256 header = HEADER | mask;
        assembly ("memory-safe") {
            mstore(0x00, shl(128, header)) // bytes 10 to 15
            mstore(0x20, 0)
            mstore(0x10, value) // bytes 16 to 47, and then 16 bytes of padding
            id := keccak256(0x0a, 54)
        }
    }

    /// @dev The id of the canonical image that names the registers of `mask`, in the order of their bits.
    function _imageId(uint256 mask, AppBootInfo calldata bootInfo) private pure returns (bytes32) {
        bytes memory encoded = abi.encodePacked(bytes6(uint48(HEADER | mask)));
        if (mask & OS_IMAGE_HASH != 0) encoded = abi.encodePacked(encoded, bootInfo.osImageHash, bytes16(0));
        encoded = abi.encodePacked(encoded, bootInfo.composeHash, bytes16(0));
        if (mask & MR_AGGREGATED != 0) encoded = abi.encodePacked(encoded, bootInfo.mrAggregated, bytes16(0));
        if (mask & MR_SYSTEM != 0) encoded = abi.encodePacked(encoded, bootInfo.mrSystem, bytes16(0));
        return keccak256(encoded);
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
