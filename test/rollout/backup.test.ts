import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "chai";
import { type BackedUpFile, checkBackup, makeBackup, restoreBackup } from "../../src/rollout/backup.ts";
import { type Folder, makeFolder } from "../helpers/cli.ts";
import { rejectionOf } from "../helpers/errors.ts";

describe("rollout: backups", () => {
  let folder: Folder;
  let files: readonly BackedUpFile[];
  let backup: string;
  beforeEach(() => {
    folder = makeFolder();
    const contents = { "app.json": "{}", ".env": "SECRET=1", "docker-compose.yaml": "services: {}\n" };
    files = Object.entries(contents).map(([name, text]) => ({
      path: folder.write(name, text),
      sha256: `0x${createHash("sha256").update(text).digest("hex")}`,
    }));
    backup = join(folder.path, "backup");
  });
  afterEach(() => folder.remove());

  const codeOf = async (promise: Promise<unknown>) => (await rejectionOf(promise)).code;
  const leftovers = () => readdirSync(tmpdir()).filter((name) => name.startsWith("keystead-restore-"));

  it("restores what was backed up, byte for byte, and leaves nothing behind", async () => {
    const before = leftovers();
    await makeBackup(backup, files);
    expect(statSync(backup).mode & 0o777).to.equal(0o700);
    for (const name of readdirSync(backup)) expect(statSync(join(backup, name)).mode & 0o777, name).to.equal(0o600);
    expect(await checkBackup(backup, files)).to.deep.equal([]);
    expect(leftovers()).to.deep.equal(before);
    const to = join(folder.path, "restored");
    mkdirSync(to);
    const restored = await restoreBackup(backup, to);
    for (const { path } of files)
      expect(readFileSync(restored.get(path) ?? "", "utf8")).to.equal(readFileSync(path, "utf8"));
  });

  it("holds the old files although the live ones changed since", async () => {
    await makeBackup(backup, files);
    for (const { path } of files) writeFileSync(path, "the new version");
    expect(await checkBackup(backup, files)).to.deep.equal([]);
  });

  it("refuses to back up what is not as the plan knows it, and leaves no half of it", async () => {
    writeFileSync(files[1]?.path ?? "", "SECRET=2");
    expect(await codeOf(makeBackup(backup, files))).to.equal("backup/changed");
    rmSync(files[1]?.path ?? "");
    expect(await codeOf(makeBackup(backup, files))).to.equal("backup/unreadable");
    expect(existsSync(backup)).to.equal(false);
  });

  it("refuses to overwrite a backup", async () => {
    await makeBackup(backup, files);
    expect(await codeOf(makeBackup(backup, files))).to.equal("backup/exists");
  });

  it("notices each way in which one can't be restored", async () => {
    expect(await codeOf(checkBackup(backup, files))).to.equal("backup/missing");
    await makeBackup(backup, files);
    const kept = join(backup, readdirSync(backup).sort()[0] ?? "");
    const good = readFileSync(kept);
    writeFileSync(kept, "damaged");
    expect(await codeOf(checkBackup(backup, files))).to.equal("backup/damaged");
    rmSync(kept);
    expect(await codeOf(checkBackup(backup, files))).to.equal("backup/damaged");
    symlinkSync(files[0]?.path ?? "", kept);
    expect(await codeOf(checkBackup(backup, files))).to.equal("backup/damaged");
    rmSync(kept);
    writeFileSync(kept, good);
    const manifest = join(backup, "manifest.json");
    const text = readFileSync(manifest, "utf8");
    writeFileSync(manifest, text.replace("001-", "../../001-"));
    expect(await codeOf(checkBackup(backup, files))).to.equal("backup/malformed");
    writeFileSync(manifest, text);
    expect(await checkBackup(backup, files)).to.deep.equal([]);
    expect((await checkBackup(backup, files.slice(1)))[0]).to.include("not in the plan");
    const more = [...files, { path: "other", sha256: files[0]?.sha256 ?? "0x" }] as const;
    expect((await checkBackup(backup, more))[0]).to.include("not in the backup");
    const changed = files.map((file) => ({ ...file, sha256: `0x${"00".repeat(32)}` as const }));
    expect(await checkBackup(backup, changed)).to.have.length(3);
    chmodSync(backup, 0o755);
    expect((await checkBackup(backup, files))[0]).to.include("chmod 700");
  });
});
