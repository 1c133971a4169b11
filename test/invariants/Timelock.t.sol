// SPDX-License-Identifier: Apache-2.0
// solhint-disable one-contract-per-file
pragma solidity 0.8.37;

import {ERC1967Proxy} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol";
import {console} from "hardhat/console.sol";

import {GovernanceTimelock} from "../../contracts/governance/GovernanceTimelock.sol";
import {Actor} from "../../contracts/mocks/Actor.sol";
import {PlatformPolicy} from "../../contracts/policy/PlatformPolicy.sol";
import {vm} from "../helpers/Vm.sol";

/**
 * @title Rogues
 * @notice The real timelock over the policy: a governance Safe that wants to govern, a guardian that has gone rogue and cancels and pauses whatever it can, and strangers.
 * Each action judges itself; what is forbidden is remembered in `found`.
 */
contract Rogues {
    bytes32 private constant GUARDIAN_ROLE = keccak256("keystead.GUARDIAN");
    uint256 private constant DELAY = 2 days;
    uint256 private constant GRACE = 14 days;
    uint256 private constant MAX_PAUSE = 14 days;

    /// @dev `open`: scheduled, and neither executed nor cancelled since.
    struct Operation {
        bytes32 id;
        address[] targets;
        bytes[] payloads;
        bytes32 salt;
        uint256 readyAt;
        bool dismissal;
        bool open;
    }

    GovernanceTimelock public immutable TIMELOCK;
    PlatformPolicy public immutable POLICY;
    address public immutable GOVERNANCE;
    address public immutable GUARDIAN;
    address public immutable SUCCESSOR;
    address public immutable STRANGER;

    Operation[] private _operations;
    /// @notice The first thing that happened and must not; empty if nothing did.
    string public found;
    /// @notice When the guardian lost its office at the policy; 0 while it holds it.
    uint256 public dismissedAt;
    mapping(string action => uint256) public done;

    constructor() {
        GOVERNANCE = address(new Actor());
        GUARDIAN = address(new Actor());
        SUCCESSOR = address(new Actor());
        STRANGER = address(new Actor());
        TIMELOCK = new GovernanceTimelock(DELAY, GOVERNANCE, GUARDIAN);
        bytes memory start = abi.encodeCall(PlatformPolicy.initialize, (address(TIMELOCK), GUARDIAN));
        POLICY = PlatformPolicy(address(new ERC1967Proxy(address(new PlatformPolicy()), start)));
    }

    /* GOVERNANCE */

    /// @notice Something ordinary: loosening, an end of the pause, another delay, the guardian's return.
    function scheduleOrdinary(uint256 seed) external {
        uint256 which = _draw(seed, "call", 5);
        (address[] memory targets, bytes[] memory payloads) = _lists(which == 4 ? 2 : 1);
        (targets[0], payloads[0]) = (address(POLICY), abi.encodeCall(POLICY.resumeRelease, ()));
        if (which == 1) payloads[0] = abi.encodeCall(POLICY.enableTee, (uint8(1 + _draw(seed, "kind", 4))));
        if (which == 2) payloads[0] = abi.encodeCall(POLICY.acceptTcb, (uint8(1), uint16(1)));
        if (which == 3) {
            (targets[0], payloads[0]) = (address(TIMELOCK), abi.encodeCall(TIMELOCK.updateDelay, (_delay(seed))));
        }
        if (which == 4) {
            payloads[0] = abi.encodeCall(POLICY.grantRole, (GUARDIAN_ROLE, GUARDIAN));
            targets[1] = address(TIMELOCK);
            payloads[1] = abi.encodeCall(TIMELOCK.grantRole, (TIMELOCK.CANCELLER_ROLE(), GUARDIAN));
        }
        _schedule(targets, payloads, TIMELOCK.getMinDelay(), false);
    }

    /// @notice A dismissal: of one office or both, with or without a successor.
    function scheduleDismissal(uint256 seed) external {
        (address[] memory targets, bytes[] memory payloads) = _dismissal(_draw(seed, "form", 3), 0);
        _schedule(targets, payloads, 2 * TIMELOCK.getMinDelay(), true);
    }

    /// @notice A dismissal with something else in it: the guardian must be able to cancel that.
    function scheduleMixed(uint256 seed) external {
        (address[] memory targets, bytes[] memory payloads) = _dismissal(_draw(seed, "form", 3), 1);
        uint256 last = targets.length - 1;
        (targets[last], payloads[last]) = (address(POLICY), abi.encodeCall(POLICY.enableTee, (uint8(2))));
        if (_draw(seed, "first", 2) == 0) {
            (targets[0], targets[last]) = (targets[last], targets[0]);
            (payloads[0], payloads[last]) = (payloads[last], payloads[0]);
        }
        _schedule(targets, payloads, TIMELOCK.getMinDelay(), false);
    }

    /// @notice Executes any operation, ready or not. A dismissal whose time it is must succeed.
    function execute(uint256 seed) external {
        if (_operations.length == 0) return;
        Operation storage operation = _operations[_latest(seed)];
        bool wasReady = _isReady(operation);
        uint256[] memory values = new uint256[](operation.targets.length);
        vm.prank(GOVERNANCE);
        try TIMELOCK.executeBatch(operation.targets, values, operation.payloads, 0, operation.salt) {
            _expect(wasReady, "executed before its delay was over, after its grace period, or twice");
            operation.open = false;
            ++done[operation.dismissal ? "dismissed" : "executed"];
        } catch {
            _expect(!wasReady || !operation.dismissal, "a dismissal failed in its time");
            if (operation.open && !wasReady) ++done[vm.getBlockTimestamp() < operation.readyAt ? "early" : "expired"];
        }
        _noteOffice();
    }

    /// @notice Governance thinks better of it, now and then.
    function governanceCancels(uint256 seed) external {
        if (_operations.length == 0 || _draw(seed, "rarely", 6) != 0) return;
        Operation storage operation = _operations[_latest(seed)];
        bool pending = _isPending(operation);
        vm.prank(GOVERNANCE);
        try TIMELOCK.cancel(operation.id) {
            _expect(pending, "cancelled what was not pending");
            operation.open = false;
            ++done["governance cancelled"];
        } catch {
            _expect(!pending, "governance could not cancel");
        }
    }

    /// @notice It would leave its own offices: the last holder cannot.
    function governanceRenounces(uint256 seed) external {
        bytes32 role = _draw(seed, "role", 2) == 0 ? TIMELOCK.PROPOSER_ROLE() : TIMELOCK.EXECUTOR_ROLE();
        vm.prank(GOVERNANCE);
        try TIMELOCK.renounceRole(role, GOVERNANCE) {
            _expect(false, "the last holder of a role left");
        } catch {
            ++done["stayed"];
        }
    }

    function passTime(uint256 seed) external {
        uint256 longest = _draw(seed, "long", 12) == 0 ? 20 days : 3 days;
        vm.warp(vm.getBlockTimestamp() + 1 + _draw(seed, "time", longest));
    }

    /* THE ROGUE GUARDIAN */

    /// @notice Cancels whatever it can, which is everything but dismissals, while it is in office.
    function guardianCancels(uint256 seed) external {
        if (_operations.length == 0) return;
        Operation storage operation = _operations[_latest(seed)];
        bool mayCancel = _isPending(operation) && !operation.dismissal;
        bool inOffice = TIMELOCK.hasRole(TIMELOCK.CANCELLER_ROLE(), GUARDIAN);
        vm.prank(GUARDIAN);
        try TIMELOCK.cancel(operation.id) {
            _expect(!operation.dismissal, "the guardian cancelled a dismissal");
            _expect(mayCancel && inOffice, "the guardian cancelled without the right to");
            operation.open = false;
            ++done["guardian cancelled"];
        } catch {
            _expect(!mayCancel || !inOffice, "the guardian lost its veto while in office");
            if (_isPending(operation) && operation.dismissal) ++done["dismissal not cancelled"];
        }
    }

    /// @notice Pauses whenever it can.
    function guardianPauses(uint256) external {
        bool inOffice = POLICY.hasRole(GUARDIAN_ROLE, GUARDIAN);
        vm.prank(GUARDIAN);
        try POLICY.pauseRelease(MAX_PAUSE, "") {
            _expect(inOffice, "a dismissed guardian paused");
            ++done["paused"];
        } catch {
            ++done["not paused"];
        }
    }

    /// @notice Guardian and strangers try all that is the others'.
    function attack(uint256 seed) external {
        address attacker = _draw(seed, "who", 2) == 0 ? GUARDIAN : STRANGER;
        (address[] memory targets, bytes[] memory payloads) = _dismissal(0, 0);
        uint256[] memory values = new uint256[](targets.length);
        bytes[6] memory calls = [
            abi.encodeCall(TIMELOCK.scheduleBatch, (targets, values, payloads, 0, bytes32(seed), 365 days)),
            abi.encodeCall(TIMELOCK.executeBatch, (targets, values, payloads, 0, bytes32(seed))),
            abi.encodeCall(TIMELOCK.grantRole, (TIMELOCK.CANCELLER_ROLE(), STRANGER)),
            abi.encodeCall(TIMELOCK.revokeRole, (TIMELOCK.PROPOSER_ROLE(), GOVERNANCE)),
            abi.encodeCall(TIMELOCK.updateDelay, (DELAY)),
            abi.encodeCall(POLICY.revokeRole, (keccak256("keystead.GOVERNOR"), address(TIMELOCK)))
        ];
        uint256 which = _draw(seed, "call", calls.length);
        vm.prank(attacker);
        // solhint-disable-next-line avoid-low-level-calls
        (bool ok, ) = (which == 5 ? address(POLICY) : address(TIMELOCK)).call(calls[which]);
        _expect(!ok, "somebody did what is the governance Safe's");
        ++done["attacked"];
    }

    /* RULES */

    function _schedule(address[] memory targets, bytes[] memory payloads, uint256 delay, bool dismissal) private {
        bytes32 salt = bytes32(_operations.length + 1);
        uint256[] memory values = new uint256[](targets.length);
        vm.prank(GOVERNANCE);
        try TIMELOCK.scheduleBatch(targets, values, payloads, 0, salt, delay) {
            bytes32 id = TIMELOCK.hashOperationBatch(targets, values, payloads, 0, salt);
            uint256 readyAt = vm.getBlockTimestamp() + delay;
            _operations.push(Operation(id, targets, payloads, salt, readyAt, dismissal, true));
            _expect((TIMELOCK.dismisses(id) == GUARDIAN) == dismissal, "taken for what it is not");
            ++done[dismissal ? "dismissal scheduled" : "scheduled"];
        } catch {
            _expect(false, "governance could not schedule");
        }
    }

    /// @dev The calls that dismiss the guardian, with `room` for more at the end.
    function _dismissal(
        uint256 form,
        uint256 room
    ) private view returns (address[] memory targets, bytes[] memory payloads) {
        bytes32 canceller = TIMELOCK.CANCELLER_ROLE();
        (targets, payloads) = _lists(
            (
                form == 0
                    ? 2
                    : form == 1
                        ? 1
                        : 4
            ) + room
        );
        bytes memory takeVeto = abi.encodeCall(TIMELOCK.revokeRole, (canceller, GUARDIAN));
        bytes memory takePause = abi.encodeCall(POLICY.revokeRole, (GUARDIAN_ROLE, GUARDIAN));
        (targets[0], payloads[0]) = (address(POLICY), takePause);
        if (form == 0) (targets[1], payloads[1]) = (address(TIMELOCK), takeVeto);
        if (form != 2) return (targets, payloads);
        payloads[0] = abi.encodeCall(POLICY.grantRole, (GUARDIAN_ROLE, SUCCESSOR));
        (targets[1], payloads[1]) = (address(POLICY), takePause);
        (targets[2], payloads[2]) = (address(TIMELOCK), abi.encodeCall(TIMELOCK.grantRole, (canceller, SUCCESSOR)));
        (targets[3], payloads[3]) = (address(TIMELOCK), takeVeto);
    }

    /// @dev One of the latest eight: what is older has run its course.
    function _latest(uint256 seed) private view returns (uint256) {
        uint256 count = _operations.length;
        return count - 1 - _draw(seed, "operation", count < 8 ? count : 8);
    }

    function _noteOffice() private {
        if (POLICY.hasRole(GUARDIAN_ROLE, GUARDIAN)) dismissedAt = 0;
        else if (dismissedAt == 0) dismissedAt = vm.getBlockTimestamp();
    }

    function _isReady(Operation storage operation) private view returns (bool) {
        return _isPending(operation) && vm.getBlockTimestamp() >= operation.readyAt;
    }

    function _isPending(Operation storage operation) private view returns (bool) {
        return operation.open && vm.getBlockTimestamp() < operation.readyAt + GRACE;
    }

    function _delay(uint256 seed) private pure returns (uint256) {
        uint256[5] memory delays = [DELAY, DELAY + 1, DELAY - 1, 5 days, 31 days];
        return delays[_draw(seed, "delay", 5)];
    }

    function _lists(uint256 length) private pure returns (address[] memory targets, bytes[] memory payloads) {
        (targets, payloads) = (new address[](length), new bytes[](length));
    }

    /// @dev A number below `bound` that depends on the seed and on what it is for.
    function _draw(uint256 seed, string memory what, uint256 bound) private pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, what))) % bound;
    }

    function _expect(bool holds, string memory otherwise) private {
        if (!holds && bytes(found).length == 0) found = otherwise;
    }
}

/**
 * @title TimelockInvariants
 * @notice Who governs, against any guardian: see README.md, invariants 8 and 9.
 */
contract TimelockInvariants {
    bytes32 private constant GUARDIAN_ROLE = keccak256("keystead.GUARDIAN");
    Rogues private _rogues;

    bytes4[] private _selectors = [
        Rogues.scheduleOrdinary.selector,
        Rogues.scheduleDismissal.selector,
        Rogues.scheduleMixed.selector,
        Rogues.execute.selector,
        Rogues.governanceCancels.selector,
        Rogues.governanceRenounces.selector,
        Rogues.passTime.selector,
        Rogues.guardianCancels.selector,
        Rogues.guardianPauses.selector,
        Rogues.attack.selector
    ];
    string[12] private _outcomes = [
        "scheduled",
        "dismissal scheduled",
        "executed",
        "dismissed",
        "early",
        "expired",
        "governance cancelled",
        "guardian cancelled",
        "dismissal not cancelled",
        "paused",
        "stayed",
        "attacked"
    ];

    function setUp() public {
        vm.warp(1_700_000_000);
        _rogues = new Rogues();
    }

    /// @notice Read by the test runner: what it calls at random.
    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_rogues);
    }

    function invariant_noGuardianGovernsForEver() public view {
        vm.assertEq(_rogues.found(), "", "a forbidden transition");
        GovernanceTimelock timelock = _rogues.TIMELOCK();
        address governance = _rogues.GOVERNANCE();
        _must(timelock.hasRole(timelock.PROPOSER_ROLE(), governance), "nobody proposes");
        _must(timelock.hasRole(timelock.EXECUTOR_ROLE(), governance), "nobody executes");
        _must(timelock.hasRole(timelock.CANCELLER_ROLE(), governance), "governance cannot cancel");
        _must(timelock.hasRole(bytes32(0), address(timelock)), "the timelock lost its own roles");
        address[4] memory others = [governance, _rogues.GUARDIAN(), _rogues.SUCCESSOR(), _rogues.STRANGER()];
        for (uint256 i = 0; i < others.length; ++i) {
            _must(!timelock.hasRole(bytes32(0), others[i]), "another admin");
            _must(i == 0 || !timelock.hasRole(timelock.PROPOSER_ROLE(), others[i]), "another proposer");
        }
        _must(timelock.getMinDelay() >= timelock.delayFloor(), "a delay below the floor");
        _must(timelock.getMinDelay() <= timelock.MAX_DELAY(), "a delay above the ceiling");
        uint256 dismissedAt = _rogues.dismissedAt();
        uint256 until = _rogues.POLICY().releasePausedUntil();
        _must(dismissedAt == 0 || until <= dismissedAt + 14 days, "a pause that outlives its guardian's dismissal");
    }

    function test_everythingHappens() public {
        uint256[12] memory counts;
        for (uint256 i = 0; i < 1500; ++i) {
            uint256 seed = uint256(keccak256(abi.encode("step", i)));
            // solhint-disable-next-line avoid-low-level-calls
            (bool ok, ) = address(_rogues).call(abi.encodePacked(_selectors[seed % _selectors.length], seed));
            vm.assertTrue(ok, "a handler failed");
        }
        invariant_noGuardianGovernsForEver();
        for (uint256 o = 0; o < counts.length; ++o) {
            counts[o] = _rogues.done(_outcomes[o]);
            console.log(_outcomes[o], counts[o]);
            vm.assertGt(counts[o], 0, _outcomes[o]);
        }
    }

    /// @dev An assertion that reaches the runner only when it fails.
    function _must(bool condition, string memory message) private pure {
        if (!condition) vm.assertTrue(false, message);
    }
}
