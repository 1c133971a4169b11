// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IGoverned} from "../governance/IGoverned.sol";
import {BootRequest, Decision} from "../types/Decision.sol";
import {ImageId, ServiceId} from "../types/Ids.sol";

/**
 * @title IKmsRegistry
 * @notice Which measured images may receive the keys of which service.
 *
 * Every event ends with `sequence`, which grows by exactly one per event of its service and starts at 1, and
 * `previousBlock`, the block of that
 * service's previous event (0 for its first). Every such log is folded into the service's `historyHead` (see
 * History). Times are seconds since 1970.
 * Texts are untrusted: never render them as markup.
 */
interface IKmsRegistry is IGoverned {
    /// @notice The life of an image under a service; whether it is active depends on the clock too.
    enum ImageState {
        Unknown,
        Listed,
        Removed
    }

    /**
     * @notice An upgradeable service.
     * @param admin Who is to manage it; not zero. Nobody becomes admin without wanting to: unless it is the sender,
     * it is offered the service and has to
     * accept; until then the sender is admin.
     * @param noticePeriod Seconds that every image but the first waits before it is active; at most MAX_NOTICE_PERIOD.
     * @param description At most MAX_TEXT bytes.
     * @param devices The only devices that count, at most MAX_DEVICES to start with, no duplicates. Empty: any device
     * counts, for good.
     * @param requireUpToDateTcb Only TCB status UpToDate counts, whatever the policy accepts.
     */
    struct ServiceConfig {
        address admin;
        uint24 noticePeriod;
        string description;
        bytes32[] devices;
        bool requireUpToDateTcb;
    }

    /**
     * @notice An image to be listed.
     * @param image Canonical bytes, checked for use under a service (see ImageCodec).
     * @param description At most MAX_TEXT bytes.
     */
    struct NewImage {
        bytes image;
        string description;
    }

    /// @notice A service as it stands now: rules whose loosening has taken effect are shown as loosened.
    struct ServiceView {
        bool exists;
        bool upgradeable;
        address admin;
        address pendingAdmin;
        address guardian;
        uint24 noticePeriod;
        uint16 keyEpoch;
        bool requireUpToDateTcb;
        bool restrictDevices; // images listed now count on listed devices only
        uint40 tcbRuleEnds; // when `requireUpToDateTcb` lapses; 0: never
        address nextGuardian; // who is guardian from `nextGuardianFrom` on
        uint40 nextGuardianFrom; // 0: no change is under way
        address formerGuardian; // who may still stop what was announced before it left
        uint40 formerGuardianUntil; // how long; 0: nobody may
        uint40 rotatedAt; // the latest rotation; 0: none
        uint32 sequence;
        uint40 lastUpdateBlock;
        bytes32 historyHead;
    }

    /**
     * @notice An image under a service.
     * @param activeFrom When it may receive keys at the earliest.
     * @param activeUntil From when on it may not any more; 0: no end.
     * @param state Listed or removed; Unknown if it never was.
     * @param kind Its TEE kind.
     * @param mask Which registers it names.
     * @param restrictsDevices Whether it counts on the service's listed devices only: decided when it was listed.
     */
    struct ImageRecord {
        uint40 activeFrom;
        uint40 activeUntil;
        ImageState state;
        uint8 kind;
        uint32 mask;
        bool restrictsDevices;
    }

    /// @notice An upgradeable service was created by its admin, who may have offered it to `pendingAdmin` (zero: to
    /// nobody). If it starts with devices, they
    /// follow, one SetDevice each; images listed after a service's first SetDevice count on listed devices only.
    event CreateService(
        ServiceId indexed serviceId,
        address indexed creator,
        address indexed pendingAdmin,
        uint24 noticePeriod,
        bool requireUpToDateTcb,
        string description,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice A service with exactly one image, for ever, was created. Its devices follow, one SetDevice each, and
    /// its secrets, one PublishSealedSecrets with an
    /// empty name.
    event AddSecretKeyByImage(
        ServiceId indexed serviceId,
        address indexed creator,
        ImageId indexed imageId,
        bytes image,
        bool requireUpToDateTcb,
        string description,
        uint40 activeFrom,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice An image was listed; it may receive keys from `activeFrom` on.
    event AddImageToService(
        ServiceId indexed serviceId,
        address indexed actor,
        ImageId indexed imageId,
        bytes image,
        string description,
        uint40 activeFrom,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice An image was removed by the admin or the service's guardian.
    event RemoveImageFromService(
        ServiceId indexed serviceId,
        address indexed actor,
        ImageId indexed imageId,
        string reason,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice An image was given an end (`previousUntil` 0: it had none).
    event RetireImageFromService(
        ServiceId indexed serviceId,
        address indexed admin,
        ImageId indexed imageId,
        uint40 previousUntil,
        uint40 activeUntil,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice The service's keys are derived with a new epoch from `since` on.
    event RotateServiceKey(
        ServiceId indexed serviceId,
        address indexed admin,
        uint16 keyEpoch,
        uint40 since,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice Secrets sealed to the KMS's environment key were published; they count from `effectiveFrom` on.
    event PublishSealedSecrets(
        ServiceId indexed serviceId,
        address indexed actor,
        string name,
        bytes ciphertext,
        uint40 effectiveFrom,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice Secrets published before this event do not count if their `effectiveFrom` is later than `since` and
    /// earlier than `before`.
    event WithdrawPendingSecrets(
        ServiceId indexed serviceId,
        address indexed actor,
        string reason,
        uint40 since,
        uint40 before,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice The notice period grew.
    event ExtendNoticePeriod(
        ServiceId indexed serviceId,
        address indexed admin,
        uint24 previous,
        uint24 noticePeriod,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice Who may remove images beside the admin was set: `guardian` from `effectiveFrom` on, `previous` until
    /// then.
    event SetServiceGuardian(
        ServiceId indexed serviceId,
        address indexed admin,
        address indexed guardian,
        address previous,
        uint40 effectiveFrom,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice A device was listed (from `effectiveFrom` on) or taken off the list (at once).
    event SetDevice(
        ServiceId indexed serviceId,
        address indexed actor,
        bytes32 indexed deviceId,
        bool allowed,
        uint40 effectiveFrom,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice Only TCB status UpToDate counts (at once), or what the policy accepts (from `effectiveFrom` on).
    event SetRequireUpToDateTcb(
        ServiceId indexed serviceId,
        address indexed actor,
        bool required,
        uint40 effectiveFrom,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice The admin named a successor (zero: withdrew the offer), who has to accept.
    event TransferServiceAdmin(
        ServiceId indexed serviceId,
        address indexed admin,
        address indexed pendingAdmin,
        address previousPending,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice The successor accepted.
    event AcceptServiceAdmin(
        ServiceId indexed serviceId,
        address indexed admin,
        address indexed previous,
        uint32 sequence,
        uint40 previousBlock
    );
    /// @notice The service has no admin any more: no further image can be listed.
    event RenounceServiceAdmin(
        ServiceId indexed serviceId,
        address indexed previous,
        uint32 sequence,
        uint40 previousBlock
    );

    /// @notice Thrown in the constructor when the policy has no code, or that of an EIP-7702 delegation.
    error KmsRegistry_PolicyNotAContract(address policy);
    /// @notice Thrown when a service is to be created that exists: the creator used this salt before.
    error KmsRegistry_ServiceAlreadyExists(ServiceId serviceId);
    /// @notice Thrown when no such service exists.
    error KmsRegistry_ServiceUnknown(ServiceId serviceId);
    /// @notice Thrown when an upgradeable service would start without an admin.
    error KmsRegistry_AdminMissing();
    /// @notice Thrown when the caller is not the service's admin (`admin` zero: it has none, and never will).
    error KmsRegistry_NotAdmin(ServiceId serviceId, address caller, address admin);
    /// @notice Thrown when the caller is neither the service's admin nor its guardian, nor one that left and may
    /// still stop this.
    error KmsRegistry_NeitherAdminNorGuardian(ServiceId serviceId, address caller);
    /// @notice Thrown when the caller is not the successor that the admin named.
    error KmsRegistry_NotPendingAdmin(ServiceId serviceId, address caller, address pendingAdmin);
    /// @notice Thrown when the image is listed already, pending or active.
    error KmsRegistry_ImageAlreadyListed(ServiceId serviceId, ImageId imageId);
    /// @notice Thrown when the image to remove or retire is not listed (never, removed, or its end has passed).
    error KmsRegistry_ImageNotListed(ServiceId serviceId, ImageId imageId);
    /// @notice Thrown when an image's end does not lie ahead, and after its `activeFrom` (`earliest`), or would come
    /// later than it is set (`latest`).
    error KmsRegistry_BadRetirement(
        ServiceId serviceId,
        ImageId imageId,
        uint40 requested,
        uint40 earliest,
        uint40 latest
    );
    /// @notice Thrown when a notice period is longer than MAX_NOTICE_PERIOD.
    error KmsRegistry_NoticePeriodTooLong(uint256 noticePeriod, uint256 max);
    /// @notice Thrown when a notice period would not grow.
    error KmsRegistry_NoticePeriodNotLonger(ServiceId serviceId, uint24 current, uint24 requested);
    /// @notice Thrown when a service would start with more than MAX_DEVICES devices.
    error KmsRegistry_TooManyDevices(uint256 devices, uint256 max);
    /// @notice Thrown when a service would start with the same device twice.
    error KmsRegistry_DuplicateDevice(bytes32 deviceId);
    /// @notice Thrown when the device is listed already.
    error KmsRegistry_DeviceAlreadyListed(ServiceId serviceId, bytes32 deviceId);
    /// @notice Thrown when the device to take off the list is not on it.
    error KmsRegistry_DeviceNotListed(ServiceId serviceId, bytes32 deviceId);
    /// @notice Thrown when the service has no list of devices: any counts. restrictServiceDevices starts one.
    error KmsRegistry_DevicesNotRestricted(ServiceId serviceId);
    /// @notice Thrown when the service has a list of devices already: setDevice changes it.
    error KmsRegistry_DevicesAlreadyRestricted(ServiceId serviceId);
    /// @notice Thrown when an image could never be served: only TCB status UpToDate counts, for good, and its TEE
    /// kind reports no status.
    error KmsRegistry_KindWithoutTcbStatus(uint8 kind);
    /// @notice Thrown when the latest rotation is less than a day old.
    error KmsRegistry_RotationTooEarly(ServiceId serviceId, uint40 earliest);
    /// @notice Thrown when a setter would leave everything as it is.
    error KmsRegistry_Unchanged(ServiceId serviceId);
    /// @notice Thrown when a text is longer than MAX_TEXT bytes.
    error KmsRegistry_TextTooLong(uint256 length, uint256 max);
    /// @notice Thrown when the name of sealed secrets is empty or longer than MAX_NAME bytes.
    error KmsRegistry_BadName(uint256 length, uint256 max);
    /// @notice Thrown when a ciphertext is longer than MAX_CIPHERTEXT bytes, or empty where there must be one.
    error KmsRegistry_BadCiphertext(uint256 length, uint256 max);
    /// @notice Thrown when a batch is empty.
    error KmsRegistry_EmptyBatch();

    /* ANYONE */

    /// @notice Creates an upgradeable service, of which the sender is admin. Upgradeability is final.
    /// @param salt Any value that the caller has not used before; it makes the id.
    /// @return serviceId `serviceIdFor(msg.sender, salt)`.
    function createService(ServiceConfig calldata config, bytes32 salt) external returns (ServiceId serviceId);

    /// @notice Creates an upgradeable service and lists its first image, active at once.
    /// @param imageDescription At most MAX_TEXT bytes.
    /// @return serviceId As for createService.
    /// @return imageId keccak256 of `image`.
    function createServiceWithImage(
        ServiceConfig calldata config,
        bytes32 salt,
        bytes calldata image,
        string calldata imageDescription
    ) external returns (ServiceId serviceId, ImageId imageId);

    /// @notice Creates a service that is not upgradeable: this image, these rules, these secrets, no admin, for ever.
    /// @param image Canonical bytes, checked for use as a sealed image (see ImageCodec).
    /// @param devices As in ServiceConfig, for ever.
    /// @param requireUpToDateTcb As in ServiceConfig, for ever.
    /// @param salt As for createService.
    /// @param description At most MAX_TEXT bytes.
    /// @param sealedSecrets Bytes sealed to the KMS's environment key, at most MAX_CIPHERTEXT; may be empty.
    function addSecretKeyByImage(
        bytes calldata image,
        bytes32[] calldata devices,
        bool requireUpToDateTcb,
        bytes32 salt,
        string calldata description,
        bytes calldata sealedSecrets
    ) external returns (ServiceId serviceId);

    /* SERVICE ADMIN */

    /// @notice Lists an image. The first of the service's life is active at once, every later one after the notice
    /// period.
    /// @param image Canonical bytes, checked for use under a service (see ImageCodec).
    /// @param description At most MAX_TEXT bytes.
    /// @return imageId keccak256 of `image`.
    function addImageToService(
        ServiceId serviceId,
        bytes calldata image,
        string calldata description
    ) external returns (ImageId imageId);

    /// @notice Lists several images, in order: as `addImageToService` for each, for less gas.
    function addImagesToService(
        ServiceId serviceId,
        NewImage[] calldata images
    ) external returns (ImageId[] memory imageIds);

    /// @notice Gives an image an end, so that the version that an upgrade supersedes has a grace window. It may only
    /// be shortened afterwards.
    /// @param lastMoment From this time on the image is not active; ahead of now and of its `activeFrom`.
    function retireImageFromService(ServiceId serviceId, ImageId imageId, uint40 lastMoment) external;

    /// @notice Raises the key epoch by one, at most once a day. Older epochs' keys are still released, so that old
    /// state can be read.
    function rotateServiceKey(ServiceId serviceId) external returns (uint16 keyEpoch);

    /// @notice Publishes secrets sealed to the KMS's environment key; of a name's ciphertexts in force, the latest
    /// counts. Before the service's first image they are in
    /// force at once, for nobody relies on the service; afterwards they wait out the notice period, as images do.
    /// @param name 1 to MAX_NAME bytes.
    /// @param ciphertext 1 to MAX_CIPHERTEXT bytes.
    function publishSealedSecrets(ServiceId serviceId, string calldata name, bytes calldata ciphertext) external;

    /// @notice Lengthens the notice period. It never shrinks.
    function extendNoticePeriod(ServiceId serviceId, uint24 noticePeriod) external;

    /// @notice Names who may remove images beside the admin. Naming the first works at once; replacing or dismissing
    /// one waits out the notice
    /// period. A guardian that left may, for one notice period, still stop what was announced before it left.
    /// @param guardian Zero: none.
    function setServiceGuardian(ServiceId serviceId, address guardian) external;

    /// @notice Starts a list of devices in a service that has none. It holds for images listed from now on; those
    /// listed before count on any device still.
    /// @param devices 1 to MAX_DEVICES, no duplicates; they count at once.
    function restrictServiceDevices(ServiceId serviceId, bytes32[] calldata devices) external;

    /// @notice Names a successor, who has to accept.
    /// @param pendingAdmin Zero: withdraw the offer.
    function transferServiceAdmin(ServiceId serviceId, address pendingAdmin) external;

    /// @notice Gives up the service for good: no further image can be listed. What is pending takes effect still,
    /// unless the guardian stops it. An offer to a
    /// successor is withdrawn.
    function renounceServiceAdmin(ServiceId serviceId) external;

    /* SERVICE ADMIN OR SERVICE GUARDIAN */

    /// @notice Removes an image at once, pending ones too (veto).
    /// @param reason At most MAX_TEXT bytes.
    function removeImageFromService(ServiceId serviceId, ImageId imageId, string calldata reason) external;

    /// @notice Removes those of several images that are listed, and skips the others: nobody can make a batch of
    /// vetoes fail by removing one of them first.
    /// @param reason At most MAX_TEXT bytes, the same for each.
    /// @return removed How many were removed.
    function removeImagesFromService(
        ServiceId serviceId,
        ImageId[] calldata imageIds,
        string calldata reason
    ) external returns (uint256 removed);

    /// @notice Withdraws all published secrets that are not in force yet.
    /// @param reason At most MAX_TEXT bytes.
    function withdrawPendingSecrets(ServiceId serviceId, string calldata reason) external;

    /* SERVICE ADMIN; TO TIGHTEN, SERVICE GUARDIAN TOO */

    /// @notice Lists a device (after the notice period), or takes one off (at once), in a service that has a list of
    /// devices.
    function setDevice(ServiceId serviceId, bytes32 deviceId, bool allowed) external;

    /// @notice Lets only TCB status UpToDate count (at once), or what the policy accepts (after the notice period).
    function setRequireUpToDateTcb(ServiceId serviceId, bool required) external;

    /* THE ADMIN'S SUCCESSOR */

    /// @notice Takes over a service from the admin that named the caller.
    function acceptServiceAdmin(ServiceId serviceId) external;

    /* VIEWS */

    /// @notice Whether a machine may have a service's keys: registry and policy in one answer. On a well-formed request it
    /// never reverts; calldata that is not one is met with a revert.
    function authorize(BootRequest calldata request) external view returns (Decision);

    /// @return The service; all zero if it does not exist.
    function service(ServiceId serviceId) external view returns (ServiceView memory);

    /// @return The image's record; all zero if it was never listed.
    function image(ServiceId serviceId, ImageId imageId) external view returns (ImageRecord memory);

    /// @return Whether the image may receive keys now, as far as the service goes.
    function isImageActive(ServiceId serviceId, ImageId imageId) external view returns (bool);

    /// @return allowed Whether the device counts now, for an image that is bound to the list. In a service that has
    /// no list, any does.
    /// @return allowedFrom From when on the device counts; 0 if it is not listed.
    function isDeviceAllowed(
        ServiceId serviceId,
        bytes32 deviceId
    ) external view returns (bool allowed, uint40 allowedFrom);

    /// @return The head of the service's hash chain; zero if the service does not exist.
    function historyHead(ServiceId serviceId) external view returns (bytes32);

    /// @return The head of the chain over all services, in order of creation: head' = keccak256(head ‖ serviceId), 52
    /// bytes hashed; zero before the first.
    function servicesHead() external view returns (bytes32);

    /// @return How many services there are.
    function serviceCount() external view returns (uint256);

    /// @return The id that `creator` gets for `salt`, on this chain and this registry.
    function serviceIdFor(address creator, bytes32 salt) external view returns (ServiceId);

    /// @return The policy that this implementation asks; it changes by upgrade only.
    // solhint-disable-next-line func-name-mixedcase
    function POLICY() external view returns (address);
}
