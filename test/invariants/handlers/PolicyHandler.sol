// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IPlatformPolicy} from "../../../contracts/policy/IPlatformPolicy.sol";
import {ImageId, PlatformId} from "../../../contracts/types/Ids.sol";
import {TestImages} from "../../helpers/TestImages.sol";
import {vm} from "../../helpers/Vm.sol";
import {World} from "../World.sol";
import {Handler} from "./Handler.sol";

/**
 * @title PolicyHandler
 * @notice All that governor and guardian do to the policy. Tightening is rarer than loosening, so that most of the time most machines are acceptable and a wrong
 * answer has something to show on.
 */
abstract contract PolicyHandler is Handler {
    address private immutable GOVERNOR;
    address private immutable GUARDIAN;

    constructor(World world) Handler(world) {
        GOVERNOR = world.deployed().governor;
        GUARDIAN = world.deployed().guardian;
    }

    /// @dev Lets the policy accept every kind, the usual TCB statuses and the pool's platforms; called once, before the campaign.
    function open() external {
        for (uint8 kind = 1; kind <= 4; ++kind) {
            _policyCall("open", GOVERNOR, abi.encodeCall(POLICY.enableTee, (kind)));
            _policyCall("open", GOVERNOR, abi.encodeCall(POLICY.acceptTcb, (kind, uint16(0x0083))));
            _policyCall("open", GOVERNOR, abi.encodeCall(POLICY.allowPlatform, (TestImages.platform(kind), "")));
        }
    }

    /* LOOSEN */

    function allowPlatform(uint256 seed) external {
        bytes memory platform = TestImages.platform(_kind(seed));
        _policyCall("allowPlatform", _governor(seed), abi.encodeCall(POLICY.allowPlatform, (platform, "again")));
    }

    function enableTee(uint256 seed) external {
        _policyCall("enableTee", _governor(seed), abi.encodeCall(POLICY.enableTee, (_kind(seed))));
    }

    function acceptTcb(uint256 seed) external {
        uint16 statuses = uint16(_draw(seed, "statuses", 1024));
        if (_oneIn(2, seed)) statuses &= 0x03bf;
        _policyCall("acceptTcb", _governor(seed), abi.encodeCall(POLICY.acceptTcb, (_kind(seed), statuses)));
    }

    function allowDevice(uint256 seed) external {
        bytes memory call = abi.encodeCall(POLICY.allowDevice, (_kind(seed), _device(seed)));
        _policyCall("allowDevice", _governor(seed), call);
    }

    function unrestrictDevices(uint256 seed) external {
        _policyCall("unrestrictDevices", _governor(seed), abi.encodeCall(POLICY.unrestrictDevices, (_kind(seed))));
    }

    function allowKmsImage(uint256 seed) external {
        _policyCall("allowKmsImage", _governor(seed), abi.encodeCall(POLICY.allowKmsImage, (_image(seed), "kms")));
    }

    function publishIdentity(uint256 seed) external {
        _policyCall("publishIdentity", _governor(seed), abi.encodeCall(POLICY.publishKmsIdentity, (_identity(seed))));
    }

    function setDstackFacts(uint256 seed) external {
        if (_oneIn(2, seed)) {
            string memory gateway =
                _oneIn(3, seed) ? "one gateway" : "another gateway, with a longer name than fits a slot";
            _policyCall("setGatewayAppId", _governor(seed), abi.encodeCall(POLICY.setGatewayAppId, (gateway)));
            return;
        }
        address app = _anyone(seed);
        _policyCall("setAppImplementation", _governor(seed), abi.encodeCall(POLICY.setAppImplementation, (app)));
    }

    function extendPause(uint256 seed) external {
        if (WORLD.pausedUntil() <= vm.getBlockTimestamp()) {
            _policyCall("pauseRelease", GUARDIAN, abi.encodeCall(POLICY.pauseRelease, (1 hours, "incident")));
        }
        uint256 duration = 1 + _draw(seed, "duration", 15 days);
        _policyCall("extendPause", _governor(seed), abi.encodeCall(POLICY.extendPause, (duration)));
    }

    function resumeRelease(uint256 seed) external {
        _policyCall("resumeRelease", _governor(seed), abi.encodeCall(POLICY.resumeRelease, ()));
    }

    /* TIGHTEN */

    function revokePlatform(uint256 seed) external {
        if (!_oneIn(3, seed)) return;
        PlatformId platformId = PlatformId.wrap(TestImages.platformId(_kind(seed)));
        _policyCall("revokePlatform", _guard(seed), abi.encodeCall(POLICY.revokePlatform, (platformId, "broken")));
    }

    function suspendTee(uint256 seed) external {
        if (!_oneIn(3, seed)) return;
        _policyCall("suspendTee", _guard(seed), abi.encodeCall(POLICY.suspendTee, (_kind(seed), "broken")));
    }

    function rejectTcb(uint256 seed) external {
        if (!_oneIn(3, seed)) return;
        uint16 statuses = uint16(_draw(seed, "statuses", 1 << 16));
        _policyCall("rejectTcb", _guard(seed), abi.encodeCall(POLICY.rejectTcb, (_kind(seed), statuses)));
    }

    /// @dev Of a kind whose devices are restricted, which it brings about if it must.
    function revokeDevice(uint256 seed) external {
        if (!_oneIn(2, seed)) return;
        uint8 kind = _kind(seed);
        if (!WORLD.kindFacts(kind).restricted) {
            _policyCall("restrictDevices", GUARDIAN, abi.encodeCall(POLICY.restrictDevices, (kind)));
        }
        bytes memory call = abi.encodeCall(POLICY.revokeDevice, (kind, _device(seed)));
        _policyCall("revokeDevice", _guard(seed), call);
    }

    function restrictDevices(uint256 seed) external {
        if (!_oneIn(2, seed)) return;
        _policyCall("restrictDevices", _guard(seed), abi.encodeCall(POLICY.restrictDevices, (_kind(seed))));
    }

    function revokeKmsImage(uint256 seed) external {
        ImageId imageId = ImageId.wrap(keccak256(_image(seed)));
        _policyCall("revokeKmsImage", _guard(seed), abi.encodeCall(POLICY.revokeKmsImage, (imageId, "stolen")));
    }

    function revokeIdentity(uint256 seed) external {
        bytes32 identityId = keccak256(abi.encode(_identity(seed)));
        bytes memory call = abi.encodeCall(POLICY.revokeKmsIdentity, (identityId, "stolen"));
        _policyCall("revokeIdentity", _guard(seed), call);
    }

    function pauseRelease(uint256 seed) external {
        if (!_oneIn(3, seed)) return;
        uint256 duration = 1 + _draw(seed, "duration", _oneIn(6, seed) ? 15 days : 1 days);
        _policyCall("pauseRelease", _guard(seed), abi.encodeCall(POLICY.pauseRelease, (duration, "incident")));
    }

    /* CHOICES */

    function _governor(uint256 seed) private view returns (address) {
        return _draw(seed, "impostor", 12) == 0 ? _anyone(seed) : GOVERNOR;
    }

    /// @dev Guardian or governor.
    function _guard(uint256 seed) private view returns (address) {
        return _draw(seed, "guard", 2) == 0 ? GUARDIAN : _governor(seed);
    }

    function _device(uint256 seed) private pure returns (bytes32) {
        return TestImages.device(_draw(seed, "device", 3));
    }

    function _identity(uint256 seed) private pure returns (IPlatformPolicy.KmsIdentity memory) {
        uint16 epoch = uint16(_draw(seed, "epoch", 3));
        return IPlatformPolicy.KmsIdentity(epoch, keccak256("environment"), address(0xbeef), keccak256("evidence"));
    }
}
