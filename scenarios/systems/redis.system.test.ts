import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { descendants, RealServer } from '../../conformance/fixtures/real-server.js';
import { compose } from '../../conformance/protocols/message.js';
import { testDirectories, testRandom } from '../../faults/fixtures/fault-context.js';
import { straceAvailability } from '../../faults/programs.js';
import { loadExpectedSystems } from './expected.js';
import { installSystem, isInstalled } from './install.js';

/** Redis 7.0 with `appendfsync everysec` answers before it writes while a sync is under way (finding 6 in FINDINGS.md). */
const [system] = loadExpectedSystems(['redis-everysec']);
if (system === undefined) throw new Error('expected redis-everysec in expected.json');
installSystem(system, (line) => t.comment(line));
const strace = straceAvailability();
const skip = isInstalled(system)
  ? strace.available
    ? false
    : strace.why
  : 'not measured: redis-server is not installed';

/** Time in microseconds that each sync takes, as on a slow disk. Redis delays a write by at most two seconds. */
const SYNC_US = 3_000_000;
const TIMEOUT_MS = 60_000;

/** Everything that the log of Redis holds. */
function logOf(server: RealServer): string {
  return readdirSync(server.folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /aof$/.test(entry.name))
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'latin1'))
    .join('');
}

t.test('a kill loses a confirmed message while a slow sync is under way', { skip }, async (t) => {
  const server = await RealServer.make('redis-everysec');
  t.teardown(() => server.remove());
  await server.start();
  const { scratchDir, remove } = testDirectories();
  t.teardown(remove);
  const pids = [server.pid ?? 0, ...descendants(server.pid ?? 0)].flatMap((pid) => ['-p', `${pid}`]);
  const slow = `inject=fdatasync,fsync:delay_enter=${SYNC_US}`;
  const tracer = spawn('strace', ['-f', '-o', join(scratchDir, 'strace'), '-e', slow, ...pids], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = once(tracer, 'exit');
  let stderr = '';
  for await (const chunk of tracer.stderr) {
    stderr += chunk;
    if (stderr.split(' attached').length > pids.length / 2) break;
  }
  const producer = await server.protocol.connect(server.address);
  let lost: string | undefined;
  const deadlineMs = performance.now() + TIMEOUT_MS;
  for (let number = 0; lost === undefined && performance.now() < deadlineMs; number++) {
    const id = `message-${number}-end`;
    const message = compose({ run: 'redis-test', id, shape: 'text' }, testRandom(1));
    const { outcome } = await producer.submit(message);
    if (outcome === 'confirmed' && !logOf(server).includes(id)) lost = id;
  }
  const killed = server.kill();
  // strace may wait for ever for a thread whose sync it delays, and then keeps the dead process.
  tracer.kill('SIGKILL');
  await killed;
  await producer.close();
  await ended;
  t.match(lost, /^message/, 'a message was confirmed that is not in the log');
  const log = logOf(server);
  t.ok(log.includes('message-0-end'), 'the first message is in the log');
  t.notOk(log.includes(lost ?? ''), 'the message is lost');
});
