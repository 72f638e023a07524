import { placeOf } from '../../../conformance/checkers/loss-shape.js';
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
