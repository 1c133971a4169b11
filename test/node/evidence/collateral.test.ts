import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { isKeysteadError, type KeysteadError } from "../../../src/core/errors.ts";
import {
  type CollateralSource,
  createCollateralCache,
  createFileSource,
} from "../../../src/node/evidence/collateral.ts";
import { createPccsSource } from "../../../src/node/evidence/pccs.ts";
import type { FetchLike } from "../../../src/node/evidence/request.ts";
import type { TdxCollateralKey } from "../../../src/node/evidence/tdx.ts";
import { formatTdxCollateral, type TdxCollateral } from "../../../src/node/evidence/tdx-collateral.ts";
import { createTestTdx, type TestTdx, type TestTdxCollateral } from "../../../src/node/test-tee/tdx.ts";

const AT = 1_750_000_000;
const DAY = 86_400;
const HOUR = 3600;
const KEY: TdxCollateralKey = { fmspc: "0x00806f050000", ca: "platform" };
const BASE = "https://pccs.invalid:8081";

async function refusal(act: Promise<unknown>): Promise<KeysteadError> {
  try {
    await act;
  } catch (error) {
    if (isKeysteadError(error)) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

/** A PCCS that serves one platform's collateral; `edit` changes single answers. */
function pccs(
  collateral: TdxCollateral,
  edit: (path: string, answer: Response) => Response | undefined = () => undefined,
) {
  const asked: string[] = [];
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
  const json = (name: string, text: string, signature: Uint8Array) =>
    `{"${name}":${text},"signature":"${hex(signature)}"}`;
  const chain = (pem: string) => encodeURIComponent(pem);
  const answers: Readonly<Record<string, () => Response>> = {
    "/tdx/certification/v4/tcb?fmspc=00806f050000": () =>
      new Response(json("tcbInfo", collateral.tcbInfo, collateral.tcbInfoSignature), {
        headers: { "TCB-Info-Issuer-Chain": chain(collateral.tcbInfoIssuerChain) },
      }),
    "/tdx/certification/v4/qe/identity": () =>
      new Response(json("enclaveIdentity", collateral.qeIdentity, collateral.qeIdentitySignature), {
        headers: { "SGX-Enclave-Identity-Issuer-Chain": chain(collateral.qeIdentityIssuerChain) },
      }),
    "/sgx/certification/v4/pckcrl?ca=platform&encoding=der": () =>
      new Response(new Uint8Array(collateral.pckCrl), {
        headers: { "SGX-PCK-CRL-Issuer-Chain": chain(collateral.pckCrlIssuerChain) },
      }),
    "/sgx/certification/v4/rootcacrl": () => new Response(hex(collateral.rootCaCrl)),
  };
  const fetch: FetchLike = async (url) => {
    const path = url.slice(BASE.length);
    asked.push(path);
    const answer = answers[path]?.() ?? new Response("not found", { status: 404 });
    return edit(path, answer) ?? answer;
  };
  return { fetch, asked };
}

describe("collateral sources", () => {
  let tee: TestTdx;
  let collateral: TdxCollateral;
  before(async () => {
    tee = await createTestTdx({ atUnixSeconds: AT });
    collateral = await tee.issueCollateral();
  });

  it("reads the four parts from a PCCS, byte for byte, lists in DER or hex", async () => {
    const { fetch, asked } = pccs(collateral);
    expect(await createPccsSource({ url: `${BASE}/`, fetch }).fetch(KEY)).to.deep.equal(collateral);
    expect(asked).to.have.length(4);
  });

  it("asks Intel for the root's list where Intel is the service", async () => {
    const asked: string[] = [];
    const fetch: FetchLike = async (url) => {
      asked.push(url);
      return new Response("", { status: 500 });
    };
    await refusal(createPccsSource({ url: "https://api.trustedservices.intel.com", fetch }).fetch(KEY));
    expect(asked).to.include("https://certificates.trustedservices.intel.com/IntelSGXRootCA.der");
  });

  const answers: readonly [string, (path: string, answer: Response) => Response | undefined, string, boolean][] = [
    [
      "not found",
      (path) => (path.includes("tcb") ? new Response("", { status: 404 }) : undefined),
      "collateral/not-found",
      false,
    ],
    [
      "overloaded",
      (path) => (path.includes("qe") ? new Response("", { status: 503 }) : undefined),
      "collateral/busy",
      true,
    ],
    [
      "throttled",
      (path) => (path.includes("qe") ? new Response("", { status: 429 }) : undefined),
      "collateral/busy",
      true,
    ],
    [
      "unauthorised",
      (path) => (path.includes("qe") ? new Response("", { status: 401 }) : undefined),
      "collateral/http-status",
      false,
    ],
    [
      "without its chain",
      (path) => (path.includes("pckcrl") ? new Response("30") : undefined),
      "collateral/malformed",
      false,
    ],
    ["empty", (path) => (path.includes("rootcacrl") ? new Response("") : undefined), "collateral/malformed", false],
    [
      "too large",
      (path) => (path.includes("rootcacrl") ? new Response(new Uint8Array(17 * 1024 * 1024)) : undefined),
      "collateral/too-large",
      false,
    ],
    [
      "another document",
      (path, { headers }) => (path.includes("tcb") ? new Response('{"tcbInfo":{}}', { headers }) : undefined),
      "collateral/malformed",
      false,
    ],
  ];
  for (const [name, edit, code, retryable] of answers)
    it(`refuses an answer that is ${name}`, async () => {
      const error = await refusal(createPccsSource({ url: BASE, fetch: pccs(collateral, edit).fetch }).fetch(KEY));
      expect([error.code, error.retryable]).to.deep.equal([code, retryable]);
    });

  it("says that a network failure may pass, and refuses addresses that are none", async () => {
    const fetch: FetchLike = () => Promise.reject(new TypeError("fetch failed"));
    const error = await refusal(createPccsSource({ url: BASE, fetch }).fetch(KEY));
    expect([error.code, error.retryable]).to.deep.equal(["collateral/unreachable", true]);
    for (const url of ["pccs", "file:///etc/passwd", `${BASE}?a=b`, "https://a:b@pccs.invalid"])
      expect(() => createPccsSource({ url, fetch }))
        .to.throw()
        .with.property("code", "collateral/bad-url");
  });

  it("reads files, by platform family and CA", async () => {
    const folder = mkdtempSync(join(tmpdir(), "keystead-"));
    try {
      const path = join(folder, "collateral.json");
      writeFileSync(path, formatTdxCollateral(collateral));
      const source = createFileSource([path]);
      expect(await source.fetch(KEY)).to.deep.equal(collateral);
      expect((await refusal(source.fetch({ ...KEY, ca: "processor" }))).code).to.equal("collateral/not-found");
      expect((await refusal(source.fetch({ ...KEY, fmspc: "0x000000000000" }))).code).to.equal("collateral/not-found");
      expect((await refusal(createFileSource([join(folder, "none")]).fetch(KEY))).code).to.equal(
        "collateral/unreadable",
      );
      writeFileSync(path, "{}");
      expect((await refusal(source.fetch(KEY))).code).to.equal("tdx/collateral-malformed");
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("collateral cache", () => {
  let tee: TestTdx;
  before(async () => {
    tee = await createTestTdx({ atUnixSeconds: AT });
  });

  /** A source whose next answer can be set: collateral, or an error. */
  function scripted() {
    const state: { next: TestTdxCollateral | Error; calls: number } = { next: {}, calls: 0 };
    const source: CollateralSource = {
      fetch: async () => {
        state.calls += 1;
        if (state.next instanceof Error) throw state.next;
        return await tee.issueCollateral(state.next);
      },
    };
    // The stopwatch runs with the time that is asked at.
    let time = AT;
    const made = createCollateralCache({ sources: [source], unsafeTestRoots: [tee.root], stopwatch: () => time });
    const at =
      <T>(act: (key: TdxCollateralKey, atUnixSeconds: number) => T) =>
      (key: TdxCollateralKey, atUnixSeconds: number): T => {
        time = atUnixSeconds;
        return act(key, atUnixSeconds);
      };
    const cache = { get: at(made.get), refresh: at(made.refresh), states: made.states };
    return { state, cache };
  }

  it("verifies once, and keeps until an hour passes", async () => {
    const { state, cache } = scripted();
    const [first, beside] = await Promise.all([cache.get(KEY, AT), cache.get(KEY, AT)]);
    expect(beside).to.equal(first);
    expect(await cache.get(KEY, AT + HOUR - 1)).to.equal(first);
    expect(state.calls).to.equal(1);
  });

  it("gives what it holds while it renews beside", async () => {
    const { state, cache } = scripted();
    const first = await cache.get(KEY, AT);
    state.next = { issuedAt: AT + 60 };
    expect(await cache.get(KEY, AT + HOUR)).to.equal(first);
    const renewed = await cache.refresh(KEY, AT + HOUR);
    expect(state.calls).to.equal(2);
    expect(renewed.tcbInfo.issueDate).to.equal(AT + 60);
    expect(await cache.get(KEY, AT + HOUR)).to.equal(renewed);
  });

  it("keeps what is in date when a renewal fails, and never longer", async () => {
    const { state, cache } = scripted();
    const first = await cache.get(KEY, AT);
    state.next = new Error("down");
    expect((await refusal(cache.refresh(KEY, AT + HOUR))).code).to.equal("collateral/unreachable");
    expect(cache.states()[0]?.lastError?.retryable).to.equal(true);
    expect(await cache.get(KEY, first.validUntil)).to.equal(first);
    const error = await refusal(cache.get(KEY, first.validUntil + 60));
    expect([error.code, error.retryable]).to.deep.equal(["collateral/unreachable", true]);
  });

  it("leaves a failed source alone for a while", async () => {
    const { state, cache } = scripted();
    state.next = new Error("down");
    for (const at of [AT, AT + 1, AT + 29]) await refusal(cache.get(KEY, at));
    expect(state.calls).to.equal(1);
    state.next = {};
    await cache.get(KEY, AT + 30);
    expect(state.calls).to.equal(2);
  });

  const worse: readonly [string, TestTdxCollateral, string][] = [
    ["older", { issuedAt: AT - 2 * DAY }, "collateral/older"],
    ["of an older evaluation", { issuedAt: AT, evaluationDataNumber: 16 }, "collateral/older"],
    ["forged", { issuedAt: AT, forge: ["tcb-info"] }, "tdx/collateral-signature"],
    ["with a forged list", { issuedAt: AT, forge: ["pck-crl"] }, "tdx/crl-signature"],
    ["expired", { issuedAt: AT, nextUpdate: AT + 1 }, "tdx/collateral-expired"],
    ["of another platform", { issuedAt: AT, fmspc: "b0c06f000000" }, "collateral/other-platform"],
  ];
  for (const [name, next, code] of worse)
    it(`does not replace what it holds by collateral ${name}`, async () => {
      const { state, cache } = scripted();
      const first = await cache.get(KEY, AT);
      state.next = next;
      expect((await refusal(cache.refresh(KEY, AT + HOUR))).code).to.equal(code);
      expect(await cache.get(KEY, AT + HOUR)).to.equal(first);
    });

  it("takes a newer list that revokes", async () => {
    const { state, cache } = scripted();
    const first = await cache.get(KEY, AT);
    state.next = { issuedAt: AT, revoke: ["pck"] };
    const renewed = await cache.refresh(KEY, AT + HOUR);
    expect([first.pckCrl.revoked.size, renewed.pckCrl.revoked.size]).to.deep.equal([0, 1]);
  });

  it("holds a bounded number of families, and lets go first of those never found", async () => {
    const source: CollateralSource = {
      fetch: async ({ fmspc }) => {
        if (fmspc !== KEY.fmspc) throw new Error("unknown");
        return await tee.issueCollateral();
      },
    };
    const cache = createCollateralCache({ sources: [source], unsafeTestRoots: [tee.root], limit: 3 });
    const first = await cache.get(KEY, AT);
    for (let family = 1; family < 10; family += 1)
      await refusal(cache.get({ ...KEY, fmspc: `0x00000000000${family}` }, AT));
    expect(cache.states()).to.have.length(3);
    expect(await cache.get(KEY, AT)).to.equal(first);
  });
});
