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
    name: 'without a control record, a queue is found that was created while a checkpoint was not complete',
    operations: [
      { do: 'create', queue: 'red', order: 'strict' },
      {
        do: 'commit',
        puts: [
          { queue: 'q0', sizeBytes: 0 },
          { queue: 'q1', sizeBytes: 0 },
          { queue: 'q2', sizeBytes: 0 },
        ],
        consume: 0,
      },
      { do: 'settle' },
      { do: 'checkpoint' },
      { do: 'kill-writer', which: 3, afterSteps: 0 },
      { do: 'run', turns: 40, order: 0 },
      { do: 'lose-control', seed: 2 },
    ],
  },
  {
    name: 'a slot that a failed sync left in memory is not taken for one on the disk',
    operations: [
      {
        do: 'commit',
        puts: [
          { queue: 'q0', sizeBytes: 0 },
          { queue: 'q0', sizeBytes: 2591 },
          { queue: 'q1', sizeBytes: 424 },
        ],
        consume: 0,
      },
      { do: 'checkpoint' },
      { do: 'run', turns: 1, order: 0 },
      { do: 'commit', puts: [{ queue: 'q0', sizeBytes: 744 }], consume: 0 },
      { do: 'fail-sync', after: 4, count: 1 },
      { do: 'checkpoint' },
      { do: 'run', turns: 20, order: 0 },
      { do: 'crash', power: false, seed: 0, states: 1, again: 0 },
    ],
  },
  {
    name: 'a control file that a recovery made anew is there after a power cut',
    operations: [
      { do: 'lose-control', seed: 0 },
      { do: 'create', queue: 'blue', order: 'strict' },
      { do: 'settle' },
      { do: 'delete', queue: 'blue' },
      { do: 'crash', power: false, seed: 1, states: 1, again: 0 },
      { do: 'crash', power: true, seed: 0, states: 1, again: 0 },
    ],
  },
  {
    name: 'the slot of a deleted queue does not bring it back, also if its checkpoint was not complete',
    operations: [
      { do: 'create', queue: 'blue', order: 'strict' },
      { do: 'go', who: 'server', turns: 2 },
      { do: 'checkpoint' },
      { do: 'delete', queue: 'blue' },
      { do: 'settle' },
      { do: 'fail-sync', after: 0, count: 1 },
      { do: 'go', who: 'server', turns: 2 },
      { do: 'crash', power: true, seed: 0, states: 1, again: 0 },
      { do: 'crash', power: false, seed: 1, states: 1, again: 0 },
      { do: 'commit', puts: [{ queue: 'q0', sizeBytes: 0 }], consume: 0 },
      { do: 'settle' },
      { do: 'lose-control', seed: 1 },
    ],
  },
];
