import { closeSync, openSync, type StatsFs, statfsSync } from 'node:fs';
import type { HistoryEvent } from '../../conformance/history/events.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import { RedeliveryWaits } from '../../conformance/history/redelivery.js';
import { isExhausted } from '../../faults/exhausted.js';
import { sleep } from '../../faults/waiting.js';

/**
 * Silence after the last expected delivery that shows that no unexpected one follows: a duplicate or a
 * rejected message.
 */
const QUIET_MS = 400;
/** Shortest silence that a target without a claim is allowed. It is longer than a usual retry interval. */
const MIN_SILENCE_MS = 6000;
/**
 * Factor for a slow target: it is allowed this multiple of the longest wait that it has shown. A target that was
 * slow may be slow again.
 */
const SLOW_TARGET_FACTOR = 1.5;
/**
 * Upper bound of the silence that follows from the longest wait for a consumption. Such a wait includes faults, so
 * it says little about the target.
 */
const MAX_WAIT_SILENCE_MS = 15_000;
/**
 * Upper bound of the silence that a target without a claim is allowed. The usual lengths of leases, 30 s and
 * 60 s, lie below it.
 */
export const MAX_SILENCE_MS = 65_000;
/** Time in which deliveries may still come during the drain, in addition to the silence that is allowed. */
const MAX_DELIVERING_MS = 40_000;
/** Upper bound of a drain of a target that claims `redeliverySeconds`; undefined without a claim. */
export function maxDrainMs(redeliverySeconds: number | undefined): number {
  const claimMs = 1000 * (redeliverySeconds ?? 0);
  return (
    MAX_DELIVERING_MS +
    (redeliverySeconds === undefined ? MAX_SILENCE_MS : Math.max(claimMs, MAX_WAIT_SILENCE_MS))
  );
}

/** Silence after which the drain reports what it waits for. */
const REPORT_AFTER_MS = 5000;
/** Interval between two runs of the target's `nudge` command, in milliseconds. */
export const NUDGE_INTERVAL_MS = 3000;
const POLL_MS = 20;
/** Longest delay of a poll that still counts as silence of the target. In a longer one the kit itself did not run. */
const MAX_POLL_DELAY_MS = 500;

/** The part of the ledger that the drain reads. Times are in ms of the clock of the drain. */
export interface DrainView {
  /** Moment of the last delivery or answer. */
  readonly lastActivityMs: number;
  /** Longest time between the confirmation and the consumption of a message. */
  readonly maxWaitMs: number;
  /** Number of messages that are confirmed and not consumed. */
  readonly outstanding: number;
  /** Number of the outstanding messages that must come: all but those that may be consumed. */
  readonly awaited: number;
}

/** Description of a drain. */
export interface DrainOptions {
  view: DrainView;
  recorder: Pick<Recorder, 'events' | 'record'>;
  /** The time that the target claims (`guarantee.redeliverySeconds`); undefined when it claims none. */
  redeliverySeconds: number | undefined;
  /** Runs the target's `nudge` command. Undefined: it has none. */
  nudge: (() => Promise<void>) | undefined;
  signal: AbortSignal;
  progress(line: string): void;
  /** Gets what the drain waits for, again and again, and undefined when it no longer waits. */
  waiting?: ((state: string | undefined) => void) | undefined;
  /** Clock of the drain. Default: the clock of this machine. */
  clock?: { nowMs(): number; sleep(ms: number): Promise<void> };
}

/** A silence that the target is allowed, and where it comes from; see the event `drained`. */
export interface Allowance {
  ms: number;
  by: 'claim' | 'shown' | 'default';
}

/**
 * Returns the silence after which a message that must come counts as not delivered.
 * @param shownMs longest wait for a redelivery that the target has shown; undefined when it has shown none.
 */
export function allowanceFor(
  redeliverySeconds: number | undefined,
  shownMs: number | undefined,
  maxWaitMs: number,
): Allowance {
  const slowMs = Math.min(MAX_WAIT_SILENCE_MS, SLOW_TARGET_FACTOR * maxWaitMs);
  if (redeliverySeconds !== undefined) return { ms: Math.max(1000 * redeliverySeconds, slowMs), by: 'claim' };
  const knownMs = Math.max(MIN_SILENCE_MS, slowMs, SLOW_TARGET_FACTOR * (shownMs ?? 0));
  if (shownMs !== undefined && knownMs < MAX_SILENCE_MS) return { ms: knownMs, by: 'shown' };
  return { ms: MAX_SILENCE_MS, by: 'default' };
}

/**
 * Waits for messages that are confirmed and not yet delivered, and a little longer for deliveries that should
 * not come. It ends after a silence that is as long as the target may keep a message back: the time that it
 * claims, or else a time that follows from the redeliveries that it has shown.
 *
 * Time in which this process did not run is no silence of the target: the process was stopped, or its event loop was
 * blocked, and it could receive nothing.
 */
export async function drain(options: DrainOptions): Promise<void> {
  const { view, recorder, redeliverySeconds, signal } = options;
  const clock = options.clock ?? { nowMs: () => performance.now(), sleep: (ms) => sleep(ms, signal) };
  const startMs = clock.nowMs();
  const waits = new ObservedWaits(recorder.events);
  const nudge = options.nudge && repeatedly(options.nudge, NUDGE_INTERVAL_MS);
  let complete = false;
  let reported = false;
  let allowance: Allowance;
  /** Time in which the kit did not run: in the whole drain, and since the last activity. */
  let idleMs = 0;
  let idleSinceActivityMs = 0;
  let { lastActivityMs } = view;
  for (;;) {
    const nowMs = clock.nowMs();
    if (view.lastActivityMs !== lastActivityMs) idleSinceActivityMs = 0;
    lastActivityMs = view.lastActivityMs;
    const drainedMs = nowMs - startMs - idleMs;
    const silentMs = nowMs - Math.max(startMs, lastActivityMs) - idleSinceActivityMs;
    const shownMs = waits.longestMs();
    allowance = allowanceFor(redeliverySeconds, shownMs, view.maxWaitMs);
    complete = silentMs >= silenceFor(view, allowance);
    if (complete || signal.aborted || drainedMs >= MAX_DELIVERING_MS + allowance.ms) break;
    if (view.outstanding > 0) nudge?.runIfDue(nowMs);
    if (!reported && view.awaited > 0 && silentMs >= REPORT_AFTER_MS) {
      reported = true;
      options.progress(describeWait(view.awaited, allowance));
    }
    const leftMs = Math.min(allowance.ms - silentMs, MAX_DELIVERING_MS + allowance.ms - drainedMs);
    options.waiting?.(view.awaited > 0 ? describeState(view.awaited, leftMs) : undefined);
    await clock.sleep(POLL_MS);
    const delayMs = clock.nowMs() - nowMs - POLL_MS;
    if (delayMs > MAX_POLL_DELAY_MS) {
      idleMs += delayMs;
      idleSinceActivityMs += delayMs;
    }
  }
  options.waiting?.(undefined);
  await nudge?.ended();
  recorder.record({
    kind: 'drained',
    waitedMs: Math.round(clock.nowMs() - startMs),
    complete: complete && !signal.aborted,
    allowedMs: Math.round(allowance.ms),
    allowedBy: allowance.by,
  });
}

/** Returns the silence after which the drain is over. */
function silenceFor({ outstanding, awaited, maxWaitMs }: DrainView, { ms }: Allowance): number {
  if (outstanding === 0) return QUIET_MS;
  if (awaited > 0) return ms;
  // The target may have consumed these messages. If it has, they never come.
  return Math.min(
    ms,
    Math.max(MIN_SILENCE_MS, Math.min(MAX_WAIT_SILENCE_MS, SLOW_TARGET_FACTOR * maxWaitMs)),
  );
}

function describeState(awaited: number, leftMs: number): string {
  const left = Math.max(0, Math.ceil(leftMs / 1000));
  return `drain: ${awaited} confirmed messages are missing, at most ${left} s left unless one of them comes`;
}

function describeWait(awaited: number, { ms, by }: Allowance): string {
  const source = {
    claim: 'the target claims this time',
    shown: 'derived from its redeliveries',
    default:
      'it claims no time and has shown no short redelivery; guarantee.redeliverySeconds states the time',
  }[by];
  return `drain: ${awaited} confirmed messages are outstanding; waiting ${Math.round(ms / 1000)} s after the last delivery (${source})`;
}

/** The redeliveries of a history that grows. */
class ObservedWaits {
  readonly #events: readonly HistoryEvent[];
  readonly #waits = new RedeliveryWaits();
  #next = 0;

  constructor(events: readonly HistoryEvent[]) {
    this.#events = events;
  }

  longestMs(): number | undefined {
    for (; this.#next < this.#events.length; this.#next++) {
      const event = this.#events[this.#next];
      if (event !== undefined) this.#waits.observe(event);
    }
    return this.#waits.longestMs;
  }
}

/** Runs `run` at most once per interval, and never twice at the same time. */
function repeatedly(run: () => Promise<void>, intervalMs: number) {
  let nextMs = Number.NEGATIVE_INFINITY;
  let running: Promise<void> | undefined;
  return {
    runIfDue(nowMs: number): void {
      if (running !== undefined || nowMs < nextMs) return;
      nextMs = nowMs + intervalMs;
      running = run().finally(() => {
        running = undefined;
      });
    },
    /** Waits for a run that has not ended. */
    ended: async () => running,
  };
}

const MIN_FREE_BYTES = 1024 ** 3;
const MIN_FREE_SHARE = 0.25;
const FREE_SPACE_POLL_MS = 25;

/**
 * Watches the free space on the filesystem of a round, and calls `onFull` once before the space is used up: a
 * target that fills the disk must not destroy the kit's own evidence or harm its host.
 * @param path any path on that filesystem.
 */
export function watchFreeSpace(path: string, onFull: (freeText: string) => void): { stop(): void } {
  const timer = setInterval(() => {
    const free = freeSpaceOf(path);
    if (free === undefined) return;
    const { bavail, blocks, bsize } = free;
    const minFreeBytes = Math.min(MIN_FREE_BYTES, blocks * bsize * MIN_FREE_SHARE);
    if (bavail * bsize >= minFreeBytes) return;
    clearInterval(timer);
    onFull(`${Math.round((bavail * bsize) / 2 ** 20)} MiB left`);
  }, FREE_SPACE_POLL_MS);
  timer.unref();
  return { stop: () => clearInterval(timer) };
}

/** Returns the free space; undefined when the target has removed the directory, which the round reports itself. */
function freeSpaceOf(path: string): StatsFs | undefined {
  try {
    return statfsSync(path);
  } catch {
    return undefined;
  }
}

const OPEN_FILES_POLL_MS = 50;

/**
 * Watches whether this process can still open a file, and calls `onExhausted` once when it cannot. The kit then cannot
 * connect to the target either, and what it does not receive would look lost.
 */
export function watchOpenFiles(onExhausted: (error: Error) => void): { stop(): void } {
  const timer = setInterval(() => {
    try {
      closeSync(openSync('/dev/null', 'r'));
    } catch (error) {
      if (!isExhausted(error)) return;
      clearInterval(timer);
      onExhausted(error);
    }
  }, OPEN_FILES_POLL_MS);
  timer.unref();
  return { stop: () => clearInterval(timer) };
}
