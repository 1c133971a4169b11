// Prints where the proxies' storage lies, compares it with snapshots/storage-layout.json, or writes that file:
//
//   node tools/storage-layout.ts [--check | --update]
//
// The layouts are those that the upgrades plugin extracted from the compiler's output, every ERC-7201 namespace included. A row for each field: slot and offset
// count from the namespace's own slot, and inside `[…]` from where the mapping puts the value.
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { getStorageLayout, getVersion, isCurrentValidationData, type StorageLayout } from "@openzeppelin/upgrades-core";
import hre from "hardhat";
import { erc7201 } from "./erc7201.ts";
import { parseMode, settleSnapshot } from "./snapshot.ts";

/** The contracts behind proxies: what they store outlives them. */
const PROXIED = ["KmsRegistry", "PlatformPolicy"] as const;

/** One field. */
export interface LayoutRow {
  readonly field: string;
  readonly slot: number;
  readonly offset: number;
  readonly bytes: number;
  readonly type: string;
}

/** One contract's storage: each namespace, and what lies outside of all (nothing should). */
export interface ContractLayout {
  readonly outside: readonly LayoutRow[];
  readonly namespaces: Readonly<Record<string, { readonly base: string; readonly rows: readonly LayoutRow[] }>>;
}

interface Item {
  readonly label: string;
  readonly type: string;
  readonly slot?: string;
  readonly offset?: number;
}

/**
 * Flattens a layout of upgrades-core into rows: structs and the values of mappings field by field.
 *
 * @throws Error if the compiler gave no position for a field, or a type is not described: a layout that can't be told is not checked
 */
export function flattenLayout(layout: StorageLayout): ContractLayout {
  const types = layout.types;
  const describe = (id: string) => {
    const type = types[id];
    if (!type) throw new Error(`the layout names a type that it does not describe: ${id}`);
    return type;
  };
  const expand = (item: Item, path: string, base: number): LayoutRow[] => {
    const { label, numberOfBytes, members, underlying } = describe(item.type);
    if (item.slot === undefined || item.offset === undefined || numberOfBytes === undefined) {
      throw new Error(`the compiler gave no position for ${path}: recompile with \`hardhat build --force\``);
    }
    const slot = base + Number(item.slot);
    const fields = (members ?? []).filter(
      (member): member is Exclude<typeof member, string> => typeof member === "object",
    );
    if (fields.length > 0) return fields.flatMap((field) => expand(field, `${path}.${field.label}`, slot));
    // A wrapped type shows what it wraps; an enum its members, whose order is part of what is stored.
    const names = (members ?? []).filter((member) => typeof member === "string");
    const detail = underlying ? describe(underlying).label : names.join(", ");
    const shown = detail === "" ? label : `${label} (${detail})`;
    const row = { field: path, slot, offset: item.offset, bytes: Number(numberOfBytes), type: shown };
    const inner = mappedType(item.type);
    if (inner === undefined) return [row];
    const key = /^mapping\((\S+) =>/.exec(label)?.[1] ?? "";
    return [row, ...expandValue(inner, `${path}[${key}]`)];
  };
  // A value that is a plain word adds nothing to its mapping's own row.
  const expandValue = (id: string, path: string): LayoutRow[] =>
    id.startsWith("t_struct") || id.startsWith("t_mapping")
      ? expand({ label: path, type: id, slot: "0", offset: 0 }, path, 0)
      : [];

  const rows = (items: readonly Item[]) => items.flatMap((item) => expand(item, item.label, 0));
  const namespaces = Object.entries(layout.namespaces ?? {})
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([id, items]) => [id, { base: erc7201(id.replace(/^erc7201:/, "")), rows: rows(items) }] as const);
  return { outside: rows(layout.storage), namespaces: Object.fromEntries(namespaces) };
}

/** The value's type inside a mapping's type id, `t_mapping(KEY,VALUE)`; undefined for any other type. */
function mappedType(id: string): string | undefined {
  if (!id.startsWith("t_mapping(")) return undefined;
  const inner = id.slice("t_mapping(".length, -1);
  let depth = 0;
  for (const [at, character] of [...inner].entries()) {
    if (character === "(") depth += 1;
    else if (character === ")") depth -= 1;
    else if (character === "," && depth === 0) return inner.slice(at + 1);
  }
  return undefined;
}

/** The layouts of all contracts behind proxies, as just built. */
export async function readLayouts(): Promise<Record<string, ContractLayout>> {
  const cache = join(hre.config.paths.cache, "validations.json");
  const data: Parameters<typeof isCurrentValidationData>[0] = JSON.parse(await readFile(cache, "utf8"));
  if (!isCurrentValidationData(data)) {
    throw new Error("the upgrades plugin's cache is of another version: recompile with `hardhat build --force`");
  }
  const layouts: Record<string, ContractLayout> = {};
  for (const name of PROXIED) {
    const { bytecode, sourceName } = await hre.artifacts.readArtifact(name);
    const version = getVersion(bytecode);
    const id = `project/${sourceName}:${name}`;
    const own = data.log.find((each) => each[id]?.version?.withMetadata === version.withMetadata)?.[id]?.layout;
    if (!own)
      throw new Error(`${name} is not in the upgrades plugin's cache: recompile with \`hardhat build --force\``);
    // What bases declare outside of namespaces comes unfolded, but with types that lack their sizes: the contract's own have them.
    const whole = getStorageLayout(data, version);
    layouts[name] = flattenLayout({ ...whole, types: { ...whole.types, ...own.types } });
  }
  return layouts;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(resolve(process.argv[1])).href) {
  const mode = parseMode(process.argv.slice(2));
  await hre.tasks.getTask("build").run({ quiet: true, noTests: true });
  const layouts = await readLayouts();
  if (mode === "print") {
    for (const [name, { namespaces }] of Object.entries(layouts)) {
      for (const [id, { base, rows }] of Object.entries(namespaces)) {
        console.log(`\n${name} · ${id} · ${base}`);
        for (const { field, slot, offset, bytes, type } of rows)
          console.log(`  ${slot}+${offset}\t${bytes}\t${field}\t${type}`);
      }
    }
  }
  const isSettled = await settleSnapshot(mode, {
    file: "snapshots/storage-layout.json",
    script: "layout",
    content: layouts,
  });
  process.exitCode = isSettled ? 0 : 1;
}
