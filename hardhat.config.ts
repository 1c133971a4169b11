import { createRequire } from "node:module";
import toolbox from "@nomicfoundation/hardhat-toolbox-mocha-ethers";
import upgrades from "@openzeppelin/hardhat-upgrades";
import { configVariable, defineConfig } from "hardhat/config";
import { stableTypes } from "./tools/stable-types.ts";

/** The compiler is the pinned npm package, so that building needs no download (docs/decisions/0002-compiler-from-npm.md). */
const compiler = {
  version: "0.8.37",
  path: createRequire(import.meta.url).resolve("solc/soljson.js"),
  settings: {
    evmVersion: "cancun",
    viaIR: true,
    // No hash of the metadata in the code: it varies with how files are grouped into compilation jobs, and code hashes must not.
    metadata: { bytecodeHash: "none" },
    optimizer: { enabled: true, runs: 1000 },
    outputSelection: { "*": { "*": ["storageLayout"] } },
  },
};

/**
 * A public network: RPC URL and deployer key come from Hardhat's keystore or the environment
 * (`npx hardhat keystore set SEPOLIA_RPC_URL`), never from a file in the repository.
 */
const publicNetwork = (name: string, chainId: number, chainType: "l1" | "op" | "generic" = "l1") => ({
  type: "http" as const,
  chainType,
  chainId,
  url: configVariable(`${name}_RPC_URL`),
  accounts: [configVariable("KEYSTEAD_DEPLOYER_KEY")],
});

/** Who reads the results: tools/compatibility.ts or tools/test.mjs, from the file that each names; or people. */
const { KEYSTEAD_MOCHA_JSON: json, KEYSTEAD_TEST_REPORT: counts } = process.env;
const reporter =
  json !== undefined
    ? { reporter: "json", reporterOption: { output: json } }
    : counts && { reporter: `${import.meta.dirname}/tools/test-reporter.cjs` };

export default defineConfig({
  plugins: [toolbox, upgrades, stableTypes],
  solidity: {
    // One profile's settings for both: what tests measure is what gets deployed.
    splitTestsCompilation: true,
    profiles: {
      default: { compilers: [compiler] },
      production: { compilers: [compiler] },
    },
    npmFilesToBuild: [
      "@openzeppelin/contracts/governance/TimelockController.sol",
      "@openzeppelin/contracts/proxy/ERC1967/ERC1967Proxy.sol",
    ],
  },
  typechain: { outDir: `${import.meta.dirname}/typechain-types` },
  paths: { ignition: "./deploy" },
  test: {
    mocha: { timeout: 120_000, ...reporter },
    solidity: {
      fuzz: { runs: 256 },
      // `npm run test:invariants` sets 256 runs; every other run of the tests takes fewer, for time.
      invariant: { runs: Number(process.env.KEYSTEAD_INVARIANT_RUNS ?? 16), depth: 100 },
    },
  },
  networks: {
    default: { type: "edr-simulated", chainType: "l1", hardfork: "osaka" },
    localhost: { type: "http", chainType: "l1", url: "http://127.0.0.1:8545" },
    anvil: { type: "http", chainType: "l1", url: "http://127.0.0.1:8546", chainId: 31337 },
    sepolia: publicNetwork("SEPOLIA", 11155111),
    mainnet: publicNetwork("MAINNET", 1),
    base: publicNetwork("BASE", 8453, "op"),
    baseSepolia: publicNetwork("BASE_SEPOLIA", 84532, "op"),
  },
  verify: {
    sourcify: { enabled: true },
    blockscout: { enabled: true },
    etherscan: { apiKey: configVariable("ETHERSCAN_API_KEY") },
  },
});
