// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @dev A service: `bytes20(keccak256(abi.encode(chainid, registry, creator, salt)))`. Twenty bytes, so that it serves as a dstack `appId` as it stands.
type ServiceId is bytes20;

/// @dev A measured image: `keccak256` of its canonical bytes (see ImageCodec).
type ImageId is bytes32;

/// @dev A platform (firmware and OS, without the workload): `keccak256` of its canonical bytes. The same hash as an ImageId, in another role.
type PlatformId is bytes32;
