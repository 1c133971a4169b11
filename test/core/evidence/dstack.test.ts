import { expect } from "chai";
import type { Hex } from "../../../src/core/bytes.ts";
import {
  buildAppCompose,
  inspectAppCompose,
  parseAppConfig,
  parseEnvNames,
} from "../../../src/core/evidence/app-compose.ts";
import {
  computeAggregates,
  computeComposeHash,
  computeOsImageHash,
  parseChecksumFile,
  parseDigestFile,
  parseStatus,
} from "../../../src/core/evidence/dstack.ts";
import { digest, json, utf8 } from "../../helpers/deployment.ts";
import { errorOf } from "../../helpers/errors.ts";

const reg = (byte: number, width = 48): Hex => `0x${byte.toString(16).padStart(2, "0").repeat(width)}`;
const raw = (hex: Hex) => Buffer.from(hex.slice(2), "hex");
const sha = (...parts: readonly Uint8Array[]) => `0x${digest("sha256", ...parts).toString("hex")}`;

describe("core/evidence/dstack", () => {
  describe("aggregates", () => {
    const payload: Hex = `0x${Buffer.from('{"name":"kms"}').toString("hex")}`;
    const kp = digest("sha256", raw(payload));
    const tdx = {
      variant: "tdx",
      mrtd: reg(1),
      rtmr0: reg(2),
      rtmr1: reg(3),
      rtmr2: reg(4),
      rtmr3: reg(5),
      mrConfigId: reg(0),
      mrOwner: reg(0),
      mrOwnerConfig: reg(0),
      keyProvider: payload,
    } as const;
    const boot = [raw(reg(1)), raw(reg(2)), raw(reg(3)), raw(reg(4))];

    it("of TDX leave the configuration out only where all of it is zero", () => {
      expect(computeAggregates(tdx)).to.deep.equal({
        mrSystem: sha(...boot, kp),
        mrAggregated: sha(...boot, raw(reg(5))),
      });
      expect(computeAggregates({ ...tdx, mrOwner: reg(7) }).mrAggregated).to.equal(
        sha(...boot, raw(reg(5)), raw(reg(0)), raw(reg(7)), raw(reg(0))),
      );
    });

    it("take 32 zero bytes for a key provider that is not there yet", () => {
      expect(computeAggregates({ ...tdx, keyProvider: "0x" }).mrSystem).to.equal(sha(...boot, Buffer.alloc(32)));
    });

    it("of the other platforms follow the table", () => {
      const gcp = {
        osImageHash: reg(9, 32),
        pcr0: reg(1, 32),
        pcr2: reg(2, 32),
        pcr14: reg(3, 32),
        keyProvider: payload,
      };
      expect(computeAggregates({ variant: "gcp-tdx", ...gcp })).to.deep.equal({
        mrSystem: sha(raw(gcp.osImageHash), kp),
        mrAggregated: sha(raw(gcp.pcr0), raw(gcp.pcr2), raw(gcp.pcr14)),
      });
      const tpm = { pcr4: reg(1), pcr7: reg(2), pcr12: reg(3), pcr14: reg(4), keyProvider: payload };
      expect(computeAggregates({ variant: "nitro-tpm", ...tpm })).to.deep.equal({
        mrSystem: sha(raw(tpm.pcr4), raw(tpm.pcr7), raw(tpm.pcr12), kp),
        mrAggregated: sha(raw(tpm.pcr4), raw(tpm.pcr7), raw(tpm.pcr12), raw(tpm.pcr14)),
      });
      const all = sha(raw(reg(1)), raw(reg(2)), raw(reg(3)));
      expect(computeAggregates({ variant: "nitro-enclave", pcr0: reg(1), pcr1: reg(2), pcr2: reg(3) })).to.deep.equal({
        mrSystem: all,
        mrAggregated: all,
      });
      expect(computeAggregates({ variant: "snp", measurement: reg(1), hostData: reg(2, 32) })).to.deep.equal({
        mrSystem: sha(raw(reg(1))),
        mrAggregated: sha(raw(reg(1)), raw(reg(2, 32))),
      });
    });

    it("refuse registers of another width", () => {
      for (const act of [
        () => computeAggregates({ ...tdx, rtmr3: reg(5, 32) }),
        () => computeAggregates({ ...tdx, mrOwner: "0x" }),
        () => computeAggregates({ variant: "snp", measurement: reg(1), hostData: reg(2) }),
      ]) {
        expect(errorOf(act).code).to.equal("dstack/register-width");
      }
    });
  });

  describe("image files", () => {
    it("agree: digest.txt states the SHA-256 of sha256sum.txt", () => {
      const sums = utf8(`${"ab".repeat(32)}  ovmf.fd\n${"cd".repeat(32)} *bzImage\n`);
      const hash = computeOsImageHash(sums);
      expect(hash).to.equal(sha(sums));
      for (const text of [hash.slice(2), `${hash.slice(2)}\n`, ` ${hash.slice(2).toUpperCase()}\r\n`]) {
        expect(parseDigestFile(utf8(text))).to.equal(hash);
      }
      expect(parseChecksumFile(sums)).to.deep.equal([
        { sha256: reg(0xab, 32), name: "ovmf.fd" },
        { sha256: reg(0xcd, 32), name: "bzImage" },
      ]);
    });

    it("are refused where damaged", () => {
      for (const text of ["", "ab", "ab".repeat(33), "zz".repeat(32), `${"ab".repeat(32)} x`]) {
        expect(errorOf(() => parseDigestFile(utf8(text))).code, text).to.equal("dstack/digest-file");
      }
      for (const text of ["\n", `${"ab".repeat(32)} x`, `${"AB".repeat(32)}  x`, `${"ab".repeat(32)}  `, "x"]) {
        expect(errorOf(() => parseChecksumFile(utf8(text))).code, text).to.equal("dstack/checksum-file");
      }
    });
  });

  describe("status lines", () => {
    const values = (text: string) => parseStatus(utf8(text)).values;
    const rtmr3 = "ab".repeat(48);
    const os = "cd".repeat(32);

    it("are read among others, in the spellings that tools use", () => {
      for (const line of [
        `RTMR3: ${rtmr3}`,
        `  rtmr3 = 0x${rtmr3.toUpperCase()}\r`,
        `2026-01-01 00:00:00 - INFO - RTMR3: ${rtmr3}`,
        `"rtmr3": "${rtmr3}",`,
        `\u001b[1mRTMR3\u001b[0m  ${rtmr3}`,
        `- RTMR3: '${rtmr3}'`,
      ]) {
        expect(values(`Status: RUNNING\n${line}\nOS_IMAGE_HASH: ${os}\n`), line).to.deep.equal({
          RTMR3: `0x${rtmr3}`,
          OS_IMAGE_HASH: `0x${os}`,
        });
      }
      expect(values(`OS Image Hash: ${os}`)).to.deep.equal({ OS_IMAGE_HASH: `0x${os}` });
      expect(parseStatus(utf8(`\n\nRTMR3: ${rtmr3}\nRTMR3: ${rtmr3}`)).lines).to.deep.equal({ RTMR3: 3 });
    });

    it("must have a value of the register's width, and agree", () => {
      for (const [text, code] of [
        [`RTMR3: ${rtmr3.slice(2)}`, "dstack/status-value"],
        ["RTMR3: abcdef...", "dstack/status-value"],
        [`OS_IMAGE_HASH: ${rtmr3}`, "dstack/status-value"],
        [`RTMR3:`, "dstack/status-value"],
        [`RTMR3: ${rtmr3} (stale)`, "dstack/status-value"],
        [`RTMR3: ${rtmr3}\nRTMR3: ${"ac".repeat(48)}`, "dstack/status-conflict"],
        ["Status: RUNNING\n", "dstack/status-empty"],
        ["", "dstack/status-empty"],
        ["x".repeat(1024 * 1024 + 1), "dstack/status-too-large"],
      ] as const) {
        expect(errorOf(() => values(text)).code, text.slice(0, 40)).to.equal(code);
      }
    });
  });
});

describe("core/evidence/app-compose", () => {
  const app = (changes: object = {}) => parseAppConfig(json({ name: "demo", ...changes }));
  const dockerCompose = utf8("services: {}\n");
  const only = (changes: object = {}, files: object = {}) => {
    const candidates = buildAppCompose(app(changes), { dockerCompose, ...files });
    expect(candidates).to.have.length(1);
    const [first] = candidates;
    if (first === undefined) throw new Error("no candidate");
    return first;
  };

  it("writes what dstack-cloud writes: key order, indent of two, no final newline", () => {
    expect(
      new TextDecoder().decode(only({ allowed_envs: ["A", "B"] }, { prelaunch: utf8("#!/bin/sh\n") }).bytes),
    ).to.equal(
      `{
  "manifest_version": 2,
  "name": "demo",
  "runner": "docker-compose",
  "docker_compose_file": "services: {}\\n",
  "gateway_enabled": true,
  "public_logs": true,
  "public_sysinfo": true,
  "public_tcbinfo": true,
  "key_provider_id": "",
  "allowed_envs": [
    "A",
    "B"
  ],
  "no_instance_id": false,
  "secure_time": false,
  "key_provider": "kms",
  "storage_fs": "ext4",
  "pre_launch_script": "#!/bin/sh\\n"
}`,
    );
    expect(new TextDecoder().decode(only().bytes)).to.include('"allowed_envs": [],');
  });

  it("escapes and reads text as Python does", () => {
    // The hash is of what CPython 3 writes for these files with json.dump(…, indent=2).
    const config = utf8(
      String.raw`{"name": "caf\u00e9 \ud83d\ude00 \u007f\u2028 \"q\" \\ /", "key_provider_id": "\u0001\b\f\t", "allowed_envs": ["B", "A", "B"], "public_sysinfo": false, "secure_time": true}`,
    );
    const [candidate] = buildAppCompose(parseAppConfig(config), {
      dockerCompose: utf8('\ufeffservices:\r\n  a:\r    image: "x"\n\n'),
      prelaunch: utf8("#!/bin/sh\necho hi\n"),
    });
    expect(candidate?.composeHash).to.equal("0x1f86846e7437db61055d901f9887da07ec0ab7c5170ab106f7404203da2a5448");
    expect(candidate?.composeHash).to.equal(computeComposeHash(candidate?.bytes ?? new Uint8Array()));
  });

  it("enumerates the orders that the tool's set may give, and refuses where they are too many", () => {
    const env = (...names: readonly string[]) => utf8(names.map((name) => `${name}=secret\n`).join(""));
    expect(only({}, { env: env("A") }).allowedEnvs).to.deep.equal(["A"]);
    expect(only({ allowed_envs: ["A"] }, { env: env("A") }).allowedEnvs).to.deep.equal(["A"]);
    expect(only({ allowed_envs: ["B", "A", "B"] }, { env: utf8("# none\n\n") }).allowedEnvs).to.deep.equal([
      "B",
      "A",
      "B",
    ]);
    const three = buildAppCompose(app({ allowed_envs: ["A"] }), { dockerCompose, env: env("B", "C", "B") });
    expect(three.map(({ allowedEnvs }) => allowedEnvs.join(""))).to.deep.equal([
      "ABC",
      "ACB",
      "BAC",
      "BCA",
      "CAB",
      "CBA",
    ]);
    expect(new Set(three.map(({ composeHash }) => composeHash)).size).to.equal(6);
    const many = errorOf(() => buildAppCompose(app(), { dockerCompose, env: env("A", "B", "C", "D", "E", "F", "G") }));
    expect(many.code).to.equal("app/too-many-orders");
    expect(many.details).to.deep.equal({ names: 7 });
    const large = { dockerCompose: new Uint8Array(2 ** 20).fill(0x61), env: env("A", "B", "C", "D", "E", "F") };
    expect(errorOf(() => buildAppCompose(app(), large)).code).to.equal("app/too-many-orders");
    expect(buildAppCompose(app(), { ...large, env: env("A") })).to.have.length(1);
  });

  it("refuses what the tool refuses, and what it would turn into something else", () => {
    const files = { dockerCompose, env: utf8("A=1\n") };
    expect(errorOf(() => buildAppCompose(app({ key_provider: "tpm" }), files)).code).to.equal("app/env-without-kms");
    expect(errorOf(() => buildAppCompose(app(), { dockerCompose: Uint8Array.of(0xff) })).code).to.equal(
      "text/not-utf8",
    );
    for (const changes of [
      { name: 1 },
      { gateway_enabled: "yes" },
      { allowed_envs: "A" },
      { allowed_envs: [1] },
      { docker_compose_file: null },
    ]) {
      expect(errorOf(() => app(changes)).code, JSON.stringify(changes)).to.equal("app/field");
    }
    expect(errorOf(() => parseAppConfig(utf8("[]"))).code).to.equal("app/field");
    expect(errorOf(() => parseAppConfig(utf8('{"name":"a","name":"b"}'))).code).to.equal("json/duplicate-key");
  });

  const REQUIRED = { manifest_version: 2, name: "x", runner: "docker-compose" };

  it("reads an environment file as Python does", () => {
    const names = (text: string) => parseEnvNames(utf8(text));
    expect(names("A=1\r\n  B = 2=3 \n\n# C=1\nnothing\nexport D=4\nA=5\n")).to.deep.equal(["A", "B", "export D"]);
    // Python strips U+0085 and U+001C to U+001F and keeps U+FEFF; JavaScript does the opposite
    expect(names("\ufeffA=1\n\u001cB\u0085=2\n\u00a0C\u2003=3\n=4\n")).to.deep.equal(["\ufeffA", "B", "C", ""]);
    expect(names("\ufeff#A=1\n")).to.deep.equal(["\ufeff#A"]);
  });

  it("remarks on a finished app-compose without changing its hash", () => {
    const summary = inspectAppCompose(
      json({ ...REQUIRED, docker_compose_file: "services:\n  a:\n    image: nginx:latest\n", allowed_envs: ["A", 1] }),
    );
    expect(summary).to.deep.include({ name: "x", keyProvider: undefined, allowedEnvs: ["A"] });
    expect(summary.remarks).to.have.length(2);
    const pinned = inspectAppCompose(
      json({ ...REQUIRED, key_provider: "kms", docker_compose_file: `image: nginx@sha256:${"ab".repeat(32)}` }),
    );
    expect(pinned.remarks).to.deep.equal([]);
    for (const field of Object.keys(REQUIRED)) {
      const { code, details } = errorOf(() => inspectAppCompose(json({ ...REQUIRED, [field]: undefined })));
      expect({ code, details }).to.deep.equal({ code: "dstack/not-app-compose", details: { missing: [field] } });
    }
    expect(errorOf(() => inspectAppCompose(utf8('["a quote"]'))).code).to.equal("dstack/not-app-compose");
    expect(errorOf(() => inspectAppCompose(utf8("services:"))).code).to.equal("json/malformed");
  });
});
