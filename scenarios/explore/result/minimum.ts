import type { StateFamily } from '../../../faults/crash-states/enumerate.js';
import type { StrategyFigures } from '../strategies/strategy-run.js';

/**
 * What an exploration must have judged, of the run itself, before its pass counts. Fewer states prove little: a
 * log of a few seconds has thousands of cuts. The numbers are small enough for a target that needs a second per start.
 */
export const EXPLORED_MINIMUM = {
  /** Judged states. */
  states: 20,
  /** Judged states in which a confirmed message was at risk. */
  statesAtRisk: 10,
  /** Different positions of the cut in the log. */
  cuts: 10,
  /** Families of states: the rules by which states are chosen. */
  families: 3,
} as const;

/** The figures that the minimum limits. */
type Explored = Pick<StrategyFigures, 'states' | 'statesAtRisk' | 'cuts' | 'families'>;

/**
 * Returns why a pass would rest on too few crash states; undefined when there were enough.
 * @param limit what ended the exploration, as a phrase that says what to change.
 */
export function whyTooFew(explored: Explored, limit: string): string | undefined {
  const { states, statesAtRisk, cuts } = explored;
  const families = familyCount(explored.families);
  const counts = [
    [states, EXPLORED_MINIMUM.states, 'crash states'],
    [statesAtRisk, EXPLORED_MINIMUM.statesAtRisk, 'crash states with something at risk'],
    [cuts.judged, EXPLORED_MINIMUM.cuts, `of ${cuts.all} positions of the cut`],
    [families, EXPLORED_MINIMUM.families, 'families of crash states'],
  ] as const;
  const short = counts.find(([count, minimum]) => count < minimum);
  if (short === undefined) return undefined;
  const [count, minimum, what] = short;
  return `too few states for a pass: ${count} ${what} explored, expected at least ${minimum} (${limit})`;
}

function familyCount(families: Readonly<Record<StateFamily, number>>): number {
  return Object.values(families).filter((count) => count > 0).length;
}
