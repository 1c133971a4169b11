// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ImageId, ServiceId} from "../types/Ids.sol";
import {History} from "./History.sol";
import {IKmsRegistry} from "./IKmsRegistry.sol";
import {ImageCodec} from "./ImageCodec.sol";
import {ImageWord, ImageWords, ServiceWord, ServiceWords} from "./Words.sol";

/**
 * @title ServiceStore
 * @notice KmsRegistry's storage, and every write to it: creation, images, rules, secrets, history. Who may call what is KmsRegistry's business; that each write
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

    struct Service {
        ServiceWord word; // hot
        bytes32 historyHead; // hot
        // cold, one slot
        address pendingAdmin;
        uint16 keyEpoch;
        uint40 tcbRuleEnds;
        // cold, two slots
        address guardian;
        address nextGuardian;
        uint40 nextGuardianFrom;
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

        ServiceWord word = ServiceWords.create(config.admin, config.noticePeriod, flags);
        (uint256 sequence, uint256 previousBlock) = _nextEvent(created, word);
        bytes memory data = abi.encode(
            config.noticePeriod,
            config.requireUpToDateTcb,
            config.description,
            sequence,
            previousBlock
        );
        bytes32 admin = _topic(config.admin);
        _chain(created, CreateService.selector, _topic(serviceId), _topic(msg.sender), admin, data);
        _listDevices(created, serviceId, config.devices);
    }

    function _newService(bytes32 salt) internal view returns (ServiceId serviceId, Service storage created) {
        serviceId = serviceIdFor(msg.sender, salt);
        created = _service(serviceId);
        if (created.word.has(ServiceWords.EXISTS)) revert KmsRegistry_ServiceAlreadyExists(serviceId);
    }

    function _rules(bytes32[] calldata devices, bool requireUpToDateTcb) internal pure returns (uint8 flags) {
        if (requireUpToDateTcb) flags = ServiceWords.REQUIRE_UP_TO_DATE_TCB;
        if (devices.length != 0) flags |= ServiceWords.RESTRICT_DEVICES;
    }

    /// @dev The devices that a service starts with: allowed at once.
    function _listDevices(Service storage created, ServiceId serviceId, bytes32[] calldata devices) internal {
        if (devices.length > MAX_DEVICES) revert KmsRegistry_TooManyDevices(devices.length, MAX_DEVICES);
        for (uint256 i = 0; i < devices.length; ++i) {
            if (created.devices[devices[i]] != 0) revert KmsRegistry_DuplicateDevice(devices[i]);
            _setDevice(created, created.word, serviceId, devices[i], true, uint40(block.timestamp));
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

        bool first = !word.has(ServiceWords.SEEDED);
        uint40 activeFrom = first ? uint40(block.timestamp) : _afterNotice(word);
        slot.word = ImageWords.list(activeFrom, kind, mask, word.has(ServiceWords.RESTRICT_DEVICES));

        (uint256 sequence, uint256 previousBlock) = _nextEvent(its, word.with(ServiceWords.SEEDED));
        bytes memory data = abi.encode(newImage, description, activeFrom, sequence, previousBlock);
        _chain(its, AddImageToService.selector, _topic(serviceId), _topic(word.admin()), id, data);
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

    function _guardian(Service storage its) internal view returns (address) {
        uint40 from = its.nextGuardianFrom;
        return from != 0 && block.timestamp >= from ? its.nextGuardian : its.guardian;
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
        bytes calldata ciphertext
    ) internal {
        (uint256 sequence, uint256 previousBlock) = _nextEvent(its, word);
        bytes memory data = abi.encode(name, ciphertext, sequence, previousBlock);
        _chain(its, abi.encodePacked(PublishSealedSecrets.selector, _topic(serviceId), _topic(msg.sender), data), 3);
    }

    /* ACCESS */

    /// @dev The service, if the caller is its admin. A service without admin is nobody's: the zero address sends no transaction.
    function _ownService(ServiceId serviceId) internal view returns (Service storage its, ServiceWord word) {
        its = _service(serviceId);
        word = its.word;
        if (msg.sender == word.admin()) return (its, word);
        if (!word.has(ServiceWords.EXISTS)) revert KmsRegistry_ServiceUnknown(serviceId);
        revert KmsRegistry_NotAdmin(serviceId, msg.sender, word.admin());
    }

    function _checkGuardian(Service storage its, ServiceWord word, ServiceId serviceId) internal view {
        if (!word.has(ServiceWords.EXISTS)) revert KmsRegistry_ServiceUnknown(serviceId);
        if (msg.sender != _guardian(its)) revert KmsRegistry_NeitherAdminNorGuardian(serviceId, msg.sender);
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

    function _checkText(string calldata text) internal pure {
        if (bytes(text).length > MAX_TEXT) revert KmsRegistry_TextTooLong(bytes(text).length, MAX_TEXT);
    }

    function _registryStorage() internal pure returns (RegistryStorage storage $) {
        assembly {
            $.slot := REGISTRY_STORAGE
        }
    }
}
