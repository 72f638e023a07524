import type { FaultInjected, HistoryEvent } from '../history/events.js';
import { type Loss, lossesOf } from './losses.js';

/** Place of lost messages in an ordered list of messages. */
export type LossPlace = 'none' | 'all' | 'prefix' | 'middle' | 'suffix' | 'scattered';

/** What one injection took from one producer. */
export interface ProducerLoss {
  round: number;
  producer: number;
  /** Injection that took the messages; undefined when no crash came after their confirmation. */
  injection: number | undefined;
  /** Number of messages of the producer in this round that were confirmed before the fault. */
  confirmed: number;
  lost: number;
  /** Place of the lost messages among those that were confirmed before the fault, in the order of their submits. */
  place: Exclude<LossPlace, 'none'>;
}

/** Upper bound of the producers that a sentence names. */
const MAX_NAMED_PRODUCERS = 6;

/** Says where the losses are in a list of messages: one entry for each message, true for a lost one. */
export function placeOf(lost: readonly boolean[]): LossPlace {
  const [first, last] = [lost.indexOf(true), lost.lastIndexOf(true)];
  if (first < 0) return 'none';
  const count = lost.filter(Boolean).length;
  if (count === lost.length && count > 1) return 'all';
  if (last - first + 1 !== count) return 'scattered';
  if (last === lost.length - 1) return 'suffix';
  return first === 0 ? 'prefix' : 'middle';
}

/**
 * Returns what each injection took from each producer, in the order of the injections. The confirmed messages of a
 * producer count up to the fault: to the moment at which the injection last took a node down, or to its end if it took
 * none. A long history of which some messages are only counted (`Uneventful`) gives an empty list: the order of a
 * producer's messages is then not known. So a reason of a verdict must not depend on it.
 */
export function lossShapes(
  history: readonly HistoryEvent[],
  losses: ReadonlyMap<string, Loss>,
): ProducerLoss[] {
  if (losses.size === 0 || history.some(({ kind }) => kind === 'uneventful')) return [];
  const moments = faultMoments(history);
  const byProducer = confirmedByProducer(history);
  const shapes: ProducerLoss[] = [];
  for (const { round, producer, messages } of byProducer) {
    const faults = new Set(messages.flatMap(({ id }) => losses.get(id) ?? []).map(({ fault }) => fault));
    for (const fault of faults) {
      const taken = ({ id }: ConfirmedMessage) => losses.has(id) && losses.get(id)?.fault === fault;
      const until = fault === undefined ? history.length : (moments.get(fault) ?? history.length);
      // A message that was lost although it was confirmed after the fault still counts.
      const before = messages.filter((message) => message.confirmed < until || taken(message));
      const place = placeOf(before.map(taken));
      if (place === 'none') continue;
      const lost = before.filter(taken).length;
      const injection = fault?.injection;
      shapes.push({ round, producer, injection, confirmed: before.length, lost, place });
    }
  }
  return shapes.sort((one, other) => (one.injection ?? Infinity) - (other.injection ?? Infinity));
}

/**
 * Returns what each injection took from each producer, as `lossShapes` does, of the messages with these ids only.
 * @param ids ids of lost messages.
 */
export function shapesOf(history: readonly HistoryEvent[], ids: readonly string[]): ProducerLoss[] {
  if (ids.length === 0) return [];
  const wanted = new Set(ids);
  return lossShapes(history, new Map([...lossesOf(history)].filter(([id]) => wanted.has(id))));
}

/** Says in a sentence what each producer lost: `producer 2 lost the last 14 of 120 (a suffix)`. Empty without a loss. */
export function describeShapes(shapes: readonly ProducerLoss[]): string {
  const named = [...shapes]
    .sort((one, other) => other.lost - one.lost)
    .slice(0, MAX_NAMED_PRODUCERS)
    .sort((one, other) => one.round - other.round || one.producer - other.producer);
  const severalRounds = new Set(shapes.map(({ round }) => round)).size > 1;
  const texts = named.map((shape) => {
    const where = severalRounds ? ` of round ${shape.round}` : '';
    return `producer ${shape.producer}${where} lost ${describePlace(shape)}`;
  });
  const more = shapes.length - named.length;
  return [...texts, ...(more > 0 ? [`${more} more producers lost messages`] : [])].join('; ');
}

function describePlace({ lost, confirmed, place }: ProducerLoss): string {
  switch (place) {
    case 'all':
      return `all ${confirmed}`;
    case 'prefix':
      return `the first ${lost} of ${confirmed} (a prefix)`;
    case 'suffix':
      return `the last ${lost} of ${confirmed} (a suffix)`;
    case 'middle':
      return `${lost} of ${confirmed} in the middle`;
    case 'scattered':
      return `${lost} of ${confirmed} in several places`;
  }
}

/** Returns the numbers of producers by the place of their losses, as figures of a finding; empty without a loss. */
export function shapeFigures(shapes: readonly ProducerLoss[]): Record<string, number> {
  const figures: Record<string, number> = {};
  const names = {
    all: 'producersLostAll',
    prefix: 'producersLostPrefix',
    middle: 'producersLostMiddle',
    suffix: 'producersLostSuffix',
    scattered: 'producersLostScattered',
  } as const;
  for (const { place } of shapes) figures[names[place]] = (figures[names[place]] ?? 0) + 1;
  return figures;
}

/** Returns the position at which each injection took what it took: see `lossShapes`. */
function faultMoments(history: readonly HistoryEvent[]): Map<FaultInjected, number> {
  const lastKill = new Map<number, number>();
  let down: readonly string[] = [];
  const moments = new Map<FaultInjected, number>();
  history.forEach((event, position) => {
    if (event.kind === 'cluster-state') {
      if (event.down.some((node) => !down.includes(node))) lastKill.set(event.injection, position);
      down = event.down;
    }
    if (event.kind === 'fault') moments.set(event, lastKill.get(event.injection) ?? position);
  });
  return moments;
}

interface ConfirmedMessage {
  id: string;
  /** Position of the confirmation in the history. */
  confirmed: number;
}

/** Returns the confirmed messages of each producer of each round, in the order of their submits. */
function confirmedByProducer(
  history: readonly HistoryEvent[],
): { round: number; producer: number; messages: ConfirmedMessage[] }[] {
  const confirmedAt = new Map<string, number>();
  history.forEach((event, position) => {
    if (event.kind === 'answered' && event.outcome === 'confirmed') confirmedAt.set(event.id, position);
  });
  const groups = new Map<string, { round: number; producer: number; messages: ConfirmedMessage[] }>();
  let round = 1;
  for (const event of history) {
    if (event.kind === 'installed') round = event.round;
    if (event.kind !== 'submitted') continue;
    const confirmed = confirmedAt.get(event.id);
    if (confirmed === undefined) continue;
    const { producer } = event;
    const group = groups.get(`${round} ${producer}`) ?? { round, producer, messages: [] };
    group.messages.push({ id: event.id, confirmed });
    groups.set(`${round} ${producer}`, group);
  }
  return [...groups.values()];
}
