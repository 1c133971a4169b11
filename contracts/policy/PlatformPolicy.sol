// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Governed} from "../governance/Governed.sol";
import {IGoverned} from "../governance/IGoverned.sol";
import {History} from "../registry/History.sol";
import {ImageCodec} from "../registry/ImageCodec.sol";
import {Decision} from "../types/Decision.sol";
import {ImageId, PlatformId} from "../types/Ids.sol";
import {TcbStatus} from "../types/TcbStatus.sol";
import {TeeKind} from "../types/TeeKind.sol";
import {IPlatformPolicy} from "./IPlatformPolicy.sol";

/**
 * @title PlatformPolicy
 * @notice What governance says about machines, whatever runs on them.
 *
 * PURPOSE
 *
 * A service's admin decides which images may have its keys. This contract decides on what those images may run: which firmware and operating systems,
 * which TEE kinds, which TCB statuses, which devices; and which images may run as KMS nodes. KmsRegistry asks it for every release.
 *
 * ENTRIES
 *
 *     Unknown ──allow (governor, slow)──► Allowed ──revoke (guardian or governor, at once)──► Revoked
 *                                            ▲                                                  │
 *                                            └──────────────── allow (governor, slow) ──────────┘
 *
 * A new deployment allows nothing: no kind is enabled, no TCB status accepted, no platform listed.
 *
 * KILL SWITCHES, from narrow to wide: revokeDevice · revokePlatform · rejectTcb · suspendTee · pauseRelease.
 *
 * PAUSE
 *
 * A pause lasts at most MAX_PAUSE and lapses by itself. The guardian cannot extend one that is in force; the governor can extend it (again to at most
 * MAX_PAUSE from now) or lift it. Once a pause has lapsed or was lifted, the guardian can pause again: a guardian that never stops is dismissed, which it
 * cannot cancel (GovernanceTimelock), and then nothing pauses but the governor.
 *
 * HISTORY
 *
 * Every change is one event with the next `policyVersion`, folded into `historyHead`. Roles are not part of the chain: OpenZeppelin's own events record them.
 *
 * COST
 *
 * `decide` reads two slots: `gate`, which holds what concerns all machines of a kind, and the platform's entry; a third where devices are restricted.
 */
contract PlatformPolicy is IPlatformPolicy, Governed {
    /// @dev The longest pause, in seconds.
    uint256 private constant MAX_PAUSE = 14 days;
    /// @dev The longest description, reason or gateway id, in bytes.
    uint256 private constant MAX_TEXT = 512;

    /**
     * @dev One slot.
     * @param pausedUntil No release before this time.
     * @param enabledKinds One bit per TEE kind.
     * @param restrictedKinds One bit per TEE kind whose devices must be listed.
     * @param acceptedTcb Sixteen bits per TEE kind: kind `k`'s set starts at bit `16 * k`.
     */
    struct Gate {
        uint40 pausedUntil;
        uint8 enabledKinds;
        uint8 restrictedKinds;
        uint128 acceptedTcb;
    }

    /// @custom:storage-location erc7201:keystead.storage.PlatformPolicy
    struct PolicyStorage {
        Gate gate;
        bytes32 historyHead;
        uint64 policyVersion;
        uint40 lastUpdateBlock;
        mapping(PlatformId => Entry) platforms;
        mapping(ImageId => Entry) kmsImages;
        mapping(bytes32 identityId => EntryState) kmsIdentities;
        mapping(uint8 kind => mapping(bytes32 deviceId => bool)) devices;
        string gatewayAppId;
        address appImplementation;
    }

    // keccak256(abi.encode(uint256(keccak256("keystead.storage.PlatformPolicy")) - 1)) & ~bytes32(uint256(0xff))
    bytes32 private constant POLICY_STORAGE = 0xf5ef5f018a8b15ae385f05397962a1af09f148accd2b149f94a45402d413a200;

    /// @notice Sets the first governor and guardian; both must be contracts. Runs in the proxy's constructor.
    function initialize(address governor, address guardian) external initializer {
        __Governed_init(governor);
        _grantRole(GUARDIAN_ROLE, guardian);
    }

    /* GOVERNOR: loosen */

    /// @inheritdoc IPlatformPolicy
    function allowPlatform(
        bytes calldata image,
        string calldata description
    ) external onlyGovernor returns (PlatformId platformId) {
        _checkText(description);
        (bytes32 id, uint8 kind, uint32 mask) = ImageCodec.check(image, ImageCodec.PLATFORM);
        platformId = PlatformId.wrap(id);
        Entry storage entry = _policyStorage().platforms[platformId];
        if (entry.state == EntryState.Allowed) revert PlatformPolicy_PlatformAlreadyAllowed(platformId);
        _allow(entry, kind, mask);
        (uint64 number, uint40 previousBlock) = _nextEvent();
        bytes memory data = abi.encode(image, description, number, previousBlock);
        _chain(abi.encodePacked(AllowPlatform.selector, id, _topic(msg.sender), data), 3);
    }

    /// @inheritdoc IPlatformPolicy
    function enableTee(uint8 kind) external onlyGovernor {
        _checkKind(kind);
        Gate storage gate = _policyStorage().gate;
        if (_hasBit(gate.enabledKinds, kind)) revert PlatformPolicy_TeeAlreadyEnabled(kind);
        gate.enabledKinds |= _bit(kind);
        (uint64 number, uint40 previousBlock) = _nextEvent();
        _chain(abi.encode(EnableTee.selector, kind, msg.sender, number, previousBlock), 3);
    }

    /// @inheritdoc IPlatformPolicy
    function acceptTcb(uint8 kind, uint16 statuses) external onlyGovernor {
        _checkKind(kind);
        if (statuses == 0 || statuses & ~TcbStatus.ACCEPTABLE != 0) {
            revert PlatformPolicy_UnacceptableTcb(kind, statuses);
        }
        uint16 accepted = _acceptedTcb(kind);
        _setTcb(AcceptTcb.selector, kind, accepted, accepted | statuses);
    }

    /// @inheritdoc IPlatformPolicy
    function allowDevice(uint8 kind, bytes32 deviceId) external onlyGovernor {
        _checkKind(kind);
        PolicyStorage storage $ = _policyStorage();
        if ($.devices[kind][deviceId]) revert PlatformPolicy_DeviceAlreadyAllowed(kind, deviceId);
        $.devices[kind][deviceId] = true;
        (uint64 number, uint40 previousBlock) = _nextEvent();
        _chain(abi.encode(AllowDevice.selector, kind, deviceId, msg.sender, number, previousBlock), 4);
    }

    /// @inheritdoc IPlatformPolicy
    function unrestrictDevices(uint8 kind) external onlyGovernor {
        _checkKind(kind);
        Gate storage gate = _policyStorage().gate;
        if (!_hasBit(gate.restrictedKinds, kind)) revert PlatformPolicy_DevicesNotRestricted(kind);
        gate.restrictedKinds &= ~_bit(kind);
        (uint64 number, uint40 previousBlock) = _nextEvent();
        _chain(abi.encode(UnrestrictDevices.selector, kind, msg.sender, number, previousBlock), 3);
    }

    /// @inheritdoc IPlatformPolicy
    function allowKmsImage(
        bytes calldata image,
        string calldata description
    ) external onlyGovernor returns (ImageId imageId) {
        _checkText(description);
        (bytes32 id, uint8 kind, uint32 mask) = ImageCodec.check(image, ImageCodec.SEALED);
        imageId = ImageId.wrap(id);
        Entry storage entry = _policyStorage().kmsImages[imageId];
        if (entry.state == EntryState.Allowed) revert PlatformPolicy_KmsImageAlreadyAllowed(imageId);
        _allow(entry, kind, mask);
        (uint64 number, uint40 previousBlock) = _nextEvent();
        bytes memory data = abi.encode(image, description, number, previousBlock);
        _chain(abi.encodePacked(AllowKmsImage.selector, id, _topic(msg.sender), data), 3);
    }

    /// @inheritdoc IPlatformPolicy
    function publishKmsIdentity(KmsIdentity calldata identity) external onlyGovernor returns (bytes32 identityId) {
        if (
            identity.environmentKey == bytes32(0) ||
            identity.receiptSigner == address(0) ||
            identity.evidenceHash == bytes32(0)
        ) {
            revert PlatformPolicy_IncompleteIdentity(
                identity.environmentKey,
                identity.receiptSigner,
                identity.evidenceHash
            );
        }
        identityId = keccak256(abi.encode(identity));
        PolicyStorage storage $ = _policyStorage();
        if ($.kmsIdentities[identityId] == EntryState.Allowed) {
            revert PlatformPolicy_IdentityAlreadyPublished(identityId);
        }
        $.kmsIdentities[identityId] = EntryState.Allowed;
        (uint64 number, uint40 previousBlock) = _nextEvent();
        _chain(abi.encode(PublishKmsIdentity.selector, identityId, msg.sender, identity, number, previousBlock), 3);
    }

    /// @inheritdoc IPlatformPolicy
    function setGatewayAppId(string calldata newGatewayAppId) external onlyGovernor {
        _checkText(newGatewayAppId);
        PolicyStorage storage $ = _policyStorage();
        string memory previous = $.gatewayAppId;
        if (keccak256(bytes(previous)) == keccak256(bytes(newGatewayAppId))) revert PlatformPolicy_Unchanged();
        $.gatewayAppId = newGatewayAppId;
        (uint64 number, uint40 previousBlock) = _nextEvent();
        bytes memory data = abi.encode(previous, newGatewayAppId, number, previousBlock);
        _chain(abi.encodePacked(SetGatewayAppId.selector, _topic(msg.sender), data), 2);
    }

    /// @inheritdoc IPlatformPolicy
    function setAppImplementation(address newAppImplementation) external onlyGovernor {
        PolicyStorage storage $ = _policyStorage();
        address previous = $.appImplementation;
        if (previous == newAppImplementation) revert PlatformPolicy_Unchanged();
        $.appImplementation = newAppImplementation;
        (uint64 number, uint40 previousBlock) = _nextEvent();
        _chain(
            abi.encode(
                SetAppImplementation.selector,
                msg.sender,
                newAppImplementation,
                previous,
                number,
                previousBlock
            ),
            3
        );
    }

    /// @inheritdoc IPlatformPolicy
    function extendPause(uint256 duration) external onlyGovernor {
        Gate storage gate = _policyStorage().gate;
        uint40 previous = gate.pausedUntil;
        if (block.timestamp >= previous) revert PlatformPolicy_NotPaused();
        uint40 until = _pauseEnd(duration);
        if (until <= previous) revert PlatformPolicy_Unchanged();
        gate.pausedUntil = until;
        (uint64 number, uint40 previousBlock) = _nextEvent();
        _chain(abi.encode(ExtendPause.selector, msg.sender, previous, until, number, previousBlock), 2);
    }

    /// @inheritdoc IPlatformPolicy
    function resumeRelease() external onlyGovernor {
        Gate storage gate = _policyStorage().gate;
        uint40 previous = gate.pausedUntil;
        if (block.timestamp >= previous) revert PlatformPolicy_NotPaused();
        gate.pausedUntil = uint40(block.timestamp);
        (uint64 number, uint40 previousBlock) = _nextEvent();
        _chain(abi.encode(ResumeRelease.selector, msg.sender, previous, number, previousBlock), 2);
    }

    /* GUARDIAN OR GOVERNOR: tighten */

    /// @inheritdoc IPlatformPolicy
    function revokePlatform(PlatformId platformId, string calldata reason) external onlyGuardianOrGovernor {
        Entry storage entry = _policyStorage().platforms[platformId];
        if (entry.state != EntryState.Allowed) revert PlatformPolicy_PlatformNotAllowed(platformId);
        _revoke(entry);
        _emitRevocation(RevokePlatform.selector, PlatformId.unwrap(platformId), reason);
    }

    /// @inheritdoc IPlatformPolicy
    function suspendTee(uint8 kind, string calldata reason) external onlyGuardianOrGovernor {
        _checkKind(kind);
        Gate storage gate = _policyStorage().gate;
        if (!_hasBit(gate.enabledKinds, kind)) revert PlatformPolicy_TeeNotEnabled(kind);
        gate.enabledKinds &= ~_bit(kind);
        _emitRevocation(SuspendTee.selector, bytes32(uint256(kind)), reason);
    }

    /// @inheritdoc IPlatformPolicy
    function rejectTcb(uint8 kind, uint16 statuses) external onlyGuardianOrGovernor {
        _checkKind(kind);
        uint16 accepted = _acceptedTcb(kind);
        _setTcb(RejectTcb.selector, kind, accepted, accepted & ~statuses);
    }

    /// @inheritdoc IPlatformPolicy
    function revokeDevice(uint8 kind, bytes32 deviceId) external onlyGuardianOrGovernor {
        _checkKind(kind);
        PolicyStorage storage $ = _policyStorage();
        if (!_hasBit($.gate.restrictedKinds, kind)) revert PlatformPolicy_DevicesNotRestricted(kind);
        if (!$.devices[kind][deviceId]) revert PlatformPolicy_DeviceNotAllowed(kind, deviceId);
        delete $.devices[kind][deviceId];
        (uint64 number, uint40 previousBlock) = _nextEvent();
        _chain(abi.encode(RevokeDevice.selector, kind, deviceId, msg.sender, number, previousBlock), 4);
    }

    /// @inheritdoc IPlatformPolicy
    function restrictDevices(uint8 kind) external onlyGuardianOrGovernor {
        _checkKind(kind);
        Gate storage gate = _policyStorage().gate;
        if (_hasBit(gate.restrictedKinds, kind)) revert PlatformPolicy_DevicesAlreadyRestricted(kind);
        gate.restrictedKinds |= _bit(kind);
        (uint64 number, uint40 previousBlock) = _nextEvent();
        _chain(abi.encode(RestrictDevices.selector, kind, msg.sender, number, previousBlock), 3);
    }

    /// @inheritdoc IPlatformPolicy
    function revokeKmsImage(ImageId imageId, string calldata reason) external onlyGuardianOrGovernor {
        Entry storage entry = _policyStorage().kmsImages[imageId];
        if (entry.state != EntryState.Allowed) revert PlatformPolicy_KmsImageNotAllowed(imageId);
        _revoke(entry);
        _emitRevocation(RevokeKmsImage.selector, ImageId.unwrap(imageId), reason);
    }

    /// @inheritdoc IPlatformPolicy
    function revokeKmsIdentity(bytes32 identityId, string calldata reason) external onlyGuardianOrGovernor {
        PolicyStorage storage $ = _policyStorage();
        if ($.kmsIdentities[identityId] != EntryState.Allowed) revert PlatformPolicy_IdentityNotPublished(identityId);
        $.kmsIdentities[identityId] = EntryState.Revoked;
        _emitRevocation(RevokeKmsIdentity.selector, identityId, reason);
    }

    /// @inheritdoc IPlatformPolicy
    function pauseRelease(uint256 duration, string calldata reason) external onlyGuardianOrGovernor {
        _checkText(reason);
        Gate storage gate = _policyStorage().gate;
        if (block.timestamp < gate.pausedUntil) revert PlatformPolicy_AlreadyPaused(gate.pausedUntil);
        uint40 until = _pauseEnd(duration);
        gate.pausedUntil = until;
        (uint64 number, uint40 previousBlock) = _nextEvent();
        bytes memory data = abi.encode(until, reason, number, previousBlock);
        _chain(abi.encodePacked(PauseRelease.selector, _topic(msg.sender), data), 2);
    }

    /* VIEWS */

    /// @inheritdoc IPlatformPolicy
    function decide(
        uint8 kind,
        PlatformId platformId,
        bytes32 deviceId,
        uint8 tcbStatus
    ) external view returns (uint256) {
        return uint256(_decide(kind, platformId, deviceId, tcbStatus));
    }

    /// @inheritdoc IPlatformPolicy
    function authorizeKms(
        ImageId imageId,
        PlatformId platformId,
        bytes32 deviceId,
        uint8 tcbStatus
    ) external view returns (Decision) {
        Entry storage entry = _policyStorage().kmsImages[imageId];
        if (entry.state != EntryState.Allowed) return Decision.KmsImageNotAllowed;
        return _decide(entry.kind, platformId, deviceId, tcbStatus);
    }

    /// @inheritdoc IPlatformPolicy
    function platform(PlatformId platformId) external view returns (Entry memory) {
        return _policyStorage().platforms[platformId];
    }

    /// @inheritdoc IPlatformPolicy
    function kmsImage(ImageId imageId) external view returns (Entry memory) {
        return _policyStorage().kmsImages[imageId];
    }

    /// @inheritdoc IPlatformPolicy
    function kmsIdentity(bytes32 identityId) external view returns (EntryState) {
        return _policyStorage().kmsIdentities[identityId];
    }

    /// @inheritdoc IPlatformPolicy
    function teeRules(uint8 kind) external view returns (TeeRules memory) {
        if (!TeeKind.isKnown(kind)) return TeeRules({enabled: false, devicesRestricted: false, acceptedTcb: 0});
        Gate storage gate = _policyStorage().gate;
        return
            TeeRules({
                enabled: _hasBit(gate.enabledKinds, kind),
                devicesRestricted: _hasBit(gate.restrictedKinds, kind),
                acceptedTcb: _acceptedTcb(kind)
            });
    }

    /// @inheritdoc IPlatformPolicy
    function isDeviceListed(uint8 kind, bytes32 deviceId) external view returns (bool) {
        return _policyStorage().devices[kind][deviceId];
    }

    /// @inheritdoc IPlatformPolicy
    function releasePausedUntil() external view returns (uint40) {
        return _policyStorage().gate.pausedUntil;
    }

    /// @inheritdoc IPlatformPolicy
    function gatewayAppId() external view returns (string memory) {
        return _policyStorage().gatewayAppId;
    }

    /// @inheritdoc IPlatformPolicy
    function appImplementation() external view returns (address) {
        return _policyStorage().appImplementation;
    }

    /// @inheritdoc IPlatformPolicy
    function policyVersion() external view returns (uint64) {
        return _policyStorage().policyVersion;
    }

    /// @inheritdoc IPlatformPolicy
    function lastUpdateBlock() external view returns (uint40) {
        return _policyStorage().lastUpdateBlock;
    }

    /// @inheritdoc IPlatformPolicy
    function historyHead() external view returns (bytes32) {
        return _policyStorage().historyHead;
    }

    /// @inheritdoc IGoverned
    function version() external pure virtual returns (string memory) {
        return "1.0.0";
    }

    /// @inheritdoc Governed
    function supportsInterface(bytes4 interfaceId) public view virtual override returns (bool) {
        return interfaceId == type(IPlatformPolicy).interfaceId || super.supportsInterface(interfaceId);
    }

    /* RULES */

    function _decide(
        uint8 kind,
        PlatformId platformId,
        bytes32 deviceId,
        uint8 tcbStatus
    ) private view returns (Decision) {
        PolicyStorage storage $ = _policyStorage();
        Gate storage gate = $.gate;
        if (block.timestamp < gate.pausedUntil) return Decision.ReleasePaused;
        if (!_hasBit(gate.enabledKinds, kind)) return Decision.TeeSuspended;
        if (!TcbStatus.isIn(tcbStatus, _tcbOf(gate.acceptedTcb, kind))) return Decision.TcbNotAccepted;
        Entry storage entry = $.platforms[platformId];
        if (entry.state != EntryState.Allowed) return Decision.PlatformNotAllowed;
        if (entry.kind != kind) return Decision.PlatformKindMismatch;
        if (_hasBit(gate.restrictedKinds, kind) && !$.devices[kind][deviceId]) return Decision.DeviceNotAllowed;
        return Decision.Allowed;
    }

    function _allow(Entry storage entry, uint8 kind, uint32 mask) private {
        entry.state = EntryState.Allowed;
        entry.kind = kind;
        entry.mask = mask;
        entry.since = uint40(block.timestamp);
    }

    function _revoke(Entry storage entry) private {
        entry.state = EntryState.Revoked;
        entry.since = uint40(block.timestamp);
    }

    function _setTcb(bytes32 topic0, uint8 kind, uint16 previous, uint16 accepted) private {
        if (accepted == previous) revert PlatformPolicy_TcbUnchanged(kind, accepted);
        Gate storage gate = _policyStorage().gate;
        gate.acceptedTcb = gate.acceptedTcb ^ (uint128(previous ^ accepted) << (kind << 4));
        (uint64 number, uint40 previousBlock) = _nextEvent();
        _chain(abi.encode(topic0, kind, msg.sender, previous, accepted, number, previousBlock), 3);
    }

    /// @dev The shape of every revocation with a reason: the entry's key, the actor, the reason.
    function _emitRevocation(bytes32 topic0, bytes32 key, string calldata reason) private {
        _checkText(reason);
        (uint64 number, uint40 previousBlock) = _nextEvent();
        bytes memory data = abi.encode(reason, number, previousBlock);
        _chain(abi.encodePacked(topic0, key, _topic(msg.sender), data), 3);
    }

    /// @dev Takes the next number and remembers this block for the event after.
    function _nextEvent() private returns (uint64 number, uint40 previousBlock) {
        PolicyStorage storage $ = _policyStorage();
        number = ++$.policyVersion;
        previousBlock = $.lastUpdateBlock;
        $.lastUpdateBlock = uint40(block.number);
    }

    function _chain(bytes memory record, uint256 topics) private {
        PolicyStorage storage $ = _policyStorage();
        $.historyHead = History.append($.historyHead, record, topics);
    }

    function _pauseEnd(uint256 duration) private view returns (uint40) {
        if (duration == 0 || duration > MAX_PAUSE) revert PlatformPolicy_BadPause(duration, MAX_PAUSE);
        return uint40(block.timestamp + duration);
    }

    function _checkKind(uint8 kind) private pure {
        if (!TeeKind.isKnown(kind)) revert PlatformPolicy_UnknownKind(kind);
    }

    function _checkText(string calldata text) private pure {
        if (bytes(text).length > MAX_TEXT) revert PlatformPolicy_TextTooLong(bytes(text).length, MAX_TEXT);
    }

    function _acceptedTcb(uint8 kind) private view returns (uint16) {
        return _tcbOf(_policyStorage().gate.acceptedTcb, kind);
    }

    function _tcbOf(uint128 acceptedTcb, uint8 kind) private pure returns (uint16) {
        return uint16(acceptedTcb >> (uint256(kind) << 4));
    }

    function _bit(uint8 kind) private pure returns (uint8) {
        return uint8(1 << kind);
    }

    function _hasBit(uint8 kinds, uint8 kind) private pure returns (bool) {
        return (uint256(kinds) >> kind) & 1 == 1;
    }

    function _topic(address actor) private pure returns (bytes32) {
        return bytes32(uint256(uint160(actor)));
    }

    function _policyStorage() private pure returns (PolicyStorage storage $) {
        assembly {
            $.slot := POLICY_STORAGE
        }
    }
}
