// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {TeeKind} from "../../contracts/types/TeeKind.sol";

/**
 * @title TestImages
 * @notice A small pool of images, one or two per TEE kind, each fit for every use, and one platform per kind. Small on purpose: random actions must meet again.
 */
library TestImages {
    uint256 internal constant IMAGES = 5;

    /// @dev Images 0 and 1 are TDX, 2 SEV-SNP, 3 NITRO, 4 DSTACK.
    function image(uint256 index) internal pure returns (bytes memory) {
        uint8 kind = kindOf(index);
        if (kind == TeeKind.TDX) {
            return
                abi.encodePacked(
                    header(kind, 0x001d),
                    wide("mrtd", 0),
                    wide("rtmr1", 0),
                    wide("rtmr2", 0),
                    wide("rtmr3", index)
                );
        }
        if (kind == TeeKind.SEV_SNP) {
            return abi.encodePacked(header(kind, 0x0003), wide("measurement", index), narrow("host_data", 0));
        }
        if (kind == TeeKind.NITRO) {
            return abi.encodePacked(header(kind, 0x0007), wide("pcr0", index), wide("pcr1", 0), wide("pcr2", index));
        }
        return abi.encodePacked(header(kind, 0x0003), narrow("os_image_hash", 0), narrow("compose_hash", index));
    }

    function imageId(uint256 index) internal pure returns (bytes32) {
        return keccak256(image(index));
    }

    function kindOf(uint256 index) internal pure returns (uint8) {
        if (index < 2) return TeeKind.TDX;
        return uint8(index);
    }

    function platform(uint8 kind) internal pure returns (bytes memory) {
        if (kind == TeeKind.TDX) {
            return abi.encodePacked(header(kind, 0x000d), wide("mrtd", 0), wide("rtmr1", 0), wide("rtmr2", 0));
        }
        if (kind == TeeKind.SEV_SNP) return abi.encodePacked(header(kind, 0x0001), wide("snp platform", 0));
        if (kind == TeeKind.NITRO) return abi.encodePacked(header(kind, 0x0002), wide("pcr1", 0));
        return abi.encodePacked(header(kind, 0x0001), narrow("os_image_hash", 0));
    }

    function platformId(uint8 kind) internal pure returns (bytes32) {
        return keccak256(platform(kind));
    }

    function device(uint256 index) internal pure returns (bytes32) {
        return keccak256(abi.encode("device", index % 3));
    }

    function header(uint8 kind, uint32 mask) internal pure returns (bytes6) {
        return bytes6((uint48(1) << 40) | (uint48(kind) << 32) | mask);
    }

    /// @dev A 48-byte register value.
    function wide(string memory name, uint256 index) internal pure returns (bytes memory) {
        return abi.encodePacked(keccak256(abi.encode(name, index)), bytes16(keccak256(abi.encode(index, name))));
    }

    /// @dev A 32-byte register value and its padding.
    function narrow(string memory name, uint256 index) internal pure returns (bytes memory) {
        return abi.encodePacked(keccak256(abi.encode(name, index)), bytes16(0));
    }
}
