/** Stable codes of the failures that a `QueueError` reports. */
export type QueueErrorCode =
  | 'bad-setting'
  | 'not-a-queue'
  | 'wrong-version'
  | 'damaged-queue'
  | 'queue-exists'
  | 'queue-in-use'
  | 'second-helper'
  | 'no-helper'
  | 'no-worker-slot'
  | 'no-space-on-disk'
  | 'bad-record'
  | 'sync-failed'
  | 'mutex-held'
  | 'unsupported'
  | 'assertion';

/**
 * A failure that a person can act on. It has a stable code, a one-line message (what happened, where, and
 * what was expected), and an exit code: 2 for usage or configuration, 4 when the program itself failed.
 */
export class QueueError extends Error {
  override readonly name = 'QueueError';
  readonly code: QueueErrorCode;
  readonly exitCode: 2 | 4;

  constructor(code: QueueErrorCode, message: string, options: { cause?: unknown; exitCode?: 2 | 4 } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.exitCode = options.exitCode ?? (INTERNAL_ERRORS.includes(code) ? 4 : 2);
  }
}

const INTERNAL_ERRORS: readonly QueueErrorCode[] = ['assertion', 'sync-failed', 'mutex-held'];

/**
 * Returns whether an error means that another process held the mutex for too long. Nothing was changed then,
 * and the caller may try again.
 */
export const isMutexHeld = (error: unknown): error is QueueError =>
  error instanceof QueueError && error.code === 'mutex-held';

/**
 * Checks an invariant, in production too.
 *
 * @param invariant the statement that must hold; it becomes part of the error message.
 * @throws QueueError `assertion` when `condition` is false.
 */
export function assert(condition: boolean, invariant: string): asserts condition {
  if (!condition) throw new QueueError('assertion', `invariant broken: ${invariant}`);
}
