import { parseDocument } from "yaml";
import { isKeysteadError, KeysteadError } from "../../../core/errors.ts";
import { detectEvidence } from "../../../core/evidence/detect.ts";
import { unwrapPage } from "../../../core/evidence/page.ts";
import { isJsonObject, parseJson } from "../../../core/json.ts";
import type { Finding } from "../../../core/measurement.ts";
import { textFindings } from "../../../core/text.ts";
import { type InputFile, inputFile } from "../../io.ts";

/** A compose file that is one, and what to tell about it. */
export interface ComposeFile {
  /** Out of its page, where it came in one: the bytes and their hash are the file's own. */
  readonly compose: InputFile;
  readonly findings: readonly Finding[];
}

/**
 * Takes a docker-compose file out of the page that an old SecretVM wraps it in, and refuses what is no compose file: its hash would be registered and no machine would have it.
 *
 * @throws KeysteadError `input/page`; `measure/wrong-input` for evidence, other JSON, and text that names no services
 * @example
 * const { compose } = readComposeFile(await io.readFile("docker-compose.yaml"));
 */
export function readComposeFile(file: InputFile): ComposeFile {
  const inner = unwrapPage(file.bytes, "compose");
  const compose =
    inner === undefined ? file : { ...inputFile(`the file in the page ${file.name}`, inner), notes: file.notes };
  const wrong = (what: string, remedy = "Give the docker-compose file of the machine.") =>
    new KeysteadError("measure/wrong-input", `${compose.name} is not a compose file: it is ${what}`, {
      argument: "compose",
      remedy,
    });
  const evidence = detectEvidence(compose.bytes);
  if (evidence.format !== "unknown") throw wrong(evidence.description, "Use keystead measure quote, report or nitro.");
  const text = new TextDecoder().decode(compose.bytes);
  if (/^[\ufeff\s]*[{["]/.test(text)) requireServicesInJson(text, wrong);
  else if (!namesServices(text)) throw wrong("text without services at its top level");
  const page: readonly Finding[] =
    inner === undefined
      ? []
      : [
          {
            code: "input/page",
            severity: "warning",
            message: `${file.name} is a web page: the file inside it was measured. Hold it against the machine with --quote`,
          },
        ];
  return { compose, findings: [...page, ...textFindings(compose.bytes, compose.name)] };
}

/** JSON is YAML too: it is a compose file if it has services, and nothing else is. */
function requireServicesInJson(text: string, wrong: (what: string, remedy?: string) => KeysteadError): void {
  let value: unknown;
  try {
    value = parseJson(text.replace(/^\ufeff/, ""), "compose");
  } catch (error) {
    if (!isKeysteadError(error)) throw error;
    // a flow mapping of YAML that is not JSON
    if (namesServices(text)) return;
    throw wrong("text without services at its top level");
  }
  const object = isJsonObject(value as never) ? (value as Readonly<Record<string, unknown>>) : {};
  if (typeof object.services === "object" && object.services !== null) return;
  if (object.manifest_version !== undefined) throw wrong("an app-compose.json", "Use keystead measure dstack.");
  if (object.tcb_info !== undefined || object.app_compose !== undefined)
    throw wrong("an answer of the dstack guest agent", "Use keystead measure info.");
  throw wrong("JSON without services");
}

/** Whether YAML has services at its top level; where it cannot be parsed, whether a line says so. */
function namesServices(text: string): boolean {
  try {
    const document = parseDocument(text, { logLevel: "silent", uniqueKeys: false });
    if (document.errors.length === 0) {
      const services: unknown = document.get("services");
      return services !== undefined && services !== null && typeof services === "object";
    }
  } catch {
    // told by its lines below
  }
  return /^\ufeff?services:[ \t]*(?:#.*)?\r?$/m.test(text);
}

/**
 * The same text with other line ends, as tools leave it that nobody asked to.
 *
 * @example
 * otherEnds(bytes).map(({ how }) => how); // ["a final newline more", …]
 */
export function otherEnds(bytes: Uint8Array): readonly { readonly bytes: Uint8Array; readonly how: string }[] {
  // one character a byte, and back
  const text = Buffer.from(bytes).toString("latin1");
  const variants: readonly (readonly [string, string])[] = [
    [`${text}\n`, "a final newline more"],
    [text.replace(/\r?\n$/, ""), "a final newline less"],
    [text.replace(/\r\n/g, "\n"), "lines that end in LF alone"],
    [text.replace(/\r?\n/g, "\r\n"), "lines that end in CR LF"],
  ];
  return variants
    .filter(([changed]) => changed !== text)
    .map(([changed, how]) => ({ bytes: Buffer.from(changed, "latin1"), how }));
}
