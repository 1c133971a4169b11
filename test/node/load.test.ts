import { expect } from "chai";
import { isKeysteadError } from "../../src/core/errors.ts";
import type { NodeConfig } from "../../src/node/config.ts";
import { openDecider } from "../../src/node/load.ts";

const NOBODY = `0x${"00".repeat(20)}` as const;
const pin = (name: "registry" | "policy") => ({ name, address: NOBODY, codeHash: NOBODY, implementations: [] });
const deployment = { chainId: 1, registry: pin("registry"), policy: pin("policy"), dstackAuth: NOBODY, fromBlock: 0 };

/** Opens a decider over endpoints `a`, `b`, … at these addresses; the code of the error if it is refused. */
async function open(urls: readonly string[], quorum: number): Promise<string | undefined> {
  const endpoints = urls.map((url, at) => ({ name: "abc"[at] ?? "", url }));
  const config = { chain: { endpoints, quorum, maxAgeSeconds: 1800 } } as unknown as NodeConfig;
  return openDecider(config, deployment).then(
    () => undefined,
    (error: unknown) => (isKeysteadError(error) ? error.code : String(error)),
  );
}

describe("the endpoints of a configuration", () => {
  it("given different addresses, are opened", async () => {
    expect(await open(["https://a.example", "https://b.example", "http://127.0.0.1:8545"], 2)).to.equal(undefined);
  });
  it("given one address under two names, however it is spelled, are refused", async () => {
    for (const twin of ["https://a.example", "https://a.example/", "HTTPS://A.example:443"]) {
      expect(await open(["https://a.example", twin, "https://c.example"], 2)).to.equal("config/invalid");
    }
  });
  it("given half of them as quorum, are refused", async () => {
    expect(await open(["https://a.example", "https://b.example"], 1)).to.equal("chain/bad-quorum");
  });
});
