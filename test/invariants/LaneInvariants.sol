// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAppAuth} from "../../contracts/dstack/IAppAuth.sol";
import {BootRequest, Decision} from "../../contracts/types/Decision.sol";
import {ImageId, PlatformId, ServiceId} from "../../contracts/types/Ids.sol";
import {DstackAuth} from "../../contracts/dstack/DstackAuth.sol";
import {Campaign} from "./Campaign.sol";

/**
 * @title LaneInvariants
 * @notice Invariants 4 and 7: what `authorize` may answer.
 *
 * 4. No sequence of calls by accounts without GOVERNOR_ROLE makes `authorize` accept a request that it refused before, except by that service's own admin within its rules.
 *    Sixty requests are asked before and after every action. Forbidden: a refusal that turns into Allowed
 *      - in an action of anyone but the governor, at creation of the service, or its admin where the service has no notice period or never had an image;
 *      - by time alone, unless the refusal was a pending image, a pause, or a rule whose loosening was announced.
 *    And every answer is what the logs justify, no more and no less.
 *
 * 7. `authorize` never reverts, whatever its input; unknown ids are denied.
 */
abstract contract LaneInvariants is Campaign {
    function _onlyGovernorAndOwnAdminLoosen() internal view {
        _assertNothingFound(4);
        uint256 answers = world.answers();
        uint256 justified = world.justified();
        for (uint256 p = 0; p < 60; ++p) {
            bool allowed = (answers >> (4 * p)) & 15 == uint256(Decision.Allowed);
            _must(allowed == ((justified >> p) & 1 == 1), "an answer that the logs do not justify");
        }
    }

    function _authorizeAlwaysAnswers() internal view {
        bytes32 noise = keccak256(abi.encode(world.answers(), block.timestamp));
        uint256 s = uint256(noise >> 128) % world.services(); // one service a step
        BootRequest memory request = world.probe(s);
        request.tcbStatus = uint8(uint256(noise));
        _answer(request);
        request.imageId = ImageId.wrap(noise);
        Decision unknownImage = _answer(request);
        _must(unknownImage == Decision.ImageUnknown, "an image that was never listed is known");
        request.serviceId = ServiceId.wrap(bytes20(noise));
        _must(_answer(request) == Decision.ServiceUnknown, "a service that was never created is known");
        request = world.probe(s);
        request.platformId = PlatformId.wrap(noise);
        _must(_answer(request) != Decision.Allowed, "an unknown platform is accepted");

        DstackAuth auth = world.deployed().dstackAuth;
        IAppAuth.AppBootInfo memory info;
        info.appId = address(world.serviceIds(s));
        (info.composeHash, info.osImageHash, info.tcbStatus) = (noise, noise, "UpToDate");
        (bool allowed, string memory reason) = auth.isAppAllowed(info);
        _must(!allowed && bytes(reason).length != 0, "dstack: an unknown image is accepted");
        (allowed, reason) = auth.isKmsAllowed(info);
        _must(!allowed && bytes(reason).length != 0, "dstack: an unknown KMS image is accepted");
    }

    /// @dev The answer, which must come without a revert and be one word.
    function _answer(BootRequest memory request) private view returns (Decision) {
        (bool ok, bytes memory answer) = address(world.REGISTRY()).staticcall(
            abi.encodeCall(world.REGISTRY().authorize, (request))
        );
        _must(ok && answer.length == 32, "authorize did not answer");
        return abi.decode(answer, (Decision));
    }
}
