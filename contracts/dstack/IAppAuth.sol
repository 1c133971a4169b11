// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/**
 * @title IAppAuth
 * @notice What dstack asks of an app's authorization contract. ERC-165 id `0x1e079198`, the selector of its one function. Struct and signatures are dstack's.
 */
interface IAppAuth {
    /**
     * @notice A machine as dstack-kms describes it.
     * @param appId The app; here the service id.
     * @param composeHash SHA-256 of app-compose.json.
     * @param instanceId The instance.
     * @param deviceId SHA-256 of the hardware's identity.
     * @param mrAggregated SHA-256 over all measurements.
     * @param mrSystem SHA-256 over the measurements of firmware and OS.
     * @param osImageHash The OS image.
     * @param tcbStatus Intel's name of the TCB status.
     * @param advisoryIds Intel's advisories that apply.
     */
    struct AppBootInfo {
        address appId;
        bytes32 composeHash;
        address instanceId;
        bytes32 deviceId;
        bytes32 mrAggregated;
        bytes32 mrSystem;
        bytes32 osImageHash;
        string tcbStatus;
        string[] advisoryIds;
    }

    /// @notice Whether the app's keys may be given to this machine.
    /// @return isAllowed The answer.
    /// @return reason Why not, in ASCII; empty if allowed.
    function isAppAllowed(AppBootInfo calldata bootInfo) external view returns (bool isAllowed, string memory reason);
}
