import "reflect-metadata";
import { type ChildProcess, spawn } from "node:child_process";
import { generateKeyPairSync, webcrypto } from "node:crypto";
import { get } from "node:https";
import { join } from "node:path";
import { X509CertificateGenerator } from "@peculiar/x509";
import { expect } from "chai";
import type { Hex } from "../../src/core/bytes.ts";
import { type Chain, startChain } from "../deploy/chains.ts";
import { errorCodeOf, keysteadHere, makeFolder } from "../helpers/cli.ts";
import { PROGRAM_ENVIRONMENT } from "../helpers/environment.ts";
import { measured, tdxImage } from "../helpers/images.ts";
import { readAsSecretVm } from "../helpers/secretvm-client.ts";
import { deploySuite } from "../helpers/suite.ts";

const MAIN = join(import.meta.dirname, "..", "..", "src", "cli", "main.ts");
const NOBODY = `0x${"0b".repeat(20)}`;

/** A certificate for 127.0.0.1 and its key, as PEM. */
async function selfSigned(): Promise<{ readonly cert: string; readonly key: string }> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const cert = await X509CertificateGenerator.createSelfSigned({
    name: "CN=vm",
    keys,
    signingAlgorithm: algorithm,
  });
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
  return { cert: cert.toString("pem"), key: `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n` };
}

describe("keystead vm-updates", () => {
  const folder = makeFolder();
  const children: ChildProcess[] = [];
  let chain: Chain;
  let rpc: string;
  let registry: string;
  let service: Hex;

  before(async function () {
    this.timeout(240_000);
    chain = await startChain("anvil");
    rpc = chain.anvil?.url ?? "";
    const suite = await deploySuite(chain.connection);
    registry = await suite.registry.getAddress();
    const own = suite.registry.connect(suite.admin);
    const config = {
      admin: suite.admin.address,
      noticePeriod: 0,
      description: "",
      devices: [],
      requireUpToDateTcb: false,
    };
    const salt = measured("cli", 32);
    service = (await own.serviceIdFor(suite.admin.address, salt)).toLowerCase() as Hex;
    await (await own.createServiceWithImage(config, salt, tdxImage("v1"), "first")).wait();
  });
  after(async () => {
    for (const child of children) child.kill("SIGKILL");
    folder.remove();
    await chain?.stop();
  });

  /** Starts the command and waits for what it prints once it serves. */
  const start = async (...args: string[]) => {
    const child = spawn(process.execPath, [MAIN, "vm-updates", "--port", "0", "--at", "latest", "--json", ...args], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...PROGRAM_ENVIRONMENT },
    });
    children.push(child);
    let said = "";
    for await (const chunk of child.stdout.setEncoding("utf8")) {
      said += chunk;
      if (said.endsWith("}\n")) break;
    }
    const ended = new Promise<number | null>((resolve) => child.once("close", resolve));
    return { child, ended, document: JSON.parse(said) };
  };
  const flags = () => ["--rpc", rpc, "--registry", registry];

  it("serves over HTTP what SecretVM's clients read, and ends well when it is told to", async () => {
    const { child, ended, document } = await start(...flags(), "--service", service);
    expect(document).to.deep.include({ serviceId: service });
    const answer = await readAsSecretVm((path) => fetch(`${document.url}${path}`));
    expect(answer).to.deep.include({ serviceId: service });
    const page = await fetch(`${document.url}/.well-known/vm_updates.html`);
    expect([page.status, page.headers.get("content-type")]).to.deep.equal([200, "text/html; charset=UTF-8"]);
    child.kill("SIGTERM");
    expect(await ended).to.equal(0);
  });

  it("serves over TLS with the certificate given, for the service that the machine's own file names", async () => {
    const { cert, key } = await selfSigned();
    const info = folder.write("system_info.json", JSON.stringify({ service_id: service, vm_id: "x" }));
    const { document } = await start(
      ...flags(),
      "--system-info",
      info,
      "--tls-cert",
      folder.write("cert.pem", cert),
      "--tls-key",
      folder.write("key.pem", key),
    );
    expect(document.url).to.match(/^https:/);
    const { body, presented } = await new Promise<{ body: string; presented: string }>((resolve, reject) => {
      get(`${document.url}/vm_updates`, { ca: cert, checkServerIdentity: () => undefined }, (response) => {
        const socket = response.socket as import("node:tls").TLSSocket;
        const presented = socket.getPeerCertificate().raw.toString("base64");
        let body = "";
        response.setEncoding("utf8").on("data", (text: string) => {
          body += text;
        });
        response.once("end", () => resolve({ body, presented }));
      }).once("error", reject);
    });
    expect(JSON.parse(body).proof.verified).to.equal(true);
    expect(cert.replaceAll(/\s/g, "")).to.contain(presented);
  });

  it("given a machine without a service, says that it is not upgradeable, and needs no chain", async () => {
    const info = folder.write("empty.json", JSON.stringify({ service_id: "" }));
    const { document } = await start("--system-info", info);
    expect(await (await fetch(`${document.url}/vm_updates`)).text()).to.equal('{"message":"VM is not upgradeable"}');
  });

  it("given a chain that is down when the machine starts, serves that nothing is verified", async () => {
    const { document } = await start("--rpc", "http://127.0.0.1:9", "--registry", registry, "--service", service);
    const response = await fetch(`${document.url}/vm_updates`);
    expect(response.status).to.equal(503);
    expect(await response.json()).to.deep.include({ last_verified: null });
  });

  describe("refuses", () => {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const cases: readonly [what: string, args: () => readonly string[], code: string][] = [
      ["no service", () => flags(), "usage/service"],
      ["a service that is none", () => [...flags(), "--service", "0x12"], "audit/bad-address"],
      ["no registry", () => ["--rpc", rpc, "--service", NOBODY], "usage/registry"],
      ["no endpoint", () => ["--registry", registry, "--service", NOBODY], "usage/no-endpoint"],
      ["a port that is none", () => [...flags(), "--service", NOBODY, "--port", "70000"], "usage/number"],
      ["an age that is none", () => [...flags(), "--service", NOBODY, "--max-age", "soon"], "usage/number"],
      ["half a TLS", () => [...flags(), "--service", NOBODY, "--tls-cert", "x"], "usage/tls"],
      [
        "a certificate that is none",
        () => {
          const key = folder.write("other.pem", privateKey.export({ type: "pkcs8", format: "pem" }));
          return [...flags(), "--service", NOBODY, "--tls-cert", folder.write("no.pem", "no"), "--tls-key", key];
        },
        "serve/tls",
      ],
      [
        "a file that names another service than the option",
        () => [...flags(), "--service", NOBODY, "--system-info", folder.write("a.json", `{"service_id":"${service}"}`)],
        "usage/two-sources",
      ],
      [
        "a file that names two services",
        () => ["--system-info", folder.write("b.json", `{"service_id":"${service}","app_id":"${"0b".repeat(20)}"}`)],
        "system-info/service-id",
      ],
      ["a file that names none", () => ["--system-info", folder.write("c.json", "{}")], "system-info/no-service"],
      ["a file of another kind", () => ["--system-info", folder.write("d.json", "id=1")], "json/malformed"],
    ];
    for (const [what, args, code] of cases) {
      it(`${what}: ${code}`, async () => {
        const run = await keysteadHere(["vm-updates", "--port", "0", "--json", ...args()]);
        expect([run.code, errorCodeOf(run)]).to.deep.equal([2, code]);
      });
    }
  });
});
