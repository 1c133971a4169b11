// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ImageCodec} from "../registry/ImageCodec.sol";

/// @notice Exposes the codec to tests.
contract ImageCodecHarness {
    function checkService(bytes calldata image) external pure returns (bytes32 id, uint8 kind, uint32 mask) {
        return ImageCodec.checkService(image);
    }

    function checkSealed(bytes calldata image) external pure returns (bytes32 id, uint8 kind, uint32 mask) {
        return ImageCodec.checkSealed(image);
    }

    function checkPlatform(bytes calldata image) external pure returns (bytes32 id, uint8 kind, uint32 mask) {
        return ImageCodec.checkPlatform(image);
    }

    function checkKms(bytes calldata image) external pure returns (bytes32 id, uint8 kind, uint32 mask) {
        return ImageCodec.checkKms(image);
    }
}
