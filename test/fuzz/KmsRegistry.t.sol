// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC1967Proxy} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol";

import {PlatformPolicy} from "../../contracts/policy/PlatformPolicy.sol";
import {IKmsRegistry} from "../../contracts/registry/IKmsRegistry.sol";
import {KmsRegistry} from "../../contracts/registry/KmsRegistry.sol";
import {BootRequest, Decision} from "../../contracts/types/Decision.sol";
import {ImageId, PlatformId, ServiceId} from "../../contracts/types/Ids.sol";
import {Deployment, Suite} from "../helpers/Deployment.sol";
import {TestImages} from "../helpers/TestImages.sol";
import {vm} from "../helpers/Vm.sol";

/// @notice A policy that answers with any bytes, or fails with them.
contract AnyPolicy {
    bytes private _answer;
    bool private _fails;

    function set(bytes calldata answer, bool fails) external {
        (_answer, _fails) = (answer, fails);
    }

    fallback() external {
        bytes memory answer = _answer;
        if (_fails) {
            assembly ("memory-safe") {
                revert(add(answer, 0x20), mload(answer))
            }
        }
        assembly ("memory-safe") {
            return(add(answer, 0x20), mload(answer))
        }
    }
}

/// @title KmsRegistryFuzz
/// @notice Ids, totality of `authorize`, and the arithmetic of time at its extremes.
contract KmsRegistryFuzz is Deployment {
    address private constant ADMIN = address(uint160(uint256(keccak256("admin"))));
    uint256 private constant START = 1_700_000_000;
    uint24 private constant LONGEST_NOTICE = 180 days;

    Suite private _suite;
    KmsRegistry private _registry;
    AnyPolicy private _anyPolicy;
    /// @dev A registry on a policy that may say anything.
    KmsRegistry private _onAnyPolicy;

    function setUp() public {
        vm.warp(START);
        _suite = _deploySuite();
        _openPolicy(_suite);
        _registry = _suite.registry;
        _anyPolicy = new AnyPolicy();
        address code = address(new KmsRegistry(address(_anyPolicy)));
        bytes memory start = abi.encodeCall(KmsRegistry.initialize, (_suite.governor));
        _onAnyPolicy = KmsRegistry(address(new ERC1967Proxy(code, start)));
    }

    /* IDS */

    function testFuzz_serviceIdFor(address creator, bytes32 salt, uint32 chainId) public {
        vm.chainId(uint256(chainId) + 1);
        bytes32 hash = keccak256(abi.encode(uint256(chainId) + 1, address(_registry), creator, salt));
        vm.assertTrue(ServiceId.unwrap(_registry.serviceIdFor(creator, salt)) == bytes20(hash), "another id");
    }

    function testFuzz_idsDependOnAllParts(
        address creator,
        bytes32 salt,
        uint160 otherCreator,
        bytes32 otherSalt
    ) public view {
        vm.assume(uint160(creator) != otherCreator && salt != otherSalt);
        bytes20 id = ServiceId.unwrap(_registry.serviceIdFor(creator, salt));
        bytes20 byCreator = ServiceId.unwrap(_registry.serviceIdFor(address(otherCreator), salt));
        bytes20 bySalt = ServiceId.unwrap(_registry.serviceIdFor(creator, otherSalt));
        bytes20 byRegistry = ServiceId.unwrap(_onAnyPolicy.serviceIdFor(creator, salt));
        vm.assertTrue(id != byCreator, "the creator does not count");
        vm.assertTrue(id != bySalt, "the salt does not count");
        vm.assertTrue(id != byRegistry, "the registry does not count");
    }

    /* TOTALITY */

    function testFuzz_authorizeAnswersAnyRequest(BootRequest calldata request) public view {
        vm.assertTrue(_registry.authorize(request) == Decision.ServiceUnknown, "an unknown service");
    }

    function testFuzz_authorizeAnswersAboutAKnownImage(BootRequest memory request, uint8 parts) public {
        (request.serviceId, ) = _create(1 days, bytes32(uint256(1)));
        if (parts & 1 == 0) request.imageId = ImageId.wrap(TestImages.imageId(0));
        if (parts & 2 == 0) request.platformId = PlatformId.wrap(TestImages.platformId(1));
        if (parts & 4 == 0) request.tcbStatus %= 11;
        bool right = parts & 3 == 0 && request.tcbStatus < 16 && (USUAL_TCB >> request.tcbStatus) & 1 == 1;
        vm.assertEq(_registry.authorize(request) == Decision.Allowed, right, "a wrong answer");
    }

    function testFuzz_authorizeSurvivesAnyPolicy(bytes calldata answer, uint8 number, uint8 shape) public {
        vm.prank(ADMIN);
        _onAnyPolicy.createServiceWithImage(_config(0), 0, TestImages.image(0), "");
        BootRequest memory request;
        request.serviceId = _onAnyPolicy.serviceIdFor(ADMIN, 0);
        request.imageId = ImageId.wrap(TestImages.imageId(0));
        if (shape % 3 == 0) {
            _anyPolicy.set(abi.encode(uint256(number)), false);
            Decision known = number < 16 ? Decision(number) : Decision.PolicyUnavailable;
            vm.assertTrue(_onAnyPolicy.authorize(request) == known, "not the policy's answer");
            return;
        }
        _anyPolicy.set(answer, shape % 3 == 1);
        bool decision = shape % 3 == 2 && answer.length >= 32 && uint256(bytes32(answer)) < 16;
        Decision wanted = decision ? Decision(uint8(uint256(bytes32(answer)))) : Decision.PolicyUnavailable;
        vm.assertTrue(_onAnyPolicy.authorize(request) == wanted, "noise is taken for an answer");
    }

    /// @dev The worst of short answers: zeros, where what stood in memory before would complete them to Allowed. The image's id ends in 01 for that.
    function test_shortAnswersAreNotCompletedFromMemory() public {
        bytes memory image;
        uint256 n = 0;
        do {
            image = abi.encodePacked(TestImages.header(2, 1), TestImages.wide("measurement", n++));
        } while (uint8(uint256(keccak256(image))) != uint8(Decision.Allowed));
        vm.prank(ADMIN);
        _onAnyPolicy.createServiceWithImage(_config(0), 0, image, "");
        BootRequest memory request;
        request.serviceId = _onAnyPolicy.serviceIdFor(ADMIN, 0);
        request.imageId = ImageId.wrap(keccak256(image));
        for (uint256 length = 0; length < 32; ++length) {
            _anyPolicy.set(new bytes(length), false);
            vm.assertTrue(
                _onAnyPolicy.authorize(request) == Decision.PolicyUnavailable,
                "memory is taken for an answer"
            );
        }
    }

    /// @dev Bytes that are no request are met with a revert or a denial, never with Allowed.
    function testFuzz_authorizeDeniesAnyBytes(bytes calldata noise) public view {
        (bool ok, bytes memory answer) = address(_registry).staticcall(
            abi.encodePacked(IKmsRegistry.authorize.selector, noise)
        );
        vm.assertTrue(!ok || abi.decode(answer, (Decision)) != Decision.Allowed, "noise is allowed");
    }

    /* TIME */

    function testFuzz_laterImagesWaitOutTheNotice(uint24 notice, uint40 wait) public {
        notice = uint24(notice % (uint256(LONGEST_NOTICE) + 1));
        (ServiceId id, ImageId first) = _create(notice, 0);
        vm.assertTrue(_registry.isImageActive(id, first), "the first image waits");
        vm.prank(ADMIN);
        ImageId second = _registry.addImageToService(id, TestImages.image(1), "");
        vm.assertEq(_registry.image(id, second).activeFrom, START + notice, "another notice");
        wait = uint40(wait % (2 * uint256(LONGEST_NOTICE)));
        vm.warp(START + wait);
        vm.assertEq(_registry.isImageActive(id, second), wait >= notice, "active at another moment");
    }

    function testFuzz_noticeIsBoundedAndGrows(uint24 notice, uint24 next) public {
        if (notice > LONGEST_NOTICE) {
            vm.expectRevert(
                abi.encodeWithSelector(IKmsRegistry.KmsRegistry_NoticePeriodTooLong.selector, notice, LONGEST_NOTICE)
            );
            _registry.createService(_config(notice), 0);
            return;
        }
        (ServiceId id, ) = _create(notice, 0);
        vm.prank(ADMIN);
        // solhint-disable-next-line avoid-low-level-calls
        (bool ok, ) = address(_registry).call(abi.encodeCall(_registry.extendNoticePeriod, (id, next)));
        vm.assertEq(ok, next > notice && next <= LONGEST_NOTICE, "a notice period that may not be");
        vm.assertEq(_registry.service(id).noticePeriod, ok ? next : notice, "another notice period");
    }

    function testFuzz_retirementLiesAheadAndOnlyShortens(uint40 first, uint40 second, bool pending) public {
        (ServiceId id, ImageId imageId) = _create(3 days, 0);
        uint256 earliest = START;
        if (pending) {
            vm.prank(ADMIN);
            imageId = _registry.addImageToService(id, TestImages.image(1), "");
            earliest = START + 3 days;
        }
        if (first % 4 == 0) first = uint40(earliest + (first % 5) - 2);
        bool ok = _retire(id, imageId, first);
        vm.assertEq(ok, first > earliest, "a retirement that may not be");
        if (second % 4 == 0) {
            uint256 near = uint256(first) + (second % 3);
            if (near != 0) --near;
            second = near > type(uint40).max ? type(uint40).max : uint40(near);
        }
        bool again = _retire(id, imageId, second);
        vm.assertEq(again, second > earliest && (!ok || second < first), "a second retirement that may not be");
        uint256 until =
            again
                ? second
                : ok
                    ? first
                    : 0;
        vm.assertEq(_registry.image(id, imageId).activeUntil, until, "another end");
        if (until == 0) return;
        vm.warp(until - 1);
        vm.assertTrue(_registry.isImageActive(id, imageId), "gone before its end");
        vm.warp(until);
        vm.assertTrue(!_registry.isImageActive(id, imageId), "active at its end");
    }

    function testFuzz_pausesEnd(uint256 duration, uint256 wait) public {
        PlatformPolicy policy = _suite.policy;
        vm.prank(_suite.guardian);
        // solhint-disable-next-line avoid-low-level-calls
        (bool ok, ) = address(policy).call(abi.encodeCall(policy.pauseRelease, (duration, "")));
        vm.assertEq(ok, duration != 0 && duration <= 14 days, "a pause that may not be");
        if (!ok) return;
        wait %= 15 days;
        vm.warp(START + wait);
        uint256 decision = policy.decide(1, PlatformId.wrap(TestImages.platformId(1)), 0, 0);
        vm.assertEq(decision == uint256(Decision.Allowed), wait >= duration, "a pause of another length");
    }

    function _retire(ServiceId id, ImageId imageId, uint40 until) private returns (bool ok) {
        vm.prank(ADMIN);
        // solhint-disable-next-line avoid-low-level-calls
        (ok, ) = address(_registry).call(abi.encodeCall(_registry.retireImageFromService, (id, imageId, until)));
    }

    function _create(uint24 notice, bytes32 salt) private returns (ServiceId id, ImageId imageId) {
        vm.prank(ADMIN);
        return _registry.createServiceWithImage(_config(notice), salt, TestImages.image(0), "");
    }

    function _config(uint24 notice) private pure returns (IKmsRegistry.ServiceConfig memory config) {
        config.admin = ADMIN;
        config.noticePeriod = notice;
    }
}
