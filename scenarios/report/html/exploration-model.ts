import { AtRiskMessages } from '../../../conformance/checkers/crash-states.js';
import type { HistoryEvent, StateExplored } from '../../../conformance/history/events.js';
import { shellQuote } from '../../host/shell.js';
import { toDeltas } from './columns.js';
import type { BlamedSync, BrokenState, ExplorationModel } from './model.js';
import { type BuiltRun, isExploration } from './run-model.js';
import type { ReportSource } from './source.js';
import { shorten } from './strings.js';

/** Upper bound of the broken states that a report lists. An exploration stops soon after 200. */
const MAX_BROKEN = 300;
/** Upper bound of the missing writes and of the ids that are listed for one state. */
const MAX_WRITES = 60;
const MAX_EXAMPLES = 5;

/** A state that fails, and the messages that it has lost. */
interface Broken {
  event: StateExplored;
  missing: string[];
}

/** Makes the view of an exploration; null when no run explored crash states. */
export function explorationModel(source: ReportSource, runs: readonly BuiltRun[]): ExplorationModel | null {
  const explored = runs.find(isExploration);
  if (explored === undefined) return null;
  const { events } = explored.run;
  const atRisk = new AtRiskMessages(events);
  const cuts = new Map<number, { states: number; failed: number; atRisk: number }>();
  const broken: Broken[] = [];
  for (const event of events) {
    if (event.kind !== 'state-explored') continue;
    const states = 1 + event.equivalentStates;
    const missing = atRisk.missing(event);
    const fails = missing.length > 0 || event.wrongCount > 0 || !event.recovered;
    const cut = cuts.get(event.prefix) ?? { states: 0, failed: 0, atRisk: 0 };
    cuts.set(event.prefix, cut);
    cut.states += states;
    if (fails) cut.failed += states;
    cut.atRisk = Math.max(cut.atRisk, bitCount(atRisk.required(event)));
    if (fails) broken.push({ event, missing });
  }
  const positions = [...cuts.keys()].sort((one, other) => one - other);
  const column = (key: 'states' | 'failed' | 'atRisk') => positions.map((at) => cuts.get(at)?.[key] ?? 0);
  const facts = source.crashStates;
  return {
    run: runs.indexOf(explored),
    entries: facts?.entries ?? positions.at(-1) ?? 0,
    from: facts?.from ?? positions[0] ?? 0,
    cuts: {
      position: toDeltas(positions),
      states: column('states'),
      failed: column('failed'),
      atRisk: column('atRisk'),
    },
    flushes: toDeltas(facts?.flushes ?? []),
    confirmations: confirmationsOf(events, explored.messageIndex),
    broken: smallestFirst(broken, facts)
      .slice(0, MAX_BROKEN)
      .map((one) => brokenState(source, one)),
    moreBroken: Math.max(0, broken.length - MAX_BROKEN),
    blamed: blamedSync(source),
  };
}

/** Sorts broken states as the exploration did: the easiest one first. States that it did not keep come last. */
function smallestFirst(broken: readonly Broken[], facts: ReportSource['crashStates']): Broken[] {
  const rank = new Map(facts?.broken.map(({ address }, index) => [address, index]));
  const rankOf = ({ event }: Broken) => rank.get(event.state) ?? Number.MAX_SAFE_INTEGER;
  return [...broken].sort(
    (one, other) =>
      rankOf(one) - rankOf(other) ||
      one.event.state.length - other.event.state.length ||
      one.event.prefix - other.event.prefix,
  );
}

function bitCount(mask: Uint8Array): number {
  let count = 0;
  for (const byte of mask) for (let bits = byte; bits > 0; bits &= bits - 1) count += 1;
  return count;
}

function confirmationsOf(
  events: readonly HistoryEvent[],
  messageIndex: ReadonlyMap<string, number>,
): ExplorationModel['confirmations'] {
  const found = events.flatMap((event) =>
    event.kind === 'log-position' && event.what === 'confirmed'
      ? [{ position: event.entries, message: messageIndex.get(event.id) ?? -1 }]
      : [],
  );
  found.sort((one, other) => one.position - other.position);
  return {
    position: toDeltas(found.map(({ position }) => position)),
    message: found.map(({ message }) => message),
  };
}

function brokenState(
  { crashStates, replay, recording }: ReportSource,
  { event, missing }: Broken,
): BrokenState {
  const facts = crashStates?.broken.find(({ address }) => address === event.state);
  const isSmallest = crashStates?.broken[0]?.address === event.state;
  // Only the smallest state has a bundle. The same seed tests the others again, from the same recording.
  const explore = replay.find((line) => /\bexplore\b/.test(line));
  const fromRecording =
    explore === undefined || recording === '' || explore.includes(' --recording ')
      ? explore
      : `${explore} --recording ${shellQuote(recording)}`;
  const cause = isSmallest ? crashStates?.cause : undefined;
  const blamed =
    cause === undefined || cause === null || cause.file === ''
      ? []
      : [{ file: cause.file, what: CAUSES[cause.kind] }];
  return {
    address: shorten(event.state),
    position: event.prefix,
    missing: missing.length,
    examples: missing.slice(0, MAX_EXAMPLES),
    recoveryFailure: event.recovered ? '' : shorten(event.detail),
    missingWrites: (facts?.missingWrites ?? []).slice(0, MAX_WRITES),
    files: [
      ...blamed,
      ...(facts?.missingWrites.length === 0 ? [NOTHING_MISSING] : []),
      ...(facts?.files ?? []),
    ],
    replay: (isSmallest ? replay[0] : fromRecording) ?? '',
  };
}

function blamedSync({ crashStates }: ReportSource): BlamedSync | null {
  const cause = crashStates?.cause;
  if (cause === undefined || cause === null || cause.confirmedAt === null) return null;
  const { writes, confirmedAt, flushAt, files, message, sentence } = cause;
  return { writes, confirmedAt, flushAt, files, message, sentence: shorten(sentence) };
}

/** Shown for a state that lacks no write: what was not sent to the disk yet is what it lacks. */
const NOTHING_MISSING = {
  file: 'every write that was complete',
  what: 'had reached the medium: what is missing was not sent to the disk yet, such as a name or bytes in the page cache',
};

/** What a cause means for its file, as a phrase. */
const CAUSES: Readonly<
  Record<NonNullable<NonNullable<ReportSource['crashStates']>['cause']>['kind'], string>
> = {
  'not-synced': 'its bytes were never synced',
  'synced-late': 'its bytes were synced after the confirmation',
  'directory-not-synced': 'its name is lost: the directory was not synced before the confirmation',
  'not-written': 'its bytes were not sent to the disk',
  'not-recovered': 'its bytes are on the disk, and the target does not find them',
  unknown: 'not known',
};
