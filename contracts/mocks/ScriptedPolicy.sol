// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @notice A policy for tests that answers every call with the same raw bytes, reverts with them, or burns all gas.
contract ScriptedPolicy {
    enum Manner {
        Answers,
        Reverts,
        BurnsGas
    }

    Manner private immutable MANNER;
    bytes private _answer;

    constructor(Manner manner, bytes memory answer) {
        MANNER = manner;
        _answer = answer;
    }

    // solhint-disable-next-line payable-fallback, no-complex-fallback
    fallback(bytes calldata) external returns (bytes memory) {
        bytes memory answer = _answer;
        if (MANNER == Manner.Answers) return answer;
        if (MANNER == Manner.BurnsGas) {
            assembly {
                invalid()
            }
        }
        assembly ("memory-safe") {
            revert(add(answer, 0x20), mload(answer))
        }
    }
}
