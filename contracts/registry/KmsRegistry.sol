// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {MulticallUpgradeable} from "@openzeppelin/contracts-upgradeable/utils/MulticallUpgradeable.sol";

import {ContractAccount} from "../governance/ContractAccount.sol";
import {Governed} from "../governance/Governed.sol";
import {IGoverned} from "../governance/IGoverned.sol";
import {IPlatformPolicy} from "../policy/IPlatformPolicy.sol";
import {BootRequest, Decision} from "../types/Decision.sol";
import {ImageId, ServiceId} from "../types/Ids.sol";
import {TcbStatus} from "../types/TcbStatus.sol";
import {IKmsRegistry} from "./IKmsRegistry.sol";
import {ImageCodec} from "./ImageCodec.sol";
import {ServiceSettings} from "./ServiceSettings.sol";
import {ImageWord, ImageWords, ServiceWord, ServiceWords} from "./Words.sol";

/**
 * @title KmsRegistry
 * @notice Which measured images may receive the keys of which service. Key-delivery nodes ask `authorize` before they
 * release anything.
 *
 * TWO KINDS OF SERVICE, decided at creation and final
 *
 *     upgradeable    createService, then addImageToService over the years. An admin manages it; whoever relies on it
 *                    can see every new image coming, for the length of the notice period, and leave.
 *     immutable      addSecretKeyByImage. Exactly one image, no admin, no guardian, rules and secrets final. No call
 *                    changes it, its creator's neither; an upgrade of this contract could, in public, after the
 *                    timelock, and governance can pause or suspend what its image runs on.
 *
 * AN IMAGE'S LIFE
 *
 *                    notice period              activeUntil
 *     add ──► pending ───────────► active ──retire──► retiring ──────────► gone ──add──► pending
 *                │                    │                  │
 *                └────────────────────┴──────remove──────┴──► removed ──add──► pending
 *
 * The first image of a service's life skips the notice period, for nobody relied on the service before it. That happens
 * once: removing images does not bring it back. An image is active while activeFrom ≤ now < activeUntil (0: no end).
 *
 * LANES, PER SERVICE
 *
 *     tightening   at once; admin or guardian     remove an image, drop a device, demand an up-to-date TCB, withdraw
 *                                                 secrets that are not in force yet
 *                  at once; admin                 retire an image, start a list of devices, extend the notice period
 *     loosening    after the notice period; admin a new image, a new device, lifting the TCB rule, new secrets (they
 *                                                 change what an image does), replacing the guardian that can veto
 *
 * What the guardian may stop, it may stop until it takes effect, and nobody can take that away meanwhile: a guardian
 * that
 * left keeps its veto, for one notice period, over what was announced before it left, whoever came after it and whether
 * or not the admin renounced. What it can never do is loosen.
 *
 * ROLES
 *
 *     service admin      whoever creates a service; hands over in two steps, so that nobody becomes admin without
 *                        accepting; may renounce, which is final
 *     service guardian   tightens, and nothing else; stays after the admin has renounced
 *     GOVERNOR           upgrades this contract; has no power over any service beside that
 *
 * GUARDIAN_ROLE has no function here, and should have no holder.
 *
 * HISTORY
 *
 * Every change of a service is an event, folded into the service's `historyHead` from the same bytes that are logged.
 * The
 * first event is CreateService or AddSecretKeyByImage; the devices, image and secrets that come with a creation
 * follow it
 * as events of their own. Whatever a view answers can be rebuilt from the logs and a time. Creations are chained too
 * (`servicesHead`, `serviceCount`), so that a list of services can be proven complete.
 *
 * STORAGE
 *
 * In ServiceStore. A change touches two slots of its service (the word and the head) and one of an image; a request
 * reads
 * the image's slot alone, and the service's word where the TCB is not up to date. Words.sol says how the two words are
 * laid out.
 *
 * DANGERS
 *
 * The notice period covers what a service lets run (images, devices, TCB, secrets) and who can stop it (guardian). It
 * does
 * not cover: the office of admin, which changes hands as fast as it is offered and accepted; a rotation of the key,
 * at most
 * one a day; a tightening, which can take a service down; and what a program fetches by itself. So a stolen admin key
 * can
 * deny service at once, and can let its own image run after one notice period unless somebody stops it: the guardian,
 * or
 * the owner with the same key. A guardian that its key dismissed can stop what was announced before it left, and not
 * what
 * is announced later: whoever relies on the service has two notice periods from the dismissal. A rogue guardian denies
 * service until one notice period after its dismissal, and never gets a key. A service without guardian has the admin's
 * key alone: where it is stolen, the thief may name the first guardian at once.
 *
 * A credential that must be replaced at once does not belong into sealed secrets of a service with a notice period.
 * `description`, `reason`, `name` are whatever their author wrote. An admin with a notice period of 0 can list an
 * image and
 * use it in one block. Where `block.number` is not the block of the log (Arbitrum), `previousBlock` does not locate
 * events.
 */
contract KmsRegistry is ServiceSettings, Governed, MulticallUpgradeable {
    /// @inheritdoc IKmsRegistry
    /// @custom:oz-upgrades-unsafe-allow state-variable-immutable
    address public immutable POLICY;

    /// @param policyProxy The PlatformPolicy proxy. Being immutable, it changes by upgrade only.
    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor(address policyProxy) {
        if (!ContractAccount.isContract(policyProxy)) revert KmsRegistry_PolicyNotAContract(policyProxy);
        POLICY = policyProxy;
    }

    /// @notice Sets the first governor, which must be a contract. Runs in the proxy's constructor.
    function initialize(address governor) external initializer {
        __Governed_init(governor);
    }

    /* ANYONE */

    /// @inheritdoc IKmsRegistry
    function createService(
        ServiceConfig calldata config,
        bytes32 salt
    ) external onlyProxy returns (ServiceId serviceId) {
        (serviceId, ) = _createService(config, salt);
    }

    /// @inheritdoc IKmsRegistry
    function createServiceWithImage(
        ServiceConfig calldata config,
        bytes32 salt,
        bytes calldata firstImage,
        string calldata imageDescription
    ) external onlyProxy returns (ServiceId serviceId, ImageId imageId) {
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
    ) external onlyProxy returns (ServiceId serviceId) {
        _checkText(description);
        if (sealedSecrets.length > MAX_CIPHERTEXT)
            revert KmsRegistry_BadCiphertext(sealedSecrets.length, MAX_CIPHERTEXT);
        (bytes32 imageId, uint8 kind, uint32 mask) = ImageCodec.check(onlyImage, ImageCodec.SEALED);
        _checkServable(kind, requireUpToDateTcb);

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
        bytes memory data = abi.encode(
            onlyImage,
            requireUpToDateTcb,
            description,
            block.timestamp,
            sequence,
            previousBlock
        );
        _chain(created, AddSecretKeyByImage.selector, _topic(serviceId), _topic(msg.sender), imageId, data);
        _listDevices(created, serviceId, devices);
        if (sealedSecrets.length != 0) {
            _publish(created, created.word, serviceId, "", sealedSecrets, uint40(block.timestamp));
        }
    }

    /* THE ADMIN'S SUCCESSOR */

    /// @inheritdoc IKmsRegistry
    function acceptServiceAdmin(ServiceId serviceId) external {
        (Service storage its, ServiceWord word) = _existing(serviceId);
        address pendingAdmin = its.pendingAdmin;
        if (!_isSender(pendingAdmin)) revert KmsRegistry_NotPendingAdmin(serviceId, msg.sender, pendingAdmin);
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
        (address current, address former, uint40 left) = _guardians(its);
        shown.guardian = current;
        if (former != address(0) && block.timestamp < left + word.noticePeriod()) {
            shown.formerGuardian = former;
            shown.formerGuardianUntil = left + word.noticePeriod();
        }
        shown.noticePeriod = word.noticePeriod();
        shown.keyEpoch = its.keyEpoch;
        shown.rotatedAt = its.rotatedAt;
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
                mask: record.mask(),
                restrictsDevices: record.restrictsDevices()
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

    /// @inheritdoc IKmsRegistry
    function servicesHead() external view returns (bytes32) {
        return _registryStorage().servicesHead;
    }

    /// @inheritdoc IKmsRegistry
    function serviceCount() external view returns (uint256) {
        return _registryStorage().serviceCount;
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

    /// @dev A policy that fails, answers with less than a word, or with a number that is no decision here, is a
    /// denial. Not a `try`: that reverts, uncaught,
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
