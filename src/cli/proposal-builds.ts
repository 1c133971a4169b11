import { type Build, readBuilds } from "../governance/build.ts";
import { replacesCode } from "../governance/check.ts";
import type { Operation } from "../governance/operation.ts";
import type { OptionValues } from "./chain-input.ts";

/** The option of every command that compares code with this build. */
export const BUILD_OPTION = {
  flags: "--build <folder>",
  description: "what was built here, to compare new implementations with (default: artifacts)",
};
export const NO_BUILD_OPTION = {
  flags: "--no-build",
  description: "compare no code with a build; the verdict says so",
};

/**
 * What code is compared with: this build, unless it is turned off; undefined where nothing replaces code or it is turned off.
 *
 * @throws KeysteadError `build/none` where nothing was built: what could not be compared must not look compared
 * @example
 * const builds = await buildsFor(operation, command.opts());
 */
export async function buildsFor(operation: Operation, { build }: OptionValues): Promise<readonly Build[] | undefined> {
  if (build === false || !replacesCode(operation)) return undefined;
  return readBuilds(typeof build === "string" ? build : undefined);
}
