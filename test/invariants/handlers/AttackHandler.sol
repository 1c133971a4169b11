// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IPlatformPolicy} from "../../../contracts/policy/IPlatformPolicy.sol";
import {IKmsRegistry} from "../../../contracts/registry/IKmsRegistry.sol";
import {ImageId, ServiceId} from "../../../contracts/types/Ids.sol";
import {Suite} from "../../helpers/Deployment.sol";
import {TestImages} from "../../helpers/TestImages.sol";
import {vm} from "../../helpers/Vm.sol";
import {World} from "../World.sol";
import {Handler} from "./Handler.sol";

/**
 * @title AttackHandler
 * @notice Calls that must not loosen anything, by accounts that do not govern: well-formed calls of every guarded function, calls of another one's service, and raw
 * selectors with any bytes behind them, to proxies and implementations alike. World judges what comes of them.
 */
abstract contract AttackHandler is Handler {
    bytes32 private constant GOVERNOR_ROLE = keccak256("keystead.GOVERNOR");

    constructor(World world) Handler(world) {}

    /// @dev The governor's own functions, each of them: a refusal is cheap, and the one that is not refused must not wait for chance. Half the time by the guardian,
    /// who holds a role already.
    function grant(uint256 seed) external {
        address from = _oneIn(2, seed) ? _unlessGovernor(WORLD.deployed().guardian) : _outsider(seed);
        bytes[11] memory calls = [
            abi.encodeCall(POLICY.allowPlatform, (TestImages.platform(_kind(seed)), "mine")),
            abi.encodeCall(POLICY.enableTee, (_kind(seed))),
            abi.encodeCall(POLICY.acceptTcb, (_kind(seed), uint16(0x03bf))),
            abi.encodeCall(POLICY.allowDevice, (_kind(seed), TestImages.device(_draw(seed, "device", 3)))),
            abi.encodeCall(POLICY.unrestrictDevices, (_kind(seed))),
            abi.encodeCall(POLICY.allowKmsImage, (_image(seed), "mine")),
            abi.encodeCall(
                POLICY.publishKmsIdentity,
                (IPlatformPolicy.KmsIdentity(9, keccak256("mine"), address(1), keccak256("mine")))
            ),
            abi.encodeCall(POLICY.setGatewayAppId, ("mine")),
            abi.encodeCall(POLICY.setAppImplementation, (address(1))),
            abi.encodeCall(POLICY.extendPause, (14 days)),
            abi.encodeCall(POLICY.resumeRelease, ())
        ];
        for (uint256 i = 0; i < calls.length; ++i) _policyCall("attack: grant", from, calls[i]);
    }

    /// @dev Upgrades, roles, initializers, on proxies and implementations.
    function seize(uint256 seed) external {
        Suite memory suite = WORLD.deployed();
        address from = _outsider(seed);
        bytes[7] memory calls = [
            abi.encodeCall(REGISTRY.upgradeTo, (suite.registryCode[_draw(seed, "code", 2)])),
            abi.encodeCall(POLICY.upgradeToAndCall, (suite.policyCode[_draw(seed, "code", 2)], "")),
            abi.encodeCall(REGISTRY.grantRole, (GOVERNOR_ROLE, _anyone(seed))),
            abi.encodeCall(REGISTRY.revokeRole, (GOVERNOR_ROLE, suite.governor)),
            abi.encodeCall(REGISTRY.renounceRole, (GOVERNOR_ROLE, from)),
            abi.encodeCall(REGISTRY.initialize, (from)),
            abi.encodeCall(POLICY.initialize, (from, from))
        ];
        address[4] memory targets = [address(REGISTRY), address(POLICY), suite.registryCode[0], suite.policyCode[0]];
        bytes memory call = calls[_draw(seed, "call", calls.length)];
        WORLD.send("attack: seize", from, targets[_draw(seed, "target", targets.length)], call);
    }

    /// @dev Someone else's service: by its guardian, a former admin, an admin of another one, or a stranger.
    function meddle(uint256 seed) external {
        bytes20 raw = _serviceIdAt(seed);
        address from = _outsider(seed);
        if (from == WORLD.serviceFacts(raw).admin) return;
        ServiceId id = ServiceId.wrap(raw);
        IKmsRegistry.NewImage[] memory images = new IKmsRegistry.NewImage[](1);
        images[0] = IKmsRegistry.NewImage(_image(seed), "mine");
        ImageId imageId = ImageId.wrap(keccak256(images[0].image));
        bytes[13] memory calls = [
            abi.encodeCall(REGISTRY.addImageToService, (id, images[0].image, "mine")),
            abi.encodeCall(REGISTRY.addImagesToService, (id, images)),
            abi.encodeCall(REGISTRY.retireImageFromService, (id, imageId, uint40(vm.getBlockTimestamp() + 1))),
            abi.encodeCall(REGISTRY.rotateServiceKey, (id)),
            abi.encodeCall(REGISTRY.publishSealedSecrets, (id, "mine", "mine")),
            abi.encodeCall(REGISTRY.extendNoticePeriod, (id, uint24(180 days))),
            abi.encodeCall(REGISTRY.setServiceGuardian, (id, from)),
            abi.encodeCall(REGISTRY.setDevice, (id, TestImages.device(_draw(seed, "device", 3)), true)),
            abi.encodeCall(REGISTRY.setRequireUpToDateTcb, (id, false)),
            abi.encodeCall(REGISTRY.transferServiceAdmin, (id, from)),
            abi.encodeCall(REGISTRY.acceptServiceAdmin, (id)),
            abi.encodeCall(REGISTRY.restrictServiceDevices, (id, _oneDevice(seed))),
            abi.encodeCall(REGISTRY.withdrawPendingSecrets, (id, "mine"))
        ];
        bytes memory call = calls[_draw(seed, "call", calls.length)];
        if (_oneIn(4, seed)) {
            bytes[] memory several = new bytes[](1);
            several[0] = call;
            call = abi.encodeCall(REGISTRY.multicall, (several));
        }
        _registryCall("attack: meddle", from, call);
    }

    /// @dev Recreating a service that exists, by its creator or another.
    function recreate(uint256 seed, uint256 salt) external {
        if (WORLD.services() >= WORLD.MAX_SERVICES()) return;
        IKmsRegistry.ServiceConfig memory config;
        config.admin = _outsider(seed);
        bytes memory call = abi.encodeCall(REGISTRY.createService, (config, bytes32(salt)));
        if (_registryCall("attack: recreate", config.admin, call)) {
            _registryCall("attack: recreate", config.admin, call);
        }
    }

    /// @dev Any function of either contract, by its selector, with ids that exist and any bytes behind them.
    function rawCall(uint256 seed, bytes calldata tail) external {
        bytes memory data = abi.encodePacked(
            _selector(seed),
            bytes32(_serviceIdAt(seed)),
            keccak256(_image(seed)),
            tail
        );
        address target = _draw(seed, "target", 2) == 0 ? address(REGISTRY) : address(POLICY);
        WORLD.send("attack: raw", _outsider(seed), target, data);
    }

    /// @dev Anything at all.
    function noise(uint256 seed, bytes calldata data) external {
        address target = _draw(seed, "target", 2) == 0 ? address(REGISTRY) : address(POLICY);
        WORLD.send("attack: noise", _outsider(seed), target, data);
    }

    /// @dev Any account that does not govern; the guardian is among them.
    function _outsider(uint256 seed) private view returns (address) {
        return _unlessGovernor(_anyone(seed));
    }

    function _unlessGovernor(address account) private view returns (address) {
        bool governs = REGISTRY.hasRole(GOVERNOR_ROLE, account) || POLICY.hasRole(GOVERNOR_ROLE, account);
        return governs ? WORLD.accounts(4) : account;
    }

    function _oneDevice(uint256 seed) private pure returns (bytes32[] memory devices) {
        devices = new bytes32[](1);
        devices[0] = TestImages.device(_draw(seed, "device", 3));
    }

    function _selector(uint256 seed) private pure returns (bytes4) {
        bytes4[23] memory selectors = [
            IKmsRegistry.removeImageFromService.selector,
            IKmsRegistry.retireImageFromService.selector,
            IKmsRegistry.rotateServiceKey.selector,
            IKmsRegistry.extendNoticePeriod.selector,
            IKmsRegistry.setServiceGuardian.selector,
            IKmsRegistry.setDevice.selector,
            IKmsRegistry.setRequireUpToDateTcb.selector,
            IKmsRegistry.transferServiceAdmin.selector,
            IKmsRegistry.acceptServiceAdmin.selector,
            IKmsRegistry.renounceServiceAdmin.selector,
            IKmsRegistry.addImageToService.selector,
            IKmsRegistry.removeImagesFromService.selector,
            IKmsRegistry.restrictServiceDevices.selector,
            IKmsRegistry.withdrawPendingSecrets.selector,
            IPlatformPolicy.enableTee.selector,
            IPlatformPolicy.acceptTcb.selector,
            IPlatformPolicy.allowDevice.selector,
            IPlatformPolicy.unrestrictDevices.selector,
            IPlatformPolicy.extendPause.selector,
            IPlatformPolicy.resumeRelease.selector,
            IPlatformPolicy.revokePlatform.selector,
            IPlatformPolicy.restrictDevices.selector,
            IPlatformPolicy.pauseRelease.selector
        ];
        return selectors[_draw(seed, "selector", selectors.length)];
    }
}
