// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ImageId, ServiceId} from "../types/Ids.sol";
import {IKmsRegistry} from "./IKmsRegistry.sol";
import {ServiceStore} from "./ServiceStore.sol";
import {ImageWord, ServiceWord, ServiceWords} from "./Words.sol";

/**
 * @title ServiceSettings
 * @notice What a service's admin and its guardian may do: every function that changes a service after its creation, but
 * for taking over the office of admin. Each checks who calls, checks, writes through ServiceStore, and logs.
 */
abstract contract ServiceSettings is ServiceStore {
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
        uint40 since = uint40(block.timestamp);
        uint40 earliest = own.rotatedAt + ROTATION_INTERVAL;
        if (own.rotatedAt != 0 && since < earliest) revert KmsRegistry_RotationTooEarly(serviceId, earliest);
        keyEpoch = ++own.keyEpoch;
        own.rotatedAt = since;
        (uint256 sequence, uint256 previousBlock) = _nextEvent(own, word);
        _chain(
            own,
            abi.encode(RotateServiceKey.selector, serviceId, msg.sender, keyEpoch, since, sequence, previousBlock),
            3
        );
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
        uint40 effectiveFrom = word.has(ServiceWords.SEEDED) ? _afterNotice(word) : uint40(block.timestamp);
        _publish(own, word, serviceId, name, ciphertext, effectiveFrom);
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
        (address previous, address former, uint40 left) = _guardians(own);
        bool underWay = own.nextGuardianFrom > block.timestamp;
        if (guardian == (underWay ? own.nextGuardian : previous)) revert KmsRegistry_Unchanged(serviceId);

        uint40 effectiveFrom = previous == address(0) ? uint40(block.timestamp) : _afterNotice(word);
        (own.formerGuardian, own.formerGuardianLeft) = (former, left);
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
    function restrictServiceDevices(ServiceId serviceId, bytes32[] calldata devices) external {
        (Service storage own, ServiceWord word) = _ownService(serviceId);
        if (word.has(ServiceWords.RESTRICT_DEVICES)) revert KmsRegistry_DevicesAlreadyRestricted(serviceId);
        if (devices.length == 0) revert KmsRegistry_EmptyBatch();
        own.word = word.with(ServiceWords.RESTRICT_DEVICES);
        _listDevices(own, serviceId, devices);
    }

    /// @inheritdoc IKmsRegistry
    function transferServiceAdmin(ServiceId serviceId, address pendingAdmin) external {
        (Service storage own, ServiceWord word) = _ownService(serviceId);
        address previous = own.pendingAdmin;
        if (pendingAdmin == previous || pendingAdmin == word.admin()) revert KmsRegistry_Unchanged(serviceId);
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
        (Service storage its, , uint40 bound) = _guardedService(serviceId);
        _checkText(reason);
        ImageWord record = its.images[imageId].word;
        if (!record.isListed()) revert KmsRegistry_ImageNotListed(serviceId, imageId);
        _checkMayStop(bound, record.activeFrom(), serviceId);
        _removeImage(its, serviceId, imageId, record, reason);
    }

    /// @inheritdoc IKmsRegistry
    function removeImagesFromService(
        ServiceId serviceId,
        ImageId[] calldata imageIds,
        string calldata reason
    ) external returns (uint256 removed) {
        if (imageIds.length == 0) revert KmsRegistry_EmptyBatch();
        (Service storage its, , uint40 bound) = _guardedService(serviceId);
        _checkText(reason);
        for (uint256 i = 0; i < imageIds.length; ++i) {
            ImageWord record = its.images[imageIds[i]].word;
            if (!record.isListed() || !_mayStop(bound, record.activeFrom())) continue;
            _removeImage(its, serviceId, imageIds[i], record, reason);
            ++removed;
        }
    }

    /// @inheritdoc IKmsRegistry
    function withdrawPendingSecrets(ServiceId serviceId, string calldata reason) external {
        (Service storage its, ServiceWord word, uint40 bound) = _guardedService(serviceId);
        _checkText(reason);
        (uint256 sequence, uint256 previousBlock) = _nextEvent(its, word);
        bytes memory data = abi.encode(reason, block.timestamp, bound, sequence, previousBlock);
        bytes32 topic0 = WithdrawPendingSecrets.selector;
        _chain(its, abi.encodePacked(topic0, _topic(serviceId), _topic(msg.sender), data), 3);
    }

    /* SERVICE ADMIN; TO TIGHTEN, SERVICE GUARDIAN TOO */

    /// @inheritdoc IKmsRegistry
    function setDevice(ServiceId serviceId, bytes32 deviceId, bool allowed) external {
        (Service storage its, ServiceWord word, uint40 bound) = _serviceToSet(serviceId, !allowed);
        if (!word.has(ServiceWords.RESTRICT_DEVICES)) revert KmsRegistry_DevicesNotRestricted(serviceId);
        uint40 allowedFrom = its.devices[deviceId];
        if (allowed && allowedFrom != 0) revert KmsRegistry_DeviceAlreadyListed(serviceId, deviceId);
        if (!allowed && allowedFrom == 0) revert KmsRegistry_DeviceNotListed(serviceId, deviceId);
        _checkMayStop(bound, allowedFrom, serviceId);
        _setDevice(its, word, serviceId, deviceId, allowed, allowed ? _afterNotice(word) : uint40(block.timestamp));
    }

    /// @inheritdoc IKmsRegistry
    function setRequireUpToDateTcb(ServiceId serviceId, bool required) external {
        (Service storage its, ServiceWord word, uint40 bound) = _serviceToSet(serviceId, required);
        // In force for good, in force but ending, or not in force.
        bool inForce = _requiresUpToDateTcb(its, word);
        bool ending = inForce && its.tcbRuleEnds != 0;
        if (required ? inForce && !ending : !inForce || ending) revert KmsRegistry_Unchanged(serviceId);
        _checkMayStop(bound, its.tcbRuleEnds, serviceId);

        uint40 effectiveFrom = required ? uint40(block.timestamp) : _afterNotice(word);
        its.tcbRuleEnds = required ? 0 : effectiveFrom;
        (uint256 sequence, uint256 previousBlock) = _nextEvent(its, word.with(ServiceWords.REQUIRE_UP_TO_DATE_TCB));
        _chain(
            its,
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
}
