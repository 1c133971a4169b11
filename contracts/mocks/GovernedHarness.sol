// SPDX-License-Identifier: Apache-2.0
// solhint-disable one-contract-per-file
pragma solidity 0.8.37;

import {Governed} from "../governance/Governed.sol";
import {Actor} from "./Actor.sol";

/// @notice A careless successor version for tests: grants whatever role it is told to, past AccessControl's own check.
contract GovernedHarness is Governed {
    function initialize(address governor) external initializer {
        __Governed_init(governor);
    }

    function grantCarelessly(bytes32 role, address account) external {
        _grantRole(role, account);
    }

    function version() external pure returns (string memory) {
        return "0.0.0";
    }
}

/// @notice Has itself granted a role while it is still being constructed, and so has no code.
contract Newborn {
    constructor(Actor governor, address governed, bytes32 role) {
        governor.execute(governed, abi.encodeWithSignature("grantRole(bytes32,address)", role, address(this)));
    }
}
