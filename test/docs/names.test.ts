import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { expect } from "chai";
import manifest from "../../package.json" with { type: "json" };
import type { Io } from "../../src/cli/io.ts";
import { run } from "../../src/cli/main.ts";
import { commandLines, type Document, ROOT, readDocument, repositoryFiles } from "../helpers/markdown.ts";
import { FOREIGN_NAMES, FOREIGN_PATHS } from "./foreign.ts";

const FILES = repositoryFiles();
const FOLDERS = new Set(
  FILES.flatMap((file) =>
    file
      .split("/")
      .slice(0, -1)
      .map((_, i, all) => all.slice(0, i + 1).join("/")),
  ),
);
const BASENAMES = new Set(FILES.map((file) => file.slice(file.lastIndexOf("/") + 1)));
const DOCUMENTS = FILES.filter((file) => file.endsWith(".md")).map(readDocument);

const isIgnored = (path: string): boolean => {
  try {
    execFileSync("git", ["check-ignore", path, `${path}/`], { cwd: ROOT, stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
};

/** Every word of the sources: an identifier that no source has exists nowhere. */
const WORDS = new Set(
  FILES.filter((file) => /\.(ts|tsx|mjs|sol|yml)$|^package\.json$|^hardhat|^\.ci\/|^snapshots\/abi\.json$/.test(file))
    // the variables of the runbooks are those that their test sets
    .filter((file) => !file.startsWith("test/docs/") || file === "test/docs/shell.test.ts")
    .flatMap((file) => readFileSync(join(ROOT, file), "utf8").match(/[A-Za-z_$][\w$]*/g) ?? []),
);

/** What anything can be called with: `function name`, `const name`, `name(…)`. */
const CALLABLE = new Set(
  FILES.filter((file) => /\.(ts|tsx|mjs|sol)$/.test(file) && !file.startsWith("test/docs/")).flatMap((file) =>
    [...readFileSync(join(ROOT, file), "utf8").matchAll(/([A-Za-z_$][\w$]*)\s*(?:<[^()]*>)?\(/g)].map(
      ([, name = ""]) => name,
    ),
  ),
);

const helps = new Map<string, Promise<string>>();
function helpOf(path: readonly string[]): Promise<string> {
  const key = path.join(" ");
  const known = helps.get(key) ?? readHelp(path);
  helps.set(key, known);
  return known;
}

async function readHelp(path: readonly string[]): Promise<string> {
  let said = "";
  const io: Io = {
    readFile: () => Promise.reject(new Error("help reads no file")),
    print: (text) => {
      said += text;
    },
    warn: (text) => {
      said += text;
    },
    askSecret: () => Promise.reject(new Error("help asks nothing")),
    ask: () => Promise.reject(new Error("help asks nothing")),
    interactive: false,
    env: {},
    terminal: false,
  };
  await run([...path, "--help"], io);
  return said;
}

/** What is wrong with a command line of `keystead`: a subcommand or an option that its own help does not have. */
async function faultsOf(line: string): Promise<readonly string[]> {
  const [, rest = ""] = /\bkeystead(?: --)?((?: [^|;&)`]*)?)/.exec(line) ?? [];
  const words = rest
    .trim()
    .split(/\s+/)
    .filter((word) => word !== "");
  const path: string[] = [];
  let help = await helpOf([]);
  for (const word of words.filter((word) => !word.startsWith("-"))) {
    const commands = [
      ...(help.split("\nCommands:\n")[1]?.matchAll(/^ {2}([a-z][\w-]*)(?:\|[\w-]+)?(?= |$)/gm) ?? []),
    ].map(([, name = ""]) => name);
    if (commands.length === 0) break;
    if (!commands.includes(word)) {
      // `keystead propose …` and `keystead audit SERVICE` name no subcommand
      return /^[a-z][a-z-]+$/.test(word) &&
        !/^Usage: .*<|\[[a-z]+\]/m.test(help.split("\n")[0]?.replace("[options]", "").replace("[command]", "") ?? "")
        ? [`keystead ${[...path, word].join(" ")}: no such command`]
        : [];
    }
    path.push(word);
    help = await helpOf(path);
  }
  const options = words.flatMap((word) => word.match(/^\[?(--[a-z][a-z0-9-]*)/)?.[1] ?? []);
  return options
    .filter((option) => option !== "--help" && option !== "--json" && option !== "--version")
    .filter((option) => !new RegExp(`(^|\\s|, )${option}(?![\\w-])`, "m").test(help))
    .map((option) => `keystead ${path.join(" ")}: no option ${option}`);
}

const isCommand = (text: string) => /(^|[|(;&]|\bsudo |\bssh \S+ |--) ?(npx )?keystead( |$)/.test(text);

/** Code in running text and lines of blocks that are no other language. */
const codeOf = ({ spans, blocks }: Document): readonly string[] => [
  ...spans,
  ...blocks.filter(({ language }) => ["", "sh", "text"].includes(language)).flatMap(commandLines),
];

/** Whether a path as a document names it leads to something. */
function leads(document: Document, path: string): boolean {
  // the package's own name, as those who install it write it
  const bare = path.replace(/\/$/, "").replace(/^keystead\//, "");
  // placeholders: what is before them must exist
  const fixed = /[<*…]|\b[A-Z]{2,}\b|NNN/.test(bare)
    ? dirname(bare.replace(/[<*…].*$|\b(NNN|[A-Z]{2,})\b.*$/, "x"))
    : bare;
  // what git is told to ignore is made by a command
  if (fixed === "." || isIgnored(fixed)) return true;
  const here = dirname(document.path);
  const bases = [here, "", "src", "test", "contracts", "src/cli", "deploy", here.replace(/^src/, "test")];
  return (
    bases.some((base) => {
      const at = normalize(join(base, fixed));
      return FILES.includes(at) || FOLDERS.has(at);
    }) ||
    (!fixed.includes("/") && BASENAMES.has(fixed))
  );
}

const PATH = /^\.{0,2}\/?[\w@.<>*…-]+(\/[\w@.<>*…-]+)*\/?$/;
const EXTENSION = /\.(ts|tsx|mjs|sol|json|md|ya?ml|csv|txt|sh|html|bin|cose|safe\.json)$/;

describe("Markdown files", () => {
  it("are found", () => expect(DOCUMENTS.length).to.be.greaterThan(10));

  it("would be caught naming what does not exist", async () => {
    expect(await faultsOf("npm run keystead -- verify DIR --no-such-option")).to.have.length(1);
    expect(await faultsOf("keystead measure nonsense file")).to.have.length(1);
    expect(await faultsOf("KEYSTEAD_RPC_URL=x keystead nonsense | head")).to.have.length(1);
    expect(await faultsOf("keystead measure quote quote.bin --json")).to.deep.equal([]);
    const document = { path: "src/core/README.md", blocks: [], spans: [], links: [], anchors: new Set<string>() };
    expect([leads(document, "image.ts"), leads(document, "src/core/nothing.ts")]).to.deep.equal([true, false]);
    expect([CALLABLE.has("addImageToService"), CALLABLE.has("addImageToNothing")]).to.deep.equal([true, false]);
  });

  for (const document of DOCUMENTS) {
    describe(document.path, () => {
      it("has links that lead somewhere", () => {
        const dead = document.links.filter((link) => {
          if (/^(https?|mailto):/.test(link)) return false;
          const [path = "", anchor] = link.split("#");
          const target = path === "" ? document.path : normalize(join(dirname(document.path), path));
          if (!FILES.includes(target) && !FOLDERS.has(target.replace(/\/$/, ""))) return true;
          return anchor !== undefined && target.endsWith(".md") && !readDocument(target).anchors.has(anchor);
        });
        expect(dead).to.deep.equal([]);
      });

      it("names paths that exist", () => {
        const missing = document.spans.filter((span) => {
          if (!PATH.test(span) || FOREIGN_PATHS.has(span.replace(/\/$/, ""))) return false;
          // an HTTP route or a device of the machine
          if (span.startsWith("/")) return !FILES.some((file) => file.startsWith("src/") && mentions(file, span));
          if (span.startsWith("@"))
            return !FILES.some((file) => /^(package\.json|test\/|src\/)/.test(file) && mentions(file, span));
          // an error's code
          if (!EXTENSION.test(span) && FILES.some((file) => file.endsWith(".ts") && mentions(file, `"${span}"`)))
            return false;
          const known = [...FOLDERS].some((folder) => span.startsWith(`${folder}/`));
          return (known || EXTENSION.test(span)) && !leads(document, span);
        });
        expect(missing).to.deep.equal([]);
      });

      it("names scripts of npm that exist", () => {
        const scripts = Object.keys(manifest.scripts);
        const named = codeOf(document).flatMap((code) => [
          ...code.matchAll(/\bnpm (run (?:--silent )?([\w:-]+)|test)\b/g),
        ]);
        const missing = named.map(([, all = "", script]) => script ?? all).filter((name) => !scripts.includes(name));
        expect(missing).to.deep.equal([]);
        const files = codeOf(document).flatMap((code) =>
          [...code.matchAll(/\bhardhat run (\S+)/g)].map(([, file = ""]) => file),
        );
        for (const file of files) expect(FILES, file).to.include(file);
      });

      it("names commands and options that their own help has", async () => {
        const faults: string[] = [];
        for (const line of codeOf(document).filter(isCommand)) faults.push(...(await faultsOf(line)));
        expect(faults).to.deep.equal([]);
      });

      it("names functions, events and types that exist", () => {
        const missing = document.spans.flatMap((span) => {
          const call = /^(?:[A-Za-z_$][\w$]*\.)*([A-Za-z_$][\w$]*)\(.*\)$/s.exec(span)?.[1];
          if (call !== undefined) return CALLABLE.has(call) || FOREIGN_NAMES.has(call) ? [] : [span];
          if (!/^[A-Za-z_$][\w$]*([.:][A-Za-z_$][\w$]*)*$/.test(span)) return [];
          return span.split(/[.:]/).filter((word) => !WORDS.has(word) && !FOREIGN_NAMES.has(word));
        });
        expect(missing).to.deep.equal([]);
      });
    });
  }
});

const texts = new Map<string, string>();
function mentions(file: string, text: string): boolean {
  const known = texts.get(file) ?? readFileSync(join(ROOT, file), "utf8");
  texts.set(file, known);
  return known.includes(text);
}
