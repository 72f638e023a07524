import t, { type Test } from 'tap';
import type { SimMachine } from '../../common/simulation/machine.js';
import { Killed } from '../../common/simulation/process-lifetime.js';
import { Notices } from '../gateway/outbound/notices.js';
import { listLetters } from '../queue/dead-list.js';
import { withoutNote } from '../queue/dead-note.js';
import { OpenQueue } from '../queue/open.js';
import { smtp } from '../record/fixtures/memory-data.js';
import { installMachine, QueueProcess, simulatedSettings } from './simulated-queue.js';

// A process is killed before every single step of a burial and of a requeue. Then either the next process goes on,
// or the power is cut too, with different choices of the data that survives.

const FAILURE = { reason: 'refused', replies: ['550 no'] } as const;
const EVERYTHING = { count: 100, bytes: 2 ** 30, due: () => true };
/** Seeds of power cuts; undefined: only the process is killed. The first three lose all, none, and all data. */
const POWER_CUTS = [undefined, 0, 1, 2, 3, 4, 5] as const;
/** Upper bound of the steps of one operation. */
const MAX_STEPS = 5000;

interface Opened {
  process: QueueProcess;
  queue: OpenQueue;
}

function open(machine: SimMachine): Opened {
  const process = new QueueProcess(machine, 'worker');
  return { process, queue: new OpenQueue(simulatedSettings, process.platform, 'may-be-absent') };
}

/** Runs an operation and the event loop of its process. Returns undefined if the process was killed in it. */
async function finish<T>({ process }: Opened, operation: () => Promise<T>): Promise<T | undefined> {
  let result: { value: T } | undefined;
  let failure: unknown;
  try {
    operation().then(
      (value) => {
        result = { value };
      },
      (error: unknown) => {
        failure = error;
      },
    );
    while (result === undefined && failure === undefined && process.lifetime.alive) {
      await new Promise((resolve) => setImmediate(resolve));
      // Do not wait for the task: it may wait for the next one.
      const task = process.kernel.tasks()[0]?.run();
      if (task instanceof Promise) task.catch((error: unknown) => (failure ??= error));
    }
  } catch (error) {
    failure = error;
  }
  if (failure !== undefined && !(failure instanceof Killed)) throw failure;
  return result?.value;
}

/** Makes a machine with one stored message, which is a dead letter if `isDead` is set. All of it is on the disk. */
async function prepare(isDead: boolean): Promise<SimMachine> {
  const machine = await installMachine();
  const opened = open(machine);
  await finish(opened, () => opened.queue.enqueue([smtp('precious')]));
  const [message] = opened.queue.take(EVERYTHING);
  if (message === undefined) throw new Error('a message was stored');
  if (isDead) await finish(opened, () => opened.queue.bury(message, FAILURE));
  else opened.queue.unlock([message], 'none');
  await finish(opened, () => opened.queue.close());
  opened.process.terminate();
  return machine.afterPowerCut(2);
}

/**
 * Kills a process before each step of `act`, cuts the power or not, and passes the queue that is restored then to
 * `check`. Returns the number of kills.
 */
async function killEverywhere(
  start: SimMachine,
  act: (opened: Opened) => Promise<unknown>,
  check: (after: OpenQueue, opened: Opened, what: string) => Promise<void>,
): Promise<number> {
  let kills = 0;
  for (const cut of POWER_CUTS) {
    for (let steps = 0; steps < MAX_STEPS; steps += 1) {
      const machine = start.copy();
      const opened = open(machine);
      opened.process.lifetime.killAfter(steps);
      await finish(opened, () => act(opened));
      const isOver = opened.process.lifetime.alive;
      opened.process.terminate();
      const after = open(cut === undefined ? machine : machine.afterPowerCut(cut));
      await check(after.queue, after, `killed after ${steps} steps, power cut ${cut}`);
      after.process.terminate();
      if (isOver) break;
      kills += 1;
    }
  }
  return kills;
}

/** Checks that the message is in at least one of the two queues. */
function isSomewhere(t: Test, queue: OpenQueue, what: string): { live: number; dead: number } {
  const live = queue.take(EVERYTHING).length;
  const letters = queue.takeDead(() => true, 10);
  queue.noticed(letters, 'due');
  const dead = letters.length;
  if (live + dead === 0 || live > 1 || dead > 1) t.fail(`${live} live and ${dead} dead: ${what}`);
  return { live, dead };
}

t.test(
  'a crash at any step of a burial loses nothing, and the next burial makes no second letter',
  async (t) => {
    const start = await prepare(false);
    let both = 0;
    const kills = await killEverywhere(
      start,
      async ({ queue }) => {
        const [message] = queue.take(EVERYTHING);
        if (message !== undefined) await queue.bury(message, FAILURE);
      },
      async (queue, opened, what) => {
        const messages = queue.take(EVERYTHING);
        queue.unlock(messages, 'none');
        const found = isSomewhere(t, queue, what);
        if (found.live === 0) return;
        if (found.dead === 1) both += 1;
        const [message] = messages;
        if (message === undefined) return;
        await finish(opened, () => queue.bury(message, FAILURE));
        const letters = listLetters(simulatedSettings, {}, opened.process.kernel);
        if (letters.length !== 1) t.fail(`${letters.length} letters after the second burial: ${what}`);
      },
    );
    t.ok(kills > 100, `${kills} kills`);
    t.ok(both > 10, `${both} times the crash came between letter and consumption`);
  },
);

t.test('a crash at any step of a requeue loses nothing', async (t) => {
  const start = await prepare(true);
  let both = 0;
  const kills = await killEverywhere(
    start,
    async ({ queue }) => {
      const letters = queue.takeDead(() => true, 10);
      const outcome = await queue.enqueue(letters.map(({ body }) => withoutNote(body)));
      if (outcome.outcome === 'confirmed') queue.removeDead(letters);
      await queue.syncDead();
    },
    async (queue, _, what) => {
      const { live, dead } = isSomewhere(t, queue, what);
      if (live + dead === 2) both += 1;
    },
  );
  t.ok(kills > 100, `${kills} kills`);
  t.ok(both > 0, `${both} times the message was in both queues`);
});

t.test('a crash at any step of a notice loses no notice', async (t) => {
  const start = await prepare(true);
  let twice = 0;
  const kills = await killEverywhere(
    start,
    async ({ queue }) => {
      const options = {
        routing: { routes: {}, nextHop: 'h:25', smsDomain: 'sms' },
        hostname: 'mx',
        log: () => undefined,
      };
      const notices = new Notices(queue, { ...options, notices: true, noticeReturnBytes: 1000 }, (error) => {
        if (!(error instanceof Killed)) throw error;
      });
      notices.look();
      await notices.stop();
    },
    async (queue, opened, what) => {
      const [letter] = listLetters(simulatedSettings, {}, opened.process.kernel);
      const count = queue.take(EVERYTHING).filter(({ body }) => body.sender === '').length;
      if (letter?.notice === 'due' && count === 1) twice += 1;
      else if (count !== (letter?.notice === 'sent' ? 1 : 0))
        t.fail(`notice ${letter?.notice}, ${count} sent: ${what}`);
    },
  );
  t.ok(kills > 100, `${kills} kills`);
  t.ok(twice > 0, `${twice} times the notice will be sent again`);
});
