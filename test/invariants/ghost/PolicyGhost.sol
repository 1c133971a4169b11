// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IPlatformPolicy} from "../../../contracts/policy/IPlatformPolicy.sol";
import {Vm, vm} from "../../helpers/Vm.sol";
import {Findings} from "./Findings.sol";

/**
 * @title PolicyGhost
 * @notice What the policy must say, remembered from its logs alone, and whether each log came from someone who may cause it.
 */
abstract contract PolicyGhost is Findings {
    struct KindFacts {
        bool enabled;
        bool restricted;
        uint256 accepted;
    }

    uint256 internal constant LONGEST_PAUSE = 14 days;

    bytes32 public policyHead;
    uint256 public policyEvents;
    uint256 public policyBlock;
    uint256 public pausedUntil;
    mapping(uint8 kind => KindFacts) internal _kinds;
    /// @dev The kind of an allowed platform; 0 for one that is not allowed.
    mapping(bytes32 platformId => uint8 kind) public platformKind;
    mapping(uint8 kind => mapping(bytes32 deviceId => bool)) internal _policyDevices;

    function kindFacts(uint8 kind) external view returns (KindFacts memory) {
        return _kinds[kind];
    }

    /// @dev Whether the policy lets a machine of this description have any service's keys.
    function _policyAllows(
        uint8 kind,
        bytes32 platformId,
        bytes32 deviceId,
        uint8 tcbStatus
    ) internal view returns (bool) {
        KindFacts storage rules = _kinds[kind];
        if (block.timestamp < pausedUntil || !rules.enabled) return false;
        if (platformKind[platformId] != kind || rules.accepted & (1 << tcbStatus) == 0) return false;
        return !rules.restricted || _policyDevices[kind][deviceId];
    }

    /// @dev Takes in one log of the policy, emitted by a call whose sender governs or guards the policy or neither.
    function _absorbPolicy(bool governs, bool guards, Vm.Log memory log) internal {
        _expect(governs || (guards && !_isGrant(log.topics[0])), 4, "the policy changed in the wrong lane");
        uint256 place = _versionAt(log.topics[0], log.data);
        _expect(_word(log.data, place) == policyEvents + 1, 3, "a policy version was skipped or repeated");
        _expect(_word(log.data, place + 1) == policyBlock, 3, "the policy's previousBlock is wrong");
        ++policyEvents;
        policyBlock = vm.getBlockNumber();
        policyHead = _fold(policyHead, log.topics, log.data);
        _remember(log);
    }

    function _remember(Vm.Log memory log) private {
        bytes32 topic0 = log.topics[0];
        uint8 kind = uint8(uint256(log.topics[1]));
        KindFacts storage rules = _kinds[kind];
        if (topic0 == IPlatformPolicy.AllowPlatform.selector) {
            (bytes memory image, , , , ) = abi.decode(log.data, (bytes, string, uint40, uint64, uint40));
            platformKind[log.topics[1]] = uint8(image[1]);
        } else if (topic0 == IPlatformPolicy.RevokePlatform.selector) {
            delete platformKind[log.topics[1]];
        } else if (topic0 == IPlatformPolicy.EnableTee.selector) {
            rules.enabled = true;
        } else if (topic0 == IPlatformPolicy.SuspendTee.selector) {
            rules.enabled = false;
        } else if (topic0 == IPlatformPolicy.AcceptTcb.selector || topic0 == IPlatformPolicy.RejectTcb.selector) {
            bool grows = topic0 == IPlatformPolicy.AcceptTcb.selector;
            (uint256 previous, uint256 accepted) = (_word(log.data, 0), _word(log.data, 1));
            _expect(previous == rules.accepted, 3, "a TCB event with a wrong previous set");
            _expect(previous & accepted == (grows ? previous : accepted), 4, "a TCB set changed in both directions");
            rules.accepted = accepted;
        } else if (topic0 == IPlatformPolicy.AllowDevice.selector) {
            _policyDevices[kind][log.topics[2]] = true;
        } else if (topic0 == IPlatformPolicy.RevokeDevice.selector) {
            _policyDevices[kind][log.topics[2]] = false;
        } else if (topic0 == IPlatformPolicy.RestrictDevices.selector) {
            rules.restricted = true;
        } else if (topic0 == IPlatformPolicy.UnrestrictDevices.selector) {
            rules.restricted = false;
        } else {
            _rememberPause(topic0, log.data);
        }
    }

    function _rememberPause(bytes32 topic0, bytes memory data) private {
        uint256 time = block.timestamp;
        if (topic0 == IPlatformPolicy.PauseRelease.selector) {
            _expect(time >= pausedUntil, 5, "a pause that is in force was started again");
            pausedUntil = _word(data, 0);
        } else if (topic0 == IPlatformPolicy.ExtendPause.selector) {
            pausedUntil = _word(data, 1);
        } else if (topic0 == IPlatformPolicy.ResumeRelease.selector) {
            pausedUntil = _word(data, 1);
            _expect(pausedUntil == time, 5, "a pause was lifted at another time than now");
        }
        _expect(pausedUntil <= time + LONGEST_PAUSE, 5, "a pause that is too long");
    }

    /// @dev The word of `data` that holds `policyVersion`; events with static fields end with it and `previousBlock`.
    function _versionAt(bytes32 topic0, bytes memory data) private pure returns (uint256) {
        if (topic0 == IPlatformPolicy.AllowPlatform.selector || topic0 == IPlatformPolicy.AllowKmsImage.selector)
            return 3;
        if (
            topic0 == IPlatformPolicy.SetGatewayAppId.selector ||
            topic0 == IPlatformPolicy.PauseRelease.selector ||
            topic0 == IPlatformPolicy.RevokePlatform.selector ||
            topic0 == IPlatformPolicy.RevokeKmsImage.selector
        ) return 2;
        if (topic0 == IPlatformPolicy.SuspendTee.selector || topic0 == IPlatformPolicy.RevokeKmsIdentity.selector)
            return 1;
        return data.length / 32 - 2;
    }

    /// @dev What loosens, and so is the governor's alone.
    function _isGrant(bytes32 topic0) private pure returns (bool) {
        return
            topic0 == IPlatformPolicy.AllowPlatform.selector ||
            topic0 == IPlatformPolicy.EnableTee.selector ||
            topic0 == IPlatformPolicy.AcceptTcb.selector ||
            topic0 == IPlatformPolicy.AllowDevice.selector ||
            topic0 == IPlatformPolicy.UnrestrictDevices.selector ||
            topic0 == IPlatformPolicy.AllowKmsImage.selector ||
            topic0 == IPlatformPolicy.PublishKmsIdentity.selector ||
            topic0 == IPlatformPolicy.SetGatewayAppId.selector ||
            topic0 == IPlatformPolicy.SetAppImplementation.selector ||
            topic0 == IPlatformPolicy.ExtendPause.selector ||
            topic0 == IPlatformPolicy.ResumeRelease.selector;
    }
}
