// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {TimelockController} from "@openzeppelin/contracts/governance/TimelockController.sol";

import {ContractAccount} from "./ContractAccount.sol";

/**
 * @title GovernanceTimelock
 * @notice OpenZeppelin's TimelockController with the roles that Keystead publishes, complete when the constructor returns:
 *
 *     governance Safe   PROPOSER, EXECUTOR, CANCELLER
 *     guardian Safe     CANCELLER
 *     the timelock      DEFAULT_ADMIN, alone and for good: a role is given, or taken from somebody else, after the delay only
 *
 * Why a subclass at all: TimelockController's constructor makes cancellers of proposers alone. A second canceller who may not propose would
 * need an admin from outside for a moment, or an operation scheduled after deployment, during which the guardian could stop nothing.
 *
 * DISMISSALS
 *
 * A guardian that cancels everything could cancel its own removal for ever. So an operation that does nothing but take guardian offices from one
 * account is cancelled by a proposer alone, and not by that account. It waits twice the minimum delay: an honest guardian that a stolen governance
 * Safe dismisses leaves users three delays before anything can loosen, instead of two (docs/decisions/0017-a-guardian-can-be-dismissed.md).
 *
 * What counts is read from the calls when they are scheduled, and kept under the operation's id, which is their hash. Every call, without value and
 * with no predecessor, is
 *
 *     revokeRole(CANCELLER_ROLE, outgoing)   on this timelock, or
 *     revokeRole(GUARDIAN_ROLE, outgoing)    on any other contract,
 *
 * and each may be preceded by a grant of the same office to one incoming account: so that a guardian is replaced without a gap. One other call, and
 * it is an operation like any other, which every canceller cancels.
 *
 * OPERATIONS EXPIRE
 *
 * What is ready can be executed for GRACE_PERIOD. Then its state is Unset again, though `getTimestamp` keeps when it was ready: it can be scheduled
 * once more, and waits once more. Nobody can keep a stock of operations that skip the delay.
 *
 * LIMITS
 *
 * - The delay stays between the deployment's own and MAX_DELAY.
 * - The last proposer, executor and canceller can neither renounce nor be revoked: else nobody could schedule, execute or stop anything.
 * - A role goes to accounts with code alone (see ContractAccount), so not to address(0) either, and execution cannot be opened to everyone.
 *
 * What the timelock cannot see: whether a holder is a Safe, and how many sign for it. The deployment and `keystead lint` check that.
 */
contract GovernanceTimelock is TimelockController {
    /// @notice Seconds for which an operation can be executed, once it is ready.
    uint256 public constant GRACE_PERIOD = 14 days;
    /// @notice The longest minimum delay, seconds: a longer one would be a mistake that waits as long to be mended.
    uint256 public constant MAX_DELAY = 30 days;
    /// @notice The shortest minimum delay that a deployment may have, seconds. On public chains the tools ask for a day.
    uint256 public constant LEAST_DELAY = 1 hours;
    /// @notice A dismissal waits this many minimum delays.
    uint256 public constant DISMISSAL_DELAYS = 2;

    /// @dev The guardians' role at PlatformPolicy and KmsRegistry (Governed).
    bytes32 private constant GUARDIAN_ROLE = keccak256("keystead.GUARDIAN");

    /// @notice The deployment's delay, seconds; `updateDelay` goes no lower. Written once, and not an immutable: so every timelock has the same code.
    uint256 public delayFloor;
    mapping(bytes32 role => uint256) private _holders;
    mapping(bytes32 id => address) private _outgoing;

    /// @notice Thrown when a role would go to an account without code, or to one whose code is an EIP-7702 delegation.
    error GovernanceTimelock_NotAContract(address account);
    /// @notice Thrown when one account would be governance and guardian in one: nobody could stop it.
    error GovernanceTimelock_SameAccount(address account);
    /// @notice Thrown when the minimum delay would leave its bounds; all in seconds.
    error GovernanceTimelock_DelayOutOfBounds(uint256 delay, uint256 least, uint256 greatest);
    /// @notice Thrown when DEFAULT_ADMIN_ROLE would go to another account than the timelock: that account could change roles without a delay.
    error GovernanceTimelock_AdminIsFixed(address account);
    /// @notice Thrown when a role would be left without a holder.
    error GovernanceTimelock_LastHolder(bytes32 role, address account);
    /// @notice Thrown when somebody other than a proposer cancels a dismissal, or the account that it dismisses does.
    error GovernanceTimelock_CannotCancelDismissal(bytes32 id, address account);

    /// @param minDelay Seconds between scheduling and execution, at the least: from LEAST_DELAY to MAX_DELAY. Also the floor for good.
    /// @param governanceSafe Proposes, executes, cancels.
    /// @param guardianSafe Cancels, and nothing else.
    constructor(
        uint256 minDelay,
        address governanceSafe,
        address guardianSafe
    ) TimelockController(minDelay, _only(governanceSafe), _only(governanceSafe), address(0)) {
        if (governanceSafe == guardianSafe) revert GovernanceTimelock_SameAccount(guardianSafe);
        _checkDelay(minDelay, LEAST_DELAY);
        delayFloor = minDelay;
        _grantRole(CANCELLER_ROLE, guardianSafe);
    }

    /* PROPOSER */

    /// @inheritdoc TimelockController
    function schedule(
        address target,
        uint256 value,
        bytes calldata data,
        bytes32 predecessor,
        bytes32 salt,
        uint256 delay
    ) public override {
        super.schedule(target, value, data, predecessor, salt, delay);
        (bytes4 selector, address account) = _office(target, value, data);
        if (selector != IAccessControl.revokeRole.selector) return;
        _noteDismissal(hashOperation(target, value, data, predecessor, salt), account, predecessor, delay);
    }

    /// @inheritdoc TimelockController
    function scheduleBatch(
        address[] calldata targets,
        uint256[] calldata values,
        bytes[] calldata payloads,
        bytes32 predecessor,
        bytes32 salt,
        uint256 delay
    ) public override {
        super.scheduleBatch(targets, values, payloads, predecessor, salt, delay);
        address outgoing = _outgoingOf(targets, values, payloads);
        if (outgoing == address(0)) return;
        _noteDismissal(hashOperationBatch(targets, values, payloads, predecessor, salt), outgoing, predecessor, delay);
    }

    /* CANCELLER */

    /// @notice Cancels an operation that is waiting or ready. A dismissal is cancelled by a proposer alone, who is not the account that it dismisses.
    /// @inheritdoc TimelockController
    function cancel(bytes32 id) public override {
        address outgoing = _outgoing[id];
        if (outgoing != address(0) && (msg.sender == outgoing || !hasRole(PROPOSER_ROLE, msg.sender))) {
            revert GovernanceTimelock_CannotCancelDismissal(id, msg.sender);
        }
        super.cancel(id);
    }

    /* THE TIMELOCK ITSELF */

    /// @notice Changes the minimum delay of operations to come, within `delayFloor` and MAX_DELAY.
    /// @inheritdoc TimelockController
    function updateDelay(uint256 newDelay) public override {
        super.updateDelay(newDelay);
        _checkDelay(newDelay, delayFloor);
    }

    /* VIEWS */

    /// @notice Where an operation stands; Unset also for one whose GRACE_PERIOD is over.
    /// @inheritdoc TimelockController
    function getOperationState(bytes32 id) public view override returns (OperationState state) {
        state = super.getOperationState(id);
        if (state == OperationState.Ready && block.timestamp - getTimestamp(id) >= GRACE_PERIOD) {
            state = OperationState.Unset;
        }
    }

    /// @notice The account that an operation dismisses; zero where it is not a dismissal, or was never scheduled.
    function dismisses(bytes32 id) external view returns (address account) {
        return _outgoing[id];
    }

    /* RULES */

    /// @dev Every grant passes here, the constructor's too; the timelock itself has no code yet while it is being constructed.
    function _grantRole(bytes32 role, address account) internal override returns (bool granted) {
        if (role == DEFAULT_ADMIN_ROLE) {
            if (account != address(this)) revert GovernanceTimelock_AdminIsFixed(account);
        } else if (!ContractAccount.isContract(account)) {
            revert GovernanceTimelock_NotAContract(account);
        }
        granted = super._grantRole(role, account);
        if (granted) ++_holders[role];
    }

    /// @dev Every revocation passes here, renouncing too.
    function _revokeRole(bytes32 role, address account) internal override returns (bool revoked) {
        revoked = super._revokeRole(role, account);
        if (revoked && --_holders[role] == 0) revert GovernanceTimelock_LastHolder(role, account);
    }

    /// @dev One that waits for another operation could be held up by cancelling that: it is no dismissal.
    function _noteDismissal(bytes32 id, address outgoing, bytes32 predecessor, uint256 delay) private {
        if (predecessor != bytes32(0)) return;
        uint256 least = DISMISSAL_DELAYS * getMinDelay();
        if (delay < least) revert TimelockInsufficientDelay(delay, least);
        _outgoing[id] = outgoing;
    }

    /// @dev The account that a batch dismisses; zero where it is not a dismissal.
    function _outgoingOf(
        address[] calldata targets,
        uint256[] calldata values,
        bytes[] calldata payloads
    ) private view returns (address outgoing) {
        address incoming;
        address given; // the contract whose office was given by the call before
        for (uint256 i = 0; i < targets.length; ++i) {
            (bytes4 selector, address account) = _office(targets[i], values[i], payloads[i]);
            if (selector == 0) return address(0);
            if (given != address(0) && (selector != IAccessControl.revokeRole.selector || given != targets[i])) {
                return address(0);
            }
            if (selector == IAccessControl.grantRole.selector) {
                if (incoming != address(0) && incoming != account) return address(0);
                (incoming, given) = (account, targets[i]);
            } else {
                if (outgoing != address(0) && outgoing != account) return address(0);
                (outgoing, given) = (account, address(0));
            }
        }
        if (given != address(0) || incoming == outgoing) return address(0);
    }

    /// @dev Whether a call gives or takes a guardian's office (its selector; else zero), and whose.
    function _office(
        address target,
        uint256 value,
        bytes calldata data
    ) private view returns (bytes4 selector, address account) {
        if (value != 0 || data.length != 68) return (0, address(0));
        selector = bytes4(data[:4]);
        bytes32 role = bytes32(data[4:36]);
        uint256 word = uint256(bytes32(data[36:]));
        bool isOffice = role == (target == address(this) ? CANCELLER_ROLE : GUARDIAN_ROLE);
        bool moves = selector == IAccessControl.grantRole.selector || selector == IAccessControl.revokeRole.selector;
        if (!isOffice || !moves || word == 0 || word > type(uint160).max) return (0, address(0));
        account = address(uint160(word));
    }

    function _checkDelay(uint256 delay, uint256 least) private pure {
        if (delay < least || delay > MAX_DELAY) revert GovernanceTimelock_DelayOutOfBounds(delay, least, MAX_DELAY);
    }

    function _only(address account) private pure returns (address[] memory list) {
        list = new address[](1);
        list[0] = account;
    }
}
