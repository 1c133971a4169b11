import { expect } from "chai";
import {
  computeMrConfigHash,
  encodeMrConfigId,
  parseMrConfig,
  verifyMrConfig,
} from "../../../src/core/evidence/mr-config.ts";
import { APP_ID, COMPOSE_HASH, digest, INSTANCE_ID, json } from "../../helpers/deployment.ts";
import { errorOf } from "../../helpers/errors.ts";

const document = {
  app_id: APP_ID,
  compose_hash: COMPOSE_HASH,
  instance_id: INSTANCE_ID,
  key_provider: "kms",
  key_provider_id: "abcd",
  version: 3,
};
const codeOf = (changes: object) => errorOf(() => parseMrConfig(json({ ...document, ...changes }))).code;

describe("core/evidence/mr-config", () => {
  it("reads a document of version 3, fields left out included", () => {
    expect(parseMrConfig(json(document))).to.deep.equal({
      appId: `0x${APP_ID}`,
      composeHash: `0x${COMPOSE_HASH}`,
      instanceId: `0x${INSTANCE_ID}`,
      keyProvider: "kms",
      keyProviderId: "0xabcd",
      gpuPolicyHash: undefined,
      initScriptHashes: undefined,
    });
    const scripts = parseMrConfig(
      json({ version: 3, compose_hash: COMPOSE_HASH, key_provider: "none", init_script_hashes: ["ab".repeat(32)] }),
    );
    expect(scripts.initScriptHashes).to.deep.equal([`0x${"ab".repeat(32)}`]);
    expect(scripts.appId).to.equal(undefined);
  });

  it("refuses other versions, unknown fields and other widths", () => {
    for (const version of [1, 2, 4, "3", null]) expect(codeOf({ version })).to.equal("mr-config/unknown-version");
    for (const changes of [
      { surprise: 1 },
      { compose_hash: undefined },
      { compose_hash: COMPOSE_HASH.slice(2) },
      { compose_hash: "AB".repeat(32) },
      { app_id: "" },
      { app_id: null },
      { key_provider: 1 },
      { init_script_hashes: {} },
      { init_script_hashes: [1] },
    ]) {
      expect(codeOf(changes), JSON.stringify(changes)).to.equal("mr-config/malformed");
    }
    expect(errorOf(() => parseMrConfig(json([]))).code).to.equal("mr-config/malformed");
  });

  it("is bound by its exact bytes into host_data or mr_config_id", () => {
    const bytes = json(document);
    const hash = `0x${digest("sha256", "dstack-mr-config-v3:\0", bytes).toString("hex")}` as const;
    expect(computeMrConfigHash(bytes)).to.equal(hash);
    verifyMrConfig(bytes, { host_data: hash });
    verifyMrConfig(bytes, { mr_config_id: `0x03${hash.slice(2)}${"00".repeat(15)}` });
    const spaced = new TextEncoder().encode(` ${new TextDecoder().decode(bytes)}`);
    const error = errorOf(() => verifyMrConfig(spaced, { host_data: hash }));
    expect(error.code).to.equal("mr-config/not-bound");
    expect(error.details).to.include({ register: "host_data", actual: hash });
    expect(errorOf(() => verifyMrConfig(bytes, { mr_config_id: encodeMrConfigId(1, hash) })).code).to.equal(
      "mr-config/not-bound",
    );
    expect(errorOf(() => verifyMrConfig(bytes, {})).code).to.equal("mr-config/malformed");
    expect(encodeMrConfigId(1, `0x${COMPOSE_HASH}`)).to.equal(`0x01${COMPOSE_HASH}${"00".repeat(15)}`);
    expect(errorOf(() => encodeMrConfigId(1, "0x00")).code).to.equal("mr-config/malformed");
  });
});
