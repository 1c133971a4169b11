import type { Hex } from "../core/bytes.ts";

/** Safe releases that these tools recognise, hash and batch for. */
export const SAFE_VERSIONS = ["1.3.0", "1.4.1", "1.5.0"] as const;
export type SafeVersion = (typeof SAFE_VERSIONS)[number];

/** One published contract: its addresses on EVM chains, and the hash of its code at each. */
export interface PublishedContract {
  readonly addresses: readonly string[];
  readonly codeHash: Hex;
}

/** What a Safe release consists of, as far as these tools look at it. */
export interface SafeRelease {
  /** keccak256 of the code of every account: its proxy. */
  readonly proxyCodeHash: Hex;
  readonly singletons: readonly PublishedContract[];
  readonly multiSendCallOnly: PublishedContract;
  readonly fallbackHandlers: readonly PublishedContract[];
}

const at = (codeHash: Hex, ...addresses: readonly string[]): PublishedContract => ({ addresses, codeHash });

/**
 * Safe's releases as @safe-global/safe-deployments publishes them (canonical and, for 1.3.0, EIP-155 deployments; not zkSync's, which is another
 * machine). The proxies' hashes are of the npm packages' artifacts; 1.3.0's is that of every account of its factory. A test compares all of them
 * with those packages. This is the one list: the explorer, deployments, proposals and lint all recognise a Safe by {@link recogniseSafe}.
 */
export const SAFE_RELEASES: Readonly<Record<SafeVersion, SafeRelease>> = {
  "1.3.0": {
    proxyCodeHash: "0xb89c1b3bdf2cf8827818646bce9a8f6e372885f8c55e5c07acbd307cb133b000",
    singletons: [
      at(
        "0xbba688fbdb21ad2bb58bc320638b43d94e7d100f6f3ebaab0a4e4de6304b1c2e",
        "0xd9Db270c1B5E3Bd161E8c8503c55cEABeE709552",
        "0x69f4D1788e39c87893C980c06EdF4b7f686e2938",
      ),
      at(
        "0x21842597390c4c6e3c1239e434a682b054bd9548eee5e9b1d6a4482731023c0f",
        "0x3E5c63644E683549055b9Be8653de26E0B4CD36E",
        "0xfb1bffC9d739B8D520DaF37dF666da4C687191EA",
      ),
    ],
    multiSendCallOnly: at(
      "0xa9865ac2d9c7a1591619b188c4d88167b50df6cc0c5327fcbd1c8c75f7c066ad",
      "0x40A2aCCbd92BCA938b02010E17A5b8929b49130D",
      "0xA1dabEF33b3B82c7814B6D82A79e50F4AC44102B",
    ),
    fallbackHandlers: [
      at(
        "0x03e69f7ce809e81687c69b19a7d7cca45b6d551ffdec73d9bb87178476de1abf",
        "0xf48f2B2d2a534e402487b3ee7C18c33Aec0Fe5e4",
        "0x017062a1dE2FE6b99BE3d9d37841FeD19F573804",
      ),
    ],
  },
  "1.4.1": {
    proxyCodeHash: "0xd7d408ebcd99b2b70be43e20253d6d92a8ea8fab29bd3be7f55b10032331fb4c",
    singletons: [
      at(
        "0x1fe2df852ba3299d6534ef416eefa406e56ced995bca886ab7a553e6d0c5e1c4",
        "0x41675C099F32341bf84BFc5382aF534df5C7461a",
      ),
      at(
        "0xb1f926978a0f44a2c0ec8fe822418ae969bd8c3f18d61e5103100339894f81ff",
        "0x29fcB43b46531BcA003ddC8FCB67FFE91900C762",
      ),
    ],
    multiSendCallOnly: at(
      "0xecd5bd14a08c5d2122379900b2f272bdf107a7e92423c10dd5fe3254386c9939",
      "0x9641d764fc13c8B624c04430C7356C1C7C8102e2",
    ),
    fallbackHandlers: [
      at(
        "0x7c6007a5d711cea8dfd5d91f5940ec29c7f200fe511eb1fc1397b367af3c42f9",
        "0xfd0732Dc9E303f09fCEf3a7388Ad10A83459Ec99",
      ),
    ],
  },
  "1.5.0": {
    proxyCodeHash: "0x4e381985ca68b3e5d27b4425fa581c19cf33146d3f887a3cfca96f55528ea46f",
    singletons: [
      at(
        "0xdda019cbd7c867a533a2a86e5c53434fdc50b13122b5a5ddb4a8df61b31c20f2",
        "0xFf51A5898e281Db6DfC7855790607438dF2ca44b",
      ),
      at(
        "0x180193227186ccb85316c94db1f0d156ed932b14712cfaac78901899178572dc",
        "0xEdd160fEBBD92E350D4D398fb636302fccd67C7e",
      ),
    ],
    multiSendCallOnly: at(
      "0xcdbdcec38d2f1c7d961b0029ff8416b7e86e9974d6f0e9c9580c7d17fcfb6663",
      "0xA83c336B20401Af773B6219BA5027174338D1836",
    ),
    fallbackHandlers: [
      at(
        "0x3c6a85bcf7b563daa624b884b4e9a1b9fa5371edde7be945d998071a48f28bbc",
        "0x3EfCBb83A4A7AfcB4F68D501E2c2203a38be77f4",
      ),
      at(
        "0xba5bafdfba82e226b6dc8ae29bedf5026bd854ab4bee00128ca322717a5f2acf",
        "0x85a8ca358D388530ad0fB95D0cb89Dd44Fc242c3",
      ),
    ],
  },
};

const same = (a: string, b: string) => a.toLowerCase() === b.toLowerCase();
const RELEASES = Object.entries(SAFE_RELEASES) as readonly (readonly [SafeVersion, SafeRelease])[];

/** The published singleton at an address, whichever release of it. */
export function singletonAt(address: string): { readonly version: SafeVersion; readonly codeHash: Hex } | undefined {
  for (const [version, { singletons }] of RELEASES) {
    const found = singletons.find(({ addresses }) => addresses.some((each) => same(each, address)));
    if (found !== undefined) return { version, codeHash: found.codeHash };
  }
  return undefined;
}

/** What an account must show to be a Safe. */
export interface SafeCode {
  /** keccak256 of the account's own code. */
  readonly codeHash: string;
  /** Slot 0 of its storage. */
  readonly singleton: string;
  /** keccak256 of the code at the singleton. */
  readonly singletonCodeHash: string;
}

/**
 * Whether an account is a Safe, and of which release. A Safe that was updated in Safe{Wallet} keeps the proxy that it was made with under a newer singleton, so any
 * known proxy with any known singleton is one; the singleton says which release it is. Anything else is not, however much it resembles one.
 *
 * @returns the release, or why not, as the end of a sentence
 * @example
 * recogniseSafe({ codeHash, singleton, singletonCodeHash }).version; // "1.5.0"
 */
export function recogniseSafe({
  codeHash,
  singleton,
  singletonCodeHash,
}: SafeCode): { readonly version: SafeVersion } | { readonly version: undefined; readonly why: string } {
  const refuse = (why: string) => ({ version: undefined, why });
  const release = singletonAt(singleton);
  if (release === undefined) return refuse(`slot 0 points to ${singleton}, no published singleton`);
  if (!RELEASES.some(([, { proxyCodeHash }]) => same(proxyCodeHash, codeHash))) {
    return refuse("its code is not Safe's proxy");
  }
  if (!same(release.codeHash, singletonCodeHash)) return refuse("its singleton's code is not the published one");
  return { version: release.version };
}

/** Whether an address is a published fallback handler. A migrated Safe may keep the handler of the release that it came from. */
export function isFallbackHandler(address: string): boolean {
  return RELEASES.some(([, { fallbackHandlers }]) =>
    fallbackHandlers.some(({ addresses }) => addresses.some((each) => same(each, address))),
  );
}
