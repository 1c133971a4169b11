// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ImageWord, ImageWords, ServiceWord, ServiceWords} from "../../contracts/registry/Words.sol";
import {vm} from "../helpers/Vm.sol";

/// @title WordsFuzz
/// @notice Packed words give back what went in, and a change of one field leaves the others as they were.
contract WordsFuzz {
    struct ServiceFields {
        address admin;
        uint24 noticePeriod;
        uint8 flags;
        uint32 sequence;
        uint32 lastBlock;
    }

    struct ImageFields {
        uint40 activeFrom;
        uint40 activeUntil;
        uint8 state;
        uint8 kind;
        uint32 mask;
        bool restrictsDevices;
    }

    function testFuzz_serviceRoundTrip(ServiceFields memory its) public pure {
        _assertService(_pack(its), its);
    }

    function testFuzz_createIsAtTheBeginning(address admin, uint24 noticePeriod, uint8 flags) public pure {
        ServiceWord word = ServiceWords.create(admin, noticePeriod, flags);
        _assertService(word, ServiceFields(admin, noticePeriod, flags, 0, 0));
    }

    function testFuzz_serviceChangesOneField(
        ServiceFields memory its,
        address admin,
        uint24 noticePeriod,
        uint8 flag
    ) public pure {
        ServiceWord word = _pack(its);
        ServiceFields memory wanted = _copy(its);
        wanted.admin = admin;
        _assertService(word.withAdmin(admin), wanted);
        wanted = _copy(its);
        wanted.noticePeriod = noticePeriod;
        _assertService(word.withNoticePeriod(noticePeriod), wanted);
        wanted = _copy(its);
        wanted.flags |= flag;
        _assertService(word.with(flag), wanted);
    }

    function testFuzz_nextCountsOneAndTakesTheBlock(ServiceFields memory its, uint32 blockNumber) public {
        vm.assume(its.sequence != type(uint32).max);
        ServiceWord word = _pack(its);
        vm.roll(blockNumber);
        ServiceFields memory wanted = _copy(its);
        wanted.sequence += 1;
        wanted.lastBlock = blockNumber;
        _assertService(this.next(word), wanted);
    }

    function testFuzz_imageRoundTrip(ImageFields memory its) public pure {
        ImageWord word = ImageWords.list(its.activeFrom, its.kind, its.mask, its.restrictsDevices);
        ImageFields memory wanted = ImageFields(
            its.activeFrom,
            0,
            ImageWords.LISTED,
            its.kind,
            its.mask,
            its.restrictsDevices
        );
        _assertImage(word, wanted);
        wanted.activeUntil = its.activeUntil;
        _assertImage(word.withActiveUntil(its.activeUntil), wanted);
        wanted.state = ImageWords.REMOVED;
        _assertImage(word.withActiveUntil(its.activeUntil).removed(), wanted);
    }

    function testFuzz_imageEndsAtItsLastMoment(uint40 activeUntil, uint40 time) public {
        ImageWord word = ImageWords.list(0, 1, 1, false).withActiveUntil(activeUntil);
        vm.warp(time);
        bool ended = activeUntil != 0 && time >= activeUntil;
        vm.assertEq(this.hasEnded(word), ended, "ended at another moment");
        vm.assertEq(this.isListed(word), !ended, "listed after its end, or not before");
        vm.assertTrue(!this.isListed(word.removed()), "listed after removal");
        vm.assertTrue(!this.isListed(ImageWord.wrap(0)), "an image that was never listed");
    }

    /* EXTERNAL, so that each reads the clock anew */

    function next(ServiceWord word) external view returns (ServiceWord) {
        return word.next();
    }

    function hasEnded(ImageWord word) external view returns (bool) {
        return word.hasEnded();
    }

    function isListed(ImageWord word) external view returns (bool) {
        return word.isListed();
    }

    /// @dev By arithmetic, not by the library's shifts.
    function _pack(ServiceFields memory its) private pure returns (ServiceWord) {
        uint256 word = uint256(its.lastBlock) * 2 ** 224 + uint256(its.sequence) * 2 ** 192;
        word += uint256(its.flags) * 2 ** 184 + uint256(its.noticePeriod) * 2 ** 160 + uint160(its.admin);
        return ServiceWord.wrap(word);
    }

    function _copy(ServiceFields memory its) private pure returns (ServiceFields memory) {
        return ServiceFields(its.admin, its.noticePeriod, its.flags, its.sequence, its.lastBlock);
    }

    function _assertService(ServiceWord word, ServiceFields memory wanted) private pure {
        vm.assertEq(word.admin(), wanted.admin, "admin");
        vm.assertEq(word.noticePeriod(), wanted.noticePeriod, "noticePeriod");
        vm.assertEq(word.sequence(), wanted.sequence, "sequence");
        vm.assertEq(word.lastUpdateBlock(), wanted.lastBlock, "lastUpdateBlock");
        for (uint8 bit = 0; bit < 8; ++bit) {
            uint8 flag = uint8(1 << bit);
            vm.assertEq(word.has(flag), wanted.flags & flag != 0, "flag");
        }
    }

    function _assertImage(ImageWord word, ImageFields memory wanted) private pure {
        vm.assertEq(word.activeFrom(), wanted.activeFrom, "activeFrom");
        vm.assertEq(word.activeUntil(), wanted.activeUntil, "activeUntil");
        vm.assertEq(word.state(), wanted.state, "state");
        vm.assertEq(word.kind(), wanted.kind, "kind");
        vm.assertEq(word.mask(), wanted.mask, "mask");
        vm.assertEq(word.restrictsDevices(), wanted.restrictsDevices, "restrictsDevices");
    }
}
