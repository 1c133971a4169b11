// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IKmsRegistry} from "../../../contracts/registry/IKmsRegistry.sol";
import {ServiceId} from "../../../contracts/types/Ids.sol";
import {Vm, vm} from "../../helpers/Vm.sol";
import {Findings} from "./Findings.sol";

/**
 * @title ServiceGhost
 * @notice What every service must look like, remembered from its logs alone, and whether each log was a permitted step.
 */
abstract contract ServiceGhost is Findings {
    struct ServiceFacts {
        bool exists;
        bool upgradeable;
        bool seeded;
        bool restricts;
        bool requiresTcb;
        uint16 keyEpoch;
        uint24 notice;
        uint256 tcbEnds;
        address admin;
        address pendingAdmin;
        address guardian;
        address nextGuardian;
        uint256 nextGuardianFrom;
        uint256 sequence;
        uint256 lastBlock;
        bytes32 head;
        uint256 born; // the action in which it was created
        uint256 images; // how many have been listed, ever
        bytes32 sealedImage;
    }

    struct ImageFacts {
        bool listed;
        bool removed;
        uint256 from;
        uint256 until;
    }

    bytes20[] public serviceIds;
    mapping(bytes20 => ServiceFacts) internal _services;
    mapping(bytes20 => mapping(bytes32 imageId => ImageFacts)) internal _images;
    mapping(bytes20 => mapping(bytes32 deviceId => uint256)) internal _devices;

    /// @dev Counts the calls into the suite.
    uint256 internal _action;

    function services() external view returns (uint256) {
        return serviceIds.length;
    }

    function serviceFacts(bytes20 id) external view returns (ServiceFacts memory) {
        return _services[id];
    }

    function imageFacts(bytes20 id, bytes32 imageId) external view returns (ImageFacts memory) {
        return _images[id][imageId];
    }

    function deviceFrom(bytes20 id, bytes32 deviceId) external view returns (uint256) {
        return _devices[id][deviceId];
    }

    function guardianNow(bytes20 id) public view returns (address) {
        ServiceFacts storage its = _services[id];
        bool replaced = its.nextGuardianFrom != 0 && block.timestamp >= its.nextGuardianFrom;
        return replaced ? its.nextGuardian : its.guardian;
    }

    function tcbRuleNow(bytes20 id) public view returns (bool) {
        ServiceFacts storage its = _services[id];
        return its.requiresTcb && (its.tcbEnds == 0 || block.timestamp < its.tcbEnds);
    }

    function activeNow(bytes20 id, bytes32 imageId) public view returns (bool) {
        ImageFacts storage its = _images[id][imageId];
        uint256 time = block.timestamp;
        return its.listed && !its.removed && time >= its.from && (its.until == 0 || time < its.until);
    }

    /// @dev Whether the service itself lets this machine have its keys.
    function _serviceAllows(
        bytes20 id,
        bytes32 imageId,
        bytes32 deviceId,
        uint8 tcbStatus
    ) internal view returns (bool) {
        if (!activeNow(id, imageId) || (tcbStatus != 0 && tcbRuleNow(id))) return false;
        if (!_services[id].restricts) return true;
        uint256 from = _devices[id][deviceId];
        return from != 0 && block.timestamp >= from;
    }

    /// @dev Takes in one log of the registry, emitted by a call that `from` made.
    function _absorbService(address from, Vm.Log memory log) internal {
        bytes32 topic0 = log.topics[0];
        bytes20 id = bytes20(log.topics[1]);
        ServiceFacts storage its = _services[id];
        if (topic0 == IKmsRegistry.CreateService.selector || topic0 == IKmsRegistry.AddSecretKeyByImage.selector) {
            _absorbCreation(from, its, id, log);
        } else {
            _expect(its.exists, 3, "an event of a service that was never created");
            _expect(its.upgradeable || its.born == _action, 1, "a sealed service changed");
            if (_isAdminEvent(topic0)) {
                _expect(from == its.admin || its.born == _action, 4, "not the admin, yet a service changed");
                _expect(_account(log.topics[2]) == from || its.born == _action, 3, "the event names another actor");
            }
            _absorbChange(from, its, id, log);
        }
        _absorbOrder(its, topic0, log.data);
        its.head = _fold(its.head, log.topics, log.data);
    }

    function _absorbCreation(address from, ServiceFacts storage its, bytes20 id, Vm.Log memory log) private {
        _expect(!its.exists, 1, "a service was created twice");
        _expect(_account(log.topics[2]) == from, 3, "the event names another creator");
        serviceIds.push(id);
        its.exists = true;
        its.born = _action;
        its.requiresTcb = _word(log.data, 1) == 1;
        if (log.topics[0] == IKmsRegistry.CreateService.selector) {
            its.upgradeable = true;
            its.admin = _account(log.topics[3]);
            its.notice = uint24(_word(log.data, 0));
            return;
        }
        its.sealedImage = log.topics[3];
        its.seeded = true;
        its.images = 1;
        _images[id][log.topics[3]] = ImageFacts(true, false, block.timestamp, 0);
    }

    function _absorbChange(address from, ServiceFacts storage its, bytes20 id, Vm.Log memory log) private {
        bytes32 topic0 = log.topics[0];
        uint256 time = block.timestamp;
        if (topic0 == IKmsRegistry.AddImageToService.selector) {
            ImageFacts storage image = _images[id][log.topics[3]];
            uint256 activeFrom = _word(log.data, 2);
            _expect(its.upgradeable, 1, "an image was added to a sealed service");
            _expect(activeFrom >= (its.seeded ? time + its.notice : time), 2, "an image skipped the notice period");
            bool over = image.until != 0 && time >= image.until;
            _expect(!image.listed || image.removed || over, 2, "a listed image was listed again");
            _images[id][log.topics[3]] = ImageFacts(true, false, activeFrom, 0);
            its.seeded = true;
            ++its.images;
        } else if (topic0 == IKmsRegistry.RemoveImageFromService.selector) {
            _expect(from == its.admin || from == guardianNow(id), 4, "a stranger removed an image");
            _images[id][log.topics[3]].removed = true;
        } else if (topic0 == IKmsRegistry.RetireImageFromService.selector) {
            ImageFacts storage image = _images[id][log.topics[3]];
            uint256 until = _word(log.data, 1);
            _expect(until > time && until > image.from, 2, "an image ends before it starts, or in the past");
            _expect(image.until == 0 || until < image.until, 2, "a retired image got a later end");
            image.until = until;
        } else if (topic0 == IKmsRegistry.RotateServiceKey.selector) {
            _expect(_word(log.data, 0) == uint256(its.keyEpoch) + 1, 3, "a key epoch was skipped or came back");
            ++its.keyEpoch;
        } else if (topic0 == IKmsRegistry.ExtendNoticePeriod.selector) {
            _expect(_word(log.data, 1) > its.notice, 3, "a notice period did not grow");
            its.notice = uint24(_word(log.data, 1));
        } else {
            _absorbRule(its, id, log, time);
        }
    }

    function _absorbRule(ServiceFacts storage its, bytes20 id, Vm.Log memory log, uint256 time) private {
        bytes32 topic0 = log.topics[0];
        uint256 afterNotice = time + its.notice;
        if (topic0 == IKmsRegistry.SetServiceGuardian.selector) {
            address current = guardianNow(id);
            uint256 earliest = current == address(0) ? time : afterNotice;
            _expect(_word(log.data, 1) >= earliest, 4, "a guardian was replaced without notice");
            its.guardian = current;
            its.nextGuardian = _account(log.topics[3]);
            its.nextGuardianFrom = _word(log.data, 1);
        } else if (topic0 == IKmsRegistry.SetDevice.selector) {
            bool allowed = _word(log.data, 0) == 1;
            uint256 from = _word(log.data, 1);
            _expect(!allowed || from >= (its.born == _action ? time : afterNotice), 4, "a device skipped the notice");
            _devices[id][log.topics[3]] = allowed ? from : 0;
            if (its.born == _action) its.restricts = true;
        } else if (topic0 == IKmsRegistry.SetRequireUpToDateTcb.selector) {
            bool required = _word(log.data, 0) == 1;
            _expect(required || _word(log.data, 1) >= afterNotice, 4, "the TCB rule was lifted without notice");
            its.requiresTcb = true;
            its.tcbEnds = required ? 0 : _word(log.data, 1);
        } else if (topic0 == IKmsRegistry.TransferServiceAdmin.selector) {
            its.pendingAdmin = _account(log.topics[3]);
        } else if (topic0 == IKmsRegistry.AcceptServiceAdmin.selector) {
            _expect(_account(log.topics[2]) == its.pendingAdmin, 4, "an admin that nobody named");
            its.admin = its.pendingAdmin;
            its.pendingAdmin = address(0);
        } else if (topic0 == IKmsRegistry.RenounceServiceAdmin.selector) {
            its.admin = address(0);
            its.pendingAdmin = address(0);
        } else {
            _expect(topic0 == IKmsRegistry.PublishSealedSecrets.selector, 3, "an event that the ghost doesn't know");
        }
    }

    function _absorbOrder(ServiceFacts storage its, bytes32 topic0, bytes memory data) private {
        uint256 place = _sequenceAt(topic0, data);
        _expect(_word(data, place) == its.sequence + 1, 3, "a sequence number was skipped or repeated");
        _expect(_word(data, place + 1) == its.lastBlock, 3, "previousBlock is not the block of the previous event");
        ++its.sequence;
        its.lastBlock = vm.getBlockNumber();
    }

    /// @dev The word of `data` that holds `sequence`; events with static fields end with it and `previousBlock`.
    function _sequenceAt(bytes32 topic0, bytes memory data) private pure returns (uint256) {
        if (topic0 == IKmsRegistry.CreateService.selector) return 3;
        if (topic0 == IKmsRegistry.AddSecretKeyByImage.selector) return 3;
        if (topic0 == IKmsRegistry.AddImageToService.selector) return 3;
        if (topic0 == IKmsRegistry.RemoveImageFromService.selector) return 1;
        if (topic0 == IKmsRegistry.PublishSealedSecrets.selector) return 2;
        return data.length / 32 - 2;
    }

    /// @dev Those that only the admin may cause. Removal is the guardian's too; the successor causes acceptance.
    function _isAdminEvent(bytes32 topic0) private pure returns (bool) {
        return
            topic0 != IKmsRegistry.RemoveImageFromService.selector &&
            topic0 != IKmsRegistry.AcceptServiceAdmin.selector;
    }

    function _serviceId(ServiceId id) internal pure returns (bytes20) {
        return ServiceId.unwrap(id);
    }
}
