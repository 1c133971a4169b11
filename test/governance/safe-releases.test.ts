import { createRequire } from "node:module";
import { expect } from "chai";
import { keccak256 } from "ethers";
import {
  isFallbackHandler,
  recogniseSafe,
  SAFE_RELEASES,
  SAFE_VERSIONS,
  singletonAt,
} from "../../src/chain/safe-releases.ts";

const require = createRequire(import.meta.url);

interface Published {
  readonly deployments: Readonly<Record<string, { readonly address: string; readonly codeHash: string }>>;
}

const published = (version: string, name: string) => {
  const { deployments }: Published = require(`@safe-global/safe-deployments/dist/assets/v${version}/${name}.json`);
  // zkSync is another machine, with other code at other addresses
  const rows = Object.entries(deployments).filter(([kind]) => kind !== "zksync");
  return rows.map(([, { address, codeHash }]) => ({ address, codeHash }));
};
const ours = (contracts: readonly { readonly addresses: readonly string[]; readonly codeHash: string }[]) =>
  contracts.flatMap(({ addresses, codeHash }) => addresses.map((address) => ({ address, codeHash })));

const NAMES = {
  "1.3.0": { singletons: ["gnosis_safe", "gnosis_safe_l2"], handlers: ["compatibility_fallback_handler"] },
  "1.4.1": { singletons: ["safe", "safe_l2"], handlers: ["compatibility_fallback_handler"] },
  "1.5.0": {
    singletons: ["safe", "safe_l2"],
    handlers: ["compatibility_fallback_handler", "extensible_fallback_handler"],
  },
} as const;

describe("Safe releases", () => {
  for (const version of ["1.3.0", "1.4.1", "1.5.0"] as const) {
    it(`${version} is as Safe publishes it`, () => {
      const { singletons, handlers } = NAMES[version];
      const release = SAFE_RELEASES[version];
      const all = (names: readonly string[]) => names.flatMap((name) => published(version, name));
      expect(ours(release.singletons)).to.have.deep.members(all(singletons));
      expect(ours(release.fallbackHandlers)).to.have.deep.members(all(handlers));
      expect(ours([release.multiSendCallOnly])).to.have.deep.members(all(["multi_send_call_only"]));
      for (const { address } of ours(release.singletons)) expect(singletonAt(address)?.version).to.equal(version);
    });
  }

  it("proxies are the packages' own, each release's another", () => {
    for (const [version, name] of [
      ["1.4.1", "@safe-global/safe-contracts"],
      ["1.5.0", "@safe-global/safe-smart-account"],
    ] as const) {
      const { deployedBytecode } = require(`${name}/build/artifacts/contracts/proxies/SafeProxy.sol/SafeProxy.json`);
      expect(SAFE_RELEASES[version].proxyCodeHash).to.equal(keccak256(deployedBytecode));
    }
    expect(new Set(Object.values(SAFE_RELEASES).map(({ proxyCodeHash }) => proxyCodeHash)).size).to.equal(3);
  });

  it("any known proxy with any known singleton is a Safe, of the singleton's release; no look-alike is", () => {
    const proxies = SAFE_VERSIONS.map((version) => SAFE_RELEASES[version].proxyCodeHash);
    const other = keccak256("0x6001");
    let pairs = 0;
    for (const version of SAFE_VERSIONS)
      for (const { addresses, codeHash: singletonCodeHash } of SAFE_RELEASES[version].singletons)
        for (const address of addresses)
          for (const singleton of [address, address.toLowerCase()])
            for (const codeHash of proxies) {
              pairs += 1;
              expect(recogniseSafe({ codeHash, singleton, singletonCodeHash })).to.deep.equal({ version });
              for (const [alike, why] of [
                [{ codeHash: other, singleton, singletonCodeHash }, "its code is not Safe's proxy"],
                [{ codeHash, singleton, singletonCodeHash: other }, "its singleton's code is not the published one"],
                [{ codeHash: singletonCodeHash, singleton, singletonCodeHash }, "its code is not Safe's proxy"],
                [{ codeHash, singleton: `0x${"12".repeat(20)}`, singletonCodeHash }, "no published singleton"],
              ] as const) {
                const found = recogniseSafe(alike);
                expect(found.version).to.equal(undefined);
                expect("why" in found && found.why).to.include(why);
              }
            }
    expect(pairs).to.equal(8 * 2 * 3);
  });

  it("handlers of every release are known, and no other address", () => {
    for (const version of SAFE_VERSIONS)
      for (const { addresses } of SAFE_RELEASES[version].fallbackHandlers)
        for (const address of addresses) expect(isFallbackHandler(address), address).to.equal(true);
    for (const { addresses } of SAFE_RELEASES["1.5.0"].singletons)
      for (const address of addresses) expect(isFallbackHandler(address), address).to.equal(false);
  });
});
