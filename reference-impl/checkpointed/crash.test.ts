import t from 'tap';
import { RawHttp } from '../common/http/fixtures/raw-http.js';
import { linux } from '../common/platform/linux.js';
import { installed } from './fixtures/queue.js';
import { type RunningServer, runServer, writersOf } from './fixtures/server.js';
import { verifyQueue } from './queue/verify.js';

const ROUNDS = 7;
const PRODUCERS = 6;
const CONSUMERS = 2;
/** Longest time of load before a kill, in milliseconds. */
const MAX_LOAD_MS = 250;

/** The requests of all clients and the answers to them, over all crashes. */
class Ledger {
  readonly asked = new Set<string>();
  readonly confirmed = new Set<string>();
  readonly deleting = new Set<string>();
  readonly deleted = new Set<string>();
  readonly problems: string[] = [];
  readonly #lastFirst = new Map<string, number>();
  readonly #delivered = new Set<string>();

  delivered(id: string): void {
    if (!this.asked.has(id)) this.problems.push(`${id} was never put`);
    if (this.deleted.has(id)) this.problems.push(`${id} came back after its consumption`);
    if (this.#delivered.has(id)) return;
    this.#delivered.add(id);
    const [producer = '', number = ''] = id.split('-');
    if (Number(number) < (this.#lastFirst.get(producer) ?? 0))
      this.problems.push(`${id} came after a later one`);
    this.#lastFirst.set(producer, Number(number));
  }
}

async function produce(port: number, producer: number, numbers: number[], ledger: Ledger): Promise<void> {
  const http = await RawHttp.open(port);
  for (;;) {
    const number = (numbers[producer] ?? 0) + 1;
    numbers[producer] = number;
    const id = `p${producer}-${number}`;
    ledger.asked.add(id);
    const { status } = await http.ask('PUT', `/messages/${id}`, 'x'.repeat(number % 3000));
    if (status === 0) return;
    if (status === 201) ledger.confirmed.add(id);
    else if (status === 507) ledger.asked.delete(id);
    else ledger.problems.push(`PUT: ${status}`);
  }
}

/** Consumes until the server is gone, or, with `isLast`, until nothing is left. */
async function consumeAll(port: number, ledger: Ledger, isLast: boolean): Promise<void> {
  const http = await RawHttp.open(port);
  for (;;) {
    const { status, headers } = await http.ask('POST', `/leases?wait=${isLast ? 0 : 50}`);
    if (status === 0 || (status === 204 && isLast)) break;
    if (status !== 200) continue;
    const id = headers['message-id'] ?? '';
    ledger.delivered(id);
    ledger.deleting.add(id);
    const answer = await http.ask('DELETE', `/leases/${headers.lease}`);
    if (answer.status === 204) ledger.deleted.add(id);
  }
  http.close();
}

t.test(
  'kills at any moment under load lose no confirmed message, return no consumed one, and keep the order',
  async (t) => {
    const directory = await installed(t, { segmentBytes: 64 * 1024, segments: 8, queues: 4 });
    const ledger = new Ledger();
    const numbers: number[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const server = await runServer(t, directory, '--checkpoint', '20ms', '--memory', '4MiB');
      const before = ledger.confirmed.size;
      const clients = [
        ...Array.from({ length: PRODUCERS }, (_, producer) =>
          produce(server.port, producer, numbers, ledger),
        ),
        ...Array.from({ length: CONSUMERS }, () => consumeAll(server.port, ledger, false)),
      ];
      while (ledger.confirmed.size === before) await new Promise((resolve) => setTimeout(resolve, 5));
      await new Promise((resolve) => setTimeout(resolve, Math.random() * MAX_LOAD_MS));
      await server.kill();
      await Promise.all(clients);
      t.same(verifyQueue(directory, linux).problems, [], `after kill ${round}`);
    }
    const last = await runServer(t, directory);
    await consumeAll(last.port, ledger, true);
    t.same(ledger.problems, []);
    const lost = [...ledger.confirmed].filter((id) => !ledger.deleting.has(id));
    t.same(lost, [], 'each confirmed message was delivered');
    t.ok(
      ledger.confirmed.size > ROUNDS * PRODUCERS && ledger.deleted.size > ROUNDS,
      `${ledger.confirmed.size} messages`,
    );
    t.equal(await last.stop(), 0);
  },
);

const LARGE_MESSAGES = 300;
const LARGE_BYTES = 32 * 1024;

async function figures(
  server: RunningServer,
): Promise<{ checkpoints: number; failedCheckpoints: number; messages: number }> {
  const http = await RawHttp.open(server.port);
  const { body } = await http.ask('GET', '/status');
  http.close();
  return JSON.parse(body).store;
}

/** Waits until a server has writer processes. @returns their process ids */
async function untilWriting(server: RunningServer): Promise<number[]> {
  for (;;) {
    const writers = writersOf(server.pid);
    if (writers.length > 0) return writers;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

t.test(
  'killed writers, a stopped server and writers without a server leave the old checkpoint in force',
  async (t) => {
    const directory = await installed(t, { segmentBytes: 8 * 2 ** 20, segments: 8, queues: 2 });
    const server = await runServer(t, directory, '--checkpoint', '100ms');
    const http = await RawHttp.open(server.port);
    let confirmed = 0;
    const put = async () => {
      const { status } = await http.ask('PUT', `/messages/p-${confirmed + 1}`, Buffer.alloc(LARGE_BYTES, 7));
      if (status === 201) confirmed += 1;
      return status;
    };
    while (confirmed < LARGE_MESSAGES) await put();
    for (let round = 0; round < 3; round += 1) {
      const { failedCheckpoints } = await figures(server);
      while ((await figures(server)).failedCheckpoints === failedCheckpoints) {
        t.equal(await put(), 201, 'the server goes on');
        for (const pid of await untilWriting(server)) process.kill(pid, 'SIGKILL');
      }
      t.same(verifyQueue(directory, linux).problems, []);
    }
    const { checkpoints } = await figures(server);
    while ((await figures(server)).checkpoints === checkpoints) t.equal(await put(), 201);
    // The server stops in the middle of a checkpoint, for longer than its interval.
    await put();
    await untilWriting(server);
    process.kill(server.pid, 'SIGSTOP');
    await new Promise((resolve) => setTimeout(resolve, 300));
    t.same(verifyQueue(directory, linux).problems, []);
    process.kill(server.pid, 'SIGCONT');
    t.equal(await put(), 201);
    // The server dies in the middle of a checkpoint: its writers end by themselves.
    const writers = await untilWriting(server);
    await server.kill();
    http.close();
    const isAlive = (pid: number) => linux.exists(`/proc/${pid}/fd/0`);
    while (writers.some(isAlive)) await new Promise((resolve) => setTimeout(resolve, 10));
    t.match(verifyQueue(directory, linux), { problems: [], live: confirmed });
    const successor = await runServer(t, directory);
    t.equal((await figures(successor)).messages, confirmed);
    t.equal(await successor.stop(), 0);
  },
);
