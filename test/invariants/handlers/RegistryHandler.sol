// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IKmsRegistry} from "../../../contracts/registry/IKmsRegistry.sol";
import {ImageId, ServiceId} from "../../../contracts/types/Ids.sol";
import {TestImages} from "../../helpers/TestImages.sol";
import {vm} from "../../helpers/Vm.sol";
import {World} from "../World.sol";
import {ServiceGhost} from "../ghost/ServiceGhost.sol";
import {Handler} from "./Handler.sol";

/// @title RegistryHandler
/// @notice Everything that services' creators, admins, successors and guardians do, and time. Mostly by whoever may, now and then by anyone.
abstract contract RegistryHandler is Handler {
    constructor(World world) Handler(world) {}

    /* CREATION */

    function create(uint256 seed) external {
        if (_isFull()) return;
        _registryCall("create", _person(seed), abi.encodeCall(REGISTRY.createService, (_config(seed), bytes32(seed))));
    }

    function createWithImage(uint256 seed) external {
        if (_isFull()) return;
        _registryCall(
            "createWithImage",
            _person(seed),
            abi.encodeCall(REGISTRY.createServiceWithImage, (_config(seed), bytes32(seed), _image(seed), "first"))
        );
    }

    function createSealed(uint256 seed) external {
        if (_isFull()) return;
        bytes memory secrets = _oneIn(2, seed) ? bytes("ciphertext") : bytes("");
        _registryCall(
            "createSealed",
            _person(seed),
            abi.encodeCall(
                REGISTRY.addSecretKeyByImage,
                (_image(seed), _devices(seed), _draw(seed, "tcb", 4) == 0, bytes32(seed), "sealed", secrets)
            )
        );
    }

    /* IMAGES */

    function addImage(uint256 seed) external {
        (ServiceId id, address from) = _own(seed);
        _registryCall("addImage", from, abi.encodeCall(REGISTRY.addImageToService, (id, _image(seed), "next")));
    }

    function addImages(uint256 seed) external {
        (ServiceId id, address from) = _own(seed);
        IKmsRegistry.NewImage[] memory images = new IKmsRegistry.NewImage[](1 + _draw(seed, "many", 2));
        uint256 first = _draw(seed, "image", TestImages.IMAGES);
        for (uint256 i = 0; i < images.length; ++i) {
            images[i] = IKmsRegistry.NewImage(TestImages.image((first + i) % TestImages.IMAGES), "one of several");
        }
        _registryCall("addImages", from, abi.encodeCall(REGISTRY.addImagesToService, (id, images)));
    }

    function removeImage(uint256 seed) external {
        (ServiceId id, address from) = _own(seed);
        if (_oneIn(2, seed)) from = WORLD.guardianNow(ServiceId.unwrap(id));
        if (from == address(0)) return;
        _registryCall(
            "removeImage",
            from,
            abi.encodeCall(REGISTRY.removeImageFromService, (id, _listed(id, seed), "bad"))
        );
    }

    function removeImages(uint256 seed) external {
        (ServiceId id, address from) = _tightener(seed);
        ImageId[] memory ids = new ImageId[](2);
        ids[0] = _listed(id, seed);
        ids[1] = ImageId.wrap(TestImages.imageId(_draw(seed, "another", TestImages.IMAGES)));
        _registryCall("removeImages", from, abi.encodeCall(REGISTRY.removeImagesFromService, (id, ids, "bad")));
    }

    function retireImage(uint256 seed) external {
        (ServiceId id, address from) = _own(seed);
        ImageId imageId = _listed(id, seed);
        ServiceGhost.ImageFacts memory image = WORLD.imageFacts(ServiceId.unwrap(id), ImageId.unwrap(imageId));
        uint256 earliest = image.from > vm.getBlockTimestamp() ? image.from : vm.getBlockTimestamp();
        uint40 until = uint40(earliest + _draw(seed, "grace", 10 days));
        _registryCall("retireImage", from, abi.encodeCall(REGISTRY.retireImageFromService, (id, imageId, until)));
    }

    /* RULES */

    function rotateKey(uint256 seed) external {
        (ServiceId id, address from) = _own(seed);
        _registryCall("rotateKey", from, abi.encodeCall(REGISTRY.rotateServiceKey, (id)));
    }

    function publishSecrets(uint256 seed) external {
        (ServiceId id, address from) = _own(seed);
        bytes memory ciphertext = new bytes(1 + _draw(seed, "length", 100));
        _registryCall("publishSecrets", from, abi.encodeCall(REGISTRY.publishSealedSecrets, (id, "env", ciphertext)));
    }

    function withdrawSecrets(uint256 seed) external {
        (ServiceId id, address from) = _tightener(seed);
        _registryCall("withdrawSecrets", from, abi.encodeCall(REGISTRY.withdrawPendingSecrets, (id, "not ours")));
    }

    function startDevices(uint256 seed) external {
        (ServiceId id, address from) = _own(seed);
        bytes32[] memory devices = new bytes32[](1);
        devices[0] = TestImages.device(_draw(seed, "device", 3));
        _registryCall("startDevices", from, abi.encodeCall(REGISTRY.restrictServiceDevices, (id, devices)));
    }

    function extendNotice(uint256 seed) external {
        (ServiceId id, address from) = _own(seed);
        uint24 notice = WORLD.serviceFacts(ServiceId.unwrap(id)).notice;
        // Mostly a little longer, sometimes as short as the caller likes.
        uint256 wanted = _oneIn(4, seed) ? _draw(seed, "any", 181 days) : notice + 1 + _draw(seed, "more", 2 days);
        _registryCall("extendNotice", from, abi.encodeCall(REGISTRY.extendNoticePeriod, (id, uint24(wanted))));
    }

    function setGuardian(uint256 seed) external {
        (ServiceId id, address from) = _own(seed);
        address guardian = _oneIn(4, seed) ? address(0) : WORLD.accounts(2 + _draw(seed, "guardian", 2));
        _registryCall("setGuardian", from, abi.encodeCall(REGISTRY.setServiceGuardian, (id, guardian)));
    }

    function setDevice(uint256 seed) external {
        (ServiceId id, address from) = _draw(seed, "tightener", 4) == 0 ? _tightener(seed) : _own(seed);
        bytes32 device = TestImages.device(_draw(seed, "device", 3));
        bool listed = WORLD.deviceFrom(ServiceId.unwrap(id), device) != 0;
        bool allowed = _oneIn(8, seed) ? listed : !listed;
        _registryCall("setDevice", from, abi.encodeCall(REGISTRY.setDevice, (id, device, allowed)));
    }

    function setTcbRule(uint256 seed) external {
        (ServiceId id, address from) = _draw(seed, "tightener", 4) == 0 ? _tightener(seed) : _own(seed);
        bool inForce = WORLD.tcbRuleNow(ServiceId.unwrap(id));
        bool required = _oneIn(8, seed) ? inForce : !inForce;
        _registryCall("setTcbRule", from, abi.encodeCall(REGISTRY.setRequireUpToDateTcb, (id, required)));
    }

    /* SUCCESSION */

    function transferAdmin(uint256 seed) external {
        (ServiceId id, address from) = _own(seed);
        address successor = WORLD.accounts(_draw(seed, "successor", 3));
        if (_oneIn(6, seed)) successor = address(0);
        _registryCall("transferAdmin", from, abi.encodeCall(REGISTRY.transferServiceAdmin, (id, successor)));
    }

    function acceptAdmin(uint256 seed) external {
        uint256 first = _draw(seed, "service", WORLD.services());
        bytes20 id;
        address from = address(0);
        for (uint256 i = 0; i < WORLD.services() && from == address(0); ++i) {
            id = WORLD.serviceIds((first + i) % WORLD.services());
            from = WORLD.serviceFacts(id).pendingAdmin;
        }
        if (from == address(0) || _oneIn(8, seed)) from = _person(seed);
        _registryCall("acceptAdmin", from, abi.encodeCall(REGISTRY.acceptServiceAdmin, (ServiceId.wrap(id))));
    }

    /// @dev Rarely: a service without admin does nothing any more.
    function renounceAdmin(uint256 seed) external {
        if (!_oneIn(4, seed)) return;
        (ServiceId id, address from) = _own(seed);
        _registryCall("renounceAdmin", from, abi.encodeCall(REGISTRY.renounceServiceAdmin, (id)));
    }

    /* BATCHES AND TIME */

    /// @dev Several calls in one: what one transaction can do beyond the sum of its calls.
    function batch(uint256 seed) external {
        (ServiceId id, address from) = _own(seed);
        uint24 notice = WORLD.serviceFacts(ServiceId.unwrap(id)).notice;
        bytes[] memory calls = new bytes[](4);
        calls[0] = abi.encodeCall(REGISTRY.rotateServiceKey, (id));
        calls[1] = abi.encodeCall(REGISTRY.removeImageFromService, (id, _listed(id, seed), "replaced"));
        calls[2] = abi.encodeCall(REGISTRY.addImageToService, (id, _image(seed), "replacement"));
        calls[3] = abi.encodeCall(REGISTRY.extendNoticePeriod, (id, notice + 1));
        if (_oneIn(2, seed)) calls[1] = abi.encodeCall(REGISTRY.publishSealedSecrets, (id, "env", "ciphertext"));
        _registryCall("batch", from, abi.encodeCall(REGISTRY.multicall, (calls)));
    }

    /// @dev A creation and its first change, by a creator who is mostly the admin.
    function batchCreate(uint256 seed) external {
        if (_isFull()) return;
        address from = _oneIn(4, seed) ? _person(seed) : _config(seed).admin;
        ServiceId id = REGISTRY.serviceIdFor(from, bytes32(seed));
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(REGISTRY.createService, (_config(seed), bytes32(seed)));
        calls[1] = abi.encodeCall(REGISTRY.addImageToService, (id, _image(seed), "first"));
        _registryCall("batchCreate", from, abi.encodeCall(REGISTRY.multicall, (calls)));
    }

    /// @dev To the second around which an image starts or ends, or anywhere.
    function passTime(uint256 seed) external {
        uint256 time = vm.getBlockTimestamp();
        uint256 target = time + 1 + _draw(seed, "seconds", 2 days);
        bytes20 id = _serviceIdAt(seed);
        ServiceGhost.ImageFacts memory image = WORLD.imageFacts(
            id,
            TestImages.imageId(_draw(seed, "image", TestImages.IMAGES))
        );
        uint256 edge = _oneIn(2, seed) ? image.from : image.until;
        if (edge > time + 1) target = edge - _draw(seed, "before", 2);
        WORLD.pass(target);
    }

    /* CHOICES */

    /// @dev A service and mostly its admin.
    function _own(uint256 seed) private view returns (ServiceId id, address from) {
        bytes20 raw = _serviceIdAt(seed);
        from = WORLD.serviceFacts(raw).admin;
        if (from == address(0) || _draw(seed, "impostor", 12) == 0) from = _anyone(seed);
        return (ServiceId.wrap(raw), from);
    }

    /// @dev A service and its admin, its guardian, or an account that was guardian once or never.
    function _tightener(uint256 seed) private view returns (ServiceId id, address from) {
        (id, from) = _own(seed);
        if (_oneIn(2, seed)) from = WORLD.guardianNow(ServiceId.unwrap(id));
        else if (_oneIn(3, seed)) from = WORLD.accounts(2 + _draw(seed, "former", 2));
        if (from == address(0)) from = _anyone(seed);
    }

    /// @dev An image that is on the service's list, if one of the pool is; else any.
    function _listed(ServiceId id, uint256 seed) private view returns (ImageId) {
        uint256 first = _draw(seed, "image", TestImages.IMAGES);
        for (uint256 i = 0; i < TestImages.IMAGES; ++i) {
            bytes32 imageId = TestImages.imageId((first + i) % TestImages.IMAGES);
            ServiceGhost.ImageFacts memory image = WORLD.imageFacts(ServiceId.unwrap(id), imageId);
            if (image.listed && !image.removed) return ImageId.wrap(imageId);
        }
        return ImageId.wrap(TestImages.imageId(first));
    }

    function _config(uint256 seed) private view returns (IKmsRegistry.ServiceConfig memory config) {
        uint24[4] memory notices = [uint24(0), 1 hours, 1 days, 5 days];
        config.admin = WORLD.accounts(_draw(seed, "admin", 3));
        config.noticePeriod = notices[_draw(seed, "notice", 4)];
        config.description = "a service";
        config.devices = _devices(seed);
        config.requireUpToDateTcb = _draw(seed, "tcb", 4) == 0;
    }

    /// @dev None, or one or two of the pool.
    function _devices(uint256 seed) private pure returns (bytes32[] memory devices) {
        if (_draw(seed, "restricted", 2) == 0) return devices;
        devices = new bytes32[](1 + _draw(seed, "devices", 2));
        uint256 first = _draw(seed, "device", 3);
        for (uint256 i = 0; i < devices.length; ++i) devices[i] = TestImages.device(first + i);
    }

    function _isFull() private view returns (bool) {
        return WORLD.services() >= WORLD.MAX_SERVICES();
    }
}
