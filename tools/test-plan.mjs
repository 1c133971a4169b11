// Which test files there are, and which of them share a process.
import { readdirSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";

/** Benchmarks measure, and want the machine to themselves: `npm run bench`. */
const NOT_TESTS = /^test[/\\]bench[/\\]/;
/** A group takes about this long, so that starting its process (some three seconds) hardly counts. */
const GROUP_MS = 40_000;
const PER_LINE_MS = 12; // of a file that was never measured here

/** Every Mocha file under test/, as paths from the root. */
export function listTests(root) {
  return readdirSync(join(root, "test"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".test.ts"))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    .filter((file) => !NOT_TESTS.test(file))
    .sort();
}

/**
 * Files of one folder share a process, since they share fixtures, up to about {@link GROUP_MS}; longest groups first.
 *
 * @param times milliseconds by file, as last measured on this machine
 */
export function groupFiles(files, times, jobs) {
  const cost = (file) => times[file] ?? Math.max(500, (statSync(file).size / 60) * PER_LINE_MS);
  const groups = [];
  for (const file of files) {
    const last = groups.at(-1);
    const fits = last !== undefined && dirname(last.files[0]) === dirname(file) && last.ms + cost(file) <= GROUP_MS;
    if (fits) {
      last.files.push(file);
      last.ms += cost(file);
    } else groups.push({ files: [file], ms: cost(file) });
  }
  // Small folders join one another: a process for each would cost more than their tests.
  groups.sort((a, b) => a.ms - b.ms);
  while (groups.length > jobs && groups[0].ms + groups[1].ms < GROUP_MS / 2) {
    const [first, second] = groups.splice(0, 2);
    groups.push({ files: [...first.files, ...second.files], ms: first.ms + second.ms });
    groups.sort((a, b) => a.ms - b.ms);
  }
  return groups.reverse().map((group) => group.files);
}
