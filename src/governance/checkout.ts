/* What happens to a proposal's folder on a computer and is not tampering: named for what it is, so that nobody looks for a forger. */

/** Files that a desktop leaves in every folder that it shows. */
const DESKTOP_FILES: Readonly<Record<string, string>> = {
  ".DS_Store": "macOS's Finder",
  "Thumbs.db": "Windows",
  "desktop.ini": "Windows",
  ".directory": "KDE's Dolphin",
};

/** The file beside proposals that keeps git from changing line ends in them: their bytes are compared. */
export const GIT_ATTRIBUTES = "* -text\n";

/**
 * What a file that no proposal has is, where it is known: a sentence. The proposal itself is not affected by it.
 *
 * @example
 * strayFile("signatures/.DS_Store"); // "macOS's Finder left it: …"
 */
export function strayFile(path: string): string | undefined {
  const name = path.slice(path.lastIndexOf("/") + 1);
  const maker = Object.hasOwn(DESKTOP_FILES, name) ? DESKTOP_FILES[name] : name.startsWith("._") ? "macOS" : undefined;
  return maker === undefined
    ? undefined
    : `${maker} left it here, and no proposal has such a file: delete it. It is not a sign of tampering`;
}

/**
 * Whether a file differs from what it should be in its line ends alone.
 *
 * @returns a sentence, or undefined if it is more than that
 * @example
 * changedLineEnds(expected, found); // "its lines end in CR LF: …"
 */
export function changedLineEnds(expected: string, found: string): string | undefined {
  if (found === expected || found.replaceAll("\r\n", "\n") !== expected.replaceAll("\r\n", "\n")) return undefined;
  return "its line ends were changed to CR LF or back, and nothing else: git does that on checkout (core.autocrlf). Check it out again with git -c core.autocrlf=false, or commit a .gitattributes with `* -text` beside the proposals";
}
