// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ServiceId} from "../types/Ids.sol";
import {ServiceApp} from "./ServiceApp.sol";

/**
 * @title KeysteadApp
 * @notice A new dstack app with the rules of a Keystead service, for `registerApp` of any DstackKms, which anyone may call. Its address is
 * its appId. It has no proxy and no owner: its code and its service are final.
 */
contract KeysteadApp is ServiceApp {
    /// @param auth The deployment's DstackAuth.
    /// @param serviceId The service.
    constructor(address auth, ServiceId serviceId) ServiceApp(auth, serviceId) {}

    /// @return Who may add images: the service's admin; zero for a service that nobody can change.
    function owner() external view returns (address) {
        return KMS_REGISTRY.service(SERVICE_ID).admin;
    }
}
