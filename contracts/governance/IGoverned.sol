// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/**
 * @title IGoverned
 * @notice What both proxies share: two roles held by contracts alone, and upgrades by the governor. Role changes emit OpenZeppelin's
 * `RoleGranted` and `RoleRevoked`; upgrades emit ERC-1967's `Upgraded`.
 */
interface IGoverned {
    /// @notice Thrown when a role would go to an account without code, or to one whose code is an EIP-7702 delegation: in both a single key decides.
    error Governed_NotAContract(address account);
    /// @notice Thrown when a governor would remove itself: another governor does that, which shows that somebody can still act.
    error Governed_GovernorCannotLeave(address account);
    /// @notice Thrown when an account would hold both roles: what tightens at once and what loosens slowly stay in different hands.
    error Governed_TwoRoles(address account);
    /// @notice Thrown when a tightening function is called by neither guardian nor governor.
    error Governed_NeitherGuardianNorGovernor(address account);
    /// @notice Thrown when a role that is neither GOVERNOR_ROLE nor GUARDIAN_ROLE would be granted: there is no third power.
    error Governed_NoSuchRole(bytes32 role);

    /// @notice Upgrades the proxy to `newImplementation`, with no call. Governor only.
    /// @param newImplementation An ERC-1822 implementation; anything else reverts.
    function upgradeTo(address newImplementation) external;

    /// @return The implementation that the proxy delegates to (ERC-1967); zero on an implementation itself.
    function implementation() external view returns (address);

    /// @return The implementation's version, `major.minor.patch`.
    function version() external view returns (string memory);
}
