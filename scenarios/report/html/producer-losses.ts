import type { MessageColumns, ProducerLoss } from './model.js';

/** Counts what each producer has lost in each round, and says where in the order of its confirmed messages. */
export function producerLosses({ producer, round, outcome, flags }: MessageColumns): ProducerLoss[] {
  const groups = new Map<string, { producer: number; round: number; lost: boolean[] }>();
  producer.forEach((number, index) => {
    if (outcome[index] !== 0) return;
    const [inRound, isLost] = [round[index] ?? 0, ((flags[index] ?? 0) & 1) !== 0];
    const key = `${inRound} ${number}`;
    const group = groups.get(key) ?? { producer: number, round: inRound, lost: [] };
    group.lost.push(isLost);
    groups.set(key, group);
  });
  return [...groups.values()].map(({ lost, ...which }) => ({
    ...which,
    confirmed: lost.length,
    lost: lost.filter(Boolean).length,
    where: placeOf(lost),
  }));
}

/** Says where the losses are in the order of confirmed messages. */
export function placeOf(lost: readonly boolean[]): ProducerLoss['where'] {
  const [first, last] = [lost.indexOf(true), lost.lastIndexOf(true)];
  if (first < 0) return 'none';
  const count = lost.filter(Boolean).length;
  if (count === lost.length && count > 1) return 'all';
  if (last - first + 1 !== count) return 'scattered';
  if (last === lost.length - 1) return 'suffix';
  return first === 0 ? 'prefix' : 'middle';
}
