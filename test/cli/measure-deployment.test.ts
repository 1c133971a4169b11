import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { errorCodeOf, jsonOf, keystead, makeFolder } from "../helpers/cli.ts";
import {
  bootLog,
  buildOvmf,
  COMPOSE_HASH,
  digest,
  json,
  launchInputs,
  OS_IMAGE_HASH,
  replay,
  replayRaw,
  snpEntry,
  tdxTable,
  utf8,
} from "../helpers/deployment.ts";
import { buildSnpReport, buildTdxQuote } from "../helpers/evidence.ts";

const COMPOSE = "services:\n  app:\n    image: x\n";
const hexOf = (bytes: Uint8Array) => `0x${Buffer.from(bytes).toString("hex")}`;
const rtmr3Of = (text: string | Uint8Array, rootfs = "c0".repeat(32)) =>
  hexOf(replay([digest("sha256", text), Buffer.from(rootfs, "hex")]));
const codes = (measurement: { findings: { code: string }[] }) => measurement.findings.map(({ code }) => code);

describe("keystead measure, on deployment files", () => {
  const folder = makeFolder();
  after(() => folder.remove());
  const table = folder.write(
    "tdx.csv",
    tdxTable([
      { host: "aa11" },
      { host: "bb22", rtmr0: "b9".repeat(48) },
      { version: "v2", rootfs: "c2".repeat(32), host: "aa11" },
    ]),
  );
  const compose = folder.write("compose.yaml", COMPOSE);
  const machine = [
    "--platform-table",
    table,
    "--size",
    "small",
    "--environment",
    "prod",
    "--image-version",
    "v1",
    "--host",
    "aa",
  ];
  const measure = (...args: readonly string[]) => keystead(["--json", "measure", ...args]);

  describe("compose", () => {
    it("computes RTMR3 and looks the rest up, each register with its file, hash and formula", () => {
      const run = measure("compose", compose, ...machine);
      expect(run.code).to.equal(0);
      const { measurement, images } = jsonOf(run);
      expect(measurement.registers.rtmr3).to.deep.include({ value: rtmr3Of(COMPOSE), how: "computed" });
      expect(measurement.registers.rtmr3.source).to.deep.equal({
        name: compose,
        sha256: hexOf(digest("sha256", COMPOSE)),
        bytes: COMPOSE.length,
      });
      for (const name of ["mrtd", "rtmr0", "rtmr1", "rtmr2"]) {
        expect(measurement.registers[name].how).to.equal("table");
        expect(measurement.registers[name].formula).to.include("row 2");
      }
      expect(images.service.text).to.equal(
        `tdx:mrtd=${"a1".repeat(48)},rtmr0=${"b0".repeat(48)},rtmr1=${"b1".repeat(48)},rtmr2=${"b2".repeat(48)},rtmr3=${rtmr3Of(COMPOSE).slice(2)}`,
      );
      expect(measurement.findings).to.deep.equal([]);
      expect(measurement.unchecked).to.have.length.greaterThan(1);
    });

    it("refuses to pick among hosts, and lists them", () => {
      const run = measure("compose", compose, ...machine.slice(0, -2));
      expect(run.code).to.equal(2);
      const { code, details } = JSON.parse(run.stderr).error;
      expect(code).to.equal("secretvm/ambiguous-platform");
      expect(details.differing).to.deep.equal(["rtmr0"]);
      expect(details.candidates).to.have.length(2);
    });

    it("finds the platform by a quote, and tells another workload from an unknown machine", () => {
      const bytes = Buffer.from(buildTdxQuote());
      Buffer.from("a1".repeat(48), "hex").copy(bytes, 184);
      for (const [index, byte] of ["b0", "b1", "b2"].entries())
        Buffer.from(byte.repeat(48), "hex").copy(bytes, 376 + 48 * index);
      Buffer.from(rtmr3Of(COMPOSE).slice(2), "hex").copy(bytes, 520);
      const quote = folder.write("machine.bin", bytes);
      const run = measure("compose", compose, "--platform-table", table, "--quote", quote);
      expect(run.code).to.equal(0);
      const { measurement, images } = jsonOf(run);
      expect(measurement.facts.platform).to.equal("small/prod/v1");
      expect(images.service.text).to.equal(jsonOf(measure("quote", quote)).images.service.text);
      const other = folder.write("other.yaml", `${COMPOSE}# changed\n`);
      expect(errorCodeOf(measure("compose", other, "--platform-table", table, "--quote", quote))).to.equal(
        "secretvm/other-workload",
      );
      const stranger = folder.write("stranger.bin", buildTdxQuote());
      expect(errorCodeOf(measure("compose", compose, "--platform-table", table, "--quote", stranger))).to.equal(
        "secretvm/unknown-platform",
      );
    });

    it("adds docker files, the dstack scheme, or takes the rootfs hash alone", () => {
      const archive = folder.write("files.tar", utf8("archive"));
      const { measurement } = jsonOf(measure("compose", compose, ...machine, "--docker-files", archive));
      const three = [digest("sha256", COMPOSE), Buffer.from("c0".repeat(32), "hex"), digest("sha256", "archive")];
      expect(measurement.registers.rtmr3.value).to.equal(hexOf(replay(three)));
      expect(measurement.sources).to.have.length(3);
      const events = jsonOf(measure("compose", compose, ...machine, "--dstack-app-id", "11".repeat(20))).measurement;
      expect(events.registers.rtmr3.value).not.to.equal(rtmr3Of(COMPOSE));
      expect(events.registers.rtmr3.formula).to.include("app-id");
      const alone = measure("compose", compose, "--rootfs", "c0".repeat(32));
      expect(alone.code, "no image follows").to.equal(2);
      expect(jsonOf(alone).measurement.registers.rtmr3.value).to.equal(rtmr3Of(COMPOSE));
      expect(errorCodeOf(measure("compose", compose))).to.equal("measure/missing-option");
      expect(errorCodeOf(measure("compose", compose, ...machine, "--dstack-app-id", "11"))).to.equal(
        "measure/option-width",
      );
    });

    it("measures exact bytes and warns of what an editor would change", () => {
      const cases: readonly [string, string | Uint8Array, readonly string[]][] = [
        ["crlf.yaml", COMPOSE.replaceAll("\n", "\r\n"), ["text/crlf"]],
        ["bom.yaml", `\ufeff${COMPOSE}`, ["text/byte-order-mark"]],
        ["cut.yaml", COMPOSE.trimEnd(), ["text/no-final-newline"]],
        ["blank.yaml", `${COMPOSE}\n`, ["text/blank-end"]],
        ["latin.yaml", Buffer.concat([Buffer.from(COMPOSE), Uint8Array.of(0x23, 0xe9, 0x0a)]), ["text/not-utf8"]],
      ];
      for (const [name, contents, expected] of cases) {
        const { measurement } = jsonOf(measure("compose", folder.write(name, contents), ...machine));
        expect(codes(measurement), name).to.deep.equal(expected);
        expect(measurement.registers.rtmr3.value, name).to.equal(rtmr3Of(contents));
      }
      const link = join(folder.path, "link.yaml");
      symlinkSync(compose, link);
      expect(codes(jsonOf(measure("compose", link, ...machine)).measurement)).to.deep.equal(["input/symlink"]);
    });

    it("computes the launch digest with sev.json", () => {
      const sev = folder.write("sev.json", json([snpEntry()]));
      const run = measure("compose", compose, "--platform-table", sev, "--size", "medium");
      expect(run.code).to.equal(0);
      const { measurement } = jsonOf(run);
      expect(measurement.kind).to.equal("snp");
      expect(measurement.facts.vcpus).to.equal("2");
      expect(measurement.facts.cmdline).to.include(hexOf(digest("sha256", COMPOSE)).slice(2));
      expect(Buffer.from(measurement.registers.family_id.value.slice(2), "hex").toString()).to.equal(
        "prod-medium-sev#",
      );
      expect(errorCodeOf(measure("compose", compose, "--platform-table", sev))).to.equal("measure/missing-option");
      const inputs = folder.write("launch.json", json(launchInputs()));
      const direct = measure("snp-launch", inputs, "--vcpus", "2", "--cmdline", measurement.facts.cmdline);
      expect(jsonOf(direct).measurement.registers.measurement.value).to.equal(measurement.registers.measurement.value);
    });

    it("compares two compose files on one machine, and the next image version", () => {
      const changed = folder.write("new.yaml", COMPOSE.replace("x", "y"));
      const same = keystead(["--json", "measure", "diff", compose, compose, ...machine]);
      expect(same.code).to.equal(0);
      const run = keystead(["--json", "measure", "diff", compose, changed, ...machine]);
      expect(run.code).to.equal(1);
      const { diff } = jsonOf(run);
      const verdicts = Object.fromEntries(
        diff.registers.map((one: { name: string; verdict: string }) => [one.name, one.verdict]),
      );
      expect(verdicts).to.include({ mrtd: "same", rtmr2: "same", rtmr3: "changed" });
      expect(diff.calls.map((call: { function: string }) => call.function)).to.include("addImageToService");
    });
  });

  describe("dstack and app", () => {
    const sums = `${"ab".repeat(32)}  bzImage\n`;
    const osImageHash = hexOf(digest("sha256", sums));
    const sumsFile = folder.write("sha256sum.txt", sums);
    const digestFile = folder.write("digest.txt", osImageHash.slice(2));
    const appCompose = folder.write(
      "app-compose.json",
      json({ manifest_version: 2, runner: "docker-compose", name: "x" }),
    );

    it("hash app-compose.json, and the OS image by its checksums or its digest", () => {
      const computed = jsonOf(measure("dstack", appCompose, "--os-image", sumsFile)).measurement.registers;
      expect(computed.compose_hash.how).to.equal("computed");
      expect(computed.os_image_hash).to.deep.include({ value: osImageHash, how: "computed" });
      const read = measure("dstack", appCompose, "--os-image", digestFile, "--os-image-hash", osImageHash);
      expect(jsonOf(read).measurement.registers.os_image_hash).to.deep.include({ value: osImageHash, how: "read" });
      const other = measure("dstack", appCompose, "--os-image", sumsFile, "--os-image-hash", "00".repeat(32));
      expect(errorCodeOf(other)).to.equal("measure/two-os-images");
      const broken = folder.write("broken.json", "not json\n");
      expect(errorCodeOf(measure("dstack", broken))).to.equal("json/malformed");
    });

    const project = (changes: object, files: Readonly<Record<string, string>> = {}) => {
      const own = makeFolder();
      after(() => own.remove());
      own.write("docker-compose.yaml", COMPOSE);
      for (const [name, contents] of Object.entries(files)) own.write(name, contents);
      return own.write("app.json", json({ name: "demo", os_image: "dstack-0.6.0", ...changes }));
    };

    it("imply the app-compose of an app.json, and compare two projects", () => {
      const old = project({});
      const { measurement } = jsonOf(measure("app", old));
      expect(measurement.registers.compose_hash.how).to.equal("computed");
      expect(measurement.sources.map(({ name }: { name: string }) => name.split("/").at(-1))).to.include.members([
        "app.json",
        "docker-compose.yaml",
      ]);
      expect(measurement.facts.os_image).to.include("dstack-0.6.0");
      const same = keystead(["--json", "measure", "diff", old, project({}), "--os-image", sumsFile]);
      expect(same.code).to.equal(0);
      const changed = keystead([
        "--json",
        "measure",
        "diff",
        old,
        project({ public_logs: false }),
        "--os-image",
        sumsFile,
      ]);
      expect(changed.code).to.equal(1);
      expect(jsonOf(changed).diff.service).to.equal("changed");
    });

    it("refuse an app whose environment names have no fixed order, unless the written file settles it", () => {
      const app = project({ allowed_envs: ["A"] }, { ".env": "B=very-secret\n" });
      const run = measure("app", app);
      expect(run.code).to.equal(2);
      const { code, details } = JSON.parse(run.stderr).error;
      expect(code).to.equal("app/order-not-fixed");
      expect(details.candidates).to.have.length(2);
      expect(run.stderr + run.stdout).not.to.include("very-secret");
      const single = jsonOf(measure("app", project({}, { ".env": "B=very-secret\n" })));
      expect(JSON.stringify(single)).not.to.include(hexOf(digest("sha256", "B=very-secret\n")).slice(2));
      expect(errorCodeOf(measure("app", app, "--written", appCompose))).to.equal("app/written-differs");
    });

    it("ship a finished app-compose as it is, and refuse a project without its compose file", () => {
      const finished = '{"manifest_version":2,"name":"mine","runner":"docker-compose"}';
      const app = project({ app_compose_file: "mine.json" }, { "mine.json": finished });
      expect(jsonOf(measure("app", app)).measurement.registers.compose_hash.value).to.equal(
        hexOf(digest("sha256", finished)),
      );
      expect(errorCodeOf(measure("app", project({ docker_compose_file: "other.yaml" })))).to.equal("app/no-compose");
    });
  });

  describe("event-log and status", () => {
    const raw = bootLog();
    const log = folder.write("event-log.json", json(raw));
    const rtmr3 = replayRaw(raw, 3).slice(2);

    it("read a log, hold it against a quote, and say where it was not", () => {
      const run = measure("event-log", log);
      expect(run.code).to.equal(0);
      const { measurement } = jsonOf(run);
      expect(measurement.registers.compose_hash).to.deep.include({ value: `0x${COMPOSE_HASH}`, how: "read" });
      expect(measurement.registers.os_image_hash.value).to.equal(`0x${OS_IMAGE_HASH}`);
      expect(measurement.registers).not.to.have.property("mr_aggregated");
      expect(measurement.facts.rtmr3).to.equal(`0x${rtmr3}`);
      expect(measurement.unchecked[0]).to.include("--quote");
      const other = folder.write("other-quote.bin", buildTdxQuote());
      expect(errorCodeOf(measure("event-log", log, "--quote", other))).to.equal("event-log/rtmr-mismatch");
      expect(errorCodeOf(measure("event-log", log, "--os-image-hash", "00".repeat(32)))).to.equal(
        "measure/two-os-images",
      );
      const forged = raw.map((event) =>
        event.event === "app-id" ? { ...event, event_payload: "00".repeat(20) } : event,
      );
      expect(errorCodeOf(measure("event-log", folder.write("forged.json", json(forged))))).to.equal(
        "event-log/event-digest",
      );
    });

    it("computes the aggregates from a quote that the log replays to, alone or in one response", () => {
      const quote = Buffer.from(buildTdxQuote());
      for (const imr of [0, 1, 2, 3]) Buffer.from(replayRaw(raw, imr).slice(2), "hex").copy(quote, 376 + 48 * imr);
      const beside = jsonOf(measure("event-log", log, "--quote", folder.write("quote.bin", quote))).measurement;
      const joined = [quote.subarray(184, 232), quote.subarray(376, 568), quote.subarray(232, 376)];
      expect(beside.registers.mr_aggregated.value).to.equal(hexOf(digest("sha256", ...joined)));
      expect(beside.facts.checked).to.equal("rtmr0, rtmr1, rtmr2, rtmr3 equal the quote's");
      const response = folder.write(
        "response.json",
        json({ quote: quote.toString("hex"), event_log: JSON.stringify(raw) }),
      );
      expect(jsonOf(measure("event-log", response)).measurement.registers.mr_aggregated.value).to.equal(
        beside.registers.mr_aggregated.value,
      );
    });

    it("read status lines, with the log that explains them", () => {
      const status = folder.write("status.txt", `Status: RUNNING\nRTMR3: ${rtmr3}\nOS_IMAGE_HASH: ${OS_IMAGE_HASH}\n`);
      const alone = measure("status", status);
      expect(jsonOf(alone).measurement.registers.os_image_hash).to.deep.include({
        value: `0x${OS_IMAGE_HASH}`,
        how: "read",
      });
      expect(jsonOf(alone).measurement.facts.RTMR3).to.equal(`0x${rtmr3}`);
      expect(jsonOf(alone).images.platform.text).to.equal(`dstack:os_image_hash=${OS_IMAGE_HASH}`);
      const explained = jsonOf(measure("status", status, "--event-log", log));
      expect(explained.measurement.registers.compose_hash.value).to.equal(`0x${COMPOSE_HASH}`);
      expect(explained.images.service.text).to.include(COMPOSE_HASH);
      const stale = folder.write("stale.txt", `RTMR3: ${"ab".repeat(48)}\n`);
      expect(errorCodeOf(measure("status", stale, "--event-log", log))).to.equal("event-log/rtmr-mismatch");
      expect(errorCodeOf(measure("status", folder.write("none.txt", "Status: RUNNING\n")))).to.equal(
        "dstack/status-empty",
      );
      const tdx = folder.write(
        "tdx.txt",
        ["MRTD", "RTMR1", "RTMR2", "RTMR3"].map((name) => `${name}=${"ab".repeat(48)}`).join("\n"),
      );
      expect(jsonOf(measure("status", tdx)).measurement.kind).to.equal("tdx");
    });
  });

  it("computes a launch digest from firmware, kernel and initial RAM disk, the same as from their published hashes", () => {
    const ovmf = folder.write("OVMF.fd", buildOvmf());
    const kernel = folder.write("bzImage", "kernel");
    const initrd = folder.write("initrd", "initrd");
    const machineOptions = ["--vcpus", "2", "--vcpu-type", "EPYC", "--cmdline", "quiet"];
    const run = measure("snp-launch", ovmf, "--kernel", kernel, "--initrd", initrd, ...machineOptions);
    expect(run.code).to.equal(0);
    const { measurement } = jsonOf(run);
    const sha = (text: string) => digest("sha256", text).toString("hex");
    const published = launchInputs({
      ovmf_hash: measurement.facts.ovmf_hash.slice(2),
      kernel_hash: sha("kernel"),
      initrd_hash: sha("initrd"),
    });
    const inputs = folder.write("published.json", json(published));
    const same = jsonOf(measure("snp-launch", inputs, "--kernel", kernel, ...machineOptions)).measurement;
    expect(same.registers.measurement.value).to.equal(measurement.registers.measurement.value);
    expect(errorCodeOf(measure("snp-launch", inputs, "--kernel", initrd, ...machineOptions))).to.equal(
      "snp-launch/input",
    );
    expect(errorCodeOf(measure("snp-launch", ovmf, ...machineOptions))).to.equal("measure/missing-option");
    expect(errorCodeOf(measure("snp-launch", ovmf, "--vcpus", "two"))).to.equal("measure/option-number");
    const document = JSON.stringify({ version: 3, compose_hash: "ab".repeat(32), key_provider: "none" });
    const config = folder.write("mr-config.json", document);
    const bound = jsonOf(measure("snp-launch", inputs, "--mr-config", config, ...machineOptions));
    expect(bound.measurement.registers.host_data.value).to.equal(
      hexOf(digest("sha256", `dstack-mr-config-v3:\0${document}`)),
    );
    expect(errorCodeOf(measure("snp-launch", inputs, "--mr-config", inputs, ...machineOptions))).to.equal(
      "mr-config/unknown-version",
    );
    expect(bound.images.service.text).to.include("host_data=");
  });

  it("holds an mr-config against the report that binds it", () => {
    const document = JSON.stringify({
      app_id: "11".repeat(20),
      compose_hash: COMPOSE_HASH,
      key_provider: "kms",
      version: 3,
    });
    const config = folder.write("config.json", document);
    expect(jsonOf(measure("mr-config", config)).measurement.unchecked[0]).to.include("--report");
    const report = Buffer.from(buildSnpReport());
    expect(errorCodeOf(measure("mr-config", config, "--report", folder.write("other.bin", report)))).to.equal(
      "mr-config/not-bound",
    );
    digest("sha256", `dstack-mr-config-v3:\0${document}`).copy(report, 0xc0);
    const { measurement } = jsonOf(measure("mr-config", config, "--report", folder.write("report.bin", report)));
    expect(measurement.registers.compose_hash.value).to.equal(`0x${COMPOSE_HASH}`);
    expect(measurement.registers.mr_system.value).to.equal(hexOf(digest("sha256", report.subarray(0x90, 0xc0))));
    expect(measurement.registers.mr_aggregated.value).to.equal(hexOf(digest("sha256", report.subarray(0x90, 0xe0))));
  });

  it("reads a SecretVM image filter, with its wildcards", () => {
    const filter = folder.write(
      "image.json",
      json({
        mr_td: "a1".repeat(48),
        rtmr0: null,
        rtmr1: "b1".repeat(48),
        rtmr2: "b2".repeat(48),
        rtmr3: "b3".repeat(48),
      }),
    );
    const { measurement, images } = jsonOf(measure("secretvm-filter", filter));
    expect(codes(measurement)).to.deep.equal(["secretvm/wildcards", "secretvm/not-compared"]);
    expect(images.service.text).to.include("rtmr3=b3b3");
  });

  it("prints the same bytes in every process", () => {
    const app = folder.write(
      "app.json",
      json({ name: "demo", docker_compose_file: "compose.yaml", allowed_envs: ["B", "A"] }),
    );
    const log = folder.write("log.json", json(bootLog()));
    for (const args of [
      ["compose", compose, ...machine],
      ["app", app],
      ["event-log", log],
    ]) {
      const outputs = Array.from({ length: 5 }, () => measure(...args).stdout);
      expect(outputs[0], args[0]).to.not.equal("");
      expect(new Set(outputs).size, args[0]).to.equal(1);
    }
  });
});
