import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { receivedHeader, traceIds } from '../gateway/inbound/trace.js';
import { openQueue } from '../queue/open.js';
import type { RestoreCheckResult } from '../queue/restore-check.js';
import { loadSettings } from '../settings/load.js';

const MAIN = join(dirname(fileURLToPath(import.meta.url)), '../main.js');
// In memory where that can be: hundreds of restores are hundreds of syncs.
const memory = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
const dir = mkdtempSync(join(memory, 'plugpull-restore-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
const queue = join(dir, 'queue');
const GEOMETRY = ['--data-bytes', '1MiB', '--entries', '64', '--worker-slots', '4'];
const bodies = ['one', 'two', 'three'].map((text) => Buffer.from(`Subject: ${text}\r\n\r\n${text}\r\n`));
const digests = bodies.map((bytes) => createHash('sha256').update(bytes).digest('hex')).sort();

type Heard = RestoreCheckResult & { error?: string; digests: string[] };

class Service {
  readonly child: ChildProcess = spawn(process.execPath, [MAIN, 'restore-check', '--stdin']);
  readonly #lines: AsyncIterator<string>;
  readonly #names = new Map<number, string>();

  constructor() {
    const lines: Interface = createInterface({ input: this.child.stdout as NodeJS.ReadableStream });
    this.#lines = lines[Symbol.asyncIterator]();
  }

  async ask(request: unknown): Promise<Heard> {
    this.child.stdin?.write(`${JSON.stringify(request)}\n`);
    const answer = JSON.parse(String((await this.#lines.next()).value)) as RestoreCheckResult & {
      error?: string;
    };
    for (const [number, name] of Object.entries(answer.names ?? {})) this.#names.set(Number(number), name);
    const live = (answer.live ?? []).map((number) => this.#names.get(number) ?? '?');
    return { ...answer, digests: live.sort() };
  }

  async end(): Promise<number | null> {
    this.child.stdin?.end();
    const [code] = (await once(this.child, 'exit')) as [number | null];
    return code;
  }
}

t.before(async () => {
  await once(spawn(process.execPath, [MAIN, 'install', '--queue', queue, ...GEOMETRY]), 'exit');
  const helper = spawn(process.execPath, [MAIN, 'helper', '--queue', queue]);
  const open = await openQueue(loadSettings({ directory: queue, installed: 'needed' }));
  const header = receivedHeader({
    ...{ heloName: 'client.test', clientAddress: '127.0.0.1', hostname: 'gateway.test' },
    ...{ protocol: 'ESMTP', id: traceIds('queue').next(), receivedAt: new Date() },
  });
  // A message that came through the gateway has its header in front. The others did not.
  for (const [number, body] of bodies.entries()) {
    const data = number === 1 ? Buffer.concat([header, body]) : body;
    await open.enqueue([
      { type: 'smtp', sender: 'a@b.test', recipients: ['c@d.test'], data, destination: 'h:25' },
    ]);
  }
  await open.close();
  helper.kill();
  await once(helper, 'exit');
});

t.test('each message is named once, over hundreds of restores in one process', async (t) => {
  const service = new Service();
  for (let turn = 0; turn < 200; turn++) {
    const restored = await service.ask({ queue });
    if (turn % 100 === 0) t.match(restored, { digests, problems: [], keptAside: 0 });
    if (turn > 0) t.same(restored.names, {});
  }
  t.equal(await service.end(), 0);
});

t.test('bytes that changed since the last restore are seen', async (t) => {
  const place = join(dir, 'damaged');
  cpSync(queue, place, { recursive: true, filter: (path) => !path.endsWith('.fifo') });
  const service = new Service();
  t.equal((await service.ask({ queue: place })).live.length, 3);
  const data = join(place, '0/queue.data');
  const bytes = readFileSync(data);
  const at = bytes.indexOf('Subject: two');
  bytes[at] = 0x58;
  writeFileSync(data, bytes);
  const without = digests.filter(
    (name) =>
      name !==
      createHash('sha256')
        .update(bodies[1] ?? '')
        .digest('hex'),
  );
  t.match(await service.ask({ queue: place }), { digests: without, keptAside: 1 });
  t.equal(await service.end(), 0);
});

t.test('what cannot be restored is answered with an error, and the next one is restored', async (t) => {
  const service = new Service();
  t.match(await service.ask({ queue: join(dir, 'none') }), { error: /expected an installed queue/ });
  t.match(await service.ask({ queue }), { digests });
  t.equal(await service.end(), 0);
});

t.test('the last line is answered without an end of its own', async (t) => {
  const service = new Service();
  service.child.stdin?.end(JSON.stringify({ queue }));
  let said = '';
  for await (const chunk of service.child.stdout ?? []) said += String(chunk);
  t.match(JSON.parse(said), { problems: [], keptAside: 0, live: { length: 3 } });
});

t.test('a line that is no request ends it with exit code 2', async (t) => {
  const service = new Service();
  let said = '';
  service.child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk.toString();
  });
  service.child.stdin?.write('{"index": 1}\n');
  const [code] = (await once(service.child, 'close')) as [number];
  t.equal(code, 2);
  t.match(said, /stdin: found \{"index": 1\}, expected \{"queue": DIR\}/);
});
