// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {Suite} from "../../helpers/Deployment.sol";
import {World} from "../World.sol";
import {Handler} from "./Handler.sol";

/// @title GovernanceHandler
/// @notice Upgrades and roles, by the governor: from the first implementation to the second and back, and roles to contracts, EOAs and delegated EOAs.
abstract contract GovernanceHandler is Handler {
    bytes32 private constant GOVERNOR_ROLE = keccak256("keystead.GOVERNOR");
    bytes32 private constant GUARDIAN_ROLE = keccak256("keystead.GUARDIAN");
    address private immutable GOVERNOR;

    constructor(World world) Handler(world) {
        GOVERNOR = world.deployed().governor;
    }

    function upgradeRegistry(uint256 seed) external {
        Suite memory suite = WORLD.deployed();
        address code = suite.registryCode[_draw(seed, "code", 2)];
        bytes memory call =
            _oneIn(2, seed)
                ? abi.encodeCall(REGISTRY.upgradeTo, (code))
                : abi.encodeCall(REGISTRY.upgradeToAndCall, (code, ""));
        WORLD.upgrade(address(REGISTRY), code, call);
    }

    function upgradePolicy(uint256 seed) external {
        Suite memory suite = WORLD.deployed();
        address code = suite.policyCode[_draw(seed, "code", 2)];
        bytes memory call =
            _oneIn(2, seed)
                ? abi.encodeCall(POLICY.upgradeTo, (code))
                : abi.encodeCall(POLICY.upgradeToAndCall, (code, ""));
        WORLD.upgrade(address(POLICY), code, call);
    }

    /// @dev To what is no implementation: an account without code, a contract that is not ERC-1822, the proxy itself.
    function upgradeToNothing(uint256 seed) external {
        address code = _draw(seed, "self", 4) == 0 ? address(POLICY) : _anyone(seed);
        _registryCall("upgradeToNothing", GOVERNOR, abi.encodeCall(REGISTRY.upgradeTo, (code)));
    }

    function grantRole(uint256 seed) external {
        bytes memory call = abi.encodeCall(REGISTRY.grantRole, (_role(seed), _anyone(seed)));
        WORLD.send("grantRole", GOVERNOR, _target(seed), call);
    }

    /// @dev Never the first governor while there is another one: the campaign would go on without anyone who can act.
    function revokeRole(uint256 seed) external {
        address account = WORLD.accounts(7 + _draw(seed, "holder", 2));
        if (_oneIn(4, seed)) account = WORLD.accounts(6);
        bytes memory call = abi.encodeCall(REGISTRY.revokeRole, (_role(seed), account));
        WORLD.send("revokeRole", GOVERNOR, _target(seed), call);
    }

    function renounceRole(uint256 seed) external {
        address account = WORLD.accounts(7 + _draw(seed, "holder", 2));
        bytes memory call = abi.encodeCall(REGISTRY.renounceRole, (_role(seed), account));
        WORLD.send("renounceRole", account, _target(seed), call);
    }

    /// @dev The first governor leaves if it is the last one, which must fail.
    function abandon(uint256 seed) external {
        address target = _target(seed);
        for (uint256 i = 6; i < 9; ++i) {
            bytes memory dismiss = abi.encodeCall(REGISTRY.revokeRole, (GOVERNOR_ROLE, WORLD.accounts(i)));
            WORLD.send("revokeRole", GOVERNOR, target, dismiss);
        }
        bytes memory call = abi.encodeCall(REGISTRY.renounceRole, (GOVERNOR_ROLE, GOVERNOR));
        WORLD.send("abandon", GOVERNOR, target, call);
    }

    function _role(uint256 seed) private pure returns (bytes32) {
        uint256 role = _draw(seed, "role", 5);
        if (role == 0) return bytes32(0); // OpenZeppelin's DEFAULT_ADMIN_ROLE
        return role < 3 ? GOVERNOR_ROLE : GUARDIAN_ROLE;
    }

    function _target(uint256 seed) private view returns (address) {
        return _draw(seed, "target", 2) == 0 ? address(REGISTRY) : address(POLICY);
    }
}
