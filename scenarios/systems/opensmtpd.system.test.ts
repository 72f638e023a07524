import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { descendants, RealServer } from '../../conformance/fixtures/real-server.js';
import { compose } from '../../conformance/protocols/message.js';
import { testDirectories, testRandom } from '../../faults/fixtures/fault-context.js';
import { skipReason, withDisk } from '../../faults/power/fixtures/disk.js';
import { straceAvailability } from '../../faults/programs.js';
import { loadExpectedSystems } from './expected.js';
import { installSystem, isInstalled } from './install.js';

/** OpenSMTPD 6.8 answers 250 before anything of the mail is synced (finding 19 in FINDINGS.md). */
const [system] = loadExpectedSystems(['opensmtpd']);
if (system === undefined) throw new Error('expected opensmtpd in expected.json');
const strace = straceAvailability();
const root = process.getuid?.() === 0 ? undefined : 'not measured: OpenSMTPD starts only as root';
if (root === undefined) installSystem(system, (line) => t.comment(line));
const missing = isInstalled(system) ? undefined : 'not measured: OpenSMTPD is not installed';
const skip = root ?? missing ?? false;

async function submit(t: Test, server: RealServer): Promise<void> {
  const producer = await server.protocol.connect(server.address);
  const message = compose({ run: 'opensmtpd-test', id: 'one', shape: 'text' }, testRandom(1));
  t.match(await producer.submit(message), { outcome: 'confirmed' });
  await producer.close();
}

/** Names of the files of stored mails: the message, and an envelope for each recipient. */
function storedFiles(server: RealServer): string[] {
  const entries = readdirSync(join(server.folder, 'smtpd/queue'), { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map(({ name }) => name);
}

t.test(
  'a mail is renamed into the queue and confirmed, and nothing is synced',
  { skip: skip || (strace.available ? false : strace.why) },
  async (t) => {
    const server = await RealServer.make('opensmtpd');
    t.teardown(() => server.remove());
    await server.start();
    const { scratchDir, remove } = testDirectories();
    t.teardown(remove);
    const log = join(scratchDir, 'strace');
    const pids = [server.pid ?? 0, ...descendants(server.pid ?? 0)].flatMap((pid) => ['-p', `${pid}`]);
    const trace = 'trace=/^rename,fsync,fdatasync,sync,syncfs,msync';
    const child = spawn('strace', ['-f', '-o', log, '-e', trace, ...pids], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    const ended = once(child, 'exit');
    let stderr = '';
    for await (const chunk of child.stderr) {
      stderr += chunk;
      if (stderr.split(' attached').length > pids.length / 2) break;
    }
    await submit(t, server);
    t.ok(storedFiles(server).includes('message'));
    await server.kill();
    await ended;
    const calls = readFileSync(log, 'utf8').split('\n');
    t.ok(
      calls.some((line) => /rename\("\/incoming\/.*"\/queue\/.*= 0/.test(line)),
      calls.join('\n'),
    );
    t.strictSame(
      calls.filter((line) => /sync\w*\(/.test(line)),
      [],
    );
  },
);

t.test('a power cut loses a confirmed mail', { skip: skip || skipReason() }, async (t) => {
  await withDisk(async ({ disk, mountPoint }) => {
    spawnSync('chmod', ['755', mountPoint]);
    const server = await RealServer.make('opensmtpd', mountPoint);
    t.teardown(() => server.remove());
    await server.start();
    t.equal(spawnSync('sync', ['-f', mountPoint]).status, 0, 'the empty queue is on the disk');
    await submit(t, server);
    t.ok(storedFiles(server).includes('message'));
    const moment = disk.stop();
    const killed = server.kill();
    disk.resume();
    await killed;
    await disk.cut(moment, 'all-lost', testRandom(1));
    await server.start();
    t.strictSame(storedFiles(server), [], 'the queue is empty');
    await server.remove();
  });
});
