// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @dev A service: `bytes20(keccak256(abi.encode(chainid, registry, creator, salt)))`. Twenty bytes, so that it serves as a dstack `appId` as it stands.
type ServiceId is bytes20;

/// @dev A measured image: `keccak256` of its canonical bytes (see ImageCodec).
type ImageId is bytes32;

/// @dev A platform (firmware and OS, without the workload): `keccak256` of its canonical bytes. The same hash as an ImageId, in another role.
type PlatformId is bytes32;

using {sameService as ==} for ServiceId global;
using {sameImage as ==} for ImageId global;
using {samePlatform as ==} for PlatformId global;

function sameService(ServiceId a, ServiceId b) pure returns (bool) {
    return ServiceId.unwrap(a) == ServiceId.unwrap(b);
}

function sameImage(ImageId a, ImageId b) pure returns (bool) {
    return ImageId.unwrap(a) == ImageId.unwrap(b);
}

function samePlatform(PlatformId a, PlatformId b) pure returns (bool) {
    return PlatformId.unwrap(a) == PlatformId.unwrap(b);
}
