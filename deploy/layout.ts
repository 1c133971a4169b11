import { readFileSync } from "node:fs";
import { join } from "node:path";
import {
  getStorageLayout,
  getStorageUpgradeReport,
  getVersion,
  isCurrentValidationData,
  withValidationDefaults,
} from "@openzeppelin/upgrades-core";
import hre from "hardhat";
import { KeysteadError } from "../src/core/errors.ts";

/**
 * Proves that `next` only appends to the storage of `current`, in the contract's own slots and in every ERC-7201 namespace: no variable
 * moved, renamed, resized or given another meaning. That is what makes a rollback safe: the older code finds everything where it left it and reads
 * nothing that the newer code wrote in another sense. (OpenZeppelin's plugin refuses rollbacks altogether: to it the older layout "deletes"
 * variables.)
 *
 * Layouts come from the plugin's own analysis of this build, `cache/validations.json`.
 *
 * @param current name of the implementation that runs now, simple or `path:Name`
 * @throws KeysteadError `upgrade/not-only-appended` with `details.operations`, `upgrade/no-layout`
 * @example await checkAppendOnly("KmsRegistry", "KmsRegistryV2");
 */
export async function checkAppendOnly(current: string, next: string): Promise<void> {
  const [from, to] = [await readLayout(current), await readLayout(next)];
  const { ops } = getStorageUpgradeReport(from, withoutExcuses(to), withValidationDefaults({}));
  const operations: string[] = ops.filter((op) => op.kind !== "append").map((op) => op.kind);
  for (const namespace of Object.keys(from.namespaces ?? {})) {
    if (to.namespaces?.[namespace] === undefined) operations.push(`deletes ${namespace}`);
  }
  if (operations.length > 0) {
    throw new KeysteadError(
      "upgrade/not-only-appended",
      `${next} does more to storage than append: ${operations.join(", ")}`,
      {
        argument: next,
        remedy:
          "append variables only, so that rolling back stays possible; or ship a version between that can be rolled back to",
        details: { operations },
      },
    );
  }
}

/** Annotations such as `@custom:oz-retyped-from` make the plugin take a changed variable for the old one; going back, they excuse nothing. */
function withoutExcuses<T>(layout: T): T {
  return JSON.parse(JSON.stringify(layout, (key, value) => (/^(renamed|retyped)From$/.test(key) ? undefined : value)));
}

async function readLayout(name: string) {
  const path = join(hre.config.paths.cache, "validations.json");
  try {
    const validations: unknown = JSON.parse(readFileSync(path, "utf8"));
    if (!isCurrentValidationData(validations as never)) throw new Error("written by another version of the plugin");
    const { bytecode } = await hre.artifacts.readArtifact(name);
    return getStorageLayout(validations as never, getVersion(bytecode));
  } catch (cause) {
    throw new KeysteadError("upgrade/no-layout", `the storage layout of ${name} is not in cache/validations.json`, {
      argument: name,
      remedy: "build again: `npx hardhat build --force`",
      cause,
    });
  }
}
