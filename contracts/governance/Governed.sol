// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {AccessControlUpgradeable} from "@openzeppelin/contracts-upgradeable/access/AccessControlUpgradeable.sol";
import {ERC1967Utils} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Utils.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";

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
 * There is no third power: OpenZeppelin's DEFAULT_ADMIN_ROLE has no holder and can have none. The deployer holds neither role at any time: the first
 * governor is set by the initializer, which runs in the proxy's constructor.
 *
 * TWO LANES
 *
 *     loosen   onlyGovernor              waits out the timelock, where everyone watching can see it and the guardian can cancel
 *     tighten  onlyGuardianOrGovernor    works at once
 *
 * No function does both. What was tightened can be loosened again through the slow lane only.
 *
 * NEVER AN EOA
 *
 * A role goes to accounts with code alone, and an EIP-7702 delegation (code `0xef0100 ‖ address`) does not count as code: behind it is still one key.
 * An account inside its own constructor has no code yet and is refused too. What this cannot see: a contract wallet with a single owner. The
 * deployment checks thresholds.
 *
 * LIVENESS
 *
 * The last governor can neither renounce nor be revoked.
 */
abstract contract Governed is IGoverned, AccessControlUpgradeable, UUPSUpgradeable {
    /// @dev The timelock: upgrades, loosens, tightens, administers both roles.
    bytes32 public constant GOVERNOR_ROLE = keccak256("keystead.GOVERNOR");
    /// @dev A Safe: tightens at once.
    bytes32 public constant GUARDIAN_ROLE = keccak256("keystead.GUARDIAN");

    /// @dev The first three bytes of an EIP-7702 delegation designator.
    bytes3 private constant DELEGATION_PREFIX = 0xef0100;

    /// @custom:storage-location erc7201:keystead.storage.Governed
    struct GovernedStorage {
        uint256 governors;
    }

    // keccak256(abi.encode(uint256(keccak256("keystead.storage.Governed")) - 1)) & ~bytes32(uint256(0xff))
    bytes32 private constant GOVERNED_STORAGE = 0xcb15f9eb04dd1882cf0dabd9d2c48361018d5684df56d7b0cef320aca6708800;

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
    function _grantRole(bytes32 role, address account) internal override returns (bool granted) {
        if (role != GOVERNOR_ROLE && role != GUARDIAN_ROLE) revert Governed_NoSuchRole(role);
        if (!_isContract(account)) revert Governed_NotAContract(account);
        granted = super._grantRole(role, account);
        if (granted && role == GOVERNOR_ROLE) ++_governedStorage().governors;
    }

    /// @dev Every revocation passes here, renouncing too.
    function _revokeRole(bytes32 role, address account) internal override returns (bool revoked) {
        revoked = super._revokeRole(role, account);
        if (revoked && role == GOVERNOR_ROLE && --_governedStorage().governors == 0) {
            revert Governed_LastGovernor(account);
        }
    }

    function _isContract(address account) internal view returns (bool) {
        if (account.code.length == 0) return false;
        bytes3 prefix;
        assembly ("memory-safe") {
            mstore(0x00, 0)
            extcodecopy(account, 0x00, 0x00, 3)
            prefix := mload(0x00)
        }
        return prefix != DELEGATION_PREFIX;
    }

    function _governedStorage() private pure returns (GovernedStorage storage $) {
        assembly {
            $.slot := GOVERNED_STORAGE
        }
    }
}
