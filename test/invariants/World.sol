// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {IERC1967} from "@openzeppelin/contracts/interfaces/IERC1967.sol";

import {Actor} from "../../contracts/mocks/Actor.sol";
import {PlatformPolicy} from "../../contracts/policy/PlatformPolicy.sol";
import {KmsRegistry} from "../../contracts/registry/KmsRegistry.sol";
import {BootRequest, Decision} from "../../contracts/types/Decision.sol";
import {ImageId, PlatformId, ServiceId} from "../../contracts/types/Ids.sol";
import {TeeKind} from "../../contracts/types/TeeKind.sol";
import {Suite} from "../helpers/Deployment.sol";
import {TestImages} from "../helpers/TestImages.sol";
import {Vm, vm} from "../helpers/Vm.sol";
import {PolicyGhost} from "./ghost/PolicyGhost.sol";
import {ServiceGhost} from "./ghost/ServiceGhost.sol";

/**
 * @title World
 * @notice The suite, the people around it, and the memory of all that happened. Handlers reach the suite through `send` alone, so that no log escapes the ghost and no
 * change of an answer goes unseen.
 */
contract World is ServiceGhost, PolicyGhost {
    uint256 public constant MAX_SERVICES = 6;
    /// @dev Sixty requests, asked again after every action; their answers of four bits each fit one word.
    uint256 public constant PROBES = 60;
    uint256 public constant ACCOUNTS = 11;

    bytes32 private constant GOVERNOR = keccak256("keystead.GOVERNOR");
    bytes32 private constant GUARDIAN = keccak256("keystead.GUARDIAN");

    Suite private _suite;
    KmsRegistry public immutable REGISTRY;
    PlatformPolicy public immutable POLICY;

    /// @dev EOAs 0 to 4 (admins, a service guardian, a stranger), the two role holders, two more contracts, an EIP-7702 account, an address without anything.
    address[] public accounts;

    /// @dev The answers to the probes after the latest action or passage of time, while `watching`.
    uint256 public answers;
    bool public watching = true;

    bytes32[5] private _imageIds;
    bytes32[5] private _platformIds;

    mapping(string action => uint256) public succeeded;
    mapping(string action => uint256) public refused;
    /// @dev Answers that became Allowed, by any permitted way.
    uint256 public releases;

    constructor(Suite memory suite) {
        _suite = suite;
        REGISTRY = suite.registry;
        POLICY = suite.policy;
        for (uint256 i = 0; i < TestImages.IMAGES; ++i) _imageIds[i] = TestImages.imageId(i);
        for (uint8 kind = TeeKind.FIRST; kind <= TeeKind.LAST; ++kind) _platformIds[kind] = TestImages.platformId(kind);
        for (uint256 i = 0; i < 5; ++i) accounts.push(address(uint160(uint256(keccak256(abi.encode("account", i))))));
        accounts.push(suite.governor);
        accounts.push(suite.guardian);
        accounts.push(address(new Actor()));
        accounts.push(address(new Actor()));
        accounts.push(address(uint160(uint256(keccak256("delegated")))));
        accounts.push(address(uint160(uint256(keccak256("nobody")))));
        vm.etch(accounts[9], abi.encodePacked(bytes3(0xef0100), suite.governor));
        _expect(PlatformPolicy(suite.policy).policyVersion() == 0, 3, "the policy has a past");
    }

    /// @notice The suite as deployed.
    function deployed() external view returns (Suite memory) {
        return _suite;
    }

    /// @notice Whether the probes are asked around each action from here on. The runner keeps a trace of every call of a test, though not of a campaign: a long fixed
    /// run that watched all the time would fill the memory.
    function watch(bool on) external {
        if (on && !watching) answers = decisions();
        watching = on;
    }

    /* ACTIONS */

    /// @notice Makes a call as `from`, and takes in what it did.
    /// @param action The name under which the call is counted.
    function send(
        string memory action,
        address from,
        address target,
        bytes memory data
    ) public returns (bool ok, bytes memory result) {
        ++_action;
        vm.roll(vm.getBlockNumber() + (_action & 1)); // two actions a block
        bool governs = POLICY.hasRole(GOVERNOR, from) || REGISTRY.hasRole(GOVERNOR, from);
        bool guards = POLICY.hasRole(GUARDIAN, from);
        uint256 mayLoosen = _servicesLoosenedAtWill(from);
        vm.recordLogs();
        vm.prank(from);
        // solhint-disable-next-line avoid-low-level-calls
        (ok, result) = target.call(data);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        if (!ok) {
            ++refused[action];
            return (ok, result);
        }
        ++succeeded[action];
        for (uint256 i = 0; i < logs.length; ++i) _absorb(from, governs, guards, logs[i]);
        if (watching) _compare(governs, mayLoosen);
    }

    /// @notice Lets time pass, to `timestamp`.
    function pass(uint256 timestamp) external {
        vm.warp(timestamp);
        vm.roll(vm.getBlockNumber() + 1);
        if (!watching) return;
        uint256 now_ = decisions();
        for (uint256 p = 0; p < PROBES; ++p) {
            (Decision was, Decision is_) = (_answer(answers, p), _answer(now_, p));
            if (is_ != Decision.Allowed || was == Decision.Allowed) continue;
            ++releases;
            _expect(
                was == Decision.ImagePending ||
                    was == Decision.ReleasePaused ||
                    was == Decision.ServiceTcbNotUpToDate ||
                    was == Decision.ServiceDeviceNotAllowed,
                4,
                "time alone made a refused request acceptable"
            );
        }
        answers = now_;
    }

    /// @notice Upgrades a proxy as the governor; nothing that anyone can read may change.
    function upgrade(address proxy, address code, bytes memory call) external {
        bytes32 digest = state();
        (bool ok, ) = send("upgrade", _suite.governor, proxy, call);
        _expect(ok, 6, "the governor could not upgrade");
        _expect(state() == digest, 6, "an upgrade changed state");
        _expect(REGISTRY.implementation() == code || POLICY.implementation() == code, 6, "an upgrade had no effect");
    }

    /* QUESTIONS */

    /// @notice The pool's image ids, computed once.
    function imageIdAt(uint256 index) external view returns (bytes32) {
        return _imageIds[index];
    }

    /// @notice The answers to all probes, four bits each.
    function decisions() public view returns (uint256 packed) {
        for (uint256 p = 0; p < PROBES; ++p) {
            if (p % MAX_SERVICES >= serviceIds.length) continue; // ServiceUnknown
            packed |= uint256(REGISTRY.authorize(probe(p))) << (4 * p);
        }
    }

    /// @notice A request: every service with every image, once from the best of machines and once from a lesser one.
    function probe(uint256 p) public view returns (BootRequest memory request) {
        uint256 index = (p / MAX_SERVICES) % TestImages.IMAGES;
        uint256 lesser = p / (MAX_SERVICES * TestImages.IMAGES);
        request.serviceId = ServiceId.wrap(serviceIds[p % MAX_SERVICES]);
        request.imageId = ImageId.wrap(_imageIds[index]);
        request.platformId = PlatformId.wrap(_platformIds[TestImages.kindOf(index)]);
        request.deviceId = TestImages.device(lesser);
        request.tcbStatus = uint8(lesser);
    }

    /// @notice Which probes must be allowed, one bit each, from the logs alone.
    function justified() external view returns (uint256 bits) {
        for (uint256 p = 0; p < PROBES; ++p) {
            if (p % MAX_SERVICES >= serviceIds.length) continue;
            bytes20 id = serviceIds[p % MAX_SERVICES];
            uint256 index = (p / MAX_SERVICES) % TestImages.IMAGES;
            uint256 lesser = p / (MAX_SERVICES * TestImages.IMAGES);
            if (!_serviceAllows(id, _imageIds[index], TestImages.device(lesser), uint8(lesser))) continue;
            uint8 kind = TestImages.kindOf(index);
            if (_policyAllows(kind, _platformIds[kind], TestImages.device(lesser), uint8(lesser))) bits |= 1 << p;
        }
    }

    /// @notice A digest of every service, image, head and policy value that the views show, and of who holds which role.
    function state() public view returns (bytes32 digest) {
        for (uint256 s = 0; s < serviceIds.length; ++s) {
            ServiceId id = ServiceId.wrap(serviceIds[s]);
            digest = keccak256(abi.encode(digest, REGISTRY.service(id), REGISTRY.historyHead(id)));
            for (uint256 i = 0; i < TestImages.IMAGES; ++i) {
                ImageId imageId = ImageId.wrap(_imageIds[i]);
                (bool allowed, uint40 from) = REGISTRY.isDeviceAllowed(id, TestImages.device(i));
                digest = keccak256(abi.encode(digest, REGISTRY.image(id, imageId), allowed, from));
            }
        }
        for (uint8 kind = TeeKind.FIRST; kind <= TeeKind.LAST; ++kind) {
            PlatformId platformId = PlatformId.wrap(_platformIds[kind]);
            ImageId imageId = ImageId.wrap(_imageIds[kind]);
            digest = keccak256(abi.encode(digest, POLICY.teeRules(kind), POLICY.platform(platformId)));
            digest = keccak256(abi.encode(digest, POLICY.kmsImage(imageId), POLICY.kmsIdentity(digest)));
            for (uint256 d = 0; d < 3; ++d) {
                digest = keccak256(abi.encode(digest, POLICY.isDeviceListed(kind, TestImages.device(d))));
            }
        }
        digest = keccak256(abi.encode(digest, POLICY.historyHead(), POLICY.policyVersion(), POLICY.lastUpdateBlock()));
        digest = keccak256(abi.encode(digest, POLICY.releasePausedUntil(), POLICY.gatewayAppId()));
        digest = keccak256(
            abi.encode(digest, POLICY.appImplementation(), REGISTRY.POLICY(), watching ? decisions() : 0)
        );
        for (uint256 i = 0; i < ACCOUNTS; ++i) {
            digest = keccak256(abi.encode(digest, _roles(REGISTRY, accounts[i]), _roles(POLICY, accounts[i])));
        }
    }

    /* INSIDE */

    function _absorb(address from, bool governs, bool guards, Vm.Log memory log) private {
        if (log.emitter != address(REGISTRY) && log.emitter != address(POLICY)) return;
        bytes32 topic0 = log.topics[0];
        if (topic0 == IAccessControl.RoleGranted.selector) {
            _expect(governs, 4, "a role was granted by no governor");
            _expect(_hasOwnCode(_account(log.topics[2])), 5, "a role went to an account without code");
        } else if (topic0 == IAccessControl.RoleRevoked.selector) {
            _expect(governs || _account(log.topics[2]) == from, 4, "a role was revoked by no governor");
        } else if (topic0 == IERC1967.Upgraded.selector) {
            _expect(governs, 4, "an upgrade by no governor");
        } else if (topic0 == IAccessControl.RoleAdminChanged.selector) {
            _expect(false, 5, "a role got another admin");
        } else if (log.emitter == address(POLICY)) {
            _absorbPolicy(governs, guards, log);
        } else {
            _absorbService(from, log);
        }
    }

    /// @dev One bit per service that `from` administers and may loosen at once: no notice period, or no image so far.
    function _servicesLoosenedAtWill(address from) private view returns (uint256 bits) {
        for (uint256 s = 0; s < serviceIds.length; ++s) {
            ServiceFacts storage its = _services[serviceIds[s]];
            if (its.admin == from && (its.notice == 0 || !its.seeded)) bits |= 1 << s;
        }
    }

    /// @dev The lane invariant: a refused request becomes acceptable only by the governor, at creation, or by an admin that owes nobody notice.
    function _compare(bool governs, uint256 mayLoosen) private {
        uint256 now_ = decisions();
        for (uint256 p = 0; p < PROBES; ++p) {
            if (_answer(now_, p) != Decision.Allowed || _answer(answers, p) == Decision.Allowed) continue;
            ++releases;
            uint256 slot = p % MAX_SERVICES;
            bool own = (mayLoosen >> slot) & 1 == 1 || _services[serviceIds[slot]].born == _action;
            _expect(governs || own, 4, "someone without GOVERNOR_ROLE made a refused request acceptable");
        }
        answers = now_;
    }

    function _answer(uint256 packed, uint256 p) private pure returns (Decision) {
        return Decision((packed >> (4 * p)) & 15);
    }

    function _roles(IAccessControl target, address account) private view returns (uint256) {
        return (target.hasRole(GOVERNOR, account) ? 1 : 0) + (target.hasRole(GUARDIAN, account) ? 2 : 0);
    }

    function _hasOwnCode(address account) private view returns (bool) {
        bytes memory code = account.code;
        if (code.length == 0) return false;
        return !(code.length > 2 && code[0] == 0xef && code[1] == 0x01 && code[2] == 0x00);
    }
}
