import t from 'tap';
import { SimMachine } from '../../common/simulation/machine.js';
import { SimKernel } from '../../common/simulation/sim-kernel.js';
import { Violation } from '../../common/simulation/violation.js';
import { Log } from '../log/log.js';
import { OPERATION } from '../log/record.js';
import { SegmentRing } from '../log/segment-ring.js';
import { RestoredQueue } from '../recovery/redo.js';
import type { Operation } from './operations.js';
import { REGRESSIONS } from './regressions.js';
import { simulateCheckpointed } from './simulate.js';
import { SimulatedRun } from './simulated-run.js';
import { installMachine } from './simulated-server.js';

/** Number of runs per seed. They contain some thousand crashes and take some seconds. */
const RUNS = 60;
const NO_LIMIT_MS = 600_000;

for (const seed of [1, 2, 3]) {
  t.test(`the queue violates no requirement in the simulated runs of seed ${seed}`, async (t) => {
    const result = await simulateCheckpointed({ budgetMs: NO_LIMIT_MS, runs: RUNS, seed });
    t.equal(result.verdict, 'pass', (result.story ?? []).join('\n'));
    t.equal(result.runs, RUNS);
    t.ok(result.crashes > 10 * RUNS, `the runs contain ${result.crashes} crashes`);
    t.ok(result.confirmed > 5 * RUNS, `${result.confirmed} messages were confirmed`);
  });
}

t.test('the same seed gives the same runs, event by event', async (t) => {
  const operations: Operation[] = [
    { do: 'commit', puts: [{ queue: 'q0', sizeBytes: 900 }], consume: 0 },
    { do: 'run', turns: 16, order: 5 },
    { do: 'checkpoint' },
    { do: 'run', turns: 9, order: 6 },
    { do: 'crash', power: true, seed: 33, states: 3, again: 9 },
    { do: 'settle' },
  ];
  const storyOf = async (): Promise<string[]> => {
    const lines: string[] = [];
    await new SimulatedRun(await installMachine(), (line) => void lines.push(line)).run(operations);
    return lines;
  };
  const story = await storyOf();
  t.ok(story.length > 20, 'the run has a story');
  t.same(await storyOf(), story);
  const figuresOf = async (seed: number) => {
    const { crashes, confirmed } = await simulateCheckpointed({ budgetMs: NO_LIMIT_MS, runs: 8, seed });
    return { crashes, confirmed };
  };
  t.same(await figuresOf(11), await figuresOf(11));
  t.notSame(await figuresOf(11), await figuresOf(12));
});

for (const { name, operations } of REGRESSIONS) {
  t.test(`regression: ${name}`, async (t) => {
    const run = new SimulatedRun(await installMachine());
    await t.resolves(run.run(operations));
    t.ok(run.crashes > 0);
  });
}

/** A mistake in the queue. `plant` makes it and returns what undoes it. */
interface Mistake {
  what: string;
  requirements: string[];
  plant: () => () => void;
}

/** Replaces a method of a class. @returns what puts it back */
function replace<T extends object, Name extends keyof T>(
  prototype: T,
  name: Name,
  make: (original: T[Name]) => T[Name],
): () => void {
  const original = prototype[name];
  prototype[name] = make(original);
  return () => {
    prototype[name] = original;
  };
}

const MISTAKES: readonly Mistake[] = [
  {
    what: 'a transaction is confirmed before the log is synced',
    requirements: ['PP-1', 'PP-2'],
    plant: () =>
      replace(
        SimKernel.prototype,
        'fdatasync',
        (original) =>
          function (this: SimKernel, fd: number) {
            void original.call(this, fd).catch(() => undefined);
            return Promise.resolve();
          },
      ),
  },
  {
    what: 'the directory of a new segment is not synced',
    requirements: ['PP-1', 'PP-2', 'PP-9'],
    plant: () =>
      replace(
        SimMachine.prototype,
        'syncNames',
        (original) =>
          function (this: SimMachine, directory: string) {
            const isInstalled = this.names.has('/queue/settings.json');
            if (!isInstalled || directory !== '/queue/log') original.call(this, directory);
          },
      ),
  },
  {
    what: 'a checkpoint frees a segment that a recovery needs',
    requirements: ['PP-1', 'PP-2', 'PP-9', 'PP-10'],
    plant: () =>
      replace(
        SegmentRing.prototype,
        'release',
        (original) =>
          function (this: SegmentRing, sequence: number) {
            original.call(this, sequence + 1);
          },
      ),
  },
  {
    what: 'a recovery does not redo consumptions',
    requirements: ['PP-2'],
    plant: () =>
      replace(
        RestoredQueue.prototype,
        'apply',
        (original) =>
          function (this: RestoredQueue, record) {
            if (record.operation !== OPERATION.consume) original.call(this, record);
          },
      ),
  },
  {
    what: 'a recovery turns the order around',
    requirements: ['PP-20'],
    plant: () =>
      replace(
        RestoredQueue.prototype,
        'messages',
        (original) =>
          function (this: RestoredQueue) {
            return original.call(this).reverse();
          },
      ),
  },
  {
    what: 'a recovery redoes a transaction without its last record',
    requirements: ['PP-3', 'PP-5'],
    plant: () =>
      replace(
        Log.prototype,
        'append',
        (original) =>
          function (this: Log, transactions, mayBlock) {
            // Each operation commits itself.
            const parts = transactions.flatMap((operations) => operations.map((operation) => [operation]));
            return original.call(this, parts, mayBlock);
          },
      ),
  },
  {
    what: 'a recovery fails when there is something to redo',
    requirements: ['PP-10'],
    plant: () =>
      replace(RestoredQueue.prototype, 'apply', () => () => {
        throw new TypeError('cannot redo');
      }),
  },
];

for (const { what, requirements, plant } of MISTAKES) {
  t.test(`the simulation finds: ${what}`, async (t) => {
    t.teardown(plant());
    const result = await simulateCheckpointed({ budgetMs: NO_LIMIT_MS, runs: 1500, seed: 1 });
    t.equal(result.verdict, 'fail');
    t.ok(requirements.includes(`${result.requirement}`), `${result.story?.at(-1)}`);
    t.ok(result.operations && result.operations.length > 0);
  });
}

t.test('a failing run fails again, and names its path', async (t) => {
  t.teardown(
    replace(
      RestoredQueue.prototype,
      'messages',
      (original) =>
        function (this: RestoredQueue) {
          return original.call(this).reverse();
        },
    ),
  );
  const first = await simulateCheckpointed({ budgetMs: NO_LIMIT_MS, runs: 200, seed: 4 });
  const { path } = first;
  if (path === undefined) throw new Error('a failing run has a path');
  const again = await simulateCheckpointed({ budgetMs: NO_LIMIT_MS, seed: 4, path });
  t.match(again, { verdict: 'fail', requirement: 'PP-20' });
  t.same(again.story, first.story);
  await t.rejects(new SimulatedRun(await installMachine()).run(first.operations ?? []), Violation);
});
