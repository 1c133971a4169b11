// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IKmsRegistry} from "../../contracts/registry/IKmsRegistry.sol";
import {ImageId, ServiceId} from "../../contracts/types/Ids.sol";
import {TestImages} from "../helpers/TestImages.sol";
import {Campaign} from "./Campaign.sol";
import {ServiceGhost} from "./ghost/ServiceGhost.sol";

/**
 * @title ServiceInvariants
 * @notice Invariants 1 to 3, over every service after every action.
 *
 * 1. `upgradeable` never changes; a sealed service has exactly one image and no admin, at every point in time.
 *    Forbidden: a flag that differs from the one at creation; any event of a sealed service after its creation; an admin, successor, guardian, key epoch, notice period or
 *    second image there.
 *
 * 2. No image is active before `activeFrom`, after `activeUntil`, or after removal; `activeFrom` ≥ added at + notice but for the first of a service's life.
 *    Forbidden: listing what is listed; a second "first" image; an end that is moved later, or lies before the start or in the past.
 *
 * 3. Notice periods never shrink; `sequence` grows by exactly one per event; `historyHead` equals the fold of the emitted logs, in the registry and in the policy.
 *    Forbidden: an event that is not chained, chained twice or chained differently; a `previousBlock` that is not the previous event's; a rule that differs from what the
 *    logs say.
 */
abstract contract ServiceInvariants is Campaign {
    function _upgradeabilityIsFinal() internal view {
        _assertNothingFound(1);
        for (uint256 s = 0; s < world.services(); ++s) {
            bytes20 id = world.serviceIds(s);
            IKmsRegistry.ServiceView memory its = _service(id);
            ServiceGhost.ServiceFacts memory facts = world.serviceFacts(id);
            _must(its.exists, "a service vanished");
            _must(its.upgradeable == facts.upgradeable, "upgradeable changed");
            if (facts.upgradeable) continue;

            _must(its.admin == address(0), "a sealed service has an admin");
            _must(its.pendingAdmin == address(0), "a sealed service has a successor");
            _must(its.guardian == address(0), "a sealed service has a guardian");
            _must(its.keyEpoch == 0, "a sealed service has a new key epoch");
            _must(facts.images == 1, "a sealed service listed a second image");
            _must(
                world.REGISTRY().isImageActive(ServiceId.wrap(id), ImageId.wrap(facts.sealedImage)),
                "a sealed service lost its image"
            );
            for (uint256 i = 0; i < TestImages.IMAGES; ++i) {
                bytes32 imageId = world.imageIdAt(i);
                IKmsRegistry.ImageState state = _image(id, imageId).state;
                bool only = imageId == facts.sealedImage;
                IKmsRegistry.ImageState wanted =
                    only ? IKmsRegistry.ImageState.Listed : IKmsRegistry.ImageState.Unknown;
                _must(state == wanted, "a sealed service has another image");
            }
        }
    }

    function _imagesAreActiveInTheirTimeAlone() internal view {
        _assertNothingFound(2);
        for (uint256 s = 0; s < world.services(); ++s) {
            bytes20 id = world.serviceIds(s);
            for (uint256 i = 0; i < TestImages.IMAGES; ++i) {
                bytes32 imageId = world.imageIdAt(i);
                ServiceGhost.ImageFacts memory facts = world.imageFacts(id, imageId);
                IKmsRegistry.ImageRecord memory record = _image(id, imageId);
                bool active = world.REGISTRY().isImageActive(ServiceId.wrap(id), ImageId.wrap(imageId));
                _must(active == world.activeNow(id, imageId), "active outside its time, or not active in it");
                _must(record.activeFrom == facts.from, "activeFrom is not what was announced");
                _must(record.activeUntil == facts.until, "activeUntil is not what was announced");
                _must(record.restrictsDevices == facts.restricts, "a device rule that did not hold at listing");
                if (facts.listed) _must(record.kind == TestImages.kindOf(i), "an image of another kind");
            }
        }
    }

    function _noticeGrowsAndHistoryIsComplete() internal view {
        _assertNothingFound(3);
        for (uint256 s = 0; s < world.services(); ++s) {
            bytes20 id = world.serviceIds(s);
            IKmsRegistry.ServiceView memory its = _service(id);
            ServiceGhost.ServiceFacts memory facts = world.serviceFacts(id);
            _must(its.noticePeriod == facts.notice, "a notice period is not the longest announced");
            _must(its.sequence == facts.sequence, "sequence is not the number of events");
            _must(its.lastUpdateBlock == facts.lastBlock, "lastUpdateBlock is not the last event's");
            _must(its.historyHead == facts.head, "historyHead is not the fold of the logs");
            _must(its.admin == facts.admin, "an admin that no event names");
            _must(its.pendingAdmin == facts.pendingAdmin, "a successor that no event names");
            _must(its.guardian == world.guardianNow(id), "a guardian that no event names");
            _must(its.keyEpoch == facts.keyEpoch, "a key epoch that no event names");
            _must(its.requireUpToDateTcb == world.tcbRuleNow(id), "a TCB rule that no event names");
            _must(its.restrictDevices == facts.restricts, "a device rule that no event names");
        }
        _must(
            world.REGISTRY().servicesHead() == world.foldedServices(),
            "servicesHead is not the fold of all creations"
        );
        _must(world.REGISTRY().serviceCount() == world.services(), "serviceCount is not the number of creations");
        _must(world.POLICY().historyHead() == world.policyHead(), "the policy's head is not the fold of its logs");
        _must(world.POLICY().policyVersion() == world.policyEvents(), "policyVersion is not the number of events");
        _must(world.POLICY().lastUpdateBlock() == world.policyBlock(), "the policy's last block is wrong");
    }

    function _service(bytes20 id) private view returns (IKmsRegistry.ServiceView memory) {
        return world.REGISTRY().service(ServiceId.wrap(id));
    }

    function _image(bytes20 id, bytes32 imageId) private view returns (IKmsRegistry.ImageRecord memory) {
        return world.REGISTRY().image(ServiceId.wrap(id), ImageId.wrap(imageId));
    }
}
