import { useState } from "preact/hooks";
import { KeysteadError } from "../../../src/core/errors.ts";
import { MAX_FOLDER_BYTES, MAX_FOLDER_FILES } from "../../../src/governance/browser.ts";

/** Files by the paths that the browser gives them. */
export type Given = ReadonlyMap<string, Uint8Array>;

const tooMuch = (message: string) =>
  new KeysteadError("web/too-large", message, { argument: "folder", remedy: "Choose the folder of one proposal." });

async function readFiles(files: readonly (readonly [string, File])[]): Promise<Given> {
  if (files.length > MAX_FOLDER_FILES) throw tooMuch(`there are more than ${MAX_FOLDER_FILES} files`);
  if (files.reduce((sum, [, { size }]) => sum + size, 0) > MAX_FOLDER_BYTES) throw tooMuch("the files are too large");
  const read = await Promise.all(
    files.map(async ([path, file]) => [path, new Uint8Array(await file.arrayBuffer())] as const),
  );
  return new Map(read);
}

const chosen = (list: FileList | null | undefined): readonly (readonly [string, File])[] =>
  [...(list ?? [])].map((file) => [file.webkitRelativePath === "" ? file.name : file.webkitRelativePath, file]);

/** Every file below something dropped. */
async function below(entry: FileSystemEntry, path: string, found: [string, File][]): Promise<void> {
  if (found.length > MAX_FOLDER_FILES) return;
  if (entry instanceof FileSystemFileEntry || entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    found.push([`${path}${entry.name}`, file]);
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (some.length === 0) return;
    for (const one of some) await below(one, `${path}${entry.name}/`, found);
  }
}

async function dropped(data: DataTransfer | null): Promise<readonly (readonly [string, File])[]> {
  // the list of items is gone after the first wait, so all of it is taken first
  const entries = [...(data?.items ?? [])].flatMap((item) => item.webkitGetAsEntry() ?? []);
  const found: [string, File][] = [];
  for (const entry of entries) await below(entry, "", found);
  return found;
}

/** A folder, chosen or dropped, or its files where a browser chooses no folders. All is read in this page and sent nowhere. */
export function FolderInput({
  onFiles,
  onError,
}: {
  readonly onFiles: (given: Given) => void;
  readonly onError: (error: unknown) => void;
}) {
  const [over, setOver] = useState(false);
  const take = (files: Promise<readonly (readonly [string, File])[]>) =>
    files.then(readFiles).then((given) => (given.size > 0 ? onFiles(given) : undefined), onError);
  const input = (id: string, directory: boolean) => (
    <input
      id={id}
      type="file"
      multiple
      {...(directory ? { webkitdirectory: true } : {})}
      onChange={(event) => {
        const { currentTarget } = event;
        take(Promise.resolve(chosen(currentTarget.files))).finally(() => {
          currentTarget.value = "";
        });
      }}
    />
  );
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: dropping is one way more; both fields inside work by keyboard
    <div
      class={over ? "drop folder over" : "drop folder"}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        take(dropped(event.dataTransfer));
      }}
    >
      <label for="folder">The proposal's folder, or drop it here</label>
      {input("folder", true)}
      <label for="files">…or all of its files, where your browser chooses no folders</label>
      {input("files", false)}
    </div>
  );
}
