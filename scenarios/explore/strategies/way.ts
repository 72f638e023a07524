import type { Stakes } from '../../../conformance/checkers/crash-states.js';
import type { StateExplored, Untimed } from '../../../conformance/history/events.js';
import type { Recorder } from '../../../conformance/history/recorder.js';
import { type Family, shuffled } from '../../../faults/crash-states/enumerate.js';
import type { Fingerprints } from '../../../faults/crash-states/fingerprint.js';
import type { Random } from '../../../faults/fault.js';
import type { CrashModel } from '../../../faults/write-log/model.js';
import { type CrashState, formatState } from '../../../faults/write-log/state.js';
import type { Found } from '../inspectors/found.js';
import type { Late } from '../inspectors/lookers.js';
import type { Job } from '../inspectors/pool.js';
import { RESTORE_ENDED } from '../inspectors/restore-service.js';

export type WayName = 'image' | 'mount' | 'target';

/** What was seen of one way of looking. */
export interface WayFigures {
  /** Crash states that were judged, each by a look at it or at an equal disk. */
  states: number;
  /** Different disks that were made, recovered and looked at. */
  distinct: number;
  seconds: number;
  /** Of the different ones. */
  statesPerSecond: number;
  workers: number;
  families: Record<Family, number>;
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
  noRecovery: string;
  /** How many writes of it are named: the fewer, the easier to understand. */
  size: number;
}

export interface LateState extends Late {
  state: string;
}

export interface WayOptions {
  way: WayName;
  model: CrashModel;
  from: number;
  fingerprints: Fingerprints;
  random: Random;
  stakes: Stakes;
  recorder: Pick<Recorder, 'record'>;
  /** For cuts of a recovery: the address of the state that it began from, and what had to be there. */
  parent?: { address: string; prefix: number; reached: number };
  /** Looked at no more than so many different ones. */
  most: number;
  endMs: number;
  signal: AbortSignal;
  progress(line: string): void;
}

/** After the first state that is broken so many more, or so much time, are enough to find a small one. */
const ENOUGH_BROKEN = 200;
const AFTER_BROKEN_MS = 4000;
/** So many states in a row that were all seen before: there are hardly any others. */
const EXHAUSTED = 20_000;
const PROGRESS_MS = 2000;
/** So many states are taken in the order of their cuts: a way that looks at few must see all parts of the log all the same. */
const HANDS: Readonly<Record<WayName, number>> = { image: 1024, mount: 32, target: 4 };
const MOST_LOOKED = 5000;

/** A state that is to be judged by the disk that it leaves. */
interface Awaiting {
  state: CrashState;
  /** Address of the state, in this log. */
  own: string;
  family: Family;
}

/** States of cuts at the same place that hold the same messages, nothing being wrong in any of them. */
interface Alike {
  event: Omit<Untimed<StateExplored>, 'alike'>;
  alike: number;
}

/** More than there can be sets of messages. */
const MOST_LIVES = 2 ** 24;

interface Seen {
  found: Found | undefined;
  waiting: Awaiting[];
  /** Of the cuts that leave it; few. */
  places: number[];
}

/** So many entries may have begun to reach the medium. */
function reachedBy({ prefix, kept, torn }: CrashState): number {
  return prefix + (kept.at(-1) === prefix || torn.has(prefix) ? 1 : 0);
}

/** Where a state stands in the log of the run: so many entries were complete, and so many may have begun. */
export function placeIn(state: CrashState): { prefix: number; reached: number } {
  return { prefix: state.prefix, reached: reachedBy(state) };
}

/** A number for the two by which a state is judged: the prefix, and what it has reached. */
const placeOf = (state: CrashState): number => state.prefix + reachedBy(state);

/** The states of one log in one way: which come next, which are equal, what was found, how fast. */
export class WayRun {
  readonly broken: Broken[] = [];
  /** What was looked at, the first so many. */
  readonly looked: { crash: CrashState; found: Found }[] = [];
  /** States whose filesystem could not be mounted, which says nothing about the target, and why. */
  readonly unmountable: { state: string; why: string }[] = [];
  /** States for which there was no time; they are not judged. */
  readonly late: LateState[] = [];
  readonly #options: WayOptions;
  /** By the fingerprint of the disk. */
  readonly #seen = new Map<number, Seen>();
  readonly #again: Awaiting[] = [];
  readonly #alike = new Map<number, Alike>();
  /** What was found to be there, once each and numbered: the same few sets of messages come thousands of times. */
  readonly #lives = new Map<string, { live: string; number: number }>();
  readonly #startMs = performance.now();
  readonly #families: Record<Family, number> = {
    prefix: 0,
    'all-but-one': 0,
    'only-one': 0,
    torn: 0,
    random: 0,
  };
  #endedMs: number | undefined;
  #states = 0;
  #distinct = 0;
  #given = 0;
  #firstBrokenMs = Number.POSITIVE_INFINITY;
  #saidMs = performance.now();

  constructor(options: WayOptions) {
    this.#options = options;
  }

  stopped(): boolean {
    const nowMs = performance.now();
    const { endMs, most, signal } = this.#options;
    const enough = this.broken.length >= ENOUGH_BROKEN || nowMs > this.#firstBrokenMs + AFTER_BROKEN_MS;
    return nowMs > endMs || this.#given >= most || signal.aborted || enough;
  }

  /** States that have to be looked at: the first of each disk. */
  *jobs(): Generator<Job & { crash: CrashState }, void> {
    const { model, from, random, fingerprints } = this.#options;
    let known = 0;
    for (const { state, family } of shuffled(
      model,
      from,
      random,
      HANDS[this.#options.way],
      this.#options.way === 'image' ? fingerprints.matters : undefined,
    )) {
      if (this.stopped() || known > EXHAUSTED) return;
      const print = fingerprints.of(state);
      const seen = this.#seen.get(print);
      if (seen !== undefined) {
        known += 1;
        // Judged already: the same disk, left by a cut at the same place.
        const place = placeOf(state);
        if (seen.places.includes(place)) continue;
        seen.places.push(place);
        const awaiting = { state, own: formatState(state), family };
        if (seen.found === undefined) seen.waiting.push(awaiting);
        else this.#judgeLike(awaiting, seen.found);
        yield* this.#looksAgain();
        continue;
      }
      known = 0;
      const own = formatState(state);
      const entry: Seen = { found: undefined, waiting: [{ state, own, family }], places: [placeOf(state)] };
      this.#seen.set(print, entry);
      this.#given += 1;
      yield {
        state: own,
        crash: state,
        found: (what) => {
          const found = { ...what, live: this.#liveOf(what.live).live };
          if (found.unmountable !== true) this.#distinct += 1;
          entry.found = found;
          if (this.looked.length < MOST_LOOKED) this.looked.push({ crash: state, found });
          const [first, ...like] = entry.waiting.splice(0);
          if (first !== undefined) this.#judge(first, found);
          for (const one of like) this.#judgeLike(one, found);
          this.#say();
        },
        late: ({ hung }) => {
          this.late.push({ state: this.#addressOf(own), hung });
        },
      };
      yield* this.#looksAgain();
    }
  }

  /** States that are judged by a look of their own, although an equal disk was looked at. */
  *#looksAgain(): Generator<Job & { crash: CrashState }, void> {
    for (let one = this.#again.shift(); one !== undefined; one = this.#again.shift()) {
      const awaiting = one;
      yield {
        state: awaiting.own,
        crash: awaiting.state,
        found: (found) => {
          this.#judge(awaiting, found);
          this.#say();
        },
        late: ({ hung }) => {
          this.late.push({ state: this.#addressOf(awaiting.own), hung });
        },
      };
    }
  }

  /**
   * Judges a state by what was found in an equal disk. Who takes messages from a started target ends when those have come that
   * the state of the look must hold: where a state must hold more, their absence shows nothing yet.
   */
  #judgeLike(awaiting: Awaiting, found: Found): void {
    const { way, stakes, parent } = this.#options;
    const place = parent ?? placeIn(awaiting.state);
    const doubtful =
      way === 'target' && found.recovered && stakes.missing({ ...place, live: found.live }).length > 0;
    if (doubtful) this.#again.push(awaiting);
    else this.#judge(awaiting, found);
  }

  /** The address of a state of this log, in the run. */
  #addressOf(own: string): string {
    const { parent } = this.#options;
    return parent === undefined ? own : `${parent.address}>${own}`;
  }

  #judge({ state, own, family }: Awaiting, { unmountable, ...found }: Found): void {
    const { way, stakes, recorder, parent } = this.#options;
    const place = parent ?? placeIn(state);
    const address = this.#addressOf(own);
    if (unmountable) {
      this.unmountable.push({ state: address, why: found.detail });
      return;
    }
    const { prefix, reached } = place;
    const event = { kind: 'state-explored' as const, state: address, prefix, reached, way, ...found };
    this.#states += 1;
    this.#families[family] += 1;
    const missing = stakes.missing(event);
    if (missing.length === 0 && found.wrong === 0 && found.recovered) {
      this.#isAlike(event);
      return;
    }
    recorder.record({ ...event, alike: 0 });
    this.#firstBrokenMs = Math.min(this.#firstBrokenMs, performance.now());
    this.broken.push({
      address,
      state,
      missing,
      noRecovery: found.recovered ? '' : found.detail,
      size: state.kept.length + state.torn.size,
    });
  }

  #liveOf(live: string): { live: string; number: number } {
    let known = this.#lives.get(live);
    if (known === undefined) {
      known = { live, number: this.#lives.size };
      this.#lives.set(live, known);
    }
    return known;
  }

  /** Counts a state with those that are judged like it; the first by its address is the one that is named. */
  #isAlike(event: Alike['event']): void {
    const { number } = this.#liveOf(event.live);
    const key = (event.prefix + event.reached) * MOST_LIVES + number;
    const known = this.#alike.get(key);
    if (known === undefined) this.#alike.set(key, { event, alike: 0 });
    else {
      known.alike += 1;
      if (event.state < known.event.state) known.event = event;
    }
  }

  #say(): void {
    const nowMs = performance.now();
    if (nowMs - this.#saidMs < PROGRESS_MS) return;
    this.#saidMs = nowMs;
    const { way, endMs, progress } = this.#options;
    const { states, distinct, statesPerSecond } = this.figures(1);
    const bad = this.broken.length > 0 ? `, ${this.broken.length} broken` : '';
    const leftS = Math.max(0, Math.round((endMs - nowMs) / 1000));
    progress(
      `${way}: ${states} states, ${distinct} different, ${Math.round(statesPerSecond)}/s${bad}, ${leftS} s left at most`,
    );
  }

  /** Why the target's program never worked: it has ended on every state, which says nothing about any of them. */
  neverWorked(): string | undefined {
    const dead = ({ found }: { found: Found }) => !found.recovered && found.detail.startsWith(RESTORE_ENDED);
    return this.looked.length > 0 && this.looked.every(dead) ? this.looked[0]?.found.detail : undefined;
  }

  /** What was found in a disk equal to that of a state, if it was looked at. */
  foundIn(fingerprint: number): Found | undefined {
    return this.#seen.get(fingerprint)?.found;
  }

  /** Nothing more comes: what was judged alike is recorded. */
  end(): void {
    this.#endedMs = performance.now();
    for (const { own } of this.#again.splice(0)) this.late.push({ state: this.#addressOf(own), hung: false });
    for (const { event, alike } of this.#alike.values()) this.#options.recorder.record({ ...event, alike });
    this.#alike.clear();
  }

  figures(workers: number): WayFigures {
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
