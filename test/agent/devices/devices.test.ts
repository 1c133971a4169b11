import { spawnSync } from "node:child_process";
import { chmodSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { decode, encode } from "cbor2";
import { expect } from "chai";
import { createCommandDevice, parseCommandOutput } from "../../../src/agent/devices/command.ts";
import { findConfigfs } from "../../../src/agent/devices/configfs-tsm.ts";
import { detectDevice } from "../../../src/agent/devices/detect.ts";
import type { Device } from "../../../src/agent/devices/device.ts";
import { createDstackDevice } from "../../../src/agent/devices/dstack.ts";
import { createNitroDevice, decodeNsmAnswer, encodeNsmRequest } from "../../../src/agent/devices/nitro.ts";
import { createSystem } from "../../../src/agent/system.ts";
import { type Binding, buildReportData } from "../../../src/core/binding.ts";
import { createTestNitro, type TestNitro } from "../../../src/node/test-tee/nitro.ts";
import { createTestSnp, type TestSnp } from "../../../src/node/test-tee/snp.ts";
import { createTestTdx, type TestTdx } from "../../../src/node/test-tee/tdx.ts";
import { type Folder, makeFolder } from "../../helpers/cli.ts";
import { errorOf, rejectionOf } from "../../helpers/errors.ts";
import { fill } from "../../helpers/evidence.ts";
import { certificateTable, createFakeKernel, type FakeDriver, type FakeMachine } from "../../helpers/fake-kernel.ts";

const AT = 1_750_000_000;
const binding: Binding = { nonce: fill(32, 1), serviceId: `0x${"5e".repeat(20)}`, recipientPublicKey: fill(32, 2) };
const reportData = buildReportData(binding);
const PCRS = { 0: fill(48, 1), 1: fill(48, 2), 2: fill(48, 3) };
const VCEK = "63da758d-e664-4564-adc5-f4b93be8accd";
const VLEK = "a8074bc2-a25a-483e-aae6-39c045a0b8a1";
const ASK = "4ab7b379-bbac-4fe4-a02f-05aef327c782";
const ARK = "c0b406a4-a803-4952-9743-3fb6014cd0ae";

describe("attestation devices", function () {
  this.timeout(60_000);
  let tdx: TestTdx;
  let snp: TestSnp;
  let nitro: TestNitro;
  let folder: Folder;
  let tdxDriver: FakeDriver;
  let snpDriver: FakeDriver;
  before(async () => {
    tdx = await createTestTdx({ atUnixSeconds: AT });
    snp = await createTestSnp({ atUnixSeconds: AT });
    nitro = await createTestNitro({ atUnixSeconds: AT });
    folder = makeFolder();
    tdxDriver = { provider: "tdx_guest", report: (inblob) => tdx.issueQuote({ reportData: inblob }) };
    const { endorsementKey, signer } = snp.certificates;
    snpDriver = {
      provider: "sev_guest",
      report: (inblob, vmpl) => snp.issueReport({ reportData: inblob, vmpl }),
      auxblob: certificateTable({ [VCEK]: endorsementKey, [ASK]: signer, [ARK]: snp.root }),
    };
  });
  after(() => folder.remove());

  /** The device that a simulated kernel shows. */
  const deviceOf = async (machine: FakeMachine, options: Parameters<typeof findConfigfs>[1] = {}) => {
    const kernel = createFakeKernel(machine);
    const device = await findConfigfs(kernel, options);
    if (device === undefined) throw new Error("no device");
    return { kernel, device };
  };
  const codeOf = async (device: Device) => (await rejectionOf(device.attest(binding))).code;

  describe("given configfs-tsm", () => {
    it("makes a TDX quote over the report data, in an entry of its own that is gone afterwards", async () => {
      const { kernel, device } = await deviceOf({ driver: tdxDriver });
      expect(device.name).to.equal("configfs-tsm (tdx_guest)");
      const evidence = await device.attest(binding);
      expect(evidence.kind).to.equal("tdx");
      expect(kernel.writes).to.deep.equal([["inblob", reportData]]);
      expect(kernel.entries.size).to.equal(0);
    });

    it("takes the host's certificates from the SEV-SNP driver's table, VCEK or VLEK", async () => {
      const { device } = await deviceOf({ driver: snpDriver });
      const evidence = await device.attest(binding);
      if (evidence.kind !== "snp") throw new Error("not SNP");
      const { endorsementKey, signer } = snp.certificates;
      expect(evidence.certificates).to.deep.equal({ endorsementKey, signer, root: snp.root });
      // A VLEK's is the table's VLEK; this report was signed by the other sort of key, and so has none.
      const leased: FakeDriver = {
        ...snpDriver,
        report: (inblob) => snp.issueReport({ reportData: inblob, signingKey: 1 }),
        auxblob: certificateTable({ [VLEK]: endorsementKey, [VCEK]: fill(9, 1) }),
      };
      const other = await (await deviceOf({ driver: leased })).device.attest(binding);
      expect(other).to.deep.include({ certificates: { endorsementKey } });
      const mixed = { ...snpDriver, auxblob: certificateTable({ [VLEK]: endorsementKey }) };
      const none = await (await deviceOf({ driver: mixed })).device.attest(binding);
      expect(none).to.deep.include({ certificates: {} });
    });

    it("does without certificates where the host gives none, and passes over a table's unknown entries", async () => {
      for (const auxblob of [
        undefined,
        new Uint8Array(),
        certificateTable({ [VCEK.replace("63", "64")]: fill(9, 1) }),
      ]) {
        const { device } = await deviceOf({ driver: { ...snpDriver, auxblob } });
        expect(await device.attest(binding)).to.deep.include({ kind: "snp", certificates: {} });
      }
    });

    it("refuses a host's broken table: past its end, without an end, a certificate twice", async () => {
      const good = certificateTable({ [VCEK]: fill(100, 1) });
      const twice = certificateTable({ [VCEK]: fill(9, 1), [VCEK.toUpperCase()]: fill(9, 2) });
      for (const [auxblob, code] of [
        [good.slice(0, -1), "device/certificate-table"],
        [good.slice(0, 24), "device/certificate-table"],
        [good.slice(0, 20), "bytes/truncated"],
        [twice, "device/certificate-table"],
      ] as const) {
        const { device } = await deviceOf({ driver: { ...snpDriver, auxblob } });
        expect(await codeOf(device)).to.equal(code);
      }
    });

    it("names the privilege level that it is told to, and counts that write too", async () => {
      const { kernel, device } = await deviceOf({ driver: snpDriver }, { privilegeLevel: 1 });
      await device.attest(binding);
      expect(kernel.writes.map(([file]) => file)).to.deep.equal(["privlevel", "inblob"]);
      const refused = await deviceOf({ driver: snpDriver }, { privilegeLevel: 4 });
      expect(await codeOf(refused.device)).to.equal("device/refused");
    });

    it("notices another writer by the generation, before, while and after the report is made, and tries again", async () => {
      for (const at of ["outblob", "generation"]) {
        let disturbed = 0;
        let reads = 0;
        const { device } = await deviceOf({
          driver: tdxDriver,
          beforeRead: (file, kernel) => {
            if (file === "outblob") reads += 1;
            if (file !== at || disturbed > 0 || (at === "generation" && reads === 0)) return;
            disturbed += 1;
            kernel.disturb(fill(64, 9));
          },
        });
        expect((await device.attest(binding)).kind).to.equal("tdx");
        expect([disturbed, reads]).to.deep.equal([1, 2]);
      }
    });

    it("gives up on a writer that does not stop", async () => {
      let reads = 0;
      const { kernel, device } = await deviceOf({
        driver: tdxDriver,
        beforeRead: (file, fake) => {
          if (file !== "outblob") return;
          reads += 1;
          fake.disturb(fill(64, 9));
        },
      });
      expect(await codeOf(device)).to.equal("device/conflict");
      expect(reads).to.equal(3);
      expect(kernel.entries.size).to.equal(0);
    });

    it("notices a write that was lost when the file was closed", async () => {
      const { device } = await deviceOf({ driver: tdxDriver, loseWrites: true });
      expect(await codeOf(device)).to.equal("device/refused"); // no inblob: the kernel answers EINVAL
    });

    it("refuses a driver that attests something else, says nothing, or is not known", async () => {
      const other = await deviceOf({
        driver: { ...tdxDriver, report: () => tdx.issueQuote({ reportData: fill(64, 7) }) },
      });
      expect(await codeOf(other.device)).to.equal("device/wrong-binding");
      const silent = await deviceOf({ driver: { ...tdxDriver, report: () => new Uint8Array() } });
      expect(await codeOf(silent.device)).to.equal("device/empty");
      const strange = createFakeKernel({ driver: { ...tdxDriver, provider: "arm_cca_guest" } });
      expect((await rejectionOf(findConfigfs(strange))).code).to.equal("device/unknown-provider");
    });

    for (const [error, code, retryable] of [
      ["EBUSY", "device/busy", true],
      ["EINTR", "device/busy", true],
      ["ETIMEDOUT", "device/timeout", true],
      ["EIO", "device/failed", true],
      ["EINVAL", "device/refused", false],
      ["EACCES", "device/no-permission", false],
      ["ENOTTY", "device/no-provider", false],
    ] as const)
      it(`says what helps when the driver fails with ${error}`, async () => {
        const { kernel, device } = await deviceOf({ driver: { ...tdxDriver, report: () => error } });
        expect(await rejectionOf(device.attest(binding))).to.include({ code, retryable });
        expect(kernel.entries.size).to.equal(0);
      });
  });

  describe("given the dstack guest agent", () => {
    const answer = (body: unknown, status = 200) => ({ status, body: new TextEncoder().encode(JSON.stringify(body)) });

    it("asks for a quote over its socket", async () => {
      const socket = join(folder.path, "dstack.sock");
      const asked: unknown[] = [];
      const server = createServer((request, response) => {
        let text = "";
        request.on("data", (chunk) => {
          text += chunk;
        });
        request.on("end", () => {
          const { report_data } = JSON.parse(text);
          asked.push([request.method, request.url, report_data]);
          const quote = tdx.issueQuote({ reportData: new Uint8Array(Buffer.from(report_data, "hex")) });
          response.end(JSON.stringify({ quote: Buffer.from(quote).toString("hex"), event_log: "[]" }));
        });
      });
      await new Promise<void>((resolve) => server.listen(socket, resolve));
      try {
        const device = await detectDevice(createSystem(), { device: "dstack", dstackSocket: socket });
        expect((await device.attest(binding)).kind).to.equal("tdx");
        expect(asked).to.deep.equal([["POST", "/GetQuote", Buffer.from(reportData).toString("hex")]]);
      } finally {
        server.close();
      }
    });

    it("refuses an answer that is no quote of ours", async () => {
      const code = (post: FakeMachine["post"]) => codeOf(createDstackDevice(createFakeKernel({ post })));
      expect(await code(() => answer({}, 500))).to.equal("device/dstack-answer");
      expect(await code(() => answer({ quote: 5 }))).to.equal("device/dstack-answer");
      expect(await code(() => answer({ quote: "zz" }))).to.equal("hex/malformed");
      const stale = Buffer.from(tdx.issueQuote({ reportData: fill(64, 3) })).toString("hex");
      expect(await code(() => answer({ quote: stale }))).to.equal("device/wrong-binding");
      expect(await code(undefined)).to.equal("device/not-there");
    });
  });

  describe("given the Nitro security module", () => {
    /** What the module answers through its helper. */
    const module = (respond: (request: Map<string, Map<string, Uint8Array>>) => unknown, code = 0): FakeMachine => ({
      paths: ["/dev/nsm"],
      run: (_, stdin) => {
        const request = decode<Map<string, Map<string, Uint8Array>>>(stdin, { preferMap: true });
        return { code, stdout: encode(respond(request)), stderr: "ioctl: Input/output error" };
      },
    });
    const honest = module((request) => {
      const fields = request.get("Attestation");
      const userData = fields?.get("user_data") ?? fill(0, 0);
      const nonce = fields?.get("nonce") ?? fill(0, 0);
      const publicKey = fields?.get("public_key") ?? fill(0, 0);
      const document = nitro.issueDocument({ pcrs: PCRS, userData, nonce, publicKey });
      return new Map([["Attestation", new Map([["document", document]])]]);
    });

    it("asks for a document with user data, nonce and public key", async () => {
      const device = await detectDevice(createFakeKernel(honest));
      expect(device.name).to.equal("Nitro security module");
      expect((await device.attest(binding)).kind).to.equal("nitro");
    });

    it("reads the answer around the document however the module writes its maps, and garbage as none", () => {
      const document = fill(40, 7);
      const text = (value: string) => encode(value);
      const open = (...parts: Uint8Array[]) => Buffer.concat([Uint8Array.of(0xbf), ...parts, Uint8Array.of(0xff)]);
      for (const answer of [
        encode(new Map([["Attestation", new Map([["document", document]])]])),
        open(text("Attestation"), open(text("document"), encode(document))),
      ])
        expect(decodeNsmAnswer(answer)).to.deep.equal(document);
      for (const garbage of [fill(0, 0), fill(9, 0xff), fill(30, 0xbf)])
        expect(errorOf(() => decodeNsmAnswer(garbage)).code).to.equal("device/nsm-answer");
    });

    it("refuses what is no document of ours", async () => {
      const code = (machine: FakeMachine) => codeOf(createNitroDevice(createFakeKernel(machine)));
      expect(await code(module(() => new Map([["Error", "InvalidArgument"]])))).to.equal("device/nsm-refused");
      expect(await code(module(() => "GetRandom"))).to.equal("device/nsm-answer");
      const { nonce, recipientPublicKey: publicKey } = binding;
      const issue = (fields: object) =>
        module(() => {
          const document = nitro.issueDocument({ pcrs: PCRS, userData: reportData, nonce, publicKey, ...fields });
          return new Map([["Attestation", new Map([["document", document]])]]);
        });
      for (const wrong of [{ userData: fill(64, 3) }, { nonce: fill(32, 3) }, { publicKey: fill(32, 3) }])
        expect(await code(issue(wrong))).to.equal("device/wrong-binding");
      expect(await code(module(() => null, 1))).to.equal("device/helper-failed");
      expect(await code({ paths: ["/dev/nsm"] })).to.equal("device/no-helper");
    });

    it("has a helper that compiles, passes the request to the device and fails without one", function () {
      const source = join(import.meta.dirname, "../../../src/agent/devices/nsm-helper/keystead-nsm.c");
      const helper = join(folder.path, "keystead-nsm");
      const compiled = spawnSync("cc", ["-O2", "-Wall", "-Werror", "-o", helper, source], { encoding: "utf8" });
      if (compiled.error !== undefined) {
        console.log("      no C compiler here: the helper is not compiled");
        return this.skip();
      }
      expect(compiled.stderr).to.equal("");
      const run = (program: string, args: readonly string[], input: Uint8Array, env = {}) => {
        const { status, stdout, stderr } = spawnSync(program, args, { input, env: { ...process.env, ...env } });
        return { status, stdout: new Uint8Array(stdout), stderr: stderr.toString() };
      };
      const request = encodeNsmRequest(binding);
      expect(run(helper, [], fill(0, 0)).status).to.equal(2);
      expect(run(helper, [], fill(4097, 1)).status).to.equal(2);
      expect(run(helper, [join(folder.path, "no-device")], request)).to.include({ status: 1 });
      expect(run(helper, ["/dev/null"], request).stderr).to.contain("ioctl"); // /dev/null takes no such ioctl
      // a driver in the kernel's place: checks number and structure, answers with the request it was given, reversed
      const driver = folder.write(
        "driver.c",
        `#include <stdarg.h>
#include <string.h>
#include <sys/uio.h>
int ioctl(int fd, unsigned long request, ...) {
  va_list list; va_start(list, request);
  struct { struct iovec request, response; } *message = va_arg(list, void *); va_end(list);
  if (request != 0xC0200A00 || message->response.iov_len != 0x3000) return -1;
  const unsigned char *in = message->request.iov_base; unsigned char *out = message->response.iov_base;
  for (size_t at = 0; at < message->request.iov_len; at++) out[at] = in[message->request.iov_len - 1 - at];
  message->response.iov_len = message->request.iov_len;
  return 0;
}
`,
      );
      const library = join(folder.path, "driver.so");
      expect(spawnSync("cc", ["-shared", "-fPIC", "-o", library, driver]).status).to.equal(0);
      const { status, stdout } = run(helper, ["/dev/null"], request, { LD_PRELOAD: library });
      expect(status).to.equal(0);
      expect(stdout).to.deep.equal(Uint8Array.from(request).reverse());
    });
  });

  describe("given a device command", () => {
    it("runs a real program with the report data as its last argument and the rest on standard input", async () => {
      const quote = Buffer.from(tdx.issueQuote({ reportData })).toString("hex");
      const program = folder.write(
        "quote.sh",
        `#!/bin/sh\nread -r input\n[ "$2" = "${Buffer.from(reportData).toString("hex")}" ] || exit 3\n` +
          `case "$input" in *'"public_key":"${"02".repeat(32)}"'*) ;; *) exit 4;; esac\necho ${quote}\n`,
      );
      chmodSync(program, 0o755);
      const device = await detectDevice(createSystem(), { command: [program, "--tdx"] });
      expect((await device.attest(binding)).kind).to.equal("tdx");
      const other = { ...binding, nonce: fill(32, 8) };
      expect((await rejectionOf(device.attest(other))).code).to.equal("device/command-failed");
    });

    it("takes binary, hex, base64 and JSON, of all three kinds", () => {
      const text = (value: string) => new TextEncoder().encode(value);
      const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
      const quote = tdx.issueQuote({ reportData });
      const report = snp.issueReport({ reportData });
      const document = nitro.issueDocument({ pcrs: PCRS });
      expect(parseCommandOutput(quote)).to.deep.equal({ kind: "tdx", quote });
      expect(parseCommandOutput(text(`${hex(quote)}\n`))).to.deep.equal({ kind: "tdx", quote });
      expect(parseCommandOutput(text(Buffer.from(report).toString("base64")))).to.deep.include({ kind: "snp", report });
      expect(parseCommandOutput(document)).to.deep.equal({ kind: "nitro", document });
      const json = { snp: { report: hex(report), vcek: "0a", ask: "0b", ark: "0c" } };
      expect(parseCommandOutput(text(JSON.stringify(json)))).to.deep.equal({
        kind: "snp",
        report,
        certificates: {
          endorsementKey: Uint8Array.of(10),
          signer: Uint8Array.of(11),
          root: Uint8Array.of(12),
        },
      });
    });

    it("refuses anything else", async () => {
      const says = (text: string) =>
        codeOf(
          createCommandDevice(
            createFakeKernel({ run: () => ({ code: 0, stdout: new TextEncoder().encode(text), stderr: "" }) }),
            ["x"],
          ),
        );
      for (const text of ["", "hello", "{}", '{"sgx":{}}', '{"tdx":{}}', '{"tdx":{"quote":"00"},"snp":{}}'])
        expect(await says(text), text).to.equal("device/command-output");
      expect(await says('{"tdx":{"quote":"0"}}')).to.equal("hex/malformed");
      const failing = createFakeKernel({ run: () => ({ code: 7, stdout: fill(0, 0), stderr: "no" }) });
      expect(await codeOf(createCommandDevice(failing, ["x"]))).to.equal("device/command-failed");
      expect(await codeOf(createCommandDevice(createSystem(), ["/no/such/program"]))).to.equal("device/no-command");
    });
  });

  describe("when none is named", () => {
    it("takes what is there: the kernel's interface first, then Nitro's module, then the dstack agent", async () => {
      const paths = ["/dev/nsm", "/var/run/dstack.sock", "/dev/sev-guest"];
      const name = async (machine: FakeMachine) => (await detectDevice(createFakeKernel(machine))).name;
      expect(await name({ driver: snpDriver, paths })).to.equal("configfs-tsm (sev_guest)");
      expect(await name({ driver: null, paths })).to.equal("Nitro security module");
      expect(await name({ paths: paths.slice(1) })).to.equal("dstack guest agent");
    });

    it("says that there is none, or that the one there takes ioctls alone", async () => {
      const code = async (machine: FakeMachine, device?: "tsm" | "nitro" | "command") =>
        (await rejectionOf(detectDevice(createFakeKernel(machine), { device }))).code;
      expect(await code({})).to.equal("device/none");
      expect(await code({ paths: ["/dev/sev-guest"] })).to.equal("device/needs-configfs");
      expect(await code({ driver: null, paths: ["/dev/tdx_guest"] }, "tsm")).to.equal("device/needs-configfs");
      expect(await code({}, "nitro")).to.equal("device/not-there");
      expect(await code({}, "command")).to.equal("usage/device");
    });
  });
});
