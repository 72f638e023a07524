import type { CrashScope, HistoryEvent } from '../history/events.js';

/** A moment at which processes of the target stopped involuntarily. */
export interface Crash {
  /** Index of the crash's event in the history. */
  position: number;
  atMs: number;
  /** Last time at which writes surely reached the disk: `atMs`, unless writes failed before the crash. */
  lastWriteMs: number;
  /** `exit` if a process died by itself, or before its fault was recorded. */
  scope: Exclude<CrashScope, 'none'> | 'exit';
}

/** Crashes of a history, in order. */
export interface Crashes {
  all: Crash[];
  /** Positions of the faults that lost or damaged the stored index. */
  indexDamages: number[];
}

/** Returns the crashes of a history and the positions of its index damage. */
export function crashesOf(history: readonly HistoryEvent[]): Crashes {
  const all: Crash[] = [];
  const indexDamages: number[] = [];
  history.forEach((event, position) => {
    if (event.kind === 'fault') {
      // Count a machine crash that was a miss: nothing was at risk, but the machine did stop.
      const crashed = event.hit || event.scope === 'machine';
      const { atMs, scope, failingMs } = event;
      if (crashed && scope !== 'none') all.push({ position, atMs, lastWriteMs: atMs - failingMs, scope });
      if (event.hit && event.indexDamaged) indexDamages.push(position);
    }
    if (event.kind === 'service-exited' && exitedAbnormally(event.code, event.signal)) {
      all.push({ position, atMs: event.atMs, lastWriteMs: event.atMs, scope: 'exit' });
    }
  });
  return { all, indexDamages };
}

/** Returns true unless the process exited with code 0 or after SIGTERM, which asks for an exit. */
function exitedAbnormally(code: number | null, signal: string | null): boolean {
  return signal === null ? code !== 0 : signal !== 'SIGTERM';
}

/** Returns the last element whose position is less than `position`. The elements must be sorted by position. */
export function lastBefore<T>(
  sorted: readonly T[],
  position: number,
  positionOf: (item: T) => number,
): T | undefined {
  return sorted[indexAfter(sorted, position - 1, positionOf) - 1];
}

/**
 * Returns the first element whose position is greater than `position`. The elements must be sorted by position.
 */
export function firstAfter<T>(
  sorted: readonly T[],
  position: number,
  positionOf: (item: T) => number,
): T | undefined {
  return sorted[indexAfter(sorted, position, positionOf)];
}

function indexAfter<T>(sorted: readonly T[], position: number, positionOf: (item: T) => number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const item = sorted[middle];
    if (item !== undefined && positionOf(item) > position) high = middle;
    else low = middle + 1;
  }
  return low;
}
