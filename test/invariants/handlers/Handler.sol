// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {PlatformPolicy} from "../../../contracts/policy/PlatformPolicy.sol";
import {KmsRegistry} from "../../../contracts/registry/KmsRegistry.sol";
import {TestImages} from "../../helpers/TestImages.sol";
import {World} from "../World.sol";

/// @title Handler
/// @notice What all handlers share: the world, and choices drawn from the fuzzer's seed. The seed is hashed, for the fuzzer loves the same few numbers.
abstract contract Handler {
    World internal immutable WORLD;
    KmsRegistry internal immutable REGISTRY;
    PlatformPolicy internal immutable POLICY;

    constructor(World world) {
        WORLD = world;
        REGISTRY = world.REGISTRY();
        POLICY = world.POLICY();
    }

    /// @dev A number below `bound` that depends on the seed and on what it is for.
    function _draw(uint256 seed, string memory what, uint256 bound) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, what))) % bound;
    }

    function _oneIn(uint256 n, uint256 seed) internal pure returns (bool) {
        return _draw(seed, "one in", n) == 0;
    }

    function _anyone(uint256 seed) internal view returns (address) {
        return WORLD.accounts(_draw(seed, "anyone", WORLD.ACCOUNTS()));
    }

    /// @dev One of the EOAs that administer services.
    function _person(uint256 seed) internal view returns (address) {
        return WORLD.accounts(_draw(seed, "person", 3));
    }

    function _serviceIdAt(uint256 seed) internal view returns (bytes20) {
        return WORLD.serviceIds(_draw(seed, "service", WORLD.services()));
    }

    function _image(uint256 seed) internal pure returns (bytes memory) {
        return TestImages.image(_draw(seed, "image", TestImages.IMAGES));
    }

    function _kind(uint256 seed) internal pure returns (uint8) {
        return uint8(1 + _draw(seed, "kind", 4));
    }

    function _registryCall(string memory action, address from, bytes memory data) internal returns (bool ok) {
        (ok, ) = WORLD.send(action, from, address(REGISTRY), data);
    }

    function _policyCall(string memory action, address from, bytes memory data) internal returns (bool ok) {
        (ok, ) = WORLD.send(action, from, address(POLICY), data);
    }
}
