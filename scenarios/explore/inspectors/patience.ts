import type { Target } from '../../../conformance/target-file/definition.js';

/** A program that restores in less on every other state hangs. */
const LEAST_PATIENCE_S = 10;

/** What was handed out when the time ended may still be answered. */
const GRACE_MS = 1000;

/** So long the target's program that restores is waited for, on one state. */
export function patienceMs({ guarantee }: Target): number {
  return Math.max(guarantee.recoverySeconds ?? 0, LEAST_PATIENCE_S) * 1000;
}

/** What a worker is told of that. @param endMs when the states of its way have to be done, as `performance.now()`. */
export function waiting(target: Target, endMs: number): { patienceMs: number; untilMs: number } {
  const leftMs = Math.max(0, endMs - performance.now());
  return { patienceMs: patienceMs(target), untilMs: Date.now() + leftMs + GRACE_MS };
}
