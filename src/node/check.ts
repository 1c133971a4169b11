import { isKeysteadError, type KeysteadError } from "../core/errors.ts";
import type { NodeConfig } from "./config.ts";
import { createPccsSource } from "./evidence/collateral.ts";
import { createKeyRing, wipe } from "./keys.ts";
import {
  checkCoreDumps,
  type LoadedDeployment,
  loadDeployment,
  loadJudgeOptions,
  loadRoots,
  type NodeSurroundings,
  openDecider,
} from "./load.ts";
import { openReceiptLog } from "./receipts.ts";

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
  const attempt = async <T>(check: string, act: () => Promise<readonly [string, T]>): Promise<T | undefined> => {
    try {
      const [detail, value] = await act();
      findings.push({ check, state: "ok", detail });
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
  await attempt("evidence", async () => {
    const { pccs, collateralFiles } = await loadJudgeOptions(config);
    if (pccs !== undefined) createPccsSource({ url: pccs.url, fetch });
    const from = pccs?.url ?? (collateralFiles === undefined ? "nowhere" : `${collateralFiles.length} files`);
    return [`TDX collateral from ${from}`, undefined];
  });
  const { evidence, unsafeTestTee } = config;
  if (evidence.pccs === undefined && evidence.collateralFiles === undefined)
    warn("evidence", "no source of TDX collateral: TDX machines get no keys");
  if (unsafeTestTee !== undefined) warn("test TEE", "evidence under test roots is taken: the keys protect nothing");
  await attempt("receipts", async () => {
    const log = await openReceiptLog(config.receipts);
    const detail = `${log.count()} in ${config.receipts}`;
    await log.close();
    return [detail, undefined];
  });
  if (loaded === undefined) return findings;
  const { join: _, ...alone } = config;
  await attempt("root", async () => {
    const roots = await loadRoots(alone, loaded, surroundings);
    const deployment = { chainId: BigInt(loaded.pinned.chainId), registry: loaded.pinned.registry.address };
    const ring = createKeyRing(roots, deployment);
    wipe(...roots.map(({ secret }) => secret));
    ring.wipe();
    return [`epoch ${ring.rootEpoch}, environment key ${ring.environmentKey}`, undefined];
  });
  await attempt("chain", async () => {
    const decider = await openDecider(config, loaded.pinned, () => {});
    try {
      await decider.refresh();
      const { block, ageSeconds, endpoints } = decider.status();
      for (const { name, state, lastError } of endpoints)
        if (state !== "ok") warn(`endpoint ${name}`, `${state}${lastError === undefined ? "" : `: ${lastError}`}`);
      return [`finalized block ${block?.number}, ${Math.round(ageSeconds ?? 0)} s old`, undefined];
    } finally {
      await decider.stop();
    }
  });
  return findings;
}
