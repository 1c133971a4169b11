// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {GovernanceInvariants} from "./GovernanceInvariants.sol";
import {LaneInvariants} from "./LaneInvariants.sol";
import {Liveliness} from "./Liveliness.sol";
import {ServiceInvariants} from "./ServiceInvariants.sol";

/// @title Invariants
/// @notice All seven, and the proof that they are not vacuous, in one contract: the compiler builds the world into each contract that starts it, which takes a minute each.
contract Invariants is ServiceInvariants, LaneInvariants, GovernanceInvariants, Liveliness {}
