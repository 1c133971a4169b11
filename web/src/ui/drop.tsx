import { useState } from "preact/hooks";
import { KeysteadError } from "../../../src/core/errors.ts";

/** A file chosen or dropped, read in this page and sent nowhere. */
export function Drop({
  label,
  limit,
  onFile,
  onError,
}: {
  readonly label: string;
  /** The most bytes that are read. */
  readonly limit: number;
  readonly onFile: (bytes: Uint8Array) => void;
  readonly onError: (error: KeysteadError) => void;
}) {
  const [over, setOver] = useState(false);
  const take = async (file: File | undefined) => {
    if (file === undefined) return;
    if (file.size > limit) {
      const message = `the file has ${file.size.toLocaleString("en")} bytes, and at most ${limit.toLocaleString("en")} are read`;
      onError(new KeysteadError("web/too-large", message, { argument: "file", remedy: "Give the right file." }));
      return;
    }
    onFile(new Uint8Array(await file.arrayBuffer()));
  };
  return (
    <label
      class={over ? "drop over" : "drop"}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        take(event.dataTransfer?.files[0]);
      }}
    >
      <span>{label}</span>
      <input
        type="file"
        onChange={(event) => {
          take(event.currentTarget.files?.[0]);
          event.currentTarget.value = "";
        }}
      />
    </label>
  );
}
