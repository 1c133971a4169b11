import { expect } from "chai";
import { fromHex } from "../../../src/core/bytes.ts";
import {
  computeRtmr3,
  computeSnpWorkload,
  matchWorkload,
  parseImageFilter,
  parseSnpTable,
  parseTdxTable,
  resolvePlatform,
  resolveSnpPlatform,
} from "../../../src/core/evidence/secretvm.ts";
import { computeLaunchDigest, parseLaunchInputs } from "../../../src/core/evidence/snp-launch.ts";
import {
  digest,
  json,
  launchInputs,
  replay,
  runtimeEvent,
  snpEntry,
  TDX_HEADER,
  tdxTable,
  utf8,
} from "../../helpers/deployment.ts";
import { errorOf } from "../../helpers/errors.ts";

const compose = utf8("services:\n  app:\n    image: x\n");
const rootfs = fromHex("c0".repeat(32), "rootfs");
const appId = fromHex("11".repeat(20), "app id");
const dockerFilesHash = fromHex("d0".repeat(32), "docker files");
const composeHash = digest("sha256", compose);

describe("core/evidence/secretvm", () => {
  describe("RTMR3", () => {
    it("extends by compose, root file system and docker files, each padded to 48 bytes", () => {
      const three = [composeHash, Buffer.from(rootfs), Buffer.from(dockerFilesHash)];
      expect(computeRtmr3({ compose, rootfs }, { scheme: "extends" })).to.equal(
        `0x${replay(three.slice(0, 2)).toString("hex")}`,
      );
      expect(computeRtmr3({ compose, rootfs, dockerFilesHash }, { scheme: "extends" })).to.equal(
        `0x${replay(three).toString("hex")}`,
      );
    });

    it("extends by dstack events where dstack delivers the keys", () => {
      const events = [
        runtimeEvent("app-id", "11".repeat(20)),
        runtimeEvent("compose-hash", composeHash.toString("hex")),
        runtimeEvent("os-image-hash", "c0".repeat(32)),
        runtimeEvent("docker-files-hash", "d0".repeat(32)),
      ].map((event) => Buffer.from(event.digest, "hex"));
      expect(computeRtmr3({ compose, rootfs }, { scheme: "dstack-events", appId })).to.equal(
        `0x${replay(events.slice(0, 3)).toString("hex")}`,
      );
      expect(computeRtmr3({ compose, rootfs, dockerFilesHash }, { scheme: "dstack-events", appId })).to.equal(
        `0x${replay(events).toString("hex")}`,
      );
    });

    it("is of the exact bytes: line endings, a byte order mark and a final newline count", () => {
      const text = "a: 1\nb: 2\n";
      const variants = [text, text.replaceAll("\n", "\r\n"), `\ufeff${text}`, text.trimEnd(), `${text}\n`].map(
        (variant) => computeRtmr3({ compose: utf8(variant), rootfs }, { scheme: "extends" }),
      );
      expect(new Set(variants).size).to.equal(variants.length);
      expect(computeRtmr3({ compose: Uint8Array.of(0xff), rootfs }, { scheme: "extends" })).to.match(
        /^0x[0-9a-f]{96}$/,
      );
    });

    it("refuses hashes of another width", () => {
      const short = new Uint8Array(31);
      for (const act of [
        () => computeRtmr3({ compose, rootfs: short }, { scheme: "extends" }),
        () => computeRtmr3({ compose, rootfs, dockerFilesHash: short }, { scheme: "extends" }),
        () => computeRtmr3({ compose, rootfs }, { scheme: "dstack-events", appId: short }),
      ]) {
        expect(errorOf(act).code).to.equal("secretvm/input");
      }
    });
  });

  describe("tdx.csv", () => {
    it("reads rows with either line ending, columns in any order and spaces around a cell", () => {
      const rows = parseTdxTable(tdxTable([{}, { size: "large", host: "h2" }]));
      expect(rows).to.have.length(2);
      expect(rows[0]).to.deep.include({
        size: "small",
        mrtd: `0x${"a1".repeat(48)}`,
        rootfs: `0x${"c0".repeat(32)}`,
        line: 2,
      });
      expect(parseTdxTable(tdxTable([{}, { size: "large", host: "h2" }], "\r\n"))).to.deep.equal(rows);
      expect(parseTdxTable(tdxTable([{}, { size: "large", host: "h2" }], "  \n"))).to.deep.equal(rows);
      const turned = new TextDecoder()
        .decode(tdxTable([{}]))
        .trimEnd()
        .split("\n")
        .map((line) => line.split(",").reverse().join(","))
        .join("\n");
      expect(parseTdxTable(utf8(turned))).to.deep.equal(rows.slice(0, 1));
    });

    it("refuses damaged tables, naming the line", () => {
      const good = new TextDecoder().decode(tdxTable([{}, {}]));
      for (const [text, line] of [
        ["", 1],
        [good.replace("host_id", "host"), 1],
        [good.replace(TDX_HEADER, `${TDX_HEADER},mrtd`), 1],
        [good.replace("a1a1", "a1"), 2],
        [good.replace("a1a1", "zza1"), 2],
        [good.replace("small,", '"small",'), 2],
        [good.replace("small,", ","), 2],
        [`${good}small,prod\n`, 4],
        [`${good}\n`, 4],
      ] as const) {
        const error = errorOf(() => parseTdxTable(utf8(text)));
        expect(error.code, text.slice(0, 30)).to.equal("secretvm/table");
        expect(error.details.line).to.equal(line);
      }
      expect(errorOf(() => parseTdxTable(Uint8Array.of(0xff))).code).to.equal("text/not-utf8");
    });

    const table = () =>
      parseTdxTable(
        tdxTable([
          { host: "aa11" },
          { host: "bb22", rtmr0: "b9".repeat(48) },
          { environment: "dev", rootfs: "c9".repeat(32), host: "aa11" },
          { version: "v2", host: "aa11" },
        ]),
      );

    it("resolves one machine, and says in what several differ instead of picking one", () => {
      const one = resolvePlatform(table(), { size: "small", environment: "prod", version: "v1", host: "aa" });
      expect(one.differing).to.deep.equal([]);
      expect(one.agreed).to.deep.equal({
        mrtd: `0x${"a1".repeat(48)}`,
        rtmr0: `0x${"b0".repeat(48)}`,
        rtmr1: `0x${"b1".repeat(48)}`,
        rtmr2: `0x${"b2".repeat(48)}`,
        rootfs: `0x${"c0".repeat(32)}`,
      });
      const hosts = resolvePlatform(table(), { environment: "prod", version: "v1" });
      expect(hosts.rows).to.have.length(2);
      expect(hosts.differing).to.deep.equal(["rtmr0"]);
      expect(hosts.agreed).not.to.have.property("rtmr0");
      expect(resolvePlatform(table(), { version: "v1" }).differing).to.deep.equal(["rtmr0", "rootfs"]);
      expect(resolvePlatform(table(), {}).rows).to.have.length(4);
    });

    it("refuses a machine that the table does not have, and says what it has", () => {
      const error = errorOf(() => resolvePlatform(table(), { size: "huge" }));
      expect(error.code).to.equal("secretvm/no-such-platform");
      expect(error.details).to.deep.equal({ sizes: ["small"], environments: ["dev", "prod"], versions: ["v1", "v2"] });
    });

    it("tells an unknown platform from a known one with another workload", () => {
      const [row] = table();
      if (row === undefined) throw new Error("the table is empty");
      const { mrtd, rtmr0, rtmr1, rtmr2 } = row;
      const registers = { mrtd, rtmr0, rtmr1, rtmr2, rtmr3: computeRtmr3({ compose, rootfs }, { scheme: "extends" }) };
      const match = matchWorkload(table(), registers, { compose }, { scheme: "extends" });
      expect(match.candidates.map(({ line }) => line)).to.deep.equal([2, 4, 5]);
      expect(match.matches.map(({ line }) => line)).to.deep.equal([2, 5]);
      expect(matchWorkload(table(), registers, { compose: utf8("x") }, { scheme: "extends" }).matches).to.deep.equal(
        [],
      );
      expect(
        matchWorkload(table(), { ...registers, rtmr2: `0x${"00".repeat(48)}` }, { compose }, { scheme: "extends" })
          .candidates,
      ).to.deep.equal([]);
    });
  });

  describe("sev.json", () => {
    const table = (...entries: readonly object[]) => parseSnpTable(json(entries));

    it("puts compose, root file system and extras on the command line that it measures", () => {
      const [plain, gpu] = table(snpEntry(), snpEntry({ vm_type: "gpu_prod", cmdline_extra: "pci=realloc,nocrs" }));
      if (plain === undefined || gpu === undefined) throw new Error("the table is short");
      const workload = computeSnpWorkload(plain, "medium", { compose });
      expect(workload.vcpus).to.equal(2);
      expect(workload.cmdline).to.equal(
        `console=ttyS0 loglevel=7 docker_compose_hash=${composeHash.toString("hex")} rootfs_hash=${"3c".repeat(32)}`,
      );
      const direct = computeLaunchDigest(
        parseLaunchInputs(json(launchInputs()), { cmdline: workload.cmdline, vcpus: 2 }),
      );
      expect(workload.measurement).to.equal(`0x${Buffer.from(direct).toString("hex")}`);
      expect(computeSnpWorkload(gpu, "small", { compose, dockerFilesHash }).cmdline).to.equal(
        `console=ttyS0 loglevel=7 pci=realloc,nocrs docker_compose_hash=${composeHash.toString("hex")} rootfs_hash=${"3c".repeat(32)} docker_additional_files_hash=${"d0".repeat(32)}`,
      );
      expect(errorOf(() => computeSnpWorkload(plain, "xxl", { compose })).code).to.equal("secretvm/unknown-size");
    });

    it("wants one entry, and refuses damaged ones when the table is read", () => {
      const rows = table(snpEntry(), snpEntry({ vm_type: "dev" }), snpEntry({ artifacts_ver: "v2" }));
      expect(resolveSnpPlatform(rows, { environment: "prod", version: "v2" }).index).to.equal(2);
      const ambiguous = errorOf(() => resolveSnpPlatform(rows, { environment: "prod" }));
      expect(ambiguous.code).to.equal("secretvm/ambiguous-platform");
      expect(ambiguous.details.candidates).to.deep.equal(["prod/v1", "prod/v2"]);
      expect(errorOf(() => resolveSnpPlatform(rows, { version: "v9" })).code).to.equal("secretvm/no-such-platform");
      expect(errorOf(() => table(snpEntry({ kernel_hash: "1" }))).code).to.equal("snp-launch/input");
      expect(errorOf(() => table(snpEntry({ rootfs_hash: "1" }))).code).to.equal("secretvm/table");
      expect(errorOf(() => table(snpEntry({ vm_type: 1 }))).code).to.equal("secretvm/table");
      expect(errorOf(() => parseSnpTable(json({}))).code).to.equal("secretvm/table");
      expect(errorOf(() => parseSnpTable(json([1]))).code).to.equal("secretvm/table");
    });
  });

  describe("image filters", () => {
    const all = (value: unknown) =>
      Object.fromEntries(
        [
          "mr_seam",
          "mr_signer_seam",
          "mr_td",
          "mr_config_id",
          "mr_owner",
          "mr_config",
          "rtmr0",
          "rtmr1",
          "rtmr2",
          "rtmr3",
        ].map((field) => [field, value]),
      );

    it("reads hex and byte arrays alike, under the image's register names", () => {
      const text = parseImageFilter(json({ ...all("Ab".repeat(48)), mr_owner: null, vm_uid: "x" }));
      expect(text.wildcards).to.deep.equal(["mr_owner"]);
      expect(text.image.registers.mr_owner_config).to.equal(`0x${"ab".repeat(48)}`);
      const bytes = parseImageFilter(json({ ...all(Array(48).fill(0xab)), mr_owner: null }));
      expect(bytes.image).to.deep.equal(text.image);
      expect(parseImageFilter(json({})).wildcards).to.have.length(10);
    });

    it("refuses unknown fields and other widths", () => {
      for (const bad of [
        { rtmr4: null },
        { rtmr3: "ab" },
        { rtmr3: Array(47).fill(0) },
        { rtmr3: Array(48).fill(256) },
        { rtmr3: 1 },
        [],
      ]) {
        expect(errorOf(() => parseImageFilter(json(bad))).code, JSON.stringify(bad)).to.equal("secretvm/image-filter");
      }
    });
  });
});
