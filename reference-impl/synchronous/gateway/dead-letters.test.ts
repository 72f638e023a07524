import { join } from 'node:path';
import t, { type Test } from 'tap';
import { runQueueCommand, Service, temporaryDirectory } from './fixtures/processes.js';
import { RawClient } from './fixtures/raw-client.js';
import { Sink } from './fixtures/sink.js';
import { withoutTrace } from './fixtures/without-trace.js';

/** A next hop that refuses recipients whose address begins with `never`, until `opened` is set. */
async function refusingSink(test: Test): Promise<{ sink: Sink; state: { opened: boolean } }> {
  const state = { opened: false };
  const sink = await Sink.open({
    onRcptTo: ({ address }, _session, done) => {
      const refusal = Object.assign(new Error('5.1.1 no such user'), { responseCode: 550 });
      done(!state.opened && address.startsWith('never') ? refusal : undefined);
    },
  });
  test.teardown(() => sink.close());
  return { sink, state };
}

/** Starts a gateway on a queue whose dead-letter queue holds `letters` messages. */
async function startGateway(
  test: Test,
  nextHop: string,
  letters: number,
): Promise<{ service: Service; queue: string; ports: number[] }> {
  const queue = join(temporaryDirectory(test), 'queue');
  const sizes = ['--data-bytes', '4MiB', '--entries', '512', '--dead-letter-entries', `${letters}`];
  const installed = await runQueueCommand('install', '--queue', queue, ...sizes);
  if (installed.code !== 0) throw new Error(installed.stderr);
  const backoff = ['--delivery-backoff-initial-ms', '20ms', '--delivery-backoff-max-ms', '100ms'];
  const service = Service.start(test, 'gateway', '--queue', queue, '--next-hop', nextHop, ...backoff);
  const { ports } = await service.waitForEvent(
    ({ event, service: of }) => event === 'ready' && of === 'gateway',
  );
  return { service, queue, ports: ports ?? [] };
}

const lines = (stdout: string): Record<string, unknown>[] =>
  stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));

const dead = (queue: string, name: string, ...args: string[]) =>
  runQueueCommand('dead', name, '--queue', queue, ...args);

const listed = async (queue: string) => lines((await dead(queue, 'list', '--json')).stdout);

/** Waits until a state of other processes holds. The time-out of the test is the limit. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await new Promise((resolve) => setTimeout(resolve, 20));
}

t.test(
  'good mail flows while the dead-letter queue is full; letters are listed, requeued, deleted',
  async (t) => {
    const { sink, state } = await refusingSink(t);
    const { service, queue, ports } = await startGateway(t, sink.address, 3);
    const client = await RawClient.ready(ports[0] ?? 0);
    const good = (n: number) => client.submit(`Subject: good ${n}\r\n\r\nx\r\n`, `ok${n}@example.net`);
    for (let n = 0; n < 8; n += 1)
      t.match(await client.submit(`Subject: bad ${n}\r\n\r\nx\r\n`, `never${n}@example.net`), /^250/);
    await until(async () => {
      const pairs = lines((await runQueueCommand('inspect', '--queue', queue, '--summary')).stdout);
      return pairs.find(({ pair }) => pair === '0')?.parked === 5;
    });
    t.match(service.stderr, /"event":"dead-letters-full".*"todo":"list them, and requeue or delete them/);
    for (let n = 0; n < 20; n += 1) t.match(await good(n), /^250/);
    const goodOnes = () => sink.messages.filter(({ recipients }) => recipients[0]?.startsWith('ok'));
    const notices = () => sink.messages.filter(({ sender }) => sender === '');
    await until(() => goodOnes().length === 20 && notices().length === 3);
    t.ok(notices().every(({ recipients }) => recipients.join() === 'from@example.org'));
    t.match(notices()[0]?.data.toString(), /Auto-Submitted: auto-replied.*Status: 5\.1\.1.*Subject: bad/s);

    const letters = await listed(queue);
    t.equal(letters.length, 3);
    t.match(letters[0], {
      reason: 'refused',
      replies: ['550 5.1.1 no such user'],
      attempts: 1,
      notice: 'sent',
    });
    const text = await dead(queue, 'list');
    t.match(
      text.stdout,
      /refused {2}attempts 1 {2}notice sent {2}<from@example\.org> to <never\d@example\.net>/,
    );
    t.match(
      text.stdout,
      /3 shown of 3 dead letters; room for 0 more, \d+ bytes free; 5 more messages are parked/,
    );
    const ids = letters.map(({ id }) => `${id}`);
    const [oldest = '', ...others] = ids;
    t.match(
      (await dead(queue, 'show', oldest)).stdout,
      /reason: refused\n.*\n\nReceived: .*\nSubject: bad \d\n\nx\n/s,
    );
    const raw = (await dead(queue, 'show', oldest, '--raw')).stdout;
    t.match(withoutTrace(Buffer.from(raw, 'latin1')), /^Subject: bad \d\r\n\r\nx\r\n$/);

    // A deletion makes room, and parked messages become dead letters.
    t.match(await dead(queue, 'delete', oldest), { code: 0, stdout: `${oldest} deleted\n` });
    await until(async () => (await listed(queue)).length === 3);
    t.notOk((await listed(queue)).some(({ id }) => `${id}` === oldest));
    for (const args of [[], ['x'], [oldest], ['--all', ...others]]) {
      const wrong = await dead(queue, 'requeue', ...args);
      t.equal(wrong.code, 2, args.join(' '));
      t.match(wrong.stderr, /^plugpull queue: [^\n]+\n$/);
    }
    state.opened = true;
    const requeued = await dead(queue, 'requeue', ...others);
    t.match(requeued, { code: 0, stderr: '' });
    t.match(requeued.stdout, new RegExp(others.map((id) => `${id} requeued as \\d+\n`).join('|')));
    const badOnes = () =>
      new Set(sink.messages.flatMap(({ recipients }) => recipients.filter((to) => to.startsWith('never'))));
    await until(async () => {
      await dead(queue, 'requeue', '--all');
      return badOnes().size === 7;
    });
    client.close();
    t.equal(await service.stop(), 0);
    t.match(lines((await runQueueCommand('verify', '--queue', queue)).stdout)[0], {
      ok: true,
      live: 0,
      dead: 0,
    });
  },
);

t.test('workers that are killed at random while they bury messages lose none and double none', async (t) => {
  const COUNT = 200;
  const KILLS = 10;
  const { sink } = await refusingSink(t);
  const { service, queue, ports } = await startGateway(t, sink.address, 512);
  const confirmed: string[] = [];
  let isOver = false;
  const submitAll = async (worker: number) => {
    for (let n = worker; n < COUNT; n += ports.length) {
      for (let isStored = false; !isStored; ) {
        try {
          const client = await RawClient.ready(ports[worker] ?? 0);
          isStored = (await client.submit(`Subject: ${n}\r\n\r\nx\r\n`, `never${n}@example.net`)).startsWith(
            '250',
          );
          client.close();
        } catch {
          // The worker was killed. Its successor has the same port.
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      }
      confirmed.push(`never${n}@example.net`);
    }
  };
  const kill = async () => {
    for (let kills = 0; kills < KILLS; ) {
      await new Promise((resolve) => setTimeout(resolve, 50 + 100 * Math.random()));
      const name = `worker-${kills % ports.length}`;
      const last = service.events.findLast(({ service: of }) => of === name);
      if (last?.event !== 'ready' || last.pid === undefined) continue;
      process.kill(last.pid, 'SIGKILL');
      kills += 1;
      const seen = service.events.length - 1;
      await service.waitForEvent(({ event, service: of }) => event === 'ready' && of === name, seen + 1);
    }
    isOver = true;
  };
  await Promise.all([...ports.map((_, worker) => submitAll(worker)), kill()]);
  t.ok(isOver);
  await until(async () => {
    const letters = await listed(queue);
    const buried = new Set(letters.map(({ recipients }) => String(recipients)));
    const isComplete = confirmed.every((recipient) => buried.has(String(recipient)));
    return isComplete && letters.every(({ notice }) => notice !== 'due');
  });
  const notices = () =>
    sink.messages
      .filter(({ sender }) => sender === '')
      .map(({ data }) => /^Message-ID: (.*)\r$/m.exec(data.toString('latin1'))?.[1]);
  const expected = (await listed(queue)).length;
  await until(() => new Set(notices()).size >= expected);
  await service.stop();
  t.equal(
    new Set(notices()).size,
    expected,
    'there is one notice for each letter, and a second copy has the same id',
  );
  const letters = await listed(queue);
  const buried = letters.map(({ recipients }) => String(recipients));
  t.same(
    [...new Set(buried)].sort(),
    [...new Set(confirmed)].sort(),
    'every confirmed message is a dead letter',
  );
  // A client sends a message again when the worker was killed before its answer. Nothing else may double a letter.
  t.ok(buried.length <= COUNT + KILLS, `${buried.length} letters`);
  const verified = lines((await runQueueCommand('verify', '--queue', queue)).stdout)[0];
  t.match(verified, { ok: true });
});
