// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControlUpgradeable} from "@openzeppelin/contracts-upgradeable/access/AccessControlUpgradeable.sol";
import {ERC1967Utils} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Utils.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";

import {ContractAccount} from "./ContractAccount.sol";
import {IGoverned} from "./IGoverned.sol";

/**
 * @title Governed
 * @notice Who may change a Keystead contract, and how fast.
 *
 * TWO ROLES
 *
 *     GOVERNOR_ROLE   the timelock. Upgrades, loosens, tightens, and is the admin of both roles.
 *     GUARDIAN_ROLE   a Safe. Tightens, and can do nothing else.
 *
 * An account holds one of them at most. There is no third power: OpenZeppelin's DEFAULT_ADMIN_ROLE has no holder and can have none. The deployer
 * holds neither role at any time: the first governor is set by the initializer, which runs in the proxy's constructor.
 *
 * TWO LANES
 *
 *     loosen   onlyGovernor              waits out the timelock, where everyone watching can see it and the guardian can cancel
 *     tighten  onlyGuardianOrGovernor    works at once
 *
 * No function does both. What was tightened can be loosened again by a governor only. The slow lane is as slow as the governor: whoever else is given
 * GOVERNOR_ROLE, through the timelock, acts without its delay.
 *
 * THE GUARDIAN CAN BE DISMISSED
 *
 * A guardian that tightens again and again what was loosened, or pauses whenever a pause lapses, stays in office until GUARDIAN_ROLE is taken from it.
 * The timelock does that against its will: GovernanceTimelock lets proposers alone cancel such an operation.
 *
 * NEVER AN EOA
 *
 * A role goes to accounts that have code when it is granted, and an EIP-7702 delegation (code `0xef0100 ‖ address`) does not count as code: behind it is
 * still one key. An account inside its own constructor has no code yet and is refused too. What this cannot see: a contract wallet with a single owner,
 * and a contract that destroys itself in the transaction that created it. The deployment checks thresholds.
 *
 * LIVENESS
 *
 * A governor cannot remove itself: another governor does, which shows in that moment that it can act. So there is always one that could, and a
 * successor that nobody can use never becomes the only one.
 */
abstract contract Governed is IGoverned, AccessControlUpgradeable, UUPSUpgradeable {
    /// @dev The timelock: upgrades, loosens, tightens, administers both roles.
    bytes32 public constant GOVERNOR_ROLE = keccak256("keystead.GOVERNOR");
    /// @dev A Safe: tightens at once.
    bytes32 public constant GUARDIAN_ROLE = keccak256("keystead.GUARDIAN");

    modifier onlyGovernor() {
        _checkRole(GOVERNOR_ROLE);
        _;
    }

    modifier onlyGuardianOrGovernor() {
        if (!hasRole(GUARDIAN_ROLE, msg.sender) && !hasRole(GOVERNOR_ROLE, msg.sender)) {
            revert Governed_NeitherGuardianNorGovernor(msg.sender);
        }
        _;
    }

    /// @custom:oz-upgrades-unsafe-allow constructor
    constructor() {
        _disableInitializers();
    }

    // solhint-disable-next-line func-name-mixedcase
    function __Governed_init(address governor) internal onlyInitializing {
        _setRoleAdmin(GOVERNOR_ROLE, GOVERNOR_ROLE);
        _setRoleAdmin(GUARDIAN_ROLE, GOVERNOR_ROLE);
        _grantRole(GOVERNOR_ROLE, governor);
    }

    /* GOVERNOR */

    /// @inheritdoc IGoverned
    function upgradeTo(address newImplementation) external {
        upgradeToAndCall(newImplementation, "");
    }

    /* VIEWS */

    /// @inheritdoc IGoverned
    function implementation() external view returns (address) {
        return ERC1967Utils.getImplementation();
    }

    /// @inheritdoc AccessControlUpgradeable
    function supportsInterface(bytes4 interfaceId) public view virtual override returns (bool) {
        return interfaceId == type(IGoverned).interfaceId || super.supportsInterface(interfaceId);
    }

    /* RULES */

    // solhint-disable-next-line no-empty-blocks
    function _authorizeUpgrade(address) internal view override onlyGovernor {}

    /// @dev Every grant passes here, the initializer's too.
    function _grantRole(bytes32 role, address account) internal override returns (bool) {
        if (role != GOVERNOR_ROLE && role != GUARDIAN_ROLE) revert Governed_NoSuchRole(role);
        if (!ContractAccount.isContract(account)) revert Governed_NotAContract(account);
        if (hasRole(role == GOVERNOR_ROLE ? GUARDIAN_ROLE : GOVERNOR_ROLE, account)) revert Governed_TwoRoles(account);
        return super._grantRole(role, account);
    }

    /// @dev Every revocation passes here, renouncing too.
    function _revokeRole(bytes32 role, address account) internal override returns (bool) {
        if (role == GOVERNOR_ROLE && account == msg.sender && hasRole(role, account)) {
            revert Governed_GovernorCannotLeave(account);
        }
        return super._revokeRole(role, account);
    }
}
