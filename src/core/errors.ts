/** What a {@link KeysteadError} says beyond its code and message. */
export interface KeysteadErrorOptions {
  /** Which argument, file or option was wrong. */
  readonly argument?: string | undefined;
  /** What the reader should do next, as one sentence. */
  readonly remedy: string;
  /** Whether the same call may succeed later with nothing changed. Default: false. */
  readonly retryable?: boolean | undefined;
  /** Values that belong to the code, for programs. */
  readonly details?: Readonly<Record<string, unknown>> | undefined;
  /** What was caught when this error was made. */
  readonly cause?: unknown;
}

/**
 * The one error class of this project: programs and tests match `code`, people read `message` and `remedy`.
 *
 * @example
 * throw new KeysteadError("image/wrong-version", "version 2 is not known", { argument: "image", remedy: "Upgrade keystead." });
 */
export class KeysteadError extends Error {
  /** Stable, `room/what-went-wrong`, e.g. `image/missing-registers`. */
  readonly code: string;
  /** Which argument, file or option was wrong. */
  readonly argument: string | undefined;
  /** What to do next. */
  readonly remedy: string;
  /** Whether the same call may succeed later with nothing changed. */
  readonly retryable: boolean;
  /** Values that belong to the code. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: string, message: string, options: KeysteadErrorOptions) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "KeysteadError";
    this.code = code;
    this.argument = options.argument;
    this.remedy = options.remedy;
    this.retryable = options.retryable ?? false;
    this.details = Object.freeze({ ...options.details });
  }
}

/**
 * Says whether something caught is a {@link KeysteadError}, of one code where `code` is given.
 *
 * @example
 * if (isKeysteadError(error, "image/zero-register")) console.error(error.details.register);
 */
export function isKeysteadError(error: unknown, code?: string): error is KeysteadError {
  return error instanceof KeysteadError && (code === undefined || error.code === code);
}
