import type { Operation } from './operations.js';

/** A run that once violated a requirement, as the simulation found it or as it was reduced by hand. */
export interface Regression {
  /** The correct behaviour, as the name of a test. */
  name: string;
  operations: Operation[];
}

/** Runs that showed past bugs of the queue. */
export const REGRESSIONS: readonly Regression[] = [
  {
    name: 'a message that was never stored does not remove the consumed mark of an older message at its position',
    operations: [
      { do: 'submit', worker: 0, sizes: [0, 0, 0] },
      { do: 'settle' },
      { do: 'deliver', worker: 0, count: 6 },
      { do: 'crash', power: true, seed: 2, states: 1, again: 0 },
      { do: 'submit', worker: 0, sizes: [0, 0, 0] },
      { do: 'fail-sync' },
      { do: 'go', who: 0, turns: 1 },
      { do: 'go', who: 2, turns: 1 },
      { do: 'go', who: 0, turns: 1 },
      { do: 'crash', power: true, seed: 3, states: 8, again: 0 },
      { do: 'crash', power: true, seed: 90, states: 8, again: 0 },
    ],
  },
  {
    name: 'after a failed index sync in a restore, the next sync writes the pages that the failure left clean',
    operations: [
      { do: 'submit', worker: 0, sizes: [0] },
      { do: 'kill', who: 1, afterSteps: 0 },
      { do: 'run', turns: 3, order: 0 },
      { do: 'fail-sync' },
      { do: 'deliver', worker: 0, count: 1 },
      { do: 'kill', who: 0, afterSteps: 0 },
      { do: 'kill', who: 2, afterSteps: 0 },
      { do: 'start', who: 0 },
      { do: 'start', who: 1 },
      { do: 'crash', power: true, seed: 0, states: 5, again: 0 },
    ],
  },
  {
    name: 'after a loss of the message count, a new message does not get the number of a message consumed before',
    operations: [
      { do: 'submit', worker: 0, sizes: [0] },
      { do: 'settle' },
      { do: 'deliver', worker: 0, count: 6 },
      { do: 'crash', power: false, seed: 0, states: 1, again: 0 },
      { do: 'submit', worker: 0, sizes: [0] },
      { do: 'fail-sync' },
      { do: 'go', who: 0, turns: 1 },
      { do: 'go', who: 2, turns: 2 },
      { do: 'go', who: 0, turns: 2 },
      { do: 'lose-index', how: 'zeroed', seed: 1_089_299 },
      { do: 'crash', power: false, seed: 0, states: 1, again: 0 },
      { do: 'submit', worker: 0, sizes: [0] },
      { do: 'settle' },
      { do: 'crash', power: false, seed: 0, states: 1, again: 0 },
    ],
  },
  {
    name: 'a message that a failed sync left in memory does not bring back the message before it at its position',
    operations: [
      { do: 'submit', worker: 0, sizes: [10] },
      { do: 'settle' },
      { do: 'deliver', worker: 0, count: 6 },
      { do: 'crash', power: true, seed: 2, states: 1, again: 0 },
      { do: 'submit', worker: 0, sizes: [10] },
      { do: 'go', who: 0, turns: 1 },
      { do: 'fail-sync' },
      { do: 'kill', who: 2, afterSteps: 8 },
      { do: 'go', who: 2, turns: 1 },
      { do: 'crash', power: false, seed: 2, states: 1, again: 0 },
      { do: 'deliver', worker: 0, count: 6 },
      { do: 'wait', ms: 60 },
      { do: 'go', who: 0, turns: 8 },
      { do: 'crash', power: true, seed: 0, states: 1, again: 0 },
    ],
  },
];
