/*
 * How a client of SecretVM's attestation server reads `/vm_updates`, as far as what is published says: plain JSON, either a message, or `service_id` and
 * `filters`, each entry with ten fields under `filter` (TDX) or with `measurement` (SEV-SNP). Written without this project's code.
 */

/** The fields of an image filter. */
export const FILTER_FIELDS = [
  "mr_seam",
  "mr_signer_seam",
  "mr_td",
  "mr_config_id",
  "mr_owner",
  "mr_config",
  "rtmr0",
  "rtmr1",
  "rtmr2",
  "rtmr3",
] as const;

/** What such a client knows in the end. */
export type SecretVmAnswer =
  | { readonly message: string }
  | { readonly serviceId: string; readonly entries: readonly SecretVmEntry[] };

/** One allowed image. */
export interface SecretVmEntry {
  readonly description: string;
  readonly timestamp: number;
  readonly filter?: Readonly<Record<(typeof FILTER_FIELDS)[number], string | null>>;
  readonly measurement?: string;
}

/** Asks and reads, refusing what such a client could not use. */
export async function readAsSecretVm(get: (path: string) => Promise<Response>): Promise<SecretVmAnswer> {
  const response = await get("/vm_upgrades");
  if (response.status !== 200) throw new Error(`HTTP ${response.status}`);
  const body = (await response.json()) as { message?: unknown; service_id?: unknown; filters?: unknown };
  if (typeof body.message === "string") return { message: body.message };
  if (typeof body.service_id !== "string" || !Array.isArray(body.filters)) throw new Error("no service_id or filters");
  const entries = body.filters.map((entry: SecretVmEntry): SecretVmEntry => {
    if (typeof entry.description !== "string" || !Number.isInteger(entry.timestamp)) throw new Error("a bad entry");
    for (const field of entry.filter === undefined ? [] : FILTER_FIELDS) {
      const value = entry.filter?.[field];
      if (value !== null && !/^[0-9a-f]{96}$/.test(String(value))) throw new Error(`${field} is ${value}`);
    }
    if (entry.filter !== undefined && Object.keys(entry.filter).length !== FILTER_FIELDS.length)
      throw new Error("a field that is not known");
    return entry;
  });
  return { serviceId: body.service_id, entries };
}
