/** Stable codes of what can go wrong in the kit; each means one exit code. */
export type KitErrorCode =
  | 'bad-usage'
  | 'bad-target'
  | 'bad-history'
  | 'bad-bundle'
  | 'bad-recording'
  | 'target-unavailable'
  | 'kit-failed'
  | 'assertion';

const EXIT_CODES: Record<KitErrorCode, 2 | 3 | 4> = {
  'bad-usage': 2,
  'bad-target': 2,
  'bad-history': 2,
  'bad-bundle': 2,
  'bad-recording': 2,
  // A target that cannot be reached was not measured.
  'target-unavailable': 3,
  'kit-failed': 4,
  assertion: 4,
};

/** Every failure that a person can do something about: one line that says what, where, and what was expected. */
export class KitError extends Error {
  override readonly name = 'KitError';
  readonly code: KitErrorCode;
  readonly exitCode: 2 | 3 | 4;

  constructor(code: KitErrorCode, message: string, options: { cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.exitCode = EXIT_CODES[code];
  }
}

/** The message of anything that was thrown, as one line. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/\s+/g, ' ').trim();
}
