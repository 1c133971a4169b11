import type { Measurement } from "../../../core/measurement.ts";
import type { InputFile, Io } from "../../io.ts";

/** One option of a reader, as `keystead measure NAME` and `keystead measure diff` offer it. */
export interface ReaderOption {
  /** commander's spelling, long form only, e.g. `--platform-table <file>`. */
  readonly flags: string;
  readonly description: string;
}

/** What a reader gets. */
export interface ReaderArguments {
  /** The files as the user named them, `-` for standard input; as many as {@link InputReader.inputs} names. */
  readonly inputs: readonly string[];
  /** Option values by commander's camel-case name, e.g. `platformTable`. */
  readonly options: Readonly<Record<string, string | boolean | undefined>>;
}

/**
 * One kind of input that `keystead measure` understands. A file in `readers/` exports `readers: readonly InputReader[]`; nothing else has to
 * know of it: `measure NAME`, `measure diff` and `--help` are made from the list.
 */
export interface InputReader {
  /** `keystead measure NAME`, and `NAME:FILE` for `measure diff`. */
  readonly name: string;
  /** One line for `--help`. */
  readonly summary: string;
  /** Names of the input files in order, for `--help`; at least one. */
  readonly inputs: readonly string[];
  readonly options?: readonly ReaderOption[];
  /** Reads the input; everything from outside goes through `io`. */
  read(io: Io, args: ReaderArguments): Promise<Measurement>;
  /** Whether a file is certainly of this kind, for `measure diff` without a `NAME:`. */
  detect?(file: InputFile): boolean;
}
