import { faultNameOf, type SyscallPoint } from '../../faults/catalogue/syscall-point.js';
import type { CallCount } from '../../faults/tracing/count-calls.js';
import type { PlannedInjection } from '../round/schedule.js';

/** Row of a sweep's table: one fault at the calls of one kind in one service. */
export interface SweepRow {
  service: string;
  kind: string;
  what: SyscallPoint['what'];
  /** Number of system calls of this kind that were enumerated. */
  calls: number;
  /** Number of calls at which the fault was tried. */
  tried: number;
  /** Number of tries that hit. */
  hit: number;
}

const RESUME_TRIGGER = { afterConfirms: 2, maxWaitMs: 150 };

/**
 * Makes the rows of a sweep from the enumerated calls. Calls that can fail have one row for each error, and
 * these rows come first.
 */
export function planRows(counts: readonly CallCount[]): SweepRow[] {
  const failing = counts.filter(({ what }) => what === 'fail');
  const killing = counts.filter(({ what }) => what === 'kill');
  return [...failing, ...killing].flatMap(({ service, kind, what, count }) => {
    const actions = what === 'kill' ? (['kill'] as const) : (['EIO', 'ENOSPC'] as const);
    return actions.map((action) => ({ service, kind, what: action, calls: count, tried: 0, hit: 0 }));
  });
}

/**
 * Lists the calls of all rows so that every prefix of the list is spread evenly. The list takes one call of
 * each row in turn. In each row the order is first call, last, middle, quarters, and so on.
 * @param maxPerRow upper bound of the listed calls of each row.
 */
export function planPoints(rows: readonly SweepRow[], maxPerRow = Number.POSITIVE_INFINITY): SyscallPoint[] {
  const lists = rows.map((row) => {
    return coarseToFine(row.calls)
      .slice(0, maxPerRow)
      .map((nth) => ({
        service: row.service,
        kind: row.kind,
        nth,
        what: row.what,
      }));
  });
  const maxLength = Math.max(0, ...lists.map((list) => list.length));
  return Array.from({ length: maxLength }, (_, turn) => turn).flatMap((turn) => {
    return lists.flatMap((list) => list.slice(turn, turn + 1));
  });
}

/** Returns the numbers 1 to `count`, from coarse to fine: first, last, middle, quarters, and so on. */
export function coarseToFine(count: number): number[] {
  const order = new Set<number>(count > 0 ? [1, count] : []);
  for (let parts = 2; order.size < count; parts *= 2) {
    for (let part = 1; part < parts; part += 2) {
      order.add(Math.min(count, 1 + Math.floor(((count - 1) * part) / parts)));
    }
    // The steps are smaller than one call now. Add the calls that rounding has left out.
    if (parts > count) for (let nth = 1; nth <= count; nth++) order.add(nth);
  }
  return [...order];
}

/** Returns the planned injection of the fault at a system call. */
export function injectionOf(point: SyscallPoint): PlannedInjection {
  return { fault: faultNameOf(point), ...RESUME_TRIGGER, point };
}
