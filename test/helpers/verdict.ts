import type { BaseContract, Interface } from "ethers";

/** How an error's values are written: names for what has one, as given for the rest. */
export type Names = ReadonlyMap<string, string>;

/**
 * Tries a call without sending it, and says in one line what came of it: `allowed`, or the custom error with its values, as in
 * `KmsRegistry_NotAdmin(managed, eve, admin)`.
 */
export async function verdictOf(
  contract: BaseContract,
  name: string,
  args: readonly unknown[],
  names: Names,
): Promise<string> {
  try {
    await contract.getFunction(name).staticCall(...args);
    return "allowed";
  } catch (error) {
    const told = describe(contract.interface, revertDataOf(error), names);
    if (told === undefined) throw error;
    return told;
  }
}

function describe(abi: Interface, data: string | undefined, names: Names): string | undefined {
  const parsed = data === undefined ? null : abi.parseError(data);
  if (!parsed) return undefined;
  const values = parsed.args.map((value) => names.get(String(value).toLowerCase()) ?? String(value));
  return `${parsed.name}(${values.join(", ")})`;
}

/** Clients put the revert data in different places. */
function revertDataOf(error: unknown): string | undefined {
  for (let at = error; typeof at === "object" && at !== null; ) {
    const { data, error: inner, cause, info } = at as Record<string, unknown>;
    if (typeof data === "string" && data.startsWith("0x")) return data;
    at = inner ?? cause ?? info ?? (typeof data === "object" ? data : undefined);
  }
  return undefined;
}
