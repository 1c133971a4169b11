// SPDX-License-Identifier: Apache-2.0
// solhint-disable one-contract-per-file
pragma solidity 0.8.37;

import {Ownable2StepUpgradeable} from "@openzeppelin/contracts-upgradeable/access/Ownable2StepUpgradeable.sol";
import {ERC1967Proxy} from "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol";
import {UUPSUpgradeable} from "@openzeppelin/contracts/proxy/utils/UUPSUpgradeable.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

import {IAppAuth} from "../dstack/IAppAuth.sol";

/**
 * @title DstackAppShape
 * @notice An app contract of dstack's published ABI and storage layout (slots 0 to 3, ownership in OpenZeppelin's namespaces), for tests:
 * written here from that description.
 */
contract DstackAppShape is IAppAuth, IERC165, UUPSUpgradeable, Ownable2StepUpgradeable {
    mapping(bytes32 composeHash => bool) public allowedComposeHashes; // slot 0
    bool private _isFrozen; // slot 1, byte 0
    bool public allowAnyDevice; // slot 1, byte 1
    mapping(bytes32 deviceId => bool) public allowedDeviceIds; // slot 2
    bool public requireTcbUpToDate; // slot 3

    error UpgradesAreDisabled();

    constructor() {
        _disableInitializers();
    }

    function initialize(
        address initialOwner,
        bool disableUpgrades_,
        bool requireTcb,
        bool anyDevice,
        bytes32 deviceId,
        bytes32 composeHash
    ) external initializer {
        __Ownable_init(initialOwner);
        _isFrozen = disableUpgrades_;
        allowAnyDevice = anyDevice;
        requireTcbUpToDate = requireTcb;
        if (deviceId != 0) allowedDeviceIds[deviceId] = true;
        if (composeHash != 0) allowedComposeHashes[composeHash] = true;
    }

    function addComposeHash(bytes32 composeHash) external onlyOwner {
        allowedComposeHashes[composeHash] = true;
    }

    function disableUpgrades() external onlyOwner {
        _isFrozen = true;
    }

    function isAppAllowed(AppBootInfo calldata bootInfo) external view returns (bool, string memory) {
        bytes32 upToDate = keccak256("UpToDate");
        if (requireTcbUpToDate && keccak256(bytes(bootInfo.tcbStatus)) != upToDate) {
            return (false, "TCB status is not up to date");
        }
        if (!allowedComposeHashes[bootInfo.composeHash]) return (false, "Compose hash not allowed");
        if (!allowAnyDevice && !allowedDeviceIds[bootInfo.deviceId]) return (false, "Device not allowed");
        return (true, "");
    }

    function version() external pure returns (uint256) {
        return 2;
    }

    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == 0x1e079198 || interfaceId == 0x8fd37527 || interfaceId == type(IERC165).interfaceId;
    }

    function _authorizeUpgrade(address) internal view override onlyOwner {
        if (_isFrozen) revert UpgradesAreDisabled();
    }
}

/**
 * @title DstackKmsShape
 * @notice What of a DstackKms concerns an app: its own lists first, then the app's contract is asked, whatever it is.
 */
contract DstackKmsShape {
    mapping(address appId => bool) public registeredApps;
    mapping(bytes32 osImageHash => bool) public allowedOsImages;

    error NoApp();

    function registerApp(address appId) external {
        if (appId == address(0)) revert NoApp();
        registeredApps[appId] = true;
    }

    function addOsImageHash(bytes32 osImageHash) external {
        allowedOsImages[osImageHash] = true;
    }

    function deployAndRegisterApp(
        address implementation,
        bytes calldata initialization
    ) external returns (address appId) {
        appId = address(new ERC1967Proxy(implementation, initialization));
        registeredApps[appId] = true;
    }

    function isAppAllowed(IAppAuth.AppBootInfo calldata bootInfo) external view returns (bool, string memory) {
        if (!registeredApps[bootInfo.appId]) return (false, "App not registered");
        if (!allowedOsImages[bootInfo.osImageHash]) return (false, "OS image is not allowed");
        if (bootInfo.appId.code.length == 0) return (false, "App not deployed or invalid address");
        return IAppAuth(bootInfo.appId).isAppAllowed(bootInfo);
    }
}
