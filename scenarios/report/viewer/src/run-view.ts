import { fromDeltas } from '../../html/columns.js';
import type { ReportModel, RunModel } from '../../html/model.js';

/** Bits of `MessageColumns.flags`. */
export const FLAG = { lost: 1, changed: 2, duplicate: 4, named: 8 } as const;

/** Points in time, ascending, each of one message. */
export interface Points {
  ticks: Float64Array;
  /** Index of the message of each point. */
  messages: Int32Array;
}

/** A run with its columns decoded. */
export interface RunView {
  run: RunModel;
  submitted: Float64Array;
  /** Submits and deliveries of all messages; answers by outcome; and the messages that are lost, at their loss. */
  confirmed: Points;
  refused: Points;
  unanswered: Points;
  delivered: Points;
  lost: Points;
  wrong: Points;
  /** Beginning, end and round of every installation. */
  rounds: { round: number; from: number; to: number }[];
}

/** What the reader has chosen: a message or an injection of a run, or a broken state of the exploration. */
export type Selection =
  | { kind: 'message'; run: number; index: number }
  | { kind: 'injection'; run: number; index: number }
  | { kind: 'state'; index: number };

/** Decodes the columns of a run. */
export function viewRun(run: RunModel): RunView {
  const { messages } = run;
  const submitted = fromDeltas(messages.submittedTick);
  const count = submitted.length;
  const submittedAt = (index: number) => submitted[index] ?? 0;
  const answers = (outcomes: readonly number[]) =>
    pointsOf(count, (index) => {
      const ticks = messages.answeredTicks[index] ?? -1;
      return ticks >= 0 && outcomes.includes(messages.outcome[index] ?? 3) ? submittedAt(index) + ticks : -1;
    });
  const delivered = pointsOf(count, (index) => {
    const ticks = messages.deliveredTicks[index] ?? -1;
    return ticks >= 0 ? submittedAt(index) + ticks : -1;
  });
  const lost = pointsOf(count, (index) =>
    hasFlag(run, index, FLAG.lost) ? lossTick(run, submitted, index) : -1,
  );
  const wrong = pointsOf(count, (index) => {
    if (!hasFlag(run, index, FLAG.changed | FLAG.duplicate)) return -1;
    return submittedAt(index) + Math.max(0, messages.deliveredTicks[index] ?? 0);
  });
  const rounds = run.rounds.map(({ round, tick }, index) => ({
    round,
    from: tick,
    to: run.rounds[index + 1]?.tick ?? run.endTick,
  }));
  const [confirmed, refused, unanswered] = [answers([0]), answers([1]), answers([2])];
  return { run, submitted, confirmed, refused, unanswered, delivered, lost, wrong, rounds };
}

/** Returns whether a message has one of these flags. */
export function hasFlag(run: RunModel, index: number, flags: number): boolean {
  return ((run.messages.flags[index] ?? 0) & flags) !== 0;
}

/** Finds a message by its id; undefined when the report has none. */
export function findMessage(model: ReportModel, id: string): Selection | undefined {
  for (const [run, { messages }] of model.runs.entries()) {
    const index = messages.id.indexOf(id);
    if (index >= 0) return { kind: 'message', run, index };
  }
  return undefined;
}

/** Returns the place of the first value that is not below `value`. */
export function lowerBound(values: Float64Array, value: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((values[middle] ?? 0) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Returns the place of the value that is nearest to `value`; -1 without values. */
export function nearest(values: Float64Array, value: number): number {
  const at = lowerBound(values, value);
  if (at === values.length) return at - 1;
  if (at === 0) return 0;
  return value - (values[at - 1] ?? 0) < (values[at] ?? 0) - value ? at - 1 : at;
}

/** A lost message is shown at the injection that took it, or else at its answer. */
function lossTick({ messages, injections }: RunModel, submitted: Float64Array, index: number): number {
  const injection = injections[messages.lostBy[index] ?? -1];
  return injection?.tick ?? (submitted[index] ?? 0) + Math.max(0, messages.answeredTicks[index] ?? 0);
}

/** Makes points of the messages for which `tickOf` is not negative. */
function pointsOf(count: number, tickOf: (index: number) => number): Points {
  const unsorted: number[] = [];
  const indexes: number[] = [];
  for (let index = 0; index < count; index++) {
    const tick = tickOf(index);
    if (tick < 0) continue;
    unsorted.push(tick);
    indexes.push(index);
  }
  const order = new Uint32Array(unsorted.length).map((_, place) => place);
  // Most columns are nearly in order, which makes the sort fast.
  order.sort((one, other) => (unsorted[one] ?? 0) - (unsorted[other] ?? 0));
  const ticks = new Float64Array(order.length);
  const messages = new Int32Array(order.length);
  for (let place = 0; place < order.length; place++) {
    const at = order[place] ?? 0;
    ticks[place] = unsorted[at] ?? 0;
    messages[place] = indexes[at] ?? 0;
  }
  return { ticks, messages };
}
