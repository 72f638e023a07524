/** Codes of a system call that failed for want of something that the kit itself needs. */
const EXHAUSTED_CODES: ReadonlySet<unknown> = new Set(['EMFILE', 'ENFILE', 'ENOMEM']);

/** Reports whether a system call failed because this process, or the machine, can open no more files. */
export function isExhausted(error: unknown): error is Error {
  return error instanceof Error && 'code' in error && EXHAUSTED_CODES.has(error.code);
}

/**
 * Throws the error if the kit can open no more files. Whoever takes the failure to read a file of /proc for the end of a
 * process must call this first: otherwise all processes of the target look gone, and live on.
 */
export function throwIfExhausted(error: unknown): void {
  if (isExhausted(error)) throw error;
}
