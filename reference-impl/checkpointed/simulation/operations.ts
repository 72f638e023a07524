import fc from 'fast-check';
import type { Order } from './model.js';

/** Names of the queues of a run: the default ones, then those that a run may create and delete. */
export const DEFAULT_QUEUES = ['q0', 'q1', 'q2'] as const;
export const OTHER_QUEUES = ['red', 'blue'] as const;

/** Upper bound of the filler of a message, in bytes. A segment of the log has one page. */
const MAX_FILLER_BYTES = 3000;

/** A message that a transaction submits: the name of its queue, and the size of its filler. */
export interface Put {
  queue: string;
  sizeBytes: number;
}

/**
 * An operation of a run. Operations may come in any order. A step of a process is a system call, or a message to another
 * process.
 */
export type Operation =
  /** A client commits one transaction that submits messages and consumes some of those that are held, oldest first. */
  | { do: 'commit'; puts: Put[]; consume: number }
  /** A receiver takes messages of a queue, or of any queue. */
  | { do: 'take'; queue: string | undefined; count: number }
  /** Receivers give messages back. */
  | { do: 'put-back'; count: number }
  | { do: 'create' | 'change'; queue: string; order: Order }
  | { do: 'delete'; queue: string }
  | { do: 'checkpoint' }
  /** Processes take turns in the order that the seed `order` determines. */
  | { do: 'run'; turns: number; order: number }
  /** The server, or the oldest writer process, takes `turns` turns. */
  | { do: 'go'; who: 'server' | 'writer'; turns: number }
  | { do: 'write-back'; pages: number }
  | { do: 'wait'; ms: number }
  /** The server, or the writer process `which`, is killed after `afterSteps` more steps of this process. */
  | { do: 'kill'; afterSteps: number }
  | { do: 'kill-writer'; which: number; afterSteps: number }
  /** The server starts if it does not run. It takes `turns` turns at once. */
  | { do: 'start'; turns: number }
  /** The `count` syncs that come after `after` more syncs fail. */
  | { do: 'fail-sync'; after: number; count: number }
  /**
   * A crash of the whole machine: a power cut, whose surviving data `seed` selects, or a kill of all processes. `states` is the
   * number of crash states to check. `again` is the number of steps after which the first recovery is killed, 0 for no kill;
   * after an odd number the power is cut as well.
   */
  | { do: 'crash'; power: boolean; seed: number; states: number; again: number }
  /** A power cut, after which the control file is missing. */
  | { do: 'lose-control'; seed: number }
  /** The processes run until everything is answered, and every waiting message is taken. */
  | { do: 'settle' }
  /** All messages are consumed, and after that the queue must accept messages again. */
  | { do: 'empty' };

const seed = fc.nat(2 ** 30);
const queue = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...DEFAULT_QUEUES) },
  { weight: 1, arbitrary: fc.constantFrom(...OTHER_QUEUES) },
);
const sizeBytes = fc.oneof(
  { weight: 4, arbitrary: fc.nat(100) },
  { weight: 2, arbitrary: fc.nat(800) },
  { weight: 1, arbitrary: fc.nat(MAX_FILLER_BYTES) },
);
const order = fc.constantFrom<Order>('strict', 'relaxed');
const put = fc.record({ queue, sizeBytes });

const operationOf = <Kind extends Operation['do']>(
  kind: Kind,
  fields: { [Name in Exclude<keyof Extract<Operation, { do: Kind }>, 'do'>]: fc.Arbitrary<unknown> },
): fc.Arbitrary<Operation> =>
  fc.record({ do: fc.constant(kind), ...fields }) as unknown as fc.Arbitrary<Operation>;

/** Number of steps, mostly a small one. A checkpoint takes some tens of steps. */
const afterSteps = fc.oneof({ arbitrary: fc.nat(40), weight: 3 }, { arbitrary: fc.nat(250), weight: 1 });
const crash = operationOf('crash', {
  power: fc.boolean(),
  seed,
  states: fc.integer({ min: 1, max: 8 }),
  again: fc.oneof({ arbitrary: fc.constant(0), weight: 2 }, { arbitrary: fc.nat(120), weight: 1 }),
});

const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 6, arbitrary: operationOf('run', { turns: fc.integer({ min: 1, max: 16 }), order: seed }) },
  {
    weight: 6,
    arbitrary: operationOf('go', {
      who: fc.constantFrom('server', 'server', 'writer'),
      turns: fc.integer({ min: 1, max: 4 }),
    }),
  },
  {
    weight: 9,
    arbitrary: operationOf('commit', {
      puts: fc.array(put, { minLength: 0, maxLength: 3 }),
      consume: fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(4) }),
    }),
  },
  { weight: 4, arbitrary: operationOf('commit', { puts: fc.constant([]), consume: fc.constant(9) }) },
  {
    weight: 6,
    arbitrary: operationOf('take', {
      queue: fc.oneof(queue, fc.constant(undefined)),
      count: fc.integer({ min: 1, max: 5 }),
    }),
  },
  { weight: 2, arbitrary: operationOf('put-back', { count: fc.integer({ min: 1, max: 3 }) }) },
  { weight: 2, arbitrary: operationOf('create', { queue: fc.constantFrom(...OTHER_QUEUES), order }) },
  { weight: 1, arbitrary: operationOf('change', { queue, order }) },
  { weight: 1, arbitrary: operationOf('delete', { queue: fc.constantFrom(...OTHER_QUEUES) }) },
  { weight: 4, arbitrary: operationOf('checkpoint', {}) },
  { weight: 2, arbitrary: operationOf('write-back', { pages: seed }) },
  { weight: 2, arbitrary: operationOf('wait', { ms: fc.integer({ min: 1, max: 60 }) }) },
  { weight: 2, arbitrary: operationOf('kill', { afterSteps }) },
  { weight: 2, arbitrary: operationOf('kill-writer', { which: fc.nat(3), afterSteps: fc.nat(8) }) },
  { weight: 2, arbitrary: operationOf('start', { turns: fc.nat(30) }) },
  {
    weight: 1,
    arbitrary: operationOf('fail-sync', { after: fc.nat(8), count: fc.integer({ min: 1, max: 2 }) }),
  },
  { weight: 3, arbitrary: crash },
  { weight: 1, arbitrary: operationOf('lose-control', { seed }) },
  { weight: 1, arbitrary: operationOf('settle', {}) },
  { weight: 1, arbitrary: operationOf('empty', {}) },
);

/** Operations that submit and consume messages of one size, one after the other. Only the server runs, or all processes do. */
function consumeEach(queue: string, count: number, sizeBytes: number, who: 'server' | 'all'): Operation[] {
  const turns = (count: number): Operation =>
    who === 'server' ? { do: 'go', who, turns: count } : { do: 'run', turns: count, order: count };
  const one: Operation[] = [
    { do: 'commit', puts: [{ queue, sizeBytes }], consume: 0 },
    turns(4),
    { do: 'take', queue, count: 1 },
    { do: 'commit', puts: [], consume: 9 },
    turns(8),
  ];
  return Array.from({ length: count }, () => one).flat();
}

const largeBytes = fc.integer({ min: 300, max: 2500 });
const defaultQueue = fc.constantFrom(...DEFAULT_QUEUES);

/**
 * Operations that fill the log, so that the ring wraps around within the life of one server. The records have the same size, so
 * those of an earlier lap lie where new ones will be.
 */
const wrap: fc.Arbitrary<Operation[]> = fc
  .record({
    other: fc.constantFrom(...OTHER_QUEUES),
    isOtherDeleted: fc.boolean(),
    queue: defaultQueue,
    count: fc.integer({ min: 1, max: 14 }),
    sizeBytes: largeBytes,
    crash,
  })
  .map(({ other, isOtherDeleted, queue, count, sizeBytes, crash }) => [
    { do: 'settle' },
    { do: 'create', queue: other, order: 'strict' },
    { do: 'run', turns: 4, order: 0 },
    ...(isOtherDeleted
      ? ([
          { do: 'delete', queue: other },
          { do: 'run', turns: 4, order: 0 },
        ] satisfies Operation[])
      : []),
    ...consumeEach(queue, count, sizeBytes, 'all'),
    crash,
  ]);

/** Operations in which the writer processes of a checkpoint, and those of the next one, are slow, and the log goes on. */
const slowCheckpoint: fc.Arbitrary<Operation[]> = fc
  .record({
    queue: defaultQueue,
    counts: fc.tuple(fc.nat(6), fc.nat(4), fc.nat(8)),
    sizeBytes: largeBytes,
    puts: fc.array(put, { minLength: 1, maxLength: 3 }),
    crash,
  })
  .map(({ queue, counts: [before, during, after], sizeBytes, puts, crash }) => [
    { do: 'settle' },
    ...consumeEach(queue, before, sizeBytes, 'all'),
    { do: 'checkpoint' },
    { do: 'commit', puts, consume: 0 },
    { do: 'go', who: 'server', turns: 4 },
    ...consumeEach(queue, during, sizeBytes, 'server'),
    { do: 'run', turns: 40, order: before },
    ...consumeEach(queue, after, sizeBytes, 'server'),
    crash,
  ]);

/** Operations in which the log changes the segment, the sync of the old segment fails, and only synced data survives. */
const failedSwitch: fc.Arbitrary<Operation[]> = fc
  .record({
    first: fc.integer({ min: 0, max: 3000 }),
    queues: fc.tuple(queue, queue, queue),
    after: fc.nat(2),
    turns: fc.integer({ min: 1, max: 8 }),
  })
  .map(({ first, queues, after, turns }) => [
    { do: 'settle' },
    { do: 'fail-sync', after, count: 1 },
    {
      do: 'commit',
      puts: queues.map((queue, n) => ({ queue, sizeBytes: n === 1 ? 3000 : first })),
      consume: 0,
    },
    { do: 'go', who: 'server', turns },
    { do: 'crash', power: true, seed: 0, states: 1, again: 0 },
  ]);

/** Operations in which transactions are in progress during a checkpoint, and then the machine crashes. */
const duringCheckpoint: fc.Arbitrary<Operation[]> = fc
  .record({
    puts: fc.array(put, { minLength: 1, maxLength: 3 }),
    turns: fc.nat(10),
    order: seed,
    crash,
    consume: fc.nat(3),
  })
  .map(({ puts, turns, order, crash, consume }) => [
    { do: 'commit', puts, consume },
    { do: 'checkpoint' },
    { do: 'run', turns, order },
    { do: 'commit', puts, consume: 0 },
    { do: 'run', turns: 20, order },
    crash,
  ]);

const scenario = fc.oneof(
  { weight: 30, arbitrary: operation.map((one): Operation[] => [one]) },
  { weight: 1, arbitrary: wrap },
  { weight: 1, arbitrary: slowCheckpoint },
  { weight: 2, arbitrary: duringCheckpoint },
  { weight: 1, arbitrary: failedSwitch },
);

/** The operations of one run. */
export const operations: fc.Arbitrary<Operation[]> = fc
  .array(scenario, { minLength: 1, maxLength: 60, size: 'max' })
  .map((passages) => passages.flat());
