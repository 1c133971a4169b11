import fc from "fast-check";
import { fromHex } from "../../../src/core/bytes.ts";
import { buildAppCompose, inspectAppCompose, parseAppConfig } from "../../../src/core/evidence/app-compose.ts";
import { parseChecksumFile, parseDigestFile, parseStatus } from "../../../src/core/evidence/dstack.ts";
import {
  parseEventLog,
  parseEventLogFile,
  readDstackFacts,
  replayEventLog,
  verifyEventLog,
} from "../../../src/core/evidence/event-log.ts";
import { parseMrConfig } from "../../../src/core/evidence/mr-config.ts";
import { computeRtmr3, parseImageFilter, parseSnpTable, parseTdxTable } from "../../../src/core/evidence/secretvm.ts";
import { computeLaunchDigest, parseLaunchInputs } from "../../../src/core/evidence/snp-launch.ts";
import { parseJson } from "../../../src/core/json.ts";
import { bootLog, json, launchInputs, runtimeEvent, snpEntry, tdxTable, utf8 } from "../../helpers/deployment.ts";
import { assertTotal, textInputs } from "../../helpers/fuzz.ts";

describe("core/evidence on arbitrary deployment files", function () {
  this.timeout(3_600_000);

  it("parseJson gives a value or a typed error", () => {
    const valid = [json(snpEntry()), json({ a: [{ b: null, c: "é\n" }, 1.5e3, true] })];
    assertTotal("json", textInputs(...valid), (input) => void parseJson(new TextDecoder().decode(input), "x"));
  });

  it("parseEventLog gives a log that replays, or a typed error", () => {
    const valid = [
      json([runtimeEvent("app-id", "11".repeat(20)), runtimeEvent("system-ready", "", 2)]),
      json(bootLog().slice(3)),
      json(
        bootLog(2)
          .slice(3)
          .map((event) => ({ ...event, digest: event.imr === 3 ? "" : event.digest })),
      ),
    ];
    assertTotal("event log", textInputs(...valid), (input) => {
      const log = parseEventLog(input);
      verifyEventLog(log, replayEventLog(log));
      readDstackFacts(log);
    });
  });

  it("parseEventLogFile gives a log and perhaps a quote, or a typed error", () => {
    const short = [runtimeEvent("app-id", "11".repeat(20))];
    const valid = [json({ quote: "0400", event_log: JSON.stringify(short) }), json({ event_log: short })];
    assertTotal("quote response", textInputs(...valid), (input) => void parseEventLogFile(input));
  });

  it("parseTdxTable gives rows or a typed error", () => {
    assertTotal("tdx.csv", textInputs(tdxTable([{}, { size: "large" }]), tdxTable([{}], "\r\n")), (input) => {
      for (const row of parseTdxTable(input)) {
        computeRtmr3({ compose: input, rootfs: fromHex(row.rootfs, "rootfs") }, { scheme: "extends" });
      }
    });
  });

  it("parseSnpTable gives entries or a typed error", () => {
    const valid = [json([snpEntry()]), json([snpEntry({ vm_type: "dev", cmdline_extra: "x" })])];
    assertTotal("sev.json", textInputs(...valid), (input) => void parseSnpTable(input));
  });

  it("parseLaunchInputs gives a launch digest or a typed error", () => {
    const valid = json(launchInputs({ vcpus: 1, base_cmdline: "quiet", guest_features: 1 }));
    assertTotal("launch inputs", textInputs(valid), (input) => void computeLaunchDigest(parseLaunchInputs(input)));
  });

  it("parseMrConfig gives a document or a typed error", () => {
    const valid = json({ version: 3, compose_hash: "22".repeat(32), key_provider: "kms", init_script_hashes: [] });
    assertTotal("mr-config", textInputs(valid), (input) => void parseMrConfig(input));
  });

  it("parseImageFilter gives an image or a typed error", () => {
    const valid = [json({ mr_td: "ab".repeat(48), rtmr3: null }), json({ rtmr1: Array(48).fill(7) })];
    assertTotal("image filter", textInputs(...valid), (input) => void parseImageFilter(input));
  });

  it("parseAppConfig and buildAppCompose give app-composes that dstack can read, or a typed error", () => {
    const valid = json({ name: "demo", allowed_envs: ["A"], key_provider: "kms", public_logs: false });
    const env = textInputs(utf8("A=1\nB=2\n"), utf8("# none\n"));
    const files = fc.tuple(textInputs(valid), textInputs(utf8("services: {}\n")), env);
    assertTotal("app.json", files, ([app, dockerCompose, envFile]) => {
      for (const { bytes } of buildAppCompose(parseAppConfig(app), { dockerCompose, env: envFile })) {
        inspectAppCompose(bytes);
      }
    });
  });

  it("parseStatus gives values or a typed error", () => {
    const valid = utf8(`Status: RUNNING\nRTMR3: ${"ab".repeat(48)}\nOS_IMAGE_HASH = ${"cd".repeat(32)}\n`);
    assertTotal("status", textInputs(valid), (input) => void parseStatus(input));
  });

  it("parseDigestFile and parseChecksumFile give hashes or a typed error", () => {
    assertTotal("digest.txt", textInputs(utf8(`${"ab".repeat(32)}\n`)), (input) => void parseDigestFile(input));
    const sums = utf8(`${"ab".repeat(32)}  a\n${"cd".repeat(32)} *b\n`);
    assertTotal("sha256sum.txt", textInputs(sums), (input) => void parseChecksumFile(input));
  });
});
