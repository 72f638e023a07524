import { EXIT_CODES } from './exit-codes.js';

/** Stable codes of what can go wrong in the kit; each means one exit code. */
export type KitErrorCode =
  | 'bad-usage'
  | 'bad-target'
  | 'bad-history'
  | 'bad-bundle'
  | 'bad-recording'
  | 'target-unavailable'
  | 'violation'
  | 'kit-failed'
  | 'assertion';

const ERROR_EXIT_CODES = {
  'bad-usage': EXIT_CODES.usage,
  'bad-target': EXIT_CODES.usage,
  'bad-history': EXIT_CODES.usage,
  'bad-bundle': EXIT_CODES.usage,
  'bad-recording': EXIT_CODES.usage,
  // A target that cannot be reached was not measured.
  'target-unavailable': EXIT_CODES.notMeasured,
  // The verdict is known, and only its certificate could not be written.
  violation: EXIT_CODES.violation,
  'kit-failed': EXIT_CODES.kitFailed,
  assertion: EXIT_CODES.kitFailed,
} as const satisfies Record<KitErrorCode, number>;

/** Every failure that a person can do something about: one line that says what, where, and what was expected. */
export class KitError extends Error {
  override readonly name = 'KitError';
  readonly code: KitErrorCode;
  readonly exitCode: (typeof ERROR_EXIT_CODES)[KitErrorCode];

  constructor(code: KitErrorCode, message: string, options: { cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.exitCode = ERROR_EXIT_CODES[code];
  }
}

/** Returns the message of anything that was thrown, as one line. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/\s+/g, ' ').trim();
}
