import type { Operation } from './operations.js';

/** A story that once ended badly, as the simulation has found it or made smaller by hand. */
export interface Regression {
  /** What must not happen. */
  name: string;
  operations: Operation[];
}

/** Bugs of the queue that the simulation has found. */
export const REGRESSIONS: readonly Regression[] = [
  {
    name: 'a message that was never stored takes the mark of one that was consumed long ago, which comes back',
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
    name: 'a sync of the index that failed in a restore leaves pages clean, and the next one vouches for them',
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
    name: 'the count of messages is lost, and a new one gets the number of one that was consumed at its place',
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
    name: 'a message that a failed sync has left in memory is delivered, and what stood in its place comes back',
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
