import { fromDeltas } from '../../html/columns.js';
import type { Injection, Lane, ReportModel, RunModel } from '../../html/model.js';
import { FLAG, hasFlag, lowerBound, nearest, type Points, type RunView, type Selection } from './run-view.js';
import { countOf, formatMs, formatTick } from './text.js';

/** Upper bound of the services and nodes that have rows. A canvas cannot be higher than some thousand pixels. */
const MAX_LANES = 60;

/** Colour of points, by meaning. */
export type Tone = 'pass' | 'fail' | 'doubt' | 'muted' | 'accent';

/** One row of the timeline. Items are numbered in the order of their times. */
export type Track =
  | { kind: 'injections'; label: string; ticks: Float64Array }
  | { kind: 'lane'; label: string; lane: Lane; ticks: Float64Array }
  | { kind: 'points'; label: string; tone: Tone; verb: string; points: Points; ticks: Float64Array };

/** A thing on the timeline: a row, and the number of the item in it. */
export interface Place {
  track: number;
  item: number;
}

/** Returns the rows: faults, one per service and node, and one per kind of event of messages. Empty kinds are left out. */
export function tracksOf(view: RunView): Track[] {
  const { run } = view;
  const points = (label: string, tone: Tone, verb: string, from: Points): Track[] =>
    from.ticks.length === 0
      ? []
      : [
          {
            kind: 'points',
            label: `${label} (${from.ticks.length})`,
            tone,
            verb,
            points: from,
            ticks: from.ticks,
          },
        ];
  return [
    { kind: 'injections', label: 'faults', ticks: Float64Array.from(run.injections, ({ tick }) => tick) },
    ...run.lanes.slice(0, MAX_LANES).map(
      (lane, index): Track => ({
        kind: 'lane',
        label: laneLabel(run, lane, index),
        lane,
        ticks: fromDeltas(lane.startTick),
      }),
    ),
    ...points('confirmed', 'pass', 'confirmed', view.confirmed),
    ...points('rejected', 'doubt', 'rejected', view.refused),
    ...points('no definite answer', 'muted', 'not definitely answered', view.unanswered),
    ...points('delivered', 'accent', 'delivered', view.delivered),
    ...points('lost', 'fail', 'lost', view.lost),
    ...points('changed or delivered twice', 'fail', 'delivered wrongly', view.wrong),
  ];
}

function laneLabel({ lanes }: RunModel, { name }: Lane, index: number): string {
  const more = lanes.length - MAX_LANES;
  return index === MAX_LANES - 1 && more > 0 ? `${name} (${more} more are not shown)` : name;
}

/** Returns the item of a row that is nearest to a tick; -1 when none is near enough. */
export function itemAt(track: Track, tick: number, reach: number): number {
  if (track.kind === 'lane') {
    const last = lowerBound(track.ticks, tick + 1e-9) - 1;
    return last >= 0 && tick <= laneEnd(track, last) + reach ? last : -1;
  }
  const item = nearest(track.ticks, tick);
  return item >= 0 && Math.abs((track.ticks[item] ?? 0) - tick) <= reach ? item : -1;
}

/** Returns the tick at which a process of a lane ended; infinity when it ran to the end. */
export function laneEnd({ lane, ticks }: Extract<Track, { kind: 'lane' }>, item: number): number {
  const length = lane.ticks[item] ?? -1;
  return length < 0 ? Number.POSITIVE_INFINITY : (ticks[item] ?? 0) + length;
}

/** Describes an item in lines, the first one the most important. */
export function describeItem(model: ReportModel, run: RunModel, track: Track, item: number): string[] {
  switch (track.kind) {
    case 'injections': {
      const injection = run.injections[item];
      return injection === undefined ? [] : describeInjection(model, injection);
    }
    case 'lane': {
      const end = laneEnd(track, item);
      const what = run.strings[track.lane.end[item] ?? -1] ?? '';
      const own = track.lane.expected[item] === 0 ? ' (by itself)' : '';
      return [
        `${track.lane.name}: start ${track.lane.incarnation[item] ?? item + 1}`,
        `ran from ${formatTick(track.ticks[item] ?? 0)} to ${Number.isFinite(end) ? formatTick(end) : 'the end'}`,
        ...(what === '' ? [] : [`${what}${own}`]),
      ];
    }
    case 'points':
      return describePoint(model, run, track, item);
  }
}

/** Describes an injection in lines. */
export function describeInjection(model: ReportModel, injection: Injection): string[] {
  const { tick, hit, number, atRisk, inFlight, lost, detail, recoveryMs, recoveryFailure } = injection;
  const name = model.faults[injection.fault]?.name ?? 'fault';
  return [
    `${name} ${number} at ${formatTick(tick)}: ${hit ? 'hit' : 'missed'}`,
    ...(hit ? [`${countOf(atRisk, 'confirmed message')} at risk, ${inFlight} in flight, ${lost} lost`] : []),
    ...(recoveryMs >= 0 ? [`ready again after ${formatMs(recoveryMs)}`] : []),
    ...(recoveryFailure === '' ? [] : [`not ready again: ${recoveryFailure}`]),
    detail,
  ];
}

/** Returns what a choice of this item means for the report; undefined when nothing more is known of it. */
export function selectionOf(runIndex: number, track: Track, item: number): Selection | undefined {
  if (track.kind === 'injections') return { kind: 'injection', run: runIndex, index: item };
  if (track.kind === 'points')
    return { kind: 'message', run: runIndex, index: track.points.messages[item] ?? 0 };
  return undefined;
}

function describePoint(
  model: ReportModel,
  run: RunModel,
  { points, verb }: Extract<Track, { kind: 'points' }>,
  item: number,
): string[] {
  const index = points.messages[item] ?? 0;
  const { messages } = run;
  const answer = run.strings[messages.answer[index] ?? -1] ?? '';
  const injection = run.injections[messages.lostBy[index] ?? -1];
  const fault =
    injection === undefined ? '' : ` by ${model.faults[injection.fault]?.name} ${injection.number}`;
  return [
    `message ${messages.id[index]}`,
    `${verb} at ${formatTick(points.ticks[item] ?? 0)}`,
    ...(answer === '' ? [] : [`answer: ${answer}`]),
    ...(hasFlag(run, index, FLAG.lost) ? [`lost${fault}`] : []),
  ];
}
