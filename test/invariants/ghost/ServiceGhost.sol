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
        uint256 rotatedAt;
        uint24 notice;
        uint256 tcbEnds;
        address admin;
        address pendingAdmin;
        address guardian;
        address nextGuardian;
        uint256 nextGuardianFrom;
        address formerGuardian;
        uint256 formerLeft;
        uint256 sequence;
        uint256 lastBlock;
        bytes32 head;
        uint256 born; // the action in which it was created
        uint256 restrictedIn; // the action in which its list of devices was started
        uint256 images; // how many have been listed, ever
        bytes32 sealedImage;
    }

    struct ImageFacts {
        bool listed;
        bool removed;
        bool restricts;
        uint256 from;
        uint256 until;
    }

    bytes20[] public serviceIds;
    mapping(bytes20 => ServiceFacts) internal _services;
    mapping(bytes20 => mapping(bytes32 imageId => ImageFacts)) internal _images;
    mapping(bytes20 => mapping(bytes32 deviceId => uint256)) internal _devices;

    /// @dev What all creations fold to.
    bytes32 public foldedServices;

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

    /// @dev The last guardian that left, and when: it may still stop what was announced before.
    function _formerGuardian(ServiceFacts storage its) internal view returns (address former, uint256 left) {
        bool replaced = its.nextGuardianFrom != 0 && block.timestamp >= its.nextGuardianFrom;
        if (replaced && its.guardian != address(0)) return (its.guardian, its.nextGuardianFrom);
        return (its.formerGuardian, its.formerLeft);
    }

    /// @dev Whether `from` may stop what takes effect, or took effect, at `effective`.
    function _mayStop(
        ServiceFacts storage its,
        bytes20 id,
        address from,
        uint256 effective
    ) private view returns (bool) {
        if (from == its.admin || from == guardianNow(id)) return true;
        (address former, uint256 left) = _formerGuardian(its);
        return from == former && effective > block.timestamp && effective < left + its.notice;
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
        if (!_images[id][imageId].restricts) return true;
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
            if (_isAdminEvent(topic0, log.data)) {
                _expect(from == its.admin || its.born == _action, 4, "not the admin, yet a service changed");
            }
            _expect(_account(log.topics[2]) == from, 3, "the event names another actor");
            _absorbChange(from, its, id, log);
        }
        _absorbOrder(its, topic0, log.data);
        its.head = _fold(its.head, log.topics, log.data);
    }

    function _absorbCreation(address from, ServiceFacts storage its, bytes20 id, Vm.Log memory log) private {
        _expect(!its.exists, 1, "a service was created twice");
        _expect(_account(log.topics[2]) == from, 3, "the event names another creator");
        serviceIds.push(id);
        foldedServices = keccak256(abi.encodePacked(foldedServices, id));
        its.exists = true;
        its.born = _action;
        its.requiresTcb = _word(log.data, 1) == 1;
        if (log.topics[0] == IKmsRegistry.CreateService.selector) {
            its.upgradeable = true;
            its.admin = from;
            its.pendingAdmin = _account(log.topics[3]);
            _expect(its.pendingAdmin != from, 4, "a service is offered to its own admin");
            its.notice = uint24(_word(log.data, 0));
            return;
        }
        its.sealedImage = log.topics[3];
        its.seeded = true;
        its.images = 1;
        _expect(_word(log.data, 3) == block.timestamp, 2, "the only image starts at another time");
        _images[id][log.topics[3]] = ImageFacts(true, false, false, block.timestamp, 0);
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
            _images[id][log.topics[3]] = ImageFacts(true, false, its.restricts, activeFrom, 0);
            its.seeded = true;
            ++its.images;
        } else if (topic0 == IKmsRegistry.RemoveImageFromService.selector) {
            ImageFacts storage image = _images[id][log.topics[3]];
            _expect(_mayStop(its, id, from, image.from), 4, "a stranger removed an image");
            image.removed = true;
        } else if (topic0 == IKmsRegistry.RetireImageFromService.selector) {
            ImageFacts storage image = _images[id][log.topics[3]];
            uint256 until = _word(log.data, 1);
            _expect(until > time && until > image.from, 2, "an image ends before it starts, or in the past");
            _expect(image.until == 0 || until < image.until, 2, "a retired image got a later end");
            image.until = until;
        } else if (topic0 == IKmsRegistry.RotateServiceKey.selector) {
            _expect(_word(log.data, 0) == uint256(its.keyEpoch) + 1, 3, "a key epoch was skipped or came back");
            _expect(_word(log.data, 1) == time, 3, "a rotation at another time");
            _expect(its.rotatedAt == 0 || time >= its.rotatedAt + 1 days, 4, "two rotations within a day");
            ++its.keyEpoch;
            its.rotatedAt = time;
        } else if (topic0 == IKmsRegistry.ExtendNoticePeriod.selector) {
            _expect(_word(log.data, 1) > its.notice, 3, "a notice period did not grow");
            its.notice = uint24(_word(log.data, 1));
        } else {
            _absorbRule(from, its, id, log, time);
        }
    }

    function _absorbRule(address from, ServiceFacts storage its, bytes20 id, Vm.Log memory log, uint256 time) private {
        bytes32 topic0 = log.topics[0];
        uint256 afterNotice = time + its.notice;
        if (topic0 == IKmsRegistry.SetServiceGuardian.selector) {
            address current = guardianNow(id);
            uint256 earliest = current == address(0) ? time : afterNotice;
            _expect(_word(log.data, 1) >= earliest, 4, "a guardian was replaced without notice");
            (its.formerGuardian, its.formerLeft) = _formerGuardian(its);
            its.guardian = current;
            its.nextGuardian = _account(log.topics[3]);
            its.nextGuardianFrom = _word(log.data, 1);
        } else if (topic0 == IKmsRegistry.SetDevice.selector) {
            _absorbDevice(from, its, id, log);
        } else if (topic0 == IKmsRegistry.SetRequireUpToDateTcb.selector) {
            bool required = _word(log.data, 0) == 1;
            _expect(required || _word(log.data, 1) >= afterNotice, 4, "the TCB rule was lifted without notice");
            _expect(!required || _mayStop(its, id, from, its.tcbEnds), 4, "a stranger called off a lifted TCB rule");
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
        } else if (topic0 == IKmsRegistry.WithdrawPendingSecrets.selector) {
            bool unbounded = _word(log.data, 2) == type(uint40).max;
            uint256 latest = unbounded ? type(uint40).max : _word(log.data, 2) - 1;
            _expect(_mayStop(its, id, from, latest), 4, "a stranger withdrew secrets");
        } else {
            _expect(topic0 == IKmsRegistry.PublishSealedSecrets.selector, 3, "an event that the ghost doesn't know");
            uint256 earliest = its.seeded && its.born != _action ? afterNotice : time;
            _expect(_word(log.data, 2) >= earliest, 4, "secrets skipped the notice period");
        }
    }

    function _absorbDevice(address from, ServiceFacts storage its, bytes20 id, Vm.Log memory log) private {
        bytes32 device = log.topics[3];
        bool allowed = _word(log.data, 0) == 1;
        uint256 effective = _word(log.data, 1);
        if (!its.restricts) {
            its.restricts = true;
            its.restrictedIn = _action;
            if (!its.upgradeable) _images[id][its.sealedImage].restricts = true;
        }
        uint256 earliest = its.restrictedIn == _action ? block.timestamp : block.timestamp + its.notice;
        _expect(!allowed || effective >= earliest, 4, "a device skipped the notice");
        _expect(allowed || _mayStop(its, id, from, _devices[id][device]), 4, "a stranger took a device off");
        _devices[id][device] = allowed ? effective : 0;
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
        if (topic0 == IKmsRegistry.AddSecretKeyByImage.selector) return 4;
        if (topic0 == IKmsRegistry.AddImageToService.selector) return 3;
        if (topic0 == IKmsRegistry.RemoveImageFromService.selector) return 1;
        if (topic0 == IKmsRegistry.PublishSealedSecrets.selector) return 3;
        if (topic0 == IKmsRegistry.WithdrawPendingSecrets.selector) return 3;
        return data.length / 32 - 2;
    }

    /// @dev Those that only the admin may cause. What tightens is the guardian's too; the successor causes acceptance.
    function _isAdminEvent(bytes32 topic0, bytes memory data) private pure returns (bool) {
        if (topic0 == IKmsRegistry.SetDevice.selector) return _word(data, 0) == 1;
        if (topic0 == IKmsRegistry.SetRequireUpToDateTcb.selector) return _word(data, 0) == 0;
        return
            topic0 != IKmsRegistry.RemoveImageFromService.selector &&
            topic0 != IKmsRegistry.WithdrawPendingSecrets.selector &&
            topic0 != IKmsRegistry.AcceptServiceAdmin.selector;
    }

    function _serviceId(ServiceId id) internal pure returns (bytes20) {
        return ServiceId.unwrap(id);
    }
}
