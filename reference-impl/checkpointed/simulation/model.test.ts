import t, { type Test } from 'tap';
import type { Violation } from '../../common/simulation/violation.js';
import { makeBody } from './bodies.js';
import { type FoundQueue, Model, type ModelQueue } from './model.js';

/** Creates a model with the queue q0, and a function that submits one message to it. */
function createModel(): {
  model: Model;
  submit: (outcome?: 'confirmed' | 'rejected' | 'indefinite') => void;
} {
  const model = new Model();
  model.installed('q0', 'strict');
  return {
    model,
    submit: (outcome) => {
      const transaction = model.commit([{ queue: 'q0', sizeBytes: 5 }], []);
      if (outcome) model.answered(transaction, outcome);
    },
  };
}

/** Checks that the call violates a requirement. */
function throwsFor(t: Test, call: () => void, requirement: string): void {
  try {
    call();
  } catch (error) {
    t.equal((error as Violation).requirement, requirement, (error as Violation).message);
    return;
  }
  t.fail(`expected a violation of ${requirement}`);
}

function queueOf(model: Model, name: string): ModelQueue {
  const queue = model.queue(name);
  if (!queue) throw new Error(`the queue ${name} was made`);
  return queue;
}

const holds = (...numbers: number[]): FoundQueue[] => [
  {
    name: 'q0',
    order: 'strict',
    messages: numbers.map((number) => ({ id: `m${number}`, body: makeBody(number, 5) })),
  },
];

t.test('a confirmed message must be there, a rejected one must not, an indefinite one may be', async (t) => {
  const { model, submit } = createModel();
  for (const outcome of ['confirmed', 'rejected', 'indefinite'] as const) submit(outcome);
  model.check(holds(0));
  model.check(holds(0, 2));
  throwsFor(t, () => model.check(holds(2)), 'PP-1');
  throwsFor(t, () => model.check(holds(0, 1)), 'PP-3');
  throwsFor(t, () => model.check(holds(0, 0)), 'PP-2');
  throwsFor(t, () => model.check(holds(2, 0)), 'PP-20');
  throwsFor(t, () => model.check(holds(0, 9)), 'PP-6');
  const changed = holds(0);
  changed[0]?.messages[0]?.body.fill(1);
  throwsFor(t, () => model.check(changed), 'PP-4');
});

t.test('what a recovery has decided stays', async (t) => {
  const { model, submit } = createModel();
  submit();
  submit();
  model.serverDied();
  model.recovered(holds(1));
  model.check(holds(1));
  throwsFor(t, () => model.check(holds(0, 1)), 'PP-9');
  throwsFor(t, () => model.check(holds()), 'PP-1');
});

t.test('a transaction is there as a whole or not at all', async (t) => {
  const { model, submit } = createModel();
  submit('confirmed');
  const [held] = model.ready(queueOf(model, 'q0'));
  if (!held) throw new Error('a confirmed message is ready');
  model.take('q0', 'm0', makeBody(0, 5));
  const put = { queue: 'q0', sizeBytes: 5 };
  model.commit([put, put], [held]);
  model.serverDied();
  model.check(holds(0));
  model.check(holds(1, 2));
  for (const half of [holds(1), holds(0, 1, 2), holds()]) throwsFor(t, () => model.check(half), 'PP-5');
});

t.test('a deleted queue does not come back, and a changed definition stays', async (t) => {
  const { model } = createModel();
  model.answered(model.create('red', 'strict'), 'confirmed');
  const red = queueOf(model, 'red');
  model.answered(model.change(red, 'relaxed'), 'confirmed');
  const found = (order: 'strict' | 'relaxed'): FoundQueue[] => [
    ...holds(),
    { name: 'red', order, messages: [] },
  ];
  model.check(found('relaxed'));
  throwsFor(t, () => model.check(found('strict')), 'PP-9');
  throwsFor(t, () => model.check(holds()), 'PP-9');
  model.answered(model.delete(red), 'confirmed');
  model.check(holds());
  throwsFor(t, () => model.check(found('relaxed')), 'PP-9');
});

t.test('messages are delivered in commit order, and to one receiver', async (t) => {
  const { model, submit } = createModel();
  submit('confirmed');
  submit('confirmed');
  throwsFor(t, () => model.take('q0', 'm1', makeBody(1, 5)), 'PP-20');
  const message = model.take('q0', 'm0', makeBody(0, 5));
  throwsFor(t, () => model.take('q0', 'm0', makeBody(0, 5)), 'PP-2');
  model.putBack(message);
  model.take('q0', 'm0', makeBody(0, 5));
});
