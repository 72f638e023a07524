import type { AtRiskMessages } from '../../../conformance/checkers/crash-states.js';
import type { StateExplored, Untimed } from '../../../conformance/history/events.js';
import type { Recorder } from '../../../conformance/history/recorder.js';
import { type StateFamily, shuffled } from '../../../faults/crash-states/enumerate.js';
import type { Fingerprints } from '../../../faults/crash-states/fingerprint.js';
import type { Random } from '../../../faults/fault.js';
import type { CrashModel } from '../../../faults/write-log/model.js';
import { type CrashState, formatState } from '../../../faults/write-log/state.js';
import type { Inspection } from '../inspectors/inspection.js';
import type { TimedOut } from '../inspectors/mount-inspector.js';
import { RESTORE_ENDED_PREFIX } from '../inspectors/restore-service.js';
import type { Job } from '../inspectors/worker-pool.js';

/** Name of a strategy: `mount` recovers states with the restore program, `target` by a start of the target. */
export type StrategyName = 'mount' | 'target';

/** Figures of an exploration with one strategy. */
export interface StrategyFigures {
  /** Number of crash states that were judged, each by an inspection of its disk or of an equal disk. */
  states: number;
  /** Number of different disks that were made, recovered and inspected. */
  distinct: number;
  seconds: number;
  /** Number of different disks that were inspected per second. */
  statesPerSecond: number;
  workers: number;
  /** Number of judged states by the rule that chose them. */
  families: Record<StateFamily, number>;
  /** Number of judged states in which a confirmed message was at risk. */
  statesAtRisk: number;
  /**
   * Positions in the log at which the power may be cut (`all`), and those at which at least one state was judged.
   * Each position has many states.
   */
  cuts: { judged: number; all: number };
}

/** A crash state that violates PP-13. */
export interface Broken {
  /** Address of the state in the log of the run; for a cut of a recovery, both addresses. */
  address: string;
  state: CrashState;
  /** Ids of the messages that the state must hold and does not hold. */
  missing: string[];
  /** For a cut of a recovery: the file with the recovery's log in the evidence, and its number of entries. */
  recovery?: { log: string; end: number };
  /** Reason why the target did not recover; empty when it did. */
  recoveryFailure: string;
  /** Number of writes that the address names. A state with fewer of them is easier to understand. */
  namedWrites: number;
}

/** A crash state that was not judged because there was no time. */
export interface TimedOutState extends TimedOut {
  state: string;
}

/** The options of a `StrategyRun`. */
export interface StrategyRunOptions {
  strategy: StrategyName;
  model: CrashModel;
  /** Number of entries that are complete at the earliest cut. Earlier cuts are not explored. */
  from: number;
  fingerprints: Fingerprints;
  random: Random;
  atRisk: AtRiskMessages;
  recorder: Pick<Recorder, 'record'>;
  /**
   * Only if the explored log is that of a recovery: the state from which the recovery began, by its address
   * and its cut in the log of the run. At this cut `prefix` entries were complete, and `entriesBegun` entries
   * were complete or had begun. The two numbers decide which messages every state of the recovery must hold.
   */
  parent?: { address: string; prefix: number; entriesBegun: number };
  /** Upper bound for the number of different disks that are inspected. */
  maxDistinct: number;
  /** End of the time, in ms of `performance.now()`. */
  endMs: number;
  signal: AbortSignal;
  progress(line: string): void;
}

/**
 * Number of broken states after which no more states are inspected. The inspections continue after the first
 * broken state, to find one that is easy to understand.
 */
const MAX_BROKEN_STATES = 200;
/** Time after the first broken state, in milliseconds, after which no more states are inspected. */
const MAX_SEARCH_AFTER_BROKEN_MS = 4000;
/**
 * Number of states in a row whose disk is already known, after which no more states are inspected, because the
 * log then has hardly any other disks.
 */
const MAX_KNOWN_IN_A_ROW = 20_000;
const PROGRESS_MS = 2000;
/**
 * Number of states that are sorted by cut position together. The strategy `target` inspects only a few
 * states, so its batches are small: a run that ends early must still have reached all parts of the log.
 */
const BATCH_SIZE: Readonly<Record<StrategyName, number>> = { mount: 32, target: 4 };

/** A state that is judged when its disk, or an equal disk, has been inspected. */
interface PendingState {
  state: CrashState;
  /** Address of the state in the explored log, which may be the log of a recovery. */
  localAddress: string;
  family: StateFamily;
}

/** States with the same cut position and the same messages, none of which is broken. */
interface EquivalentStates {
  event: Omit<Untimed<StateExplored>, 'equivalentStates'>;
  equivalentStates: number;
}

/** Upper bound for the number of different sets of messages. It makes the keys of `#equivalent` unique. */
const MAX_LIVE_SETS = 2 ** 24;

/** A disk whose fingerprint has occurred. */
interface SeenDisk {
  /** Undefined until the disk has been inspected. */
  inspection: Inspection | undefined;
  /** States that wait for the inspection of this disk. */
  pending: PendingState[];
  /** Keys of the cuts that leave this disk; see `cutKeyOf`. A disk has few cuts, so a list is enough. */
  cuts: number[];
}

/** Returns the number of entries that may have begun to reach the medium in a state. */
function reachedBy({ prefix, kept, torn }: CrashState): number {
  return prefix + (kept.at(-1) === prefix || torn.has(prefix) ? 1 : 0);
}

/**
 * Returns the position of a state in the log of the run: the number of entries that were complete (`prefix`),
 * and the number of entries that were complete or may have begun (`entriesBegun`).
 */
export function logPositionOf(state: CrashState): { prefix: number; entriesBegun: number } {
  return { prefix: state.prefix, entriesBegun: reachedBy(state) };
}

/**
 * Returns a number that identifies the position by which a state is judged. It is unique because
 * `entriesBegun` is either `prefix` or `prefix` + 1.
 */
const cutKeyOf = (state: CrashState): number => state.prefix + reachedBy(state);

/**
 * Explores the states of one log by one strategy. It chooses the states, recognises equal disks, judges the
 * inspections, and counts.
 */
export class StrategyRun {
  readonly broken: Broken[] = [];
  /** States whose filesystem could not be mounted, with the reason. They prove nothing about the target. */
  readonly unmountable: { state: string; why: string }[] = [];
  /** States for which there was no time. They are not judged. */
  readonly timedOut: TimedOutState[] = [];
  readonly #options: StrategyRunOptions;
  /** Disks that have occurred, by fingerprint. */
  readonly #seen = new Map<number, SeenDisk>();
  /** States that need their own inspection although an equal disk was inspected. */
  readonly #toReinspect: PendingState[] = [];
  /** States without a problem, by position and messages; see `#countEquivalent`. */
  readonly #equivalent = new Map<number, EquivalentStates>();
  /**
   * Every observed set of messages, stored once and with a number: the same few sets occur in thousands of
   * states.
   */
  readonly #heldBitSets = new Map<string, { heldBits: string; number: number }>();
  readonly #startMs = performance.now();
  readonly #families: Record<StateFamily, number> = {
    prefix: 0,
    'all-but-one': 0,
    'only-one': 0,
    torn: 0,
    random: 0,
  };
  #endedMs: number | undefined;
  #states = 0;
  #statesAtRisk = 0;
  /** Positions of the cuts of the judged states in the explored log. */
  readonly #cuts = new Set<number>();
  #distinct = 0;
  /** Number of different disks that were given out for inspection. */
  #issued = 0;
  #firstBrokenMs = Number.POSITIVE_INFINITY;
  /** First error with which the restore program ended by itself; see `whyRestoreNeverWorked`. */
  #restoreFailure: string | undefined;
  /** True when a state had any result other than the end of the restore program. */
  #hasOtherResult = false;
  #lastProgressMs = performance.now();

  constructor(options: StrategyRunOptions) {
    this.#options = options;
  }

  /**
   * Returns whether to give out no more states: no time is left, the limit is reached, or enough is broken.
   */
  shouldStop(): boolean {
    const nowMs = performance.now();
    const { endMs, maxDistinct, signal } = this.#options;
    const foundEnough =
      this.broken.length >= MAX_BROKEN_STATES || nowMs > this.#firstBrokenMs + MAX_SEARCH_AFTER_BROKEN_MS;
    return nowMs > endMs || this.#issued >= maxDistinct || signal.aborted || foundEnough;
  }

  /** Yields the states that must be inspected: the first state of each different disk, and reinspections. */
  *jobs(): Generator<Job & { crash: CrashState }, void> {
    const { model, from, random, fingerprints } = this.#options;
    let knownInARow = 0;
    for (const { state, family } of shuffled(model, from, random, BATCH_SIZE[this.#options.strategy])) {
      if (this.shouldStop() || knownInARow > MAX_KNOWN_IN_A_ROW) return;
      const fingerprint = fingerprints.of(state);
      const seen = this.#seen.get(fingerprint);
      if (seen !== undefined) {
        knownInARow += 1;
        // An equal disk with the same cut position has the same verdict.
        const cut = cutKeyOf(state);
        if (seen.cuts.includes(cut)) continue;
        seen.cuts.push(cut);
        const pending = { state, localAddress: formatState(state), family };
        if (seen.inspection === undefined) seen.pending.push(pending);
        else this.#judgeByEqualDisk(pending, seen.inspection);
        yield* this.#reinspections();
        continue;
      }
      knownInARow = 0;
      const localAddress = formatState(state);
      const entry: SeenDisk = {
        inspection: undefined,
        pending: [{ state, localAddress, family }],
        cuts: [cutKeyOf(state)],
      };
      this.#seen.set(fingerprint, entry);
      this.#issued += 1;
      yield {
        state: localAddress,
        crash: state,
        onInspected: (inspected) => {
          const inspection = { ...inspected, heldBits: this.#internHeldBits(inspected.heldBits).heldBits };
          if (inspection.unmountable !== true) this.#distinct += 1;
          entry.inspection = inspection;
          this.#noteRestore(inspection);
          const [first, ...equalStates] = entry.pending.splice(0);
          if (first !== undefined) this.#judge(first, inspection);
          for (const one of equalStates) this.#judgeByEqualDisk(one, inspection);
          this.#reportProgress();
        },
        onTimedOut: ({ hung }) => {
          this.timedOut.push({ state: this.#addressOf(localAddress), hung });
        },
      };
      yield* this.#reinspections();
    }
  }

  /** Yields the states that need their own inspection although an equal disk was inspected. */
  *#reinspections(): Generator<Job & { crash: CrashState }, void> {
    for (
      let pending = this.#toReinspect.shift();
      pending !== undefined;
      pending = this.#toReinspect.shift()
    ) {
      const current = pending;
      yield {
        state: current.localAddress,
        crash: current.state,
        onInspected: (inspection) => {
          this.#judge(current, inspection);
          this.#reportProgress();
        },
        onTimedOut: ({ hung }) => {
          this.timedOut.push({ state: this.#addressOf(current.localAddress), hung });
        },
      };
    }
  }

  /**
   * Judges a pending state by the inspection of an equal disk, without a separate inspection. With the
   * strategy `target` this is not always possible: the consumer stopped when it had received every message
   * that the inspected state must hold. The pending state may have to hold further messages. Their absence
   * from the inspection proves nothing, so the pending state is then inspected too.
   */
  #judgeByEqualDisk(pending: PendingState, inspection: Inspection): void {
    const { strategy, atRisk, parent } = this.#options;
    const position = parent ?? logPositionOf(pending.state);
    const needsOwnInspection =
      strategy === 'target' &&
      inspection.recovered &&
      atRisk.missing({ ...position, heldBits: inspection.heldBits }).length > 0;
    if (needsOwnInspection) this.#toReinspect.push(pending);
    else this.#judge(pending, inspection);
  }

  /**
   * Returns the address of a state of this log within the run: after the parent's address, if there is one.
   */
  #addressOf(localAddress: string): string {
    const { parent } = this.#options;
    return parent === undefined ? localAddress : `${parent.address}>${localAddress}`;
  }

  #judge({ state, localAddress, family }: PendingState, { unmountable, ...inspection }: Inspection): void {
    const { strategy, atRisk, recorder, parent } = this.#options;
    const position = parent ?? logPositionOf(state);
    const address = this.#addressOf(localAddress);
    if (unmountable) {
      this.unmountable.push({ state: address, why: inspection.detail });
      return;
    }
    const { prefix, entriesBegun } = position;
    const event = {
      kind: 'state-explored' as const,
      state: address,
      prefix,
      entriesBegun,
      strategy,
      ...inspection,
    };
    this.#states += 1;
    this.#families[family] += 1;
    this.#cuts.add(state.prefix);
    if (atRisk.required(position).some((bits) => bits !== 0)) this.#statesAtRisk += 1;
    const missing = atRisk.missing(event);
    if (missing.length === 0 && inspection.wrongCount === 0 && inspection.recovered) {
      this.#countEquivalent(event);
      return;
    }
    recorder.record({ ...event, equivalentStates: 0 });
    this.#firstBrokenMs = Math.min(this.#firstBrokenMs, performance.now());
    this.broken.push({
      address,
      state,
      missing,
      recoveryFailure: inspection.recovered ? '' : inspection.detail,
      namedWrites: state.kept.length + state.torn.size,
    });
  }

  /** Returns the stored copy of a set of messages, and its number. */
  #internHeldBits(heldBits: string): { heldBits: string; number: number } {
    let known = this.#heldBitSets.get(heldBits);
    if (known === undefined) {
      known = { heldBits, number: this.#heldBitSets.size };
      this.#heldBitSets.set(heldBits, known);
    }
    return known;
  }

  /**
   * Counts a state together with those that have the same position and messages. The recorded event names
   * the state whose address is first in the order of strings, so that it does not depend on the order in
   * which workers answer.
   */
  #countEquivalent(event: EquivalentStates['event']): void {
    const { number } = this.#internHeldBits(event.heldBits);
    const key = (event.prefix + event.entriesBegun) * MAX_LIVE_SETS + number;
    const known = this.#equivalent.get(key);
    if (known === undefined) this.#equivalent.set(key, { event, equivalentStates: 0 });
    else {
      known.equivalentStates += 1;
      if (event.state < known.event.state) known.event = event;
    }
  }

  #reportProgress(): void {
    const nowMs = performance.now();
    if (nowMs - this.#lastProgressMs < PROGRESS_MS) return;
    this.#lastProgressMs = nowMs;
    const { strategy, endMs, progress } = this.#options;
    const { states, distinct, statesPerSecond } = this.figures(1);
    const bad = this.broken.length > 0 ? `, ${this.broken.length} broken` : '';
    const leftS = Math.max(0, Math.round((endMs - nowMs) / 1000));
    progress(
      `${strategy}: ${states} states, ${distinct} different, ${Math.round(statesPerSecond)}/s${bad}, ${leftS} s left at most`,
    );
  }

  #noteRestore({ recovered, detail }: Inspection): void {
    if (!recovered && detail.startsWith(RESTORE_ENDED_PREFIX)) this.#restoreFailure ??= detail;
    else this.#hasOtherResult = true;
  }

  /**
   * Returns how the restore program ended, if it ended by itself on every state; undefined otherwise. Such a
   * program is broken itself, and its failures prove nothing about the states.
   */
  whyRestoreNeverWorked(): string | undefined {
    return this.#hasOtherResult ? undefined : this.#restoreFailure;
  }

  /** Ends the run: records the equivalent states. No state may be judged afterwards. */
  end(): void {
    this.#endedMs = performance.now();
    for (const { localAddress } of this.#toReinspect.splice(0))
      this.timedOut.push({ state: this.#addressOf(localAddress), hung: false });
    for (const { event, equivalentStates } of this.#equivalent.values())
      this.#options.recorder.record({ ...event, equivalentStates });
    this.#equivalent.clear();
  }

  /** Returns the figures up to now, or up to the end of the run. */
  figures(workers: number): StrategyFigures {
    const seconds = ((this.#endedMs ?? performance.now()) - this.#startMs) / 1000;
    return {
      states: this.#states,
      distinct: this.#distinct,
      seconds: Math.round(seconds * 100) / 100,
      statesPerSecond: Math.round((this.#distinct / seconds) * 10) / 10,
      workers,
      families: { ...this.#families },
      statesAtRisk: this.#statesAtRisk,
      cuts: {
        judged: this.#cuts.size,
        all: this.#options.model.entries.length - this.#options.from + 1,
      },
    };
  }
}
