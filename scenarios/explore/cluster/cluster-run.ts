import type { AtRiskMessages } from '../../../conformance/checkers/crash-states.js';
import type { Recorder } from '../../../conformance/history/recorder.js';
import type { Fingerprints } from '../../../faults/crash-states/fingerprint.js';
import type { Inspection } from '../inspectors/inspection.js';
import type { TimedOut } from '../inspectors/mount-inspector.js';
import type { ClusterFamily } from '../result/cluster-family.js';
import { type ClusterState, formatClusterState } from './address.js';
import { type ChosenState, hasBegunMore } from './choose-states.js';

/** A state of a cluster that violates PP-13. */
export interface BrokenCluster {
  address: string;
  state: ClusterState;
  /** Ids of the messages that the state must hold and does not hold. */
  missing: string[];
  /** Reason why the target did not recover; empty when it did. */
  recoveryFailure: string;
  /** Number of writes that the address names. A state with fewer of them is easier to understand. */
  namedWrites: number;
}

/** The options of a `ClusterRun`. */
export interface ClusterRunOptions {
  atRisk: AtRiskMessages;
  recorder: Pick<Recorder, 'record'>;
  /** Fingerprints of the disks of each node, by its name. */
  fingerprints: ReadonlyMap<string, Pick<Fingerprints, 'of'>>;
}

/** The position of a state, as `AtRiskMessages` reads it: in instants instead of requests to a disk. */
export function positionOf(state: ClusterState): { prefix: number; entriesBegun: number } {
  return { prefix: state.instant, entriesBegun: state.instant + (hasBegunMore(state) ? 1 : 0) };
}

/** Judges and counts the states of one recording. Equal disks of all nodes are inspected once, where that is enough. */
export class ClusterRun {
  readonly broken: BrokenCluster[] = [];
  /** States that prove nothing about the target, with the reason. */
  readonly unjudged: { state: string; why: string }[] = [];
  /** Addresses of states for which there was no time. */
  readonly timedOut: string[] = [];
  readonly families = new Map<ClusterFamily, number>();
  /** Instants at which at least one state was judged. */
  readonly instants = new Set<number>();
  states = 0;
  statesAtRisk = 0;
  /** Number of states with an inspection of their own. */
  inspected = 0;
  readonly #options: ClusterRunOptions;
  /** What was found on disks, by their fingerprints. */
  readonly #found = new Map<string, Inspection>();
  /** Positions and disks that were judged. */
  readonly #judged = new Set<string>();

  constructor(options: ClusterRunOptions) {
    this.#options = options;
  }

  /**
   * Returns whether a state needs an inspection. If equal disks were inspected, and hold everything that this state must
   * hold, it is judged by them. The consumer there stopped when it had what it needed, so what it lacks proves nothing here.
   */
  needsInspection(chosen: ChosenState): boolean {
    const disks = this.#disksOf(chosen.state);
    const { prefix, entriesBegun } = positionOf(chosen.state);
    const key = `${prefix} ${entriesBegun} ${disks}`;
    if (this.#judged.has(key)) return false;
    const found = this.#found.get(disks);
    const isEnough =
      found?.recovered === true &&
      this.#options.atRisk.missing({ prefix, entriesBegun, heldBits: found.heldBits }).length === 0;
    if (found !== undefined && isEnough) this.#judge(chosen, found);
    this.#judged.add(key);
    return !isEnough;
  }

  /** Judges a state by its own inspection, or counts it as not judged. */
  noteOutcome(chosen: ChosenState, inspection: Inspection | TimedOut): void {
    if ('hung' in inspection) {
      this.timedOut.push(formatClusterState(chosen.state));
      return;
    }
    if (inspection.unmountable === true) {
      this.unjudged.push({ state: formatClusterState(chosen.state), why: inspection.detail });
      return;
    }
    this.inspected += 1;
    this.#found.set(this.#disksOf(chosen.state), inspection);
    this.#judge(chosen, inspection);
  }

  #judge({ family, state }: ChosenState, { unmountable, ...inspection }: Inspection): void {
    const { atRisk, recorder } = this.#options;
    const position = positionOf(state);
    const address = formatClusterState(state);
    const missing = atRisk.missing({ ...position, heldBits: inspection.heldBits });
    this.states += 1;
    this.instants.add(state.instant);
    this.families.set(family, (this.families.get(family) ?? 0) + 1);
    if (atRisk.required(position).some((bits) => bits !== 0)) this.statesAtRisk += 1;
    recorder.record({
      kind: 'state-explored',
      state: address,
      ...position,
      strategy: 'target',
      ...inspection,
      equivalentStates: 0,
    });
    if (missing.length === 0 && inspection.wrongCount === 0 && inspection.recovered) return;
    const disks = [...state.nodes.values()].flatMap((node) => (node === 'live' ? [] : [node]));
    this.broken.push({
      ...{ address, state, missing },
      recoveryFailure: inspection.recovered ? '' : inspection.detail,
      namedWrites: disks.reduce((sum, { kept, torn }) => sum + kept.length + torn.size, 0),
    });
  }

  /** Returns a text that is equal for two states if the disks of all nodes are. */
  #disksOf({ instant, nodes, away }: ClusterState): string {
    const disks = [...nodes].map(([name, state]) => {
      // Nothing is started on a machine that is away, so its disk does not matter.
      if (name === away) return 'away';
      return state === 'live' ? `live-${instant}` : `${this.#options.fingerprints.get(name)?.of(state)}`;
    });
    return disks.join(' ');
  }
}
