import { isAlias, isMap, isScalar, LineCounter, type Node, parseAllDocuments, visit } from "yaml";
import { decodeUtf8 } from "../core/bytes.ts";
import { isKeysteadError } from "../core/errors.ts";
import { printable } from "../core/printable.ts";

/** Something about a compose file that lets other code run than was measured, or that could not be read for certain. */
export interface PinningFault {
  readonly code:
    | "not-yaml"
    | "not-compose"
    | "mutable-tag"
    | "interpolated"
    | "alias"
    | "merge-key"
    | "extends"
    | "include"
    | "build"
    | "no-image"
    | "not-text";
  /** 1 for the first line; 0: of the whole file. */
  readonly line: number;
  readonly says: string;
}

/** `name@sha256:…`, with registry, path and tag or without: what the OCI distribution specification calls a digest reference. */
const PINNED = /^[a-z0-9][a-z0-9._/:-]*(?::[A-Za-z0-9_][\w.-]{0,127})?@sha256:[0-9a-f]{64}$/;

/**
 * Finds every image of a compose file that is not pinned by digest: its measurement covers the file's bytes, and a mutable tag lets those bytes mean other
 * code tomorrow. What makes a file mean more than it says is refused and not resolved: aliases, merge keys, `extends`, `include`, `build` and variables in an
 * image's name.
 *
 * @returns empty: every service has an image with a digest
 * @example
 * findUnpinned(readFileSync("docker-compose.yaml")).length; // 0
 */
export function findUnpinned(bytes: Uint8Array): readonly PinningFault[] {
  let text: string;
  try {
    text = decodeUtf8(bytes, "compose");
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    return [{ code: "not-yaml", line: 0, says: "the file is not UTF-8" }];
  }
  const lines = new LineCounter();
  const documents = parseAllDocuments(text, { lineCounter: lines, uniqueKeys: true, strict: true, merge: false });
  const [document, more] = Array.isArray(documents) ? documents : [];
  if (document === undefined || more !== undefined) {
    return [{ code: "not-compose", line: 0, says: "the file is not one YAML document" }];
  }
  const at = (node: unknown): number => {
    const range = typeof node === "object" && node !== null && "range" in node ? (node as Node).range : undefined;
    return range == null ? 0 : lines.linePos(range[0]).line;
  };
  const [error] = document.errors;
  if (error !== undefined)
    return [{ code: "not-yaml", line: lines.linePos(error.pos[0]).line, says: error.message.split("\n")[0] ?? "" }];
  const faults: PinningFault[] = [];
  const fault = (code: PinningFault["code"], node: unknown, says: string) =>
    faults.push({ code, line: at(node), says: printable(says, 300) });
  visit(document, {
    Alias: (_, node) => void fault("alias", node, `*${node.source} stands for something elsewhere: write it out`),
    Pair: (_, { key }) => {
      if (isScalar(key) && key.value === "<<") fault("merge-key", key, "<< merges keys from elsewhere: write them out");
    },
  });
  const root = document.contents;
  if (!isMap(root)) return [{ code: "not-compose", line: 0, says: "the file is not a map of services" }];
  if (root.has("include"))
    fault("include", root.get("include", true), "include takes services from other files, which are not measured");
  const services = root.get("services", true);
  if (!isMap(services)) return [...faults, { code: "not-compose", line: at(services), says: "services is not a map" }];
  if (services.items.length === 0) fault("not-compose", services, "there are no services");
  for (const { key, value } of services.items) {
    const name = isScalar(key) ? String(key.value) : "a service";
    if (!isMap(value)) {
      if (!isAlias(value)) fault("no-image", value ?? key, `${name} is not a map`);
      continue;
    }
    checkService(name, value, fault);
  }
  return faults;
}

function checkService(
  name: string,
  service: { has(key: unknown): boolean; get(key: unknown, keepScalar: true): unknown },
  fault: (code: PinningFault["code"], node: unknown, says: string) => void,
): void {
  for (const key of ["extends", "build"] as const) {
    if (service.has(key)) {
      const what = key === "build" ? "is built where it runs: nobody knows what from" : "takes settings from elsewhere";
      fault(key, service.get(key, true), `${name} ${what}`);
    }
  }
  const image = service.get("image", true);
  if (image === undefined || image === null) fault("no-image", service, `${name} has no image`);
  else if (isAlias(image))
    return; // said already
  else if (!isScalar(image) || typeof image.value !== "string")
    fault("not-text", image, `${name}'s image is not a text`);
  else if (image.value.includes("$")) {
    const says = `${name}'s image ${image.value} has a variable in it: the file does not say what runs`;
    fault("interpolated", image, says);
  } else if (!PINNED.test(image.value)) {
    const how = "write name@sha256:… (docker buildx imagetools inspect shows it)";
    fault("mutable-tag", image, `${name}'s image ${image.value} has no digest: ${how}`);
  }
}
