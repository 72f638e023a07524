/**
 * Every failure that a person can do something about: a stable code, one line that says what, where and what
 * was expected, and the exit code it means (2 usage or configuration, 4 the program itself failed).
 */
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

/** Did somebody else hold the mutex for too long? Then nothing was changed, and it can be tried again. */
export const isMutexHeld = (error: unknown): error is QueueError =>
  error instanceof QueueError && error.code === 'mutex-held';

/** Invariants are asserted in production too; the message names what the assertion protects. */
export function assert(condition: boolean, invariant: string): asserts condition {
  if (!condition) throw new QueueError('assertion', `invariant broken: ${invariant}`);
}
