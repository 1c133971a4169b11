// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ImageId, ServiceId} from "../types/Ids.sol";
import {TeeKind} from "../types/TeeKind.sol";
import {History} from "./History.sol";
import {IKmsRegistry} from "./IKmsRegistry.sol";
import {ImageCodec} from "./ImageCodec.sol";
import {ImageWord, ImageWords, ServiceWord, ServiceWords} from "./Words.sol";

/**
 * @title ServiceStore
 * @notice KmsRegistry's storage, and every write to it: creation, images, rules, secrets, history. Who may call what
 * is KmsRegistry's business; that each write
 * emits and chains exactly what it changed is this contract's.
 */
abstract contract ServiceStore is IKmsRegistry {
    /// @dev The longest notice period, in seconds.
    uint24 internal constant MAX_NOTICE_PERIOD = 180 days;
    /// @dev The longest description or reason, in bytes.
    uint256 internal constant MAX_TEXT = 512;
    /// @dev The longest name of sealed secrets, in bytes.
    uint256 internal constant MAX_NAME = 64;
    /// @dev The longest ciphertext, in bytes.
    uint256 internal constant MAX_CIPHERTEXT = 32_768;
    /// @dev The most devices that a service can start with.
    uint256 internal constant MAX_DEVICES = 64;
    /// @dev The shortest time between two rotations, in seconds. Nodes hand out 1,024 epochs: whoever holds a stolen
    /// admin key needs 1,023 days to
    /// push one of today out of their reach.
    uint40 internal constant ROTATION_INTERVAL = 1 days;

    /// @dev See _guardedService.
    uint40 internal constant NO_BOUND = type(uint40).max;

    struct Service {
        ServiceWord word; // hot
        bytes32 historyHead; // hot
        // cold, one slot
        address pendingAdmin;
        uint16 keyEpoch;
        uint40 tcbRuleEnds;
        uint40 rotatedAt;
        // cold, three slots
        address guardian;
        address nextGuardian;
        uint40 nextGuardianFrom;
        address formerGuardian;
        uint40 formerGuardianLeft;
        mapping(ImageId => ImageSlot) images;
        mapping(bytes32 deviceId => uint40 allowedFrom) devices;
    }

    /// @dev A struct so that code can hold on to the slot.
    struct ImageSlot {
        ImageWord word;
    }

    /// @custom:storage-location erc7201:keystead.storage.KmsRegistry
    struct RegistryStorage {
        mapping(ServiceId => Service) services;
        bytes32 servicesHead;
        uint256 serviceCount;
    }

    // keccak256(abi.encode(uint256(keccak256("keystead.storage.KmsRegistry")) - 1)) & ~bytes32(uint256(0xff))
    bytes32 private constant REGISTRY_STORAGE = 0xcbba06258cefd29a5414518227a5f12767df9b0b4ff96b05066b75c1bb332e00;

    /* CREATION */

    /// @inheritdoc IKmsRegistry
    function serviceIdFor(address creator, bytes32 salt) public view returns (ServiceId) {
        return ServiceId.wrap(bytes20(keccak256(abi.encode(block.chainid, address(this), creator, salt))));
    }

    function _createService(
        ServiceConfig calldata config,
        bytes32 salt
    ) internal returns (ServiceId serviceId, Service storage created) {
        if (config.admin == address(0)) revert KmsRegistry_AdminMissing();
        _checkNoticePeriod(config.noticePeriod);
        _checkText(config.description);

        (serviceId, created) = _newService(salt);
        uint8 flags =
            ServiceWords.EXISTS | ServiceWords.UPGRADEABLE | _rules(config.devices, config.requireUpToDateTcb);
        address pendingAdmin = config.admin == msg.sender ? address(0) : config.admin;
        if (pendingAdmin != address(0)) created.pendingAdmin = pendingAdmin;

        ServiceWord word = ServiceWords.create(msg.sender, config.noticePeriod, flags);
        (uint256 sequence, uint256 previousBlock) = _nextEvent(created, word);
        bytes memory data = abi.encode(
            config.noticePeriod,
            config.requireUpToDateTcb,
            config.description,
            sequence,
            previousBlock
        );
        _chain(created, CreateService.selector, _topic(serviceId), _topic(msg.sender), _topic(pendingAdmin), data);
        _listDevices(created, serviceId, config.devices);
    }

    /// @dev Every creation passes here, and is chained to those before it.
    function _newService(bytes32 salt) internal returns (ServiceId serviceId, Service storage created) {
        serviceId = serviceIdFor(msg.sender, salt);
        created = _service(serviceId);
        if (created.word.has(ServiceWords.EXISTS)) revert KmsRegistry_ServiceAlreadyExists(serviceId);
        RegistryStorage storage $ = _registryStorage();
        $.servicesHead = History.appendService($.servicesHead, serviceId);
        ++$.serviceCount;
    }

    function _rules(bytes32[] calldata devices, bool requireUpToDateTcb) internal pure returns (uint8 flags) {
        if (requireUpToDateTcb) flags = ServiceWords.REQUIRE_UP_TO_DATE_TCB;
        if (devices.length != 0) flags |= ServiceWords.RESTRICT_DEVICES;
    }

    /// @dev A service's first devices: allowed at once, for no image that is listed yet asks for one.
    function _listDevices(Service storage its, ServiceId serviceId, bytes32[] calldata devices) internal {
        if (devices.length > MAX_DEVICES) revert KmsRegistry_TooManyDevices(devices.length, MAX_DEVICES);
        for (uint256 i = 0; i < devices.length; ++i) {
            if (its.devices[devices[i]] != 0) revert KmsRegistry_DuplicateDevice(devices[i]);
            _setDevice(its, its.word, serviceId, devices[i], true, uint40(block.timestamp));
        }
    }

    /* IMAGES */

    function _listImage(
        Service storage its,
        ServiceWord word,
        ServiceId serviceId,
        bytes calldata newImage,
        string calldata description
    ) internal returns (ImageId imageId) {
        _checkText(description);
        (bytes32 id, uint8 kind, uint32 mask) = ImageCodec.check(newImage, ImageCodec.SERVICE);
        imageId = ImageId.wrap(id);
        ImageSlot storage slot = its.images[imageId];
        if (slot.word.isListed()) revert KmsRegistry_ImageAlreadyListed(serviceId, imageId);
        if (word.has(ServiceWords.REQUIRE_UP_TO_DATE_TCB)) _checkServable(kind, its.tcbRuleEnds == 0);

        bool first = !word.has(ServiceWords.SEEDED);
        uint40 activeFrom = first ? uint40(block.timestamp) : _afterNotice(word);
        slot.word = ImageWords.list(activeFrom, kind, mask, word.has(ServiceWords.RESTRICT_DEVICES));

        (uint256 sequence, uint256 previousBlock) = _nextEvent(its, word.with(ServiceWords.SEEDED));
        bytes memory data = abi.encode(newImage, description, activeFrom, sequence, previousBlock);
        _chain(its, AddImageToService.selector, _topic(serviceId), _topic(msg.sender), id, data);
    }

    /// @dev Removes a listed image, in one event.
    function _removeImage(
        Service storage its,
        ServiceId serviceId,
        ImageId imageId,
        ImageWord record,
        string calldata reason
    ) internal {
        its.images[imageId].word = record.removed();
        (uint256 sequence, uint256 previousBlock) = _nextEvent(its, its.word);
        bytes memory data = abi.encode(reason, sequence, previousBlock);
        bytes32 id = ImageId.unwrap(imageId);
        _chain(its, RemoveImageFromService.selector, _topic(serviceId), _topic(msg.sender), id, data);
    }

    /* RULES */

    function _requiresUpToDateTcb(Service storage its, ServiceWord word) internal view returns (bool) {
        if (!word.has(ServiceWords.REQUIRE_UP_TO_DATE_TCB)) return false;
        uint40 ends = its.tcbRuleEnds;
        return ends == 0 || block.timestamp < ends;
    }

    function _isDeviceAllowed(Service storage its, bytes32 deviceId) internal view returns (bool) {
        uint40 allowedFrom = its.devices[deviceId];
        return allowedFrom != 0 && block.timestamp >= allowedFrom;
    }

    function _setDevice(
        Service storage its,
        ServiceWord word,
        ServiceId serviceId,
        bytes32 deviceId,
        bool allowed,
        uint40 effectiveFrom
    ) internal {
        its.devices[deviceId] = allowed ? effectiveFrom : 0;
        (uint256 sequence, uint256 previousBlock) = _nextEvent(its, word);
        _chain(
            its,
            abi.encode(
                SetDevice.selector,
                serviceId,
                msg.sender,
                deviceId,
                allowed,
                effectiveFrom,
                sequence,
                previousBlock
            ),
            4
        );
    }

    /// @return current Who is guardian now; zero: nobody.
    /// @return former Who was the last guardian before; zero: nobody was.
    /// @return left When `former` left.
    function _guardians(Service storage its) internal view returns (address current, address former, uint40 left) {
        uint40 from = its.nextGuardianFrom;
        (current, former, left) = (its.guardian, its.formerGuardian, its.formerGuardianLeft);
        if (from == 0 || block.timestamp < from) return (current, former, left);
        if (current != address(0)) (former, left) = (current, from);
        current = its.nextGuardian;
    }

    function _afterNotice(ServiceWord word) internal view returns (uint40) {
        return uint40(block.timestamp + word.noticePeriod());
    }

    /* SECRETS */

    function _publish(
        Service storage its,
        ServiceWord word,
        ServiceId serviceId,
        string memory name,
        bytes calldata ciphertext,
        uint40 effectiveFrom
    ) internal {
        (uint256 sequence, uint256 previousBlock) = _nextEvent(its, word);
        bytes memory data = abi.encode(name, ciphertext, effectiveFrom, sequence, previousBlock);
        _chain(its, abi.encodePacked(PublishSealedSecrets.selector, _topic(serviceId), _topic(msg.sender), data), 3);
    }

    /* ACCESS */

    /// @dev The service, if the caller is its admin.
    function _ownService(ServiceId serviceId) internal view returns (Service storage its, ServiceWord word) {
        its = _service(serviceId);
        word = its.word;
        if (_isSender(word.admin())) return (its, word);
        if (!word.has(ServiceWords.EXISTS)) revert KmsRegistry_ServiceUnknown(serviceId);
        revert KmsRegistry_NotAdmin(serviceId, msg.sender, word.admin());
    }

    /**
     * @dev The service, if the caller may tighten it.
     * @return its The service.
     * @return word Its word.
     * @return bound NO_BOUND for admin and guardian. For a guardian that left, one notice period after that: what was
     * announced before it left takes
     * effect earlier, and nothing else does.
     */
    function _guardedService(
        ServiceId serviceId
    ) internal view returns (Service storage its, ServiceWord word, uint40 bound) {
        its = _service(serviceId);
        word = its.word;
        if (_isSender(word.admin())) return (its, word, NO_BOUND);
        if (!word.has(ServiceWords.EXISTS)) revert KmsRegistry_ServiceUnknown(serviceId);
        (address current, address former, uint40 left) = _guardians(its);
        if (_isSender(current)) return (its, word, NO_BOUND);
        bound = left + word.noticePeriod();
        if (!_isSender(former) || block.timestamp >= bound) {
            revert KmsRegistry_NeitherAdminNorGuardian(serviceId, msg.sender);
        }
    }

    /// @dev Whether a caller with this bound may stop what takes effect, or took effect, at `effectiveFrom`.
    function _mayStop(uint40 bound, uint40 effectiveFrom) internal view returns (bool) {
        return bound == NO_BOUND || (block.timestamp < effectiveFrom && effectiveFrom < bound);
    }

    function _checkMayStop(uint40 bound, uint40 effectiveFrom, ServiceId serviceId) internal view {
        if (!_mayStop(bound, effectiveFrom)) revert KmsRegistry_NeitherAdminNorGuardian(serviceId, msg.sender);
    }

    /// @dev An office without holder is nobody's, not that of the zero address, from which `eth_call` asks.
    function _isSender(address holder) internal view returns (bool) {
        return holder == msg.sender && holder != address(0);
    }

    /// @dev The service, for a setter that tightens or loosens.
    function _serviceToSet(
        ServiceId serviceId,
        bool tighten
    ) internal view returns (Service storage its, ServiceWord word, uint40 bound) {
        if (tighten) return _guardedService(serviceId);
        (its, word) = _ownService(serviceId);
        bound = NO_BOUND;
    }

    function _existing(ServiceId serviceId) internal view returns (Service storage its, ServiceWord word) {
        its = _service(serviceId);
        word = its.word;
        if (!word.has(ServiceWords.EXISTS)) revert KmsRegistry_ServiceUnknown(serviceId);
    }

    function _service(ServiceId serviceId) internal view returns (Service storage) {
        return _registryStorage().services[serviceId];
    }

    /* HISTORY */

    /// @dev Stores `word` with the next number and this block; returns that number and the block of the event before.
    function _nextEvent(
        Service storage its,
        ServiceWord word
    ) internal returns (uint256 sequence, uint256 previousBlock) {
        ServiceWord next = word.next();
        its.word = next;
        sequence = next.sequence();
        previousBlock = word.lastUpdateBlock();
    }

    function _chain(Service storage its, bytes memory record, uint256 topics) internal {
        its.historyHead = History.append(its.historyHead, record, topics);
    }

    function _chain(
        Service storage its,
        bytes32 topic0,
        bytes32 topic1,
        bytes32 topic2,
        bytes32 topic3,
        bytes memory data
    ) internal {
        its.historyHead = History.append(its.historyHead, topic0, topic1, topic2, topic3, data);
    }

    function _topic(ServiceId serviceId) internal pure returns (bytes32) {
        return bytes32(ServiceId.unwrap(serviceId));
    }

    function _topic(address account) internal pure returns (bytes32) {
        return bytes32(uint256(uint160(account)));
    }

    /* CHECKS */

    function _checkNoticePeriod(uint24 noticePeriod) internal pure {
        if (noticePeriod > MAX_NOTICE_PERIOD) revert KmsRegistry_NoticePeriodTooLong(noticePeriod, MAX_NOTICE_PERIOD);
    }

    /// @dev AWS Nitro reports no TCB status, so its images would never be served where only UpToDate counts, for good.
    function _checkServable(uint8 kind, bool onlyUpToDate) internal pure {
        if (onlyUpToDate && kind == TeeKind.NITRO) revert KmsRegistry_KindWithoutTcbStatus(kind);
    }

    function _checkText(string calldata text) internal pure {
        if (bytes(text).length > MAX_TEXT) revert KmsRegistry_TextTooLong(bytes(text).length, MAX_TEXT);
    }

    function _registryStorage() internal pure returns (RegistryStorage storage $) {
        assembly {
            $.slot := REGISTRY_STORAGE
        }
    }
}
