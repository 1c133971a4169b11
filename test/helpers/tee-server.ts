import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { Device, DeviceEvidence } from "../../src/agent/devices/device.ts";
import { type Binding, buildReportData } from "../../src/core/binding.ts";
import { fromHex, type Hex } from "../../src/core/bytes.ts";
import { decodeImage } from "../../src/core/image.ts";
import { formatTdxCollateral } from "../../src/node/evidence/tdx-collateral.ts";
import { createTestNitro, type TestNitro } from "../../src/node/test-tee/nitro.ts";
import { createTestSnp, type TestSnp } from "../../src/node/test-tee/snp.ts";
import { createTestTdx, type TestTdx } from "../../src/node/test-tee/tdx.ts";
import type { Folder } from "./cli.ts";

/** One machine of the test TEEs. */
export interface Machine {
  /** For an agent in this process. */
  readonly device: Device;
  /** For `keystead agent` and `keystead node`, as a program of its own: `--command` and its arguments. */
  readonly command: readonly [program: string, ...args: string[]];
}

/** The hardware of a test: three TEEs whose keys live in this process, and a socket through which other processes ask them. */
export interface TeeHall {
  /** A machine that runs an image, given as canonical bytes, with registers of its platform beside. */
  machine(image: string, platform: string): Machine;
  /** What a node is configured with. */
  readonly roots: readonly string[];
  readonly collateral: string;
  stop(): Promise<void>;
}

const CLIENT = join(import.meta.dirname, "tee-client.mjs");

/** Makes the TEEs, good from now on, and opens the socket. */
export async function openTeeHall(folder: Folder): Promise<TeeHall> {
  const atUnixSeconds = Math.floor(Date.now() / 1000);
  const tdx = await createTestTdx({ atUnixSeconds });
  const snp = await createTestSnp({ atUnixSeconds });
  const nitro = await createTestNitro({ atUnixSeconds });
  const machines: ((binding: Binding) => DeviceEvidence)[] = [];
  const server = await listen(machines);
  const { port } = server.address() as AddressInfo;
  return {
    roots: [tdx, snp, nitro].map(({ root }, index) => folder.write(`root-${index}.der`, root)),
    collateral: folder.write("collateral.json", formatTdxCollateral(await tdx.issueCollateral())),
    machine: (image, platform) => {
      const attest = evidenceOf({ tdx, snp, nitro }, image, platform);
      const number = machines.push(attest) - 1;
      return {
        device: { name: "test TEE", attest: async (binding) => attest(binding) },
        command: [process.execPath, CLIENT, `http://127.0.0.1:${port}/${number}`],
      };
    },
    stop: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

interface Tees {
  readonly tdx: TestTdx;
  readonly snp: TestSnp;
  readonly nitro: TestNitro;
}

function evidenceOf(tees: Tees, image: string, platform: string): (binding: Binding) => DeviceEvidence {
  const { kind, registers } = decodeImage(fromHex(image, "image"), "service");
  const all = { ...decodeImage(fromHex(platform, "platform"), "platform").registers, ...registers };
  const of = (name: string) => {
    const value = all[name];
    return value === undefined ? undefined : fromHex(value, name);
  };
  /** Only what the image names: the rest is zero. */
  const given = (fields: Readonly<Record<string, Uint8Array | undefined>>) =>
    Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Record<string, Uint8Array>;
  return (binding) => {
    const reportData = buildReportData(binding);
    if (kind === "tdx") {
      const mrs = given({
        mrTd: of("mrtd"),
        rtMr0: of("rtmr0"),
        rtMr1: of("rtmr1"),
        rtMr2: of("rtmr2"),
        rtMr3: of("rtmr3"),
      });
      return { kind, quote: tees.tdx.issueQuote({ reportData, ...mrs }) };
    }
    if (kind === "snp") {
      const { endorsementKey, signer } = tees.snp.certificates;
      const report = tees.snp.issueReport({
        reportData,
        ...given({ measurement: of("measurement"), hostData: of("host_data") }),
      });
      return { kind, report, certificates: { endorsementKey, signer, root: tees.snp.root } };
    }
    if (kind !== "nitro") throw new Error(`no test TEE makes ${kind}`);
    const pcrs = given({ 0: of("pcr0"), 1: of("pcr1"), 2: of("pcr2") });
    const { nonce, recipientPublicKey: publicKey } = binding;
    return {
      kind,
      document: tees.nitro.issueDocument({ pcrs, userData: reportData, nonce, publicKey, timestampMs: Date.now() }),
    };
  };
}

/** Answers `POST /MACHINE` with the device command's input by its output. */
async function listen(machines: readonly ((binding: Binding) => DeviceEvidence)[]): Promise<Server> {
  const server = createServer((request, response) => {
    let text = "";
    request.on("data", (chunk) => {
      text += chunk;
    });
    request.on("end", () => {
      const { nonce, service_id, public_key } = JSON.parse(text);
      const serviceId: Hex = `0x${service_id}`;
      const binding = { nonce: fromHex(nonce, "nonce"), serviceId, recipientPublicKey: fromHex(public_key, "key") };
      const evidence = machines[Number(request.url?.slice(1))]?.(binding);
      const hex = (bytes: Uint8Array | undefined) =>
        bytes === undefined ? undefined : Buffer.from(bytes).toString("hex");
      if (evidence?.kind === "tdx") response.end(JSON.stringify({ tdx: { quote: hex(evidence.quote) } }));
      else if (evidence?.kind === "nitro")
        response.end(JSON.stringify({ nitro: { document: hex(evidence.document) } }));
      else if (evidence?.kind === "snp") {
        const { endorsementKey, signer, root } = evidence.certificates;
        response.end(
          JSON.stringify({
            snp: { report: hex(evidence.report), vcek: hex(endorsementKey), ask: hex(signer), ark: hex(root) },
          }),
        );
      } else {
        response.statusCode = 404;
        response.end();
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}
