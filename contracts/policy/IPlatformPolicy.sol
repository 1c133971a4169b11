// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IGoverned} from "../governance/IGoverned.sol";
import {ImageId, PlatformId} from "../types/Ids.sol";

/**
 * @title IPlatformPolicy
 * @notice Which platforms, TEE kinds, TCB statuses, devices and KMS nodes are acceptable to every service. Grants take the governor and so wait out the
 * timelock; revocations take guardian or governor and work at once. A revoked entry comes back through the slow lane only.
 *
 * Every event ends with `policyVersion`, which grows by exactly one per event, and `previousBlock`, the block of the event before it
 * (0 for the first). Every such log is folded into `historyHead` (see History). Times that are stored are in the events (`since`,
 * `until`): the state can be rebuilt from the logs alone.
 *
 * DEVICE LISTS. One for each TEE kind, for all machines of it; and list 0, for KMS nodes alone, whatever their kind. A list counts only
 * where it was restricted. A KMS node's device must be on both lists where both are restricted.
 */
interface IPlatformPolicy is IGoverned {
    /// @notice The life of an entry: never seen, in force, taken back.
    enum EntryState {
        Unknown,
        Allowed,
        Revoked
    }

    /**
     * @notice A platform or a KMS image on the list.
     * @param state In force or not.
     * @param kind Its TEE kind.
     * @param mask Which registers it names.
     * @param since When the state was set, in seconds since 1970.
     */
    struct Entry {
        EntryState state;
        uint8 kind;
        uint32 mask;
        uint40 since;
    }

    /**
     * @notice What holds for one TEE kind.
     * @param enabled Whether keys are released to it at all.
     * @param devicesRestricted Whether only listed devices count.
     * @param acceptedTcb The TCB statuses accepted, as bits (see TcbStatus).
     */
    struct TeeRules {
        bool enabled;
        bool devicesRestricted;
        uint16 acceptedTcb;
    }

    /**
     * @notice The public face of a KMS node.
     * @param rootEpoch Which root secret it derives from.
     * @param environmentKey The X25519 public key to which environment secrets are sealed.
     * @param receiptSigner The address whose signature stands under its receipts.
     * @param evidenceHash keccak256 of the attestation evidence that binds these keys to a KMS image.
     */
    struct KmsIdentity {
        uint16 rootEpoch;
        bytes32 environmentKey;
        address receiptSigner;
        bytes32 evidenceHash;
    }

    /// @notice A platform was allowed. `image` is its canonical encoding.
    event AllowPlatform(
        PlatformId indexed platformId,
        address indexed actor,
        bytes image,
        string description,
        uint40 since,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice A platform was revoked: no service's keys go to it from this block on.
    event RevokePlatform(
        PlatformId indexed platformId,
        address indexed actor,
        string reason,
        uint40 since,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice A TEE kind was enabled.
    event EnableTee(uint8 indexed kind, address indexed actor, uint64 policyVersion, uint40 previousBlock);
    /// @notice A TEE kind was suspended: the kill switch for a broken TEE.
    event SuspendTee(
        uint8 indexed kind,
        address indexed actor,
        string reason,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice TCB statuses were accepted for a kind; `previous` and `accepted` are the whole sets before and after.
    event AcceptTcb(
        uint8 indexed kind,
        address indexed actor,
        uint16 previous,
        uint16 accepted,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice TCB statuses were rejected for a kind; `previous` and `accepted` are the whole sets before and after.
    event RejectTcb(
        uint8 indexed kind,
        address indexed actor,
        uint16 previous,
        uint16 accepted,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice A device was allowed for a kind.
    event AllowDevice(
        uint8 indexed kind,
        bytes32 indexed deviceId,
        address indexed actor,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice A device was revoked for a kind.
    event RevokeDevice(
        uint8 indexed kind,
        bytes32 indexed deviceId,
        address indexed actor,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice From here on only listed devices of the kind count.
    event RestrictDevices(uint8 indexed kind, address indexed actor, uint64 policyVersion, uint40 previousBlock);
    /// @notice From here on any device of the kind counts.
    event UnrestrictDevices(uint8 indexed kind, address indexed actor, uint64 policyVersion, uint40 previousBlock);
    /// @notice An image was allowed to run as a KMS node, and so to receive the root secret.
    event AllowKmsImage(
        ImageId indexed imageId,
        address indexed actor,
        bytes image,
        string description,
        uint40 since,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice A KMS image was revoked.
    event RevokeKmsImage(
        ImageId indexed imageId,
        address indexed actor,
        string reason,
        uint40 since,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice A KMS node's public keys were published.
    event PublishKmsIdentity(
        bytes32 indexed identityId,
        address indexed actor,
        uint16 rootEpoch,
        bytes32 environmentKey,
        address receiptSigner,
        bytes32 evidenceHash,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice A KMS node's public keys must no longer be trusted.
    event RevokeKmsIdentity(
        bytes32 indexed identityId,
        address indexed actor,
        string reason,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice The gateway that dstack machines are told to use was set.
    event SetGatewayAppId(
        address indexed actor,
        string previous,
        string gatewayAppId,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice The app implementation that dstack's tools are told about was set.
    event SetAppImplementation(
        address indexed actor,
        address indexed appImplementation,
        address previous,
        uint64 policyVersion,
        uint40 previousBlock
    );
    /// @notice Every release was paused until `until` (seconds since 1970); it lapses by itself.
    event PauseRelease(address indexed actor, uint40 until, string reason, uint64 policyVersion, uint40 previousBlock);
    /// @notice The governor moved the end of a pause that is in force.
    event ExtendPause(address indexed actor, uint40 previous, uint40 until, uint64 policyVersion, uint40 previousBlock);
    /// @notice The governor lifted a pause before it lapsed: `until`, its new end, is this block's time.
    event ResumeRelease(
        address indexed actor,
        uint40 previous,
        uint40 until,
        uint64 policyVersion,
        uint40 previousBlock
    );

    /// @notice Thrown when no TEE has this number.
    error PlatformPolicy_UnknownKind(uint8 kind);
    /// @notice Thrown when the platform is on the list already.
    error PlatformPolicy_PlatformAlreadyAllowed(PlatformId platformId);
    /// @notice Thrown when the platform to revoke is not on the list.
    error PlatformPolicy_PlatformNotAllowed(PlatformId platformId);
    /// @notice Thrown when the kind is enabled already.
    error PlatformPolicy_TeeAlreadyEnabled(uint8 kind);
    /// @notice Thrown when the kind to suspend is not enabled.
    error PlatformPolicy_TeeNotEnabled(uint8 kind);
    /// @notice Thrown when a set of TCB statuses holds Revoked, bits that name no status, or nothing.
    error PlatformPolicy_UnacceptableTcb(uint8 kind, uint16 statuses);
    /// @notice Thrown when the set of accepted TCB statuses would stay as it is.
    error PlatformPolicy_TcbUnchanged(uint8 kind, uint16 accepted);
    /// @notice Thrown when the device is on the list already.
    error PlatformPolicy_DeviceAlreadyAllowed(uint8 kind, bytes32 deviceId);
    /// @notice Thrown when the device to revoke is not on the list.
    error PlatformPolicy_DeviceNotAllowed(uint8 kind, bytes32 deviceId);
    /// @notice Thrown when devices of the kind are restricted already.
    error PlatformPolicy_DevicesAlreadyRestricted(uint8 kind);
    /// @notice Thrown when devices of the kind are not restricted: unrestricting them, or revoking one, would have no effect.
    error PlatformPolicy_DevicesNotRestricted(uint8 kind);
    /// @notice Thrown when the image may run as a KMS node already.
    error PlatformPolicy_KmsImageAlreadyAllowed(ImageId imageId);
    /// @notice Thrown when the KMS image to revoke is not on the list.
    error PlatformPolicy_KmsImageNotAllowed(ImageId imageId);
    /// @notice Thrown when the identity was published already.
    error PlatformPolicy_IdentityAlreadyPublished(bytes32 identityId);
    /// @notice Thrown when the identity to revoke is not in force.
    error PlatformPolicy_IdentityNotPublished(bytes32 identityId);
    /// @notice Thrown when an identity lacks its environment key, receipt signer or evidence hash.
    error PlatformPolicy_IncompleteIdentity(bytes32 environmentKey, address receiptSigner, bytes32 evidenceHash);
    /// @notice Thrown when a setter would leave everything as it is.
    error PlatformPolicy_Unchanged();
    /// @notice Thrown when a pause is zero or longer than MAX_PAUSE seconds.
    error PlatformPolicy_BadPause(uint256 duration, uint256 max);
    /// @notice Thrown when a pause is in force already: only the governor may extend it.
    error PlatformPolicy_AlreadyPaused(uint40 until);
    /// @notice Thrown when there is no pause to extend or lift.
    error PlatformPolicy_NotPaused();
    /// @notice Thrown when a text is longer than MAX_TEXT bytes.
    error PlatformPolicy_TextTooLong(uint256 length, uint256 max);

    /* GOVERNOR: loosen */

    /// @notice Allows a platform for all services.
    /// @param image Canonical bytes, checked for use as a platform (see ImageCodec); its errors pass through.
    /// @param description Untrusted text for people, at most MAX_TEXT bytes.
    /// @return platformId keccak256 of `image`.
    function allowPlatform(bytes calldata image, string calldata description) external returns (PlatformId platformId);

    /// @notice Lets keys be released to a TEE kind. Its accepted TCB statuses and platforms stay as they are.
    function enableTee(uint8 kind) external;

    /// @notice Adds TCB statuses to those accepted for a kind.
    /// @param statuses Bits (see TcbStatus); Revoked can never be among them.
    function acceptTcb(uint8 kind, uint16 statuses) external;

    /// @notice Puts a device on a list.
    /// @param kind A TEE kind, or 0 for KMS nodes.
    function allowDevice(uint8 kind, bytes32 deviceId) external;

    /// @notice Lets any device of the kind count again. The list is kept.
    /// @param kind A TEE kind, or 0 for KMS nodes.
    function unrestrictDevices(uint8 kind) external;

    /// @notice Lets an image run as a KMS node, and so receive the root secret.
    /// @param image Canonical bytes, checked for use as a KMS image: everything that says what runs must be named, or dstack's
    /// mr_aggregated, which covers all of it.
    /// @param description Untrusted text for people, at most MAX_TEXT bytes.
    /// @return imageId keccak256 of `image`.
    function allowKmsImage(bytes calldata image, string calldata description) external returns (ImageId imageId);

    /// @notice Publishes a KMS node's public keys.
    /// @return identityId keccak256 of the ABI-encoded identity.
    function publishKmsIdentity(KmsIdentity calldata identity) external returns (bytes32 identityId);

    /// @notice Sets the gateway that dstack machines are told to use: an app id, several, or empty.
    function setGatewayAppId(string calldata gatewayAppId) external;

    /// @notice Sets the app implementation that dstack's tools are told about.
    function setAppImplementation(address appImplementation) external;

    /// @notice Moves the end of a pause that is in force to `duration` seconds from now, later than it was.
    /// @param duration 1 to MAX_PAUSE.
    function extendPause(uint256 duration) external;

    /// @notice Lifts a pause before it lapses.
    function resumeRelease() external;

    /* GUARDIAN OR GOVERNOR: tighten */

    /// @notice Takes a platform off the list, at once.
    function revokePlatform(PlatformId platformId, string calldata reason) external;

    /// @notice Stops every release to a TEE kind, at once.
    function suspendTee(uint8 kind, string calldata reason) external;

    /// @notice Takes TCB statuses out of those accepted for a kind, at once. Statuses that are not accepted anyway are passed over.
    function rejectTcb(uint8 kind, uint16 statuses) external;

    /// @notice Takes a device off a list, at once.
    /// @param kind A TEE kind, or 0 for KMS nodes.
    function revokeDevice(uint8 kind, bytes32 deviceId) external;

    /// @notice Lets only listed devices of the kind count, at once.
    /// @param kind A TEE kind, or 0 for KMS nodes.
    function restrictDevices(uint8 kind) external;

    /// @notice Takes a KMS image off the list, at once.
    function revokeKmsImage(ImageId imageId, string calldata reason) external;

    /// @notice Declares a KMS node's public keys untrusted, at once.
    function revokeKmsIdentity(bytes32 identityId, string calldata reason) external;

    /// @notice Pauses every release, at once. It lapses by itself and cannot be extended by the guardian before it has.
    /// @param duration Seconds, 1 to MAX_PAUSE.
    function pauseRelease(uint256 duration, string calldata reason) external;

    /* VIEWS */

    /// @notice Whether a machine of this description may have any service's keys.
    /// @return decision A Decision (see types/Decision.sol) as a number, so that a policy newer than its reader is met with a denial there, not with a decoder's revert.
    function decide(
        uint8 kind,
        PlatformId platformId,
        bytes32 deviceId,
        uint8 tcbStatus
    ) external view returns (uint256 decision);

    /// @notice Whether a machine may run as a KMS node and receive the root secret. Its TCB must be up to date, whatever is accepted
    /// for services; a TEE without TCB levels (Nitro) passes where that is accepted. Does not revert on well-formed calldata.
    /// @return decision A Decision as a number (see decide).
    function authorizeKms(
        ImageId imageId,
        PlatformId platformId,
        bytes32 deviceId,
        uint8 tcbStatus
    ) external view returns (uint256 decision);

    /// @return The entry of a platform; all zero if it was never allowed.
    function platform(PlatformId platformId) external view returns (Entry memory);

    /// @return The entry of a KMS image; all zero if it was never allowed.
    function kmsImage(ImageId imageId) external view returns (Entry memory);

    /// @return The state of a KMS identity.
    function kmsIdentity(bytes32 identityId) external view returns (EntryState);

    /// @return The rules of a TEE kind; all zero for a number that names none. Of 0, KMS nodes, `devicesRestricted` alone counts.
    function teeRules(uint8 kind) external view returns (TeeRules memory);

    /// @return Whether the device is on the list of a kind, or of KMS nodes (0); it counts only where devices are restricted.
    function isDeviceListed(uint8 kind, bytes32 deviceId) external view returns (bool);

    /// @return The end of the latest pause, in seconds since 1970; releases are paused while it lies ahead.
    function releasePausedUntil() external view returns (uint40);

    /// @return The gateway that dstack machines are told to use.
    function gatewayAppId() external view returns (string memory);

    /// @return The app implementation that dstack's tools are told about.
    function appImplementation() external view returns (address);

    /// @return How many policy events there have been.
    function policyVersion() external view returns (uint64);

    /// @return The block of the latest policy event.
    function lastUpdateBlock() external view returns (uint40);

    /// @return The head of the policy's hash chain.
    function historyHead() external view returns (bytes32);
}
