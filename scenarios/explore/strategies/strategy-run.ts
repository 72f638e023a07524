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

export type StrategyName = 'mount' | 'target';

/** What was seen of one way of looking. */
export interface StrategyFigures {
  /** Crash states that were judged, each by a look at it or at an equal disk. */
  states: number;
  /** Different disks that were made, recovered and looked at. */
  distinct: number;
  seconds: number;
  /** Of the different ones. */
  statesPerSecond: number;
  workers: number;
  families: Record<StateFamily, number>;
}

/** A crash state in which something is wrong. */
export interface Broken {
  address: string;
  state: CrashState;
  /** Ids of the messages that are gone. */
  missing: string[];
  /** The log of the recovery of which it is a cut. */
  recovery?: { log: string; end: number };
  /** Why the target did not get up; empty when it did. */
  recoveryFailure: string;
  /** How many writes of it are named: the fewer, the easier to understand. */
  namedWrites: number;
}

export interface TimedOutState extends TimedOut {
  state: string;
}

export interface StrategyRunOptions {
  strategy: StrategyName;
  model: CrashModel;
  from: number;
  fingerprints: Fingerprints;
  random: Random;
  atRisk: AtRiskMessages;
  recorder: Pick<Recorder, 'record'>;
  /** For cuts of a recovery: the address of the state that it began from, and what had to be there. */
  parent?: { address: string; prefix: number; entriesBegun: number };
  /** Looked at no more than so many different ones. */
  maxDistinct: number;
  endMs: number;
  signal: AbortSignal;
  progress(line: string): void;
}

/** After the first state that is broken so many more, or so much time, are enough to find a small one. */
const MAX_BROKEN_STATES = 200;
const MAX_SEARCH_AFTER_BROKEN_MS = 4000;
/** So many states in a row that were all seen before: there are hardly any others. */
const MAX_KNOWN_IN_A_ROW = 20_000;
const PROGRESS_MS = 2000;
/** So many states are taken in the order of their cuts: a way that looks at few must see all parts of the log all the same. */
const BATCH_SIZE: Readonly<Record<StrategyName, number>> = { mount: 32, target: 4 };

/** A state that is to be judged by the disk that it leaves. */
interface PendingState {
  state: CrashState;
  /** Address of the state, in this log. */
  localAddress: string;
  family: StateFamily;
}

/** States of cuts at the same place that hold the same messages, nothing being wrong in any of them. */
interface EquivalentStates {
  event: Omit<Untimed<StateExplored>, 'equivalentStates'>;
  equivalentStates: number;
}

/** More than there can be sets of messages. */
const MAX_LIVE_SETS = 2 ** 24;

interface SeenDisk {
  inspection: Inspection | undefined;
  pending: PendingState[];
  /** Of the cuts that leave it; few. */
  cuts: number[];
}

/** So many entries may have begun to reach the medium. */
function reachedBy({ prefix, kept, torn }: CrashState): number {
  return prefix + (kept.at(-1) === prefix || torn.has(prefix) ? 1 : 0);
}

/** Where a state stands in the log of the run: so many entries were complete, and so many may have begun. */
export function logPositionOf(state: CrashState): { prefix: number; entriesBegun: number } {
  return { prefix: state.prefix, entriesBegun: reachedBy(state) };
}

/** A number for the two by which a state is judged: the prefix, and what it has entriesBegun. */
const cutKeyOf = (state: CrashState): number => state.prefix + reachedBy(state);

/** The states of one log in one way: which come next, which are equal, what was found, how fast. */
export class StrategyRun {
  readonly broken: Broken[] = [];
  /** States whose filesystem could not be mounted, which says nothing about the target, and why. */
  readonly unmountable: { state: string; why: string }[] = [];
  /** States for which there was no time; they are not judged. */
  readonly timedOut: TimedOutState[] = [];
  readonly #options: StrategyRunOptions;
  /** By the fingerprint of the disk. */
  readonly #seen = new Map<number, SeenDisk>();
  readonly #toReinspect: PendingState[] = [];
  readonly #equivalent = new Map<number, EquivalentStates>();
  /** What was found to be there, once each and numbered: the same few sets of messages come thousands of times. */
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
  #distinct = 0;
  #issued = 0;
  #firstBrokenMs = Number.POSITIVE_INFINITY;
  /** How the program that restores has ended first, and whether any state came to another result. */
  #restoreFailure: string | undefined;
  #hasOtherResult = false;
  #lastProgressMs = performance.now();

  constructor(options: StrategyRunOptions) {
    this.#options = options;
  }

  shouldStop(): boolean {
    const nowMs = performance.now();
    const { endMs, maxDistinct, signal } = this.#options;
    const foundEnough =
      this.broken.length >= MAX_BROKEN_STATES || nowMs > this.#firstBrokenMs + MAX_SEARCH_AFTER_BROKEN_MS;
    return nowMs > endMs || this.#issued >= maxDistinct || signal.aborted || foundEnough;
  }

  /** States that have to be looked at: the first of each disk. */
  *jobs(): Generator<Job & { crash: CrashState }, void> {
    const { model, from, random, fingerprints } = this.#options;
    let knownInARow = 0;
    for (const { state, family } of shuffled(model, from, random, BATCH_SIZE[this.#options.strategy])) {
      if (this.shouldStop() || knownInARow > MAX_KNOWN_IN_A_ROW) return;
      const fingerprint = fingerprints.of(state);
      const seen = this.#seen.get(fingerprint);
      if (seen !== undefined) {
        knownInARow += 1;
        // Judged already: the same disk, left by a cut at the same place.
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

  /** States that are judged by a look of their own, although an equal disk was looked at. */
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
   * Judges a state by what was found in an equal disk. Who takes messages from a started target ends when those have come that
   * the state of the look must hold: where a state must hold more, their absence shows nothing yet.
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

  /** The address of a state of this log, in the run. */
  #addressOf(localAddress: string): string {
    const { parent } = this.#options;
    return parent === undefined ? localAddress : `${parent.address}>${localAddress}`;
  }

  #judge(
    { state, localAddress: own, family }: PendingState,
    { unmountable, ...inspection }: Inspection,
  ): void {
    const { strategy, atRisk, recorder, parent } = this.#options;
    const position = parent ?? logPositionOf(state);
    const address = this.#addressOf(own);
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

  #internHeldBits(heldBits: string): { heldBits: string; number: number } {
    let known = this.#heldBitSets.get(heldBits);
    if (known === undefined) {
      known = { heldBits, number: this.#heldBitSets.size };
      this.#heldBitSets.set(heldBits, known);
    }
    return known;
  }

  /** Counts a state with those that are judged like it; the first by its address is the one that is named. */
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

  /** Why the target's program never worked: it has ended on every state, which says nothing about any of them. */
  whyRestoreNeverWorked(): string | undefined {
    return this.#hasOtherResult ? undefined : this.#restoreFailure;
  }

  /** Nothing more comes: what was judged alike is recorded. */
  end(): void {
    this.#endedMs = performance.now();
    for (const { localAddress: own } of this.#toReinspect.splice(0))
      this.timedOut.push({ state: this.#addressOf(own), hung: false });
    for (const { event, equivalentStates } of this.#equivalent.values())
      this.#options.recorder.record({ ...event, equivalentStates });
    this.#equivalent.clear();
  }

  figures(workers: number): StrategyFigures {
    const seconds = ((this.#endedMs ?? performance.now()) - this.#startMs) / 1000;
    return {
      states: this.#states,
      distinct: this.#distinct,
      seconds: Math.round(seconds * 100) / 100,
      statesPerSecond: Math.round((this.#distinct / seconds) * 10) / 10,
      workers,
      families: { ...this.#families },
    };
  }
}
