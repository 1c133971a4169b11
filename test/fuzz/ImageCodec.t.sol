// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ImageCodecHarness} from "../../contracts/mocks/ImageCodecHarness.sol";
import {vm} from "../helpers/Vm.sol";

/**
 * @title ImageCodecFuzz
 * @notice The codec against a second one, written from the table in the contract's NatSpec in the slowest and plainest way: byte by byte, no masks. Both must give the same
 * verdict on any bytes, for every use.
 */
contract ImageCodecFuzz {
    struct Register {
        uint256 width; // 0: there is no such register
        bool service;
        bool isSealed; // required where nothing can be replaced
        bool platform;
        bool identity; // says what code runs, or who vouches for it: never zero
    }

    ImageCodecHarness private _harness;
    mapping(uint256 kind => mapping(uint256 bit => Register)) private _registers;

    function setUp() public {
        _harness = new ImageCodecHarness();
        for (uint256 bit = 0; bit <= 9; ++bit) _registers[1][bit] = Register(48, false, false, false, false);
        _registers[1][0] = Register(48, true, true, true, true);
        for (uint256 bit = 2; bit <= 4; ++bit) _registers[1][bit] = Register(48, true, true, false, true);

        _registers[2][0] = Register(48, true, true, true, true);
        _registers[2][1] = Register(32, false, true, false, false);
        _registers[2][2] = Register(48, false, false, false, true);
        _registers[2][3] = Register(48, false, false, false, false);
        _registers[2][4] = Register(16, false, false, false, false);
        _registers[2][5] = Register(16, false, false, false, false);

        _registers[3][0] = Register(48, true, true, false, true);
        _registers[3][1] = Register(48, true, true, true, true);
        _registers[3][2] = Register(48, true, true, false, true);
        for (uint256 bit = 3; bit <= 31; ++bit) _registers[3][bit] = Register(48, false, false, false, false);

        _registers[4][0] = Register(32, false, true, true, true);
        _registers[4][1] = Register(32, true, true, false, true);
        _registers[4][2] = Register(32, false, false, false, true);
        _registers[4][3] = Register(32, false, false, false, false);
    }

    function testFuzz_randomBytes(bytes calldata image) public view {
        _compare(image);
    }

    function testFuzz_randomBytesBehindAKnownHeader(uint8 kind, uint32 mask, bytes calldata rest) public view {
        _compare(abi.encodePacked(uint8(1), kind % 6, mask, rest));
    }

    /// @dev Nearly canonical: at most one fault of each sort.
    function testFuzz_nearlyCanonical(uint256 seed, uint32 mask, uint256 fault) public view {
        uint8 kind = uint8(1 + (seed % 4));
        _compare(_build(seed, kind, _knownOf(kind, mask, seed), fault));
    }

    /// @dev Canonical and complete: accepted for every use, with the id that anyone computes.
    function testFuzz_completeImagesAreAccepted(uint256 seed, uint32 mask) public view {
        uint8 kind = uint8(1 + (seed % 4));
        bytes memory image = _build(seed, kind, _knownOf(kind, mask, 0x3f01), 0);
        vm.assertTrue(
            _accepts(image, 0) && _accepts(image, 1) && _accepts(image, 2) && _accepts(image, 3),
            "a complete image is refused"
        );
        _compare(image);
    }

    /// @dev Any single bit makes another image, or none.
    function testFuzz_everyBitCounts(uint256 seed, uint256 position) public view {
        uint8 kind = uint8(1 + (seed % 4));
        bytes memory image = _build(seed, kind, _knownOf(kind, 0x001f, 1), 0);
        (bytes32 id, , ) = _harness.checkSealed(image);
        position %= image.length * 8;
        image[position / 8] ^= bytes1(uint8(1 << (position % 8)));
        _compare(image);
        if (_accepts(image, 1)) {
            (bytes32 other, , ) = _harness.checkSealed(image);
            vm.assertTrue(other != id, "two images with one id");
        }
    }

    /* BUILDING */

    /// @dev The bits of `mask` that name registers; now and then one that names none.
    function _knownOf(uint8 kind, uint32 mask, uint256 seed) private view returns (uint32 known) {
        for (uint256 bit = 0; bit < 32; ++bit) {
            bool named = _registers[kind][bit].width != 0;
            if ((mask >> bit) & 1 == 1 && (named || (seed >> 8) % 64 == bit)) known |= uint32(1 << bit);
        }
        if (seed & 1 == 1) {
            for (uint256 bit = 0; bit < 32; ++bit) if (_registers[kind][bit].isSealed) known |= uint32(1 << bit);
        }
    }

    function _build(uint256 seed, uint8 kind, uint32 mask, uint256 fault) private view returns (bytes memory image) {
        if (fault != 0) fault = uint256(keccak256(abi.encode(fault)));
        uint256 mode = fault % 9; // 0: no fault
        image = abi.encodePacked(uint8(mode == 1 ? 2 : 1), kind, mask);
        uint256 faulty = (fault >> 8) % (kind == 4 ? 4 : 6);
        for (uint256 bit = 0; bit < 32; ++bit) {
            if ((mask >> bit) & 1 == 0) continue;
            bytes memory value = abi.encodePacked(
                keccak256(abi.encode(seed, bit)),
                bytes16(keccak256(abi.encode(bit, seed)))
            );
            uint256 width = _registers[kind][bit].width;
            for (uint256 i = width; i < 48; ++i) value[i] = 0;
            if (bit == faulty && mode == 2) value = new bytes(48);
            if (bit == faulty && mode == 3) value[(fault >> 16) % 48] ^= 0x01;
            if (bit == faulty && mode == 4 && width < 48) value[width] = 0x01;
            if (bit == faulty && mode == 5) {
                value = new bytes(48);
                value[(fault >> 16) % 48] = 0x01;
            }
            image = abi.encodePacked(image, value);
        }
        if (mode == 6) image = abi.encodePacked(image, bytes1(0));
        if (mode == 7) image = abi.encodePacked(image, new bytes(48));
        if (mode == 8) {
            bytes memory shorter = new bytes(image.length - 1);
            for (uint256 i = 0; i < shorter.length; ++i) shorter[i] = image[i];
            image = shorter;
        }
    }

    /* COMPARING */

    function _compare(bytes memory image) private view {
        for (uint256 use = 0; use < 4; ++use) {
            bool accepted = _accepts(image, use);
            vm.assertEq(accepted, _isCanonical(image, use), "the codecs disagree");
            if (!accepted) continue;
            (bytes32 id, uint8 kind, uint32 mask) = _check(image, use);
            vm.assertEq(id, keccak256(image), "the id is not the hash");
            vm.assertEq(kind, uint8(image[1]), "another kind");
            vm.assertEq(mask, _maskOf(image), "another mask");
        }
    }

    function _maskOf(bytes memory image) private pure returns (uint256 mask) {
        for (uint256 i = 2; i < 6; ++i) mask = mask * 256 + uint8(image[i]);
    }

    function _accepts(bytes memory image, uint256 use) private view returns (bool ok) {
        try this.check(image, use) {
            ok = true;
        } catch {
            ok = false;
        }
    }

    /// @dev External, so that a rejection can be caught.
    function check(bytes calldata image, uint256 use) external view returns (bytes32 id, uint8 kind, uint32 mask) {
        return _check(image, use);
    }

    function _check(bytes memory image, uint256 use) private view returns (bytes32 id, uint8 kind, uint32 mask) {
        if (use == 0) return _harness.checkService(image);
        if (use == 1) return _harness.checkSealed(image);
        if (use == 2) return _harness.checkPlatform(image);
        return _harness.checkKms(image);
    }

    /// @dev The second opinion. Uses: 0 service, 1 sealed, 2 platform, 3 KMS.
    function _isCanonical(bytes memory image, uint256 use) private view returns (bool) {
        if (image.length < 6 || uint8(image[0]) != 1) return false;
        uint256 kind = uint8(image[1]);
        if (kind == 0 || kind > 4) return false;
        uint256 position = 6;
        uint256 mask = 0;
        for (uint256 bit = 0; bit < 32; ++bit) {
            Register memory register = _registers[kind][bit];
            bool named = (uint8(image[5 - bit / 8]) >> (bit % 8)) & 1 == 1;
            if (named) mask |= 1 << bit;
            if (!named) continue;
            if (register.width == 0 || image.length < position + 48) return false;
            bool zero = true;
            for (uint256 i = 0; i < 48; ++i) {
                if (image[position + i] == 0) continue;
                if (i >= register.width) return false;
                zero = false;
            }
            if (zero && register.identity) return false;
            position += 48;
        }
        return image.length == position && _isFit(kind, mask, use);
    }

    /// @dev Names what the use requires; or what does as well, for two kinds in some uses.
    function _isFit(uint256 kind, uint256 mask, uint256 use) private view returns (bool) {
        if (kind == 2 && (use == 1 || use == 3) && mask & 0x5 == 0x5) return true;
        if (kind == 4 && use == 3 && mask & 0x4 == 0x4) return true;
        for (uint256 bit = 0; bit < 32; ++bit) {
            Register memory register = _registers[kind][bit];
            bool required =
                use == 0
                    ? register.service
                    : use == 2
                        ? register.platform
                        : register.isSealed;
            if (required && (mask >> bit) & 1 == 0) return false;
        }
        return true;
    }
}
