import type { CrashScope, HistoryEvent } from '../history/events.js';

/** A moment when processes of the target stopped without their doing; positions are places in the history. */
export interface Crash {
  position: number;
  atMs: number;
  /** Since when nothing could be written; `atMs` unless the disk was failing before. */
  lastWriteMs: number;
  /** `exit` for a process that died by itself or before its fault was recorded. */
  scope: Exclude<CrashScope, 'none'> | 'exit';
}

export interface Crashes {
  all: Crash[];
  /** Positions of faults that lost or damaged the stored index. */
  indexDamages: number[];
}

export function crashesOf(history: readonly HistoryEvent[]): Crashes {
  const all: Crash[] = [];
  const indexDamages: number[] = [];
  history.forEach((event, position) => {
    if (event.kind === 'fault') {
      // A machine that stops with nothing to lose is a miss, and has stopped all the same.
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

/** Not in order: neither an exit code of 0 nor the signal that asks for one. */
function exitedAbnormally(code: number | null, signal: string | null): boolean {
  return signal === null ? code !== 0 : signal !== 'SIGTERM';
}

/** Index of the first element whose position is above `position`; elements are in order. */
export function firstAfter<T>(
  sorted: readonly T[],
  position: number,
  positionOf: (item: T) => number,
): T | undefined {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const item = sorted[middle];
    if (item !== undefined && positionOf(item) > position) high = middle;
    else low = middle + 1;
  }
  return sorted[low];
}
