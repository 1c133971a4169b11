import { createServer } from "node:net";
import { basename } from "node:path";
import { Hono } from "hono";
import { toHex } from "../core/bytes.ts";
import { isKeysteadError, type KeysteadError } from "../core/errors.ts";
import type { NodeConfig } from "./config.ts";
import { createGatedWebhook } from "./dstack-gate.ts";
import { probePccs } from "./evidence/pccs.ts";
import { createFetchWithCa } from "./evidence/request.ts";
import { createSnpCrlSource, verifySnpCrl } from "./evidence/snp-crl.ts";
import { parseTdxCollateral, verifyTdxCollateral } from "./evidence/tdx-collateral.ts";
import { isoTime } from "./evidence/time.ts";
import { createKeyRing, wipe } from "./keys.ts";
import {
  checkCoreDumps,
  type LoadedDeployment,
  loadDeployment,
  loadDstackGate,
  loadPccs,
  loadRoots,
  loadTestRoots,
  type NodeSurroundings,
  notListening,
  openDecider,
  readConfigured,
  readConfiguredBytes,
} from "./load.ts";
import { inspectReceiptLog } from "./receipts.ts";

/** What one check found. */
export interface CheckFinding {
  readonly check: string;
  readonly state: "ok" | "warning" | "failed";
  readonly detail: string;
  /** The error's code, where it failed. */
  readonly code?: string | undefined;
}

/**
 * Goes through everything that a node needs, without starting one: each check stands by itself, so that one run names all that is wrong. It joins no node.
 *
 * @example
 * const ready = (await checkNode(config, {})).every(({ state }) => state !== "failed");
 */
export async function checkNode(config: NodeConfig, surroundings: NodeSurroundings): Promise<readonly CheckFinding[]> {
  const findings: CheckFinding[] = [];
  const attempt = async <T>(
    check: string,
    act: () => Promise<readonly [detail: string, value: T, state?: "warning"]>,
  ): Promise<T | undefined> => {
    try {
      const [detail, value, state = "ok"] = await act();
      findings.push({ check, state, detail });
      return value;
    } catch (error) {
      const known: KeysteadError | undefined = isKeysteadError(error) ? error : undefined;
      const detail = known === undefined ? "an unexpected error" : `${known.message}. ${known.remedy}`;
      findings.push({ check, state: "failed", detail, code: known?.code ?? "internal" });
      return undefined;
    }
  };
  const warn = (check: string, detail: string) => findings.push({ check, state: "warning", detail });

  await attempt("core dumps", async () => {
    await checkCoreDumps(config);
    return [config.allowCoreDumps ? "allowed by the configuration" : "off", undefined];
  });
  const loaded = await attempt<LoadedDeployment>("deployment", async () => {
    const value = await loadDeployment(config);
    return [`chain ${value.pinned.chainId}, registry ${value.pinned.registry.address}`, value];
  });
  await attempt("listen", async () => {
    const { host, port } = config.listen;
    if (await tryPort(host, port)) return [`${host}:${port} is free`, undefined];
    return [`${host}:${port} is in use: by this node, if it runs already`, undefined, "warning"];
  });
  const { dstackWebhook } = config;
  if (dstackWebhook !== undefined)
    await attempt("dstack webhook", async () => {
      const { host, port } = dstackWebhook.listen;
      createGatedWebhook(new Hono(), (await loadDstackGate(config)) ?? {}, config.limits);
      if (await tryPort(host, port)) return [`${host}:${port} is free`, undefined];
      return [`${host}:${port} is in use: by this node, if it runs already`, undefined, "warning"];
    });
  const { evidence, unsafeTestTee } = config;
  const unsafeTestRoots = await attempt("evidence", async () => {
    const roots = await loadTestRoots(config);
    return [
      unsafeTestTee === undefined ? "under the vendors' roots" : `${roots.length} test roots beside the vendors'`,
      roots,
    ];
  });
  if (unsafeTestTee !== undefined) warn("test TEE", "evidence under test roots is taken: the keys protect nothing");
  const atUnixSeconds = Math.floor(Date.now() / 1000);
  if (evidence.pccs !== undefined) {
    const { url } = evidence.pccs;
    for (const one of typeof url === "string" ? [url] : url)
      await attempt("TDX collateral", async () => {
        const { rootCaCrlUrl, ca } = await loadPccs(evidence.pccs ?? { url, early: false });
        await probePccs({ url: one, fetch: ca === undefined ? fetch : createFetchWithCa(ca), rootCaCrlUrl });
        return [`${new URL(one).host} answers`, undefined];
      });
  } else if (evidence.collateralFiles === undefined) {
    warn("TDX collateral", "no source (evidence.pccs or evidence.collateralFiles): TDX machines get no keys");
  } else {
    for (const path of evidence.collateralFiles)
      await attempt(`TDX collateral ${basename(path)}`, async () => {
        const collateral = parseTdxCollateral(await readConfigured(path, "evidence.collateralFiles"));
        const { tcbInfo, validUntil } = verifyTdxCollateral(collateral, { atUnixSeconds, unsafeTestRoots });
        return [`${toHex(tcbInfo.fmspc)}, good until ${isoTime(validUntil)}`, undefined];
      });
  }
  for (const product of PRODUCTS) {
    const path = evidence.snpCrlFiles?.[product];
    if (path === undefined) continue;
    await attempt(`AMD's CRL, ${product}`, async () => {
      const der = await readConfiguredBytes(path, "evidence.snpCrlFiles");
      const { nextUpdate } = verifySnpCrl(der, product, { atUnixSeconds, unsafeTestRoots });
      return [`good until ${isoTime(nextUpdate)}`, undefined];
    });
  }
  const unlisted = PRODUCTS.filter((product) => evidence.snpCrlFiles?.[product] === undefined).join(", ");
  const { snpKdsUrl } = evidence;
  if (snpKdsUrl !== undefined)
    await attempt("AMD's CRL", async () => {
      const source = createSnpCrlSource({ url: snpKdsUrl, fetch, unsafeTestRoots });
      await source.get("milan", "vcek", atUnixSeconds);
      return [`${new URL(snpKdsUrl).host} answers`, undefined];
    });
  else if (!evidence.requireSnpCrl)
    warn("AMD's CRL", "not required: keys of revoked SEV-SNP chips are noticed only where a list is at hand");
  else if (unlisted !== "") warn("AMD's CRL", `none for ${unlisted}: such machines need to bring it, or get no keys`);
  await attempt("receipts", async () => {
    // A node may be running with this file: it is looked at, and not opened as a node opens it.
    const found = await inspectReceiptLog(config.receipts);
    if (found === undefined) return [`none yet, ${config.receipts} can be made`, undefined];
    const { count, unfinishedBytes } = found;
    const rest =
      unfinishedBytes === 0 ? "" : `; ${unfinishedBytes} bytes of an unfinished one are cut off at the next start`;
    return [`${count} in ${config.receipts}${rest}`, undefined];
  });
  if (loaded === undefined) {
    for (const what of ["root", "chain"])
      findings.push({
        check: what,
        state: "failed",
        detail: "not checked: it needs the deployment",
        code: "check/not-checked",
      });
    return findings;
  }
  const { join, ...alone } = config;
  const withoutRoot = (error: unknown) => join !== undefined && isKeysteadError(error, "root/not-found");
  await attempt("root", async () => {
    try {
      const roots = await loadRoots(alone, loaded, surroundings);
      const deployment = { chainId: BigInt(loaded.pinned.chainId), registry: loaded.pinned.registry.address };
      const ring = createKeyRing(roots, deployment);
      wipe(...roots.map(({ secret }) => secret));
      ring.wipe();
      return [`epoch ${ring.rootEpoch}, environment key ${ring.environmentKey}`, undefined];
    } catch (error) {
      if (!withoutRoot(error)) throw error;
      return [`none yet: at its first start the node joins ${new URL(join?.url ?? "").host}`, undefined];
    }
  });
  await attempt("chain", async () => {
    const decider = await openDecider(config, loaded.pinned);
    try {
      await decider.refresh();
      const { block, ageSeconds, reason } = decider.status();
      const detail = `finalized block ${block?.number}, ${Math.round(ageSeconds ?? 0)} s old`;
      if (reason === undefined) return [detail, undefined];
      return [`${detail}: ${reason}, nothing is released until that passes`, undefined, "warning"];
    } finally {
      for (const { name, state, lastError } of decider.status().endpoints)
        if (state !== "ok") warn(`endpoint ${name}`, `${state}${lastError === undefined ? "" : `: ${lastError}`}`);
      await decider.stop();
    }
  });
  return findings;
}

const PRODUCTS = ["milan", "genoa", "turin", "venice"] as const;

/** Whether a port can be listened on; what the system refuses for another reason is an error. */
async function tryPort(host: string, port: number): Promise<boolean> {
  return await new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", (cause: NodeJS.ErrnoException) => {
      if (cause.code === "EADDRINUSE") resolve(false);
      else reject(notListening(host, port, cause));
    });
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
