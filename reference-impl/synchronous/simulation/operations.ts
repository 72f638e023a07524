import fc from 'fast-check';
import type { FileDamage } from './machine.js';
import { MAX_MESSAGE_BYTES } from './simulated-queue.js';

/** Workers that a run may have. */
export const WORKER_COUNT = 2;
/** The helper's number among the processes, behind the workers. */
export const HELPER_INDEX = WORKER_COUNT;

/** What comes in between: it is over before the interrupted process goes on. */
export type Interruption = Extract<Operation, { do: 'turn' | 'deliver' | 'take' | 'unlock' | 'write-back' }>;

/** What may happen in a run, in any order. */
export type Operation =
  /** A producer hands one or more messages over, to be stored all or none. */
  | { do: 'submit'; worker: number; sizes: number[] }
  /** Processes take turns, in the order that the seed makes. */
  | { do: 'run'; turns: number; order: number }
  /** One process goes on by so many turns. */
  | { do: 'go'; who: number; turns: number }
  /** A worker does its next task, as far as it comes without waiting. */
  | { do: 'turn'; worker: number }
  | { do: 'take'; worker: number; count: number }
  | { do: 'consume'; worker: number }
  | { do: 'unlock'; worker: number }
  /** A worker delivers and consumes what it gets. */
  | { do: 'deliver'; worker: number; count: number }
  | { do: 'write-back'; pages: number }
  | { do: 'wait'; ms: number }
  /** The wall clock jumps. */
  | { do: 'clock'; jumpMs: number }
  /** A process is killed, so many of its steps from now. */
  | { do: 'kill'; who: number; afterSteps: number }
  /** So many steps from now another worker comes in between two steps of a process. */
  | { do: 'interrupt'; who: number; afterSteps: number; by: Interruption }
  /** A process is killed, and its successor starts before anybody else does anything. */
  | { do: 'replace'; who: number }
  /** A dead process is followed by another one, a stopped one goes on. */
  | { do: 'start'; who: number }
  | { do: 'stop'; who: number }
  | { do: 'fail-sync' }
  /** Everything stops: by a power cut, which leaves what the seed says, or because all processes are killed. */
  | { do: 'crash'; power: boolean; seed: number; states: number; again: number }
  /** A power cut, after which the index file is not what it was. */
  | { do: 'lose-index'; how: FileDamage; seed: number }
  /** Everything is answered that can be, and everything that waits is taken. */
  | { do: 'settle' };

const worker = fc.nat(WORKER_COUNT - 1);
const who = fc.nat(HELPER_INDEX);
const seed = fc.nat(2 ** 30);
const sizeBytes = fc.oneof(
  { arbitrary: fc.nat(300), weight: 4 },
  { arbitrary: fc.nat(3000), weight: 3 },
  { arbitrary: fc.nat(MAX_MESSAGE_BYTES), weight: 1 },
);

const operationOf = <Kind extends Operation['do']>(
  kind: Kind,
  fields: { [Name in Exclude<keyof Extract<Operation, { do: Kind }>, 'do'>]: fc.Arbitrary<unknown> },
): fc.Arbitrary<Operation> =>
  fc.record({ do: fc.constant(kind), ...fields }) as unknown as fc.Arbitrary<Operation>;

const crash = operationOf('crash', {
  power: fc.boolean(),
  seed,
  states: fc.integer({ min: 1, max: 8 }),
  again: fc.oneof({ arbitrary: fc.constant(0), weight: 2 }, { arbitrary: fc.nat(400), weight: 1 }),
});

/** Few steps mostly; a whole enqueue is some hundred. */
const afterSteps = fc.oneof({ arbitrary: fc.nat(60), weight: 3 }, { arbitrary: fc.nat(500), weight: 1 });

const interruption = fc.oneof(
  { weight: 3, arbitrary: operationOf('turn', { worker }) },
  { weight: 1, arbitrary: operationOf('deliver', { worker, count: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 1, arbitrary: operationOf('take', { worker, count: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 1, arbitrary: operationOf('unlock', { worker }) },
  { weight: 1, arbitrary: operationOf('write-back', { pages: seed }) },
);

const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 6, arbitrary: operationOf('run', { turns: fc.integer({ min: 1, max: 12 }), order: seed }) },
  { weight: 8, arbitrary: operationOf('go', { who, turns: fc.integer({ min: 1, max: 4 }) }) },
  {
    weight: 7,
    arbitrary: operationOf('submit', { worker, sizes: fc.array(sizeBytes, { minLength: 1, maxLength: 3 }) }),
  },
  { weight: 2, arbitrary: operationOf('take', { worker, count: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 2, arbitrary: operationOf('consume', { worker }) },
  { weight: 1, arbitrary: operationOf('unlock', { worker }) },
  { weight: 5, arbitrary: operationOf('deliver', { worker, count: fc.integer({ min: 1, max: 6 }) }) },
  { weight: 2, arbitrary: operationOf('write-back', { pages: seed }) },
  { weight: 2, arbitrary: operationOf('wait', { ms: fc.integer({ min: 1, max: 60 }) }) },
  { weight: 1, arbitrary: operationOf('clock', { jumpMs: fc.integer({ min: -100_000, max: 100_000 }) }) },
  { weight: 2, arbitrary: operationOf('kill', { who, afterSteps }) },
  { weight: 2, arbitrary: operationOf('interrupt', { who, afterSteps, by: interruption }) },
  { weight: 2, arbitrary: operationOf('replace', { who }) },
  { weight: 2, arbitrary: operationOf('start', { who }) },
  { weight: 1, arbitrary: operationOf('stop', { who }) },
  { weight: 1, arbitrary: operationOf('fail-sync', {}) },
  { weight: 3, arbitrary: crash },
  {
    weight: 1,
    arbitrary: operationOf('lose-index', {
      how: fc.constantFrom<FileDamage>('removed', 'truncated', 'overwritten', 'zeroed'),
      seed,
    }),
  },
  { weight: 1, arbitrary: operationOf('settle', {}) },
);

/**
 * A worker dies while its sync request is out, and its successor in the slot asks for something else: what comes by chance
 * too seldom for a short search.
 */
const slotReuse: fc.Arbitrary<Operation[]> = fc
  .record({
    worker,
    turns: fc.integer({ min: 1, max: 3 }),
    sizes: fc.array(sizeBytes, { minLength: 1, maxLength: 2 }),
  })
  .map(({ worker: who, turns, sizes }) => [
    { do: 'submit', worker: who, sizes },
    { do: 'go', who, turns: 1 },
    { do: 'replace', who },
    { do: 'go', who: HELPER_INDEX, turns: 1 },
    { do: 'submit', worker: who, sizes },
    { do: 'go', who, turns },
  ]);

const KILL_ALL: Operation = { do: 'crash', power: false, seed: 0, states: 1, again: 0 };
/** Seed of a power cut that takes nothing (medium.ts). */
const ALL_SURVIVES_SEED = 2;

/**
 * A message is consumed, the next one at its place is withdrawn, and part of the index is lost: whoever counts the messages
 * anew must not come upon the number of the one that was consumed.
 */
const numberReuse: fc.Arbitrary<Operation[]> = fc
  .record({
    worker,
    sizes: fc.array(sizeBytes, { minLength: 1, maxLength: 2 }),
    damage: fc.nat(2 ** 20),
    restarts: fc.nat(2),
  })
  .map(({ worker: who, sizes, damage, restarts }) => [
    { do: 'submit', worker: who, sizes },
    { do: 'settle' },
    { do: 'deliver', worker: who, count: 6 },
    KILL_ALL,
    { do: 'submit', worker: who, sizes },
    { do: 'fail-sync' },
    { do: 'go', who, turns: 1 },
    { do: 'go', who: HELPER_INDEX, turns: 2 },
    { do: 'go', who, turns: 2 },
    { do: 'lose-index', how: 'zeroed', seed: 3 * damage + ALL_SURVIVES_SEED },
    ...Array.from({ length: restarts }, () => KILL_ALL),
    { do: 'submit', worker: who, sizes },
    { do: 'settle' },
    KILL_ALL,
  ]);

/**
 * A message is consumed, and the next one at its place is not written: the sync fails, the helper dies around that, and then
 * everything. What stands in memory must not be taken for stored.
 */
const failedSync: fc.Arbitrary<Operation[]> = fc
  .record({
    worker,
    sizes: fc.array(sizeBytes, { minLength: 1, maxLength: 2 }),
    steps: fc.nat(15),
  })
  .map(({ worker: who, sizes, steps }) => [
    { do: 'submit', worker: who, sizes },
    { do: 'settle' },
    { do: 'deliver', worker: who, count: 6 },
    { do: 'crash', power: true, seed: ALL_SURVIVES_SEED, states: 1, again: 0 },
    { do: 'submit', worker: who, sizes },
    { do: 'go', who, turns: 1 },
    { do: 'fail-sync' },
    { do: 'kill', who: HELPER_INDEX, afterSteps: steps },
    { do: 'go', who: HELPER_INDEX, turns: 1 },
    KILL_ALL,
    { do: 'deliver', worker: who, count: 6 },
    { do: 'wait', ms: 60 },
    { do: 'go', who, turns: 8 },
    { do: 'crash', power: true, seed: 0, states: 1, again: 0 },
  ]);

const scenario = fc.oneof(
  { weight: 30, arbitrary: operation.map((one): Operation[] => [one]) },
  { weight: 2, arbitrary: slotReuse },
  { weight: 1, arbitrary: numberReuse },
  { weight: 1, arbitrary: failedSync },
);

/** One run. */
export const operations: fc.Arbitrary<Operation[]> = fc
  .array(scenario, { minLength: 1, maxLength: 60, size: 'max' })
  .map((passages) => passages.flat());
