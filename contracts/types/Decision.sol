// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ImageId, PlatformId, ServiceId} from "./Ids.sol";

/**
 * @notice The answer to "may this machine have this service's keys?". Zero is a denial: memory that nobody wrote never says yes.
 * The order is that of the checks, cheapest first; the first that fails is the answer.
 */
enum Decision {
    ServiceUnknown, // no such service
    Allowed,
    ImageUnknown, // the service never listed this image
    ImageRemoved, // its admin or guardian removed it
    ImagePending, // listed, still inside the notice period
    ImageRetired, // its grace window is over
    ServiceTcbNotUpToDate, // the service asks for UpToDate, whatever the policy accepts
    ServiceDeviceNotAllowed, // the service names its devices, and this is none of them
    ReleasePaused, // the guardian paused every release
    TeeSuspended, // the TEE kind is not enabled
    TcbNotAccepted, // the policy does not accept this TCB status for the kind
    PlatformNotAllowed, // firmware and OS are not on the policy's list
    PlatformKindMismatch, // image and platform belong to different TEE kinds
    DeviceNotAllowed, // the policy names the devices of this kind, and this is none of them
    KmsImageNotAllowed, // a KMS node asked, and its image is not one that may run as such
    PolicyUnavailable // the policy did not answer, or with something that is no decision
}

/**
 * @notice What a verifier learned from a machine's evidence.
 * @param deviceId The hardware: what the TEE calls PPID, chip id or module id, hashed to 32 bytes.
 * @param tcbStatus A TcbStatus bit position, as verified.
 * @param serviceId Whose keys it asks for.
 * @param imageId The registered image whose registers all equal the evidence's.
 * @param platformId The registered platform whose registers all equal the evidence's.
 */
struct BootRequest {
    bytes32 deviceId;
    uint8 tcbStatus;
    ServiceId serviceId;
    ImageId imageId;
    PlatformId platformId;
}
