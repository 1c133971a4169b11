// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MulticallUpgradeable} from "@openzeppelin/contracts-upgradeable/utils/MulticallUpgradeable.sol";

import {Governed} from "../governance/Governed.sol";
import {IGoverned} from "../governance/IGoverned.sol";
import {IPlatformPolicy} from "../policy/IPlatformPolicy.sol";
import {BootRequest, Decision} from "../types/Decision.sol";
import {ImageId, ServiceId} from "../types/Ids.sol";
import {TcbStatus} from "../types/TcbStatus.sol";
import {IKmsRegistry} from "./IKmsRegistry.sol";
import {ImageCodec} from "./ImageCodec.sol";
import {ServiceStore} from "./ServiceStore.sol";
import {ImageWord, ImageWords, ServiceWord, ServiceWords} from "./Words.sol";

/**
 * @title KmsRegistry
 * @notice Which measured images may receive the keys of which service. Key-delivery nodes ask `authorize` before they release anything.
 *
 * TWO KINDS OF SERVICE, decided at creation and final
 *
 *     upgradeable    createService, then addImageToService over the years. An admin manages it; whoever relies on it can see every new image coming,
 *                    for the length of the notice period, and leave.
 *     sealed         addSecretKeyByImage. Exactly one image, no admin, no guardian, rules and secrets final. Nobody can change it: not its creator, and
 *                    governance only by upgrading this contract, in public, after the timelock.
 *
 * AN IMAGE'S LIFE
 *
 *                    notice period              activeUntil
 *     add ──► pending ───────────► active ──retire──► retiring ──────────► gone ──add──► pending
 *                │                    │                  │
 *                └────────────────────┴──────remove──────┴──► removed ──add──► pending
 *
 * The first image of a service's life skips the notice period, for nobody relied on the service before it. That happens once: removing images does not
 * bring it back. An image is active while activeFrom ≤ now < activeUntil (0: no end).
 *
 * LANES, PER SERVICE
 *
 *     tightening (remove, retire, drop a device, demand an up-to-date TCB) works at once
 *     loosening (a new image, a new device, lifting the TCB rule, replacing the guardian that can veto) waits out the notice period
 *
 * The notice period itself only grows. Whether a service names its devices is decided at creation and final.
 *
 * ROLES
 *
 *     service admin      manages its service; hands over in two steps; may renounce, which is final
 *     service guardian   may remove images (veto), and nothing else; stays after the admin has renounced
 *     GOVERNOR           upgrades this contract; has no power over any service
 *
 * GUARDIAN_ROLE has no function here and no holder.
 *
 * HISTORY
 *
 * Every change of a service is an event, folded into the service's `historyHead` from the same bytes that are logged. The first event is CreateService or
 * AddSecretKeyByImage; the devices, image and secrets that come with a creation follow it as events of their own, so that each fact is told in one way. All
 * state can be rebuilt from the logs alone.
 *
 * STORAGE
 *
 * In ServiceStore. A change touches two slots of its service (the word and the head) and one of an image; a request reads the image's slot alone, and the service's word where
 * the TCB is not up to date. Key epoch, successor, guardian and pending loosenings are cold. Words.sol says how the two words are laid out.
 *
 * DANGERS
 *
 * `description`, `reason`, `name` are whatever their author wrote. An admin with a notice period of 0 can list an image and use it in one block. Where `block.number`
 * is not the block of the log (Arbitrum), `previousBlock` does not locate events.
 */
contract KmsRegistry is ServiceStore, Governed, MulticallUpgradeable {
    /// @inheritdoc IKmsRegistry
    /// @custom:oz-upgrades-unsafe-allow state-variable-immutable
    address public immutable POLICY;

    /// @param policyProxy The PlatformPolicy proxy. Being immutable, it changes by upgrade only.
    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor(address policyProxy) {
        if (policyProxy.code.length == 0) revert KmsRegistry_PolicyNotAContract(policyProxy);
        POLICY = policyProxy;
    }

    /// @notice Sets the first governor, which must be a contract. Runs in the proxy's constructor.
    function initialize(address governor) external initializer {
        __Governed_init(governor);
    }

    /* ANYONE */

    /// @inheritdoc IKmsRegistry
    function createService(ServiceConfig calldata config, bytes32 salt) external returns (ServiceId serviceId) {
        (serviceId, ) = _createService(config, salt);
    }

    /// @inheritdoc IKmsRegistry
    function createServiceWithImage(
        ServiceConfig calldata config,
        bytes32 salt,
        bytes calldata firstImage,
        string calldata imageDescription
    ) external returns (ServiceId serviceId, ImageId imageId) {
        Service storage created;
        (serviceId, created) = _createService(config, salt);
        imageId = _listImage(created, created.word, serviceId, firstImage, imageDescription);
    }

    /// @inheritdoc IKmsRegistry
    function addSecretKeyByImage(
        bytes calldata onlyImage,
        bytes32[] calldata devices,
        bool requireUpToDateTcb,
        bytes32 salt,
        string calldata description,
        bytes calldata sealedSecrets
    ) external returns (ServiceId serviceId) {
        _checkText(description);
        if (sealedSecrets.length > MAX_CIPHERTEXT)
            revert KmsRegistry_BadCiphertext(sealedSecrets.length, MAX_CIPHERTEXT);
        (bytes32 imageId, uint8 kind, uint32 mask) = ImageCodec.check(onlyImage, ImageCodec.SEALED);

        Service storage created;
        (serviceId, created) = _newService(salt);
        created.images[ImageId.wrap(imageId)].word = ImageWords.list(
            uint40(block.timestamp),
            kind,
            mask,
            devices.length != 0
        );

        uint8 flags = ServiceWords.EXISTS | ServiceWords.SEEDED | _rules(devices, requireUpToDateTcb);
        ServiceWord word = ServiceWords.create(address(0), 0, flags);
        (uint256 sequence, uint256 previousBlock) = _nextEvent(created, word);
        bytes memory data = abi.encode(onlyImage, requireUpToDateTcb, description, sequence, previousBlock);
        _chain(created, AddSecretKeyByImage.selector, _topic(serviceId), _topic(msg.sender), imageId, data);
        _listDevices(created, serviceId, devices);
        if (sealedSecrets.length != 0) _publish(created, created.word, serviceId, "", sealedSecrets);
    }

    /* SERVICE ADMIN */

    /// @inheritdoc IKmsRegistry
    function addImageToService(
        ServiceId serviceId,
        bytes calldata newImage,
        string calldata description
    ) external returns (ImageId) {
        (Service storage own, ServiceWord word) = _ownService(serviceId);
        return _listImage(own, word, serviceId, newImage, description);
    }

    /// @inheritdoc IKmsRegistry
    function addImagesToService(
        ServiceId serviceId,
        NewImage[] calldata images
    ) external returns (ImageId[] memory imageIds) {
        if (images.length == 0) revert KmsRegistry_EmptyBatch();
        (Service storage own, ) = _ownService(serviceId);
        imageIds = new ImageId[](images.length);
        for (uint256 i = 0; i < images.length; ++i) {
            imageIds[i] = _listImage(own, own.word, serviceId, images[i].image, images[i].description);
        }
    }

    /// @inheritdoc IKmsRegistry
    function retireImageFromService(ServiceId serviceId, ImageId imageId, uint40 lastMoment) external {
        (Service storage own, ServiceWord word) = _ownService(serviceId);
        ImageSlot storage slot = own.images[imageId];
        ImageWord record = slot.word;
        if (!record.isListed()) revert KmsRegistry_ImageNotListed(serviceId, imageId);
        uint40 previous = record.activeUntil();
        uint40 earliest = record.activeFrom() > block.timestamp ? record.activeFrom() : uint40(block.timestamp);
        if (lastMoment <= earliest || (previous != 0 && lastMoment >= previous)) {
            revert KmsRegistry_BadRetirement(serviceId, imageId, lastMoment, earliest, previous);
        }
        slot.word = record.withActiveUntil(lastMoment);

        (uint256 sequence, uint256 previousBlock) = _nextEvent(own, word);
        _chain(
            own,
            abi.encode(
                RetireImageFromService.selector,
                serviceId,
                msg.sender,
                imageId,
                previous,
                lastMoment,
                sequence,
                previousBlock
            ),
            4
        );
    }

    /// @inheritdoc IKmsRegistry
    function rotateServiceKey(ServiceId serviceId) external returns (uint16 keyEpoch) {
        (Service storage own, ServiceWord word) = _ownService(serviceId);
        keyEpoch = ++own.keyEpoch;
        (uint256 sequence, uint256 previousBlock) = _nextEvent(own, word);
        _chain(own, abi.encode(RotateServiceKey.selector, serviceId, msg.sender, keyEpoch, sequence, previousBlock), 3);
    }

    /// @inheritdoc IKmsRegistry
    function publishSealedSecrets(ServiceId serviceId, string calldata name, bytes calldata ciphertext) external {
        (Service storage own, ServiceWord word) = _ownService(serviceId);
        if (bytes(name).length == 0 || bytes(name).length > MAX_NAME) {
            revert KmsRegistry_BadName(bytes(name).length, MAX_NAME);
        }
        if (ciphertext.length == 0 || ciphertext.length > MAX_CIPHERTEXT) {
            revert KmsRegistry_BadCiphertext(ciphertext.length, MAX_CIPHERTEXT);
        }
        _publish(own, word, serviceId, name, ciphertext);
    }

    /// @inheritdoc IKmsRegistry
    function extendNoticePeriod(ServiceId serviceId, uint24 noticePeriod) external {
        (Service storage own, ServiceWord word) = _ownService(serviceId);
        _checkNoticePeriod(noticePeriod);
        uint24 previous = word.noticePeriod();
        if (noticePeriod <= previous) revert KmsRegistry_NoticePeriodNotLonger(serviceId, previous, noticePeriod);
        (uint256 sequence, uint256 previousBlock) = _nextEvent(own, word.withNoticePeriod(noticePeriod));
        _chain(
            own,
            abi.encode(
                ExtendNoticePeriod.selector,
                serviceId,
                msg.sender,
                previous,
                noticePeriod,
                sequence,
                previousBlock
            ),
            3
        );
    }

    /// @inheritdoc IKmsRegistry
    function setServiceGuardian(ServiceId serviceId, address guardian) external {
        (Service storage own, ServiceWord word) = _ownService(serviceId);
        address previous = _guardian(own);
        bool underWay = own.nextGuardianFrom > block.timestamp;
        if (guardian == (underWay ? own.nextGuardian : previous)) revert KmsRegistry_Unchanged(serviceId);

        uint40 effectiveFrom = previous == address(0) ? uint40(block.timestamp) : _afterNotice(word);
        own.guardian = previous;
        own.nextGuardian = guardian;
        own.nextGuardianFrom = effectiveFrom;
        (uint256 sequence, uint256 previousBlock) = _nextEvent(own, word);
        _chain(
            own,
            abi.encode(
                SetServiceGuardian.selector,
                serviceId,
                msg.sender,
                guardian,
                previous,
                effectiveFrom,
                sequence,
                previousBlock
            ),
            4
        );
    }

    /// @inheritdoc IKmsRegistry
    function setDevice(ServiceId serviceId, bytes32 deviceId, bool allowed) external {
        (Service storage own, ServiceWord word) = _ownService(serviceId);
        if (!word.has(ServiceWords.RESTRICT_DEVICES)) revert KmsRegistry_DevicesNotRestricted(serviceId);
        bool listed = own.devices[deviceId] != 0;
        if (allowed && listed) revert KmsRegistry_DeviceAlreadyListed(serviceId, deviceId);
        if (!allowed && !listed) revert KmsRegistry_DeviceNotListed(serviceId, deviceId);
        _setDevice(own, word, serviceId, deviceId, allowed, allowed ? _afterNotice(word) : uint40(block.timestamp));
    }

    /// @inheritdoc IKmsRegistry
    function setRequireUpToDateTcb(ServiceId serviceId, bool required) external {
        (Service storage own, ServiceWord word) = _ownService(serviceId);
        // In force for good, in force but ending, or not in force.
        bool inForce = _requiresUpToDateTcb(own, word);
        bool ending = inForce && own.tcbRuleEnds != 0;
        if (required ? inForce && !ending : !inForce || ending) revert KmsRegistry_Unchanged(serviceId);

        uint40 effectiveFrom = required ? uint40(block.timestamp) : _afterNotice(word);
        own.tcbRuleEnds = required ? 0 : effectiveFrom;
        (uint256 sequence, uint256 previousBlock) = _nextEvent(own, word.with(ServiceWords.REQUIRE_UP_TO_DATE_TCB));
        _chain(
            own,
            abi.encode(
                SetRequireUpToDateTcb.selector,
                serviceId,
                msg.sender,
                required,
                effectiveFrom,
                sequence,
                previousBlock
            ),
            3
        );
    }

    /// @inheritdoc IKmsRegistry
    function transferServiceAdmin(ServiceId serviceId, address pendingAdmin) external {
        (Service storage own, ServiceWord word) = _ownService(serviceId);
        address previous = own.pendingAdmin;
        if (pendingAdmin == previous) revert KmsRegistry_Unchanged(serviceId);
        own.pendingAdmin = pendingAdmin;
        (uint256 sequence, uint256 previousBlock) = _nextEvent(own, word);
        _chain(
            own,
            abi.encode(
                TransferServiceAdmin.selector,
                serviceId,
                msg.sender,
                pendingAdmin,
                previous,
                sequence,
                previousBlock
            ),
            4
        );
    }

    /// @inheritdoc IKmsRegistry
    function renounceServiceAdmin(ServiceId serviceId) external {
        (Service storage own, ServiceWord word) = _ownService(serviceId);
        own.pendingAdmin = address(0);
        (uint256 sequence, uint256 previousBlock) = _nextEvent(own, word.withAdmin(address(0)));
        _chain(own, abi.encode(RenounceServiceAdmin.selector, serviceId, msg.sender, sequence, previousBlock), 3);
    }

    /* SERVICE ADMIN OR SERVICE GUARDIAN */

    /// @inheritdoc IKmsRegistry
    function removeImageFromService(ServiceId serviceId, ImageId imageId, string calldata reason) external {
        Service storage its = _service(serviceId);
        ServiceWord word = its.word;
        if (msg.sender != word.admin()) _checkGuardian(its, word, serviceId);
        _checkText(reason);
        ImageSlot storage slot = its.images[imageId];
        ImageWord record = slot.word;
        if (!record.isListed()) revert KmsRegistry_ImageNotListed(serviceId, imageId);
        slot.word = record.removed();

        (uint256 sequence, uint256 previousBlock) = _nextEvent(its, word);
        bytes memory data = abi.encode(reason, sequence, previousBlock);
        _chain(
            its,
            RemoveImageFromService.selector,
            _topic(serviceId),
            _topic(msg.sender),
            ImageId.unwrap(imageId),
            data
        );
    }

    /* THE ADMIN'S SUCCESSOR */

    /// @inheritdoc IKmsRegistry
    function acceptServiceAdmin(ServiceId serviceId) external {
        (Service storage its, ServiceWord word) = _existing(serviceId);
        address pendingAdmin = its.pendingAdmin;
        if (msg.sender != pendingAdmin) revert KmsRegistry_NotPendingAdmin(serviceId, msg.sender, pendingAdmin);
        its.pendingAdmin = address(0);
        (uint256 sequence, uint256 previousBlock) = _nextEvent(its, word.withAdmin(msg.sender));
        _chain(
            its,
            abi.encode(AcceptServiceAdmin.selector, serviceId, msg.sender, word.admin(), sequence, previousBlock),
            4
        );
    }

    /* VIEWS */

    /// @inheritdoc IKmsRegistry
    function authorize(BootRequest calldata request) external view returns (Decision) {
        Service storage its = _service(request.serviceId);
        ImageWord record = its.images[request.imageId].word;
        if (record.state() != ImageWords.LISTED) {
            if (record.state() == ImageWords.REMOVED) return Decision.ImageRemoved;
            return its.word.has(ServiceWords.EXISTS) ? Decision.ImageUnknown : Decision.ServiceUnknown;
        }
        if (block.timestamp < record.activeFrom()) return Decision.ImagePending;
        if (record.hasEnded()) return Decision.ImageRetired;
        if (request.tcbStatus != TcbStatus.UP_TO_DATE && _requiresUpToDateTcb(its, its.word)) {
            return Decision.ServiceTcbNotUpToDate;
        }
        if (record.restrictsDevices() && !_isDeviceAllowed(its, request.deviceId)) {
            return Decision.ServiceDeviceNotAllowed;
        }
        return _askPolicy(record.kind(), request);
    }

    /// @inheritdoc IKmsRegistry
    function service(ServiceId serviceId) external view returns (ServiceView memory shown) {
        Service storage its = _service(serviceId);
        ServiceWord word = its.word;
        shown.exists = word.has(ServiceWords.EXISTS);
        shown.upgradeable = word.has(ServiceWords.UPGRADEABLE);
        shown.admin = word.admin();
        shown.pendingAdmin = its.pendingAdmin;
        shown.guardian = _guardian(its);
        shown.noticePeriod = word.noticePeriod();
        shown.keyEpoch = its.keyEpoch;
        shown.requireUpToDateTcb = _requiresUpToDateTcb(its, word);
        shown.restrictDevices = word.has(ServiceWords.RESTRICT_DEVICES);
        if (shown.requireUpToDateTcb) shown.tcbRuleEnds = its.tcbRuleEnds;
        if (its.nextGuardianFrom > block.timestamp) {
            shown.nextGuardian = its.nextGuardian;
            shown.nextGuardianFrom = its.nextGuardianFrom;
        }
        shown.sequence = word.sequence();
        shown.lastUpdateBlock = uint40(word.lastUpdateBlock());
        shown.historyHead = its.historyHead;
    }

    /// @inheritdoc IKmsRegistry
    function image(ServiceId serviceId, ImageId imageId) external view returns (ImageRecord memory) {
        ImageWord record = _service(serviceId).images[imageId].word;
        return
            ImageRecord({
                activeFrom: record.activeFrom(),
                activeUntil: record.activeUntil(),
                state: ImageState(record.state()),
                kind: record.kind(),
                mask: record.mask()
            });
    }

    /// @inheritdoc IKmsRegistry
    function isImageActive(ServiceId serviceId, ImageId imageId) external view returns (bool) {
        ImageWord record = _service(serviceId).images[imageId].word;
        return record.isListed() && block.timestamp >= record.activeFrom();
    }

    /// @inheritdoc IKmsRegistry
    function isDeviceAllowed(
        ServiceId serviceId,
        bytes32 deviceId
    ) external view returns (bool allowed, uint40 allowedFrom) {
        Service storage its = _service(serviceId);
        ServiceWord word = its.word;
        allowedFrom = its.devices[deviceId];
        allowed =
            word.has(ServiceWords.EXISTS) &&
            (!word.has(ServiceWords.RESTRICT_DEVICES) || _isDeviceAllowed(its, deviceId));
    }

    /// @inheritdoc IKmsRegistry
    function historyHead(ServiceId serviceId) external view returns (bytes32) {
        return _service(serviceId).historyHead;
    }

    /// @inheritdoc IGoverned
    function version() external pure virtual returns (string memory) {
        return "1.0.0";
    }

    /// @inheritdoc Governed
    function supportsInterface(bytes4 interfaceId) public view virtual override returns (bool) {
        return interfaceId == type(IKmsRegistry).interfaceId || super.supportsInterface(interfaceId);
    }

    /* POLICY */

    /// @dev A policy that fails, answers with less than a word, or with a number that is no decision here, is a denial. Not a `try`: that reverts, uncaught,
    /// where it cannot decode the answer.
    function _askPolicy(uint8 kind, BootRequest calldata request) private view returns (Decision) {
        bytes memory question = abi.encodeCall(
            IPlatformPolicy.decide,
            (kind, request.platformId, request.deviceId, request.tcbStatus)
        );
        address policy = POLICY;
        uint256 decision = type(uint256).max;
        assembly ("memory-safe") {
            let answered := staticcall(gas(), policy, add(question, 0x20), mload(question), 0x00, 0x20)
            if and(answered, gt(returndatasize(), 0x1f)) {
                decision := mload(0x00)
            }
        }
        return decision > uint256(type(Decision).max) ? Decision.PolicyUnavailable : Decision(decision);
    }
}
