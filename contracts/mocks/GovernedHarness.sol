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

/// @notice Has a role granted to a contract that is created and destroyed in this one transaction: it has code when it is looked at, and none afterwards.
contract Stillborn {
    address public last;

    constructor(Actor governor, address governed, bytes32 role) {
        bytes memory code = hex"6133ff5f526002601ef3"; // creates `33ff`: whoever calls it destroys it
        address made;
        assembly ("memory-safe") {
            made := create(0, add(code, 32), mload(code))
        }
        last = made;
        governor.execute(governed, abi.encodeWithSignature("grantRole(bytes32,address)", role, made));
        // solhint-disable-next-line avoid-low-level-calls
        (bool ok, ) = made.call("");
        assert(ok);
    }
}
