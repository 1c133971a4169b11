import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "chai";
import { concat, keccak256 } from "ethers";
import { errorCodeOf, jsonOf, keysteadHere, makeFolder } from "../helpers/cli.ts";
import {
  APP_ID,
  bootEvent,
  bootLog,
  COMPOSE_HASH,
  digest,
  json,
  OS_IMAGE_HASH,
  replay,
  replayRaw,
  runtimeEvent,
  tdxTable,
  utf8,
} from "../helpers/deployment.ts";
import { buildSnpReport, buildTdxQuote } from "../helpers/evidence.ts";
import { supports } from "./supports.ts";

const COMPOSE = 'services:\n  web:\n    image: example/app:1.0\n    command: ["sh", "-c", \'a && b <c\']\n';
const APP_COMPOSE = JSON.stringify({
  manifest_version: 2,
  name: "demo",
  runner: "docker-compose",
  key_provider: "kms",
});
const SHARED = join(import.meta.dirname, "../../../shared/field/evidence");

/** How old SecretVM machines answer: the file in a `<pre>`, escaped, and a zero-width space after it. */
const page = (text: string) => {
  const escaped = text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
  return `<!DOCTYPE html>\n<html><head><title>compose</title></head>\n<body><pre>${escaped}\u200b</pre></body></html>\n`;
};
const codes = (measurement: { findings: { code: string }[] }) => measurement.findings.map(({ code }) => code);

describe("wrong files are not measured", () => {
  const folder = makeFolder();
  after(() => folder.remove());
  let count = 0;
  const write = (contents: string | Uint8Array) => folder.write(`input-${count++}`, contents);
  const measure = (...args: readonly string[]) => keysteadHere(["--json", "measure", ...args]);
  const rootfs = ["--rootfs", "c0".repeat(32)];
  const codeOf = async (...args: readonly string[]) => {
    const run = await measure(...args);
    expect(run.code, args.join(" ")).to.equal(2);
    expect(run.stdout).to.equal("");
    return errorCodeOf(run);
  };

  supports(
    "SecretVM",
    "pages of old machines",
    "the compose file is taken out of its page; other pages are refused",
    async () => {
      const plain = jsonOf(await measure("compose", write(COMPOSE), ...rootfs)).measurement;
      const wrapped = jsonOf(await measure("compose", write(page(COMPOSE)), ...rootfs)).measurement;
      expect(wrapped.registers.rtmr3.value).to.equal(plain.registers.rtmr3.value);
      expect(codes(wrapped)).to.include("input/page");
      for (const other of [
        "<!DOCTYPE html><html><body>Sign in</body></html>",
        page(COMPOSE).replace("</pre>", "</pre><pre>more</pre>"),
        page(COMPOSE).replace("services", "<b>services</b>"),
        page(COMPOSE).replace("services", "&nbsp;services"),
        page(`\n${COMPOSE}`),
        page(""),
        "\ufeff<html><pre>services:\n",
        "<?xml version='1.0'?><Error>AccessDenied</Error>",
      ])
        expect(await codeOf("compose", write(other), ...rootfs), other).to.equal("input/page");
      expect(await codeOf("dstack", write(page(APP_COMPOSE)))).to.equal("input/page");
      const quote = Buffer.from(buildTdxQuote()).toString("hex");
      expect(jsonOf(await measure("quote", write(page(quote)))).measurement.registers.mrtd.value).to.match(/^0xa0/);
    },
  );

  supports(
    "SecretVM",
    "pages of old machines, made by others",
    "the file inside has the bytes that are measured",
    async function (this: Mocha.Context) {
      const html = join(SHARED, "08-docker-compose-page.html");
      if (!existsSync(html)) this.skip();
      const expected = readFileSync(join(SHARED, "08-docker-compose-page.expected.yaml"));
      const { measurement } = jsonOf(await measure("compose", html, ...rootfs));
      expect(measurement.facts.compose_hash).to.equal(`0x${digest("sha256", expected).toString("hex")}`);
    },
  );

  supports(
    "SecretVM, dstack",
    "compose files",
    "quotes, reports, JSON and other text are not measured as one",
    async () => {
      const quote = buildTdxQuote();
      for (const wrong of [
        quote,
        Buffer.from(quote).toString("hex"),
        Buffer.from(quote).toString("base64"),
        buildSnpReport(),
        APP_COMPOSE,
        JSON.stringify({ tcb_info: "{}" }),
        '{"error":"not found"}',
        "[]",
        '"services:"',
        "404 page not found\n",
        "",
        "version: '3'\n",
        "services:\n",
      ])
        expect(await codeOf("compose", write(wrong), ...rootfs)).to.equal("measure/wrong-input");
      for (const right of [
        COMPOSE,
        '{"services":{"web":{"image":"x"}}}',
        `# first\n${COMPOSE}`,
        COMPOSE.replaceAll("\n", "\r\n"),
      ])
        expect(jsonOf(await measure("compose", write(right), ...rootfs)).measurement.kind).to.equal("tdx");
    },
  );

  supports(
    "dstack",
    "app-compose.json",
    "a file without manifest_version, name and runner is refused; a final newline is warned of",
    async () => {
      for (const field of ["manifest_version", "name", "runner"]) {
        const { [field]: _, ...less } = JSON.parse(APP_COMPOSE);
        expect(await codeOf("dstack", write(json(less)))).to.equal("dstack/not-app-compose");
      }
      expect(await codeOf("dstack", write(json(bootLog())))).to.equal("dstack/not-app-compose");
      const clean = jsonOf(await measure("dstack", write(APP_COMPOSE))).measurement;
      expect(codes(clean)).not.to.include("dstack/final-newline");
      const edited = jsonOf(await measure("dstack", write(`${APP_COMPOSE}\n`))).measurement;
      expect(codes(edited)).to.include("dstack/final-newline");
      expect(edited.registers.compose_hash.value).not.to.equal(clean.registers.compose_hash.value);
    },
  );

  const composeHash = digest("sha256", APP_COMPOSE).toString("hex");
  const infoLog = [
    bootEvent(0, 0xa0),
    runtimeEvent("system-preparing"),
    runtimeEvent("app-id", APP_ID),
    runtimeEvent("compose-hash", composeHash),
    runtimeEvent("instance-id", ""),
    runtimeEvent("boot-mr-done"),
    runtimeEvent("os-image-hash", OS_IMAGE_HASH),
    runtimeEvent("system-ready"),
  ];
  const tcb = {
    mrtd: "aa".repeat(48),
    rtmr0: replayRaw(infoLog, 0).slice(2),
    rtmr1: "cc".repeat(48),
    rtmr2: "dd".repeat(48),
    rtmr3: replayRaw(infoLog, 3).slice(2),
    os_image_hash: OS_IMAGE_HASH,
    compose_hash: composeHash,
    app_compose: APP_COMPOSE,
    event_log: infoLog,
  };

  supports(
    "dstack",
    "Info and tcb_info answers",
    "the app-compose inside is measured, also out of JSON in a string, and held against the log",
    async () => {
      for (const answer of [
        tcb,
        { tcb_info: tcb },
        { app_id: APP_ID, tcb_info: JSON.stringify(tcb) },
        { tcb_info: JSON.stringify({ ...tcb, event_log: JSON.stringify(infoLog) }), app_name: "demo" },
      ]) {
        const { measurement } = jsonOf(await measure("info", write(json(answer))));
        expect(measurement.registers.compose_hash).to.include({ value: `0x${composeHash}`, how: "computed" });
        expect(measurement.registers.os_image_hash.value).to.equal(`0x${OS_IMAGE_HASH}`);
        expect(measurement.facts.checked).to.include("rtmr3");
      }
      const other = "22".repeat(32);
      for (const [changes, code] of [
        [{ app_compose: `${APP_COMPOSE}\n` }, "guest-info/contradiction"],
        [{ compose_hash: other }, "guest-info/contradiction"],
        [{ os_image_hash: other }, "guest-info/contradiction"],
        [{ rtmr3: "ee".repeat(48) }, "event-log/rtmr-mismatch"],
        [{ rtmr0: "ee".repeat(48) }, "event-log/rtmr-mismatch"],
        [{ rtmr3: "ee" }, "guest-info/malformed"],
        [{ app_compose: undefined, compose_hash: undefined, event_log: undefined }, "guest-info/malformed"],
      ] as const) {
        const answer = { app_id: APP_ID, tcb_info: JSON.stringify({ ...tcb, ...changes }) };
        expect(await codeOf("info", write(json(answer))), JSON.stringify(changes)).to.equal(code);
      }
      expect(await codeOf("info", write(json({ app_id: "99".repeat(20), tcb_info: tcb })))).to.equal(
        "guest-info/contradiction",
      );
      const answer = write(json(tcb));
      for (const reader of ["dstack", "event-log", "compose"])
        expect(await codeOf(reader, answer)).to.equal("measure/wrong-input");
      const same = await measure("diff", answer, answer);
      expect(same.code).to.equal(0);
    },
  );

  supports(
    "dstack",
    "Info and tcb_info answers, made by others",
    "answers that contradict themselves are refused",
    async function (this: Mocha.Context) {
      if (!existsSync(join(SHARED, "09-guest-info.json"))) this.skip();
      const good = jsonOf(await measure("info", join(SHARED, "09-guest-info.json"))).measurement;
      expect(good.registers.compose_hash.how).to.equal("computed");
      expect(await codeOf("info", join(SHARED, "10-tcb-info-other-compose.json"))).to.equal("guest-info/contradiction");
      expect(await codeOf("info", join(SHARED, "10-tcb-info-other-rtmr3.json"))).to.equal("event-log/rtmr-mismatch");
      for (const version of ["v2", "v3"]) {
        const run = await measure("event-log", join(SHARED, `11-quote-mrconfigid-${version}.json`));
        if (version === "v2") expect(errorCodeOf(run)).to.equal("dstack/config-id");
        else expect(jsonOf(run).measurement.unchecked.join()).to.include("add --mr-config");
      }
    },
  );

  supports(
    "dstack",
    "MR_CONFIG_ID 1, 2 and 3",
    "held against the event log; an unknown version is said to be unknown",
    async () => {
      const raw = bootLog();
      const registers = (imr: number) => Buffer.from(replayRaw(raw, imr).slice(2), "hex");
      const held = async (configId: string, ...options: readonly string[]) => {
        const rtmrs = { rtMr0: registers(0), rtMr1: registers(1), rtMr2: registers(2), rtMr3: registers(3) };
        const quote = Buffer.from(buildTdxQuote(rtmrs));
        Buffer.from(configId.slice(2).padEnd(96, "0"), "hex").copy(quote, 232);
        return await measure("event-log", write(json(raw)), "--quote", write(quote), ...options);
      };
      const v2 = (appId: string, provider: string, id: string) =>
        `0x02${keccak256(concat([`0x${COMPOSE_HASH}`, `0x${appId}`, provider, id])).slice(2)}`;
      const document = (changes = {}) =>
        JSON.stringify({ version: 3, compose_hash: COMPOSE_HASH, app_id: APP_ID, key_provider: "kms", ...changes });
      const v3 = (text: string) => `0x03${digest("sha256", `dstack-mr-config-v3:\0${text}`).toString("hex")}`;
      for (const good of [`0x01${COMPOSE_HASH}`, v2(APP_ID, "0x02", "0xabcd")]) {
        const { measurement } = jsonOf(await held(good));
        expect(measurement.unchecked.join(), good).not.to.include("MR_CONFIG_ID");
      }
      const given = write(document());
      const bound = jsonOf(await held(v3(document()), "--mr-config", given)).measurement;
      expect(bound.unchecked.join()).not.to.include("MR_CONFIG_ID");
      for (const bad of [
        `0x01${"99".repeat(32)}`,
        v2("99".repeat(20), "0x02", "0xabcd"),
        v2(APP_ID, "0x01", "0xabcd"),
        v2(APP_ID, "0x02", "0xabce"),
        `0x02${"00".repeat(31)}01`,
      ])
        expect(errorCodeOf(await held(bad)), bad).to.equal("dstack/config-id");
      expect(errorCodeOf(await held(v3("{}"), "--mr-config", given))).to.equal("mr-config/not-bound");
      const foreign = document({ compose_hash: "99".repeat(32) });
      expect(errorCodeOf(await held(v3(foreign), "--mr-config", write(foreign)))).to.equal("dstack/config-id");
      expect(errorCodeOf(await held(`0x01${COMPOSE_HASH}`, "--mr-config", given))).to.equal("measure/option-conflict");
      for (const [unknown, words] of [
        [v3(document()), "add --mr-config"],
        ["0x04ab", "version 4 is not known"],
        ["0x00", "MR_CONFIG_ID of the quote is zero"],
      ] as const)
        expect(jsonOf(await held(unknown)).measurement.unchecked.join(), unknown).to.include(words);
    },
  );

  supports(
    "dstack-cloud",
    ".env",
    "read as Python reads it: U+FEFF stays in the name, lines without = are passed over",
    async () => {
      const project = makeFolder();
      const app = project.write("app.json", json({ os_image: "dstack-0.6.0", name: "demo" }));
      project.write("docker-compose.yaml", COMPOSE);
      project.write(".env", utf8("\ufeffA=1\r\nnothing here\n"));
      const { measurement } = jsonOf(await measure("app", app));
      project.remove();
      expect(measurement.facts.allowed_envs.trim()).to.equal("\ufeffA".trim());
      expect(codes(measurement)).to.include("app/env-name");
      expect(measurement.findings.map(({ message }: { message: string }) => message).join()).to.include("\\u{feff}A");
    },
  );

  supports(
    "SecretVM",
    "compose files that an editor changed",
    "a changed final newline is named as the cause",
    async () => {
      const table = write(tdxTable([{ host: "aa11" }]));
      for (const [deployed, kept, words] of [
        [COMPOSE, COMPOSE.trimEnd(), "a final newline more"],
        [COMPOSE.trimEnd(), COMPOSE, "a final newline less"],
        [COMPOSE, COMPOSE.replaceAll("\n", "\r\n"), "LF alone"],
      ] as const) {
        const rtMr3 = replay([digest("sha256", deployed), Buffer.from("c0".repeat(32), "hex")]);
        const registers = jsonOf(await measure("compose", write(deployed), "--platform-table", table)).measurement
          .registers;
        const of = (name: string) => Buffer.from(registers[name].value.slice(2), "hex");
        const quote = buildTdxQuote({
          mrTd: of("mrtd"),
          rtMr0: of("rtmr0"),
          rtMr1: of("rtmr1"),
          rtMr2: of("rtmr2"),
          rtMr3,
        });
        const run = await measure("compose", write(kept), "--platform-table", table, "--quote", write(quote));
        expect(errorCodeOf(run)).to.equal("secretvm/other-line-ends");
        expect(run.stderr).to.include(words);
      }
    },
  );
});
