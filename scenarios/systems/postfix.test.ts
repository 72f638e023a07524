import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { notInstalled, RealServer } from '../../conformance/fixtures/real-server.js';
import { compose } from '../../conformance/protocols/message.js';
import { testDirectories, testRandom } from '../../faults/fixtures/fault-context.js';
import { straceAvailability } from '../../faults/programs.js';

/**
 * A queue file gets a name for the moment, of a time and a process, and is renamed when its number is known. What a crash in
 * between leaves makes Postfix 3.7 end at every later start, unless its own user can write to its log: FINDINGS.md tells it.
 */
const strace = straceAvailability();
const root = process.getuid?.() === 0 ? undefined : 'not measured: Postfix starts only as root';
const skip = notInstalled('/usr/sbin/postfix') ?? root ?? (strace.available ? false : strace.why);

/** A start that never comes to its end is told with what the server said, not by this. */
t.setTimeout(120_000);

/** From here on each new process of the server is killed when it is about to rename a file. */
async function killAtRename(t: Test, master: number): Promise<void> {
  const { scratchDir, remove } = testDirectories();
  t.teardown(remove);
  const calls = ['-e', 'trace=/^rename', '-e', 'inject=/^rename:signal=KILL'];
  const child = spawn('strace', ['-f', '-o', join(scratchDir, 'strace'), ...calls, '-p', `${master}`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = once(child, 'exit');
  t.teardown(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  // It says so of each new process too, and would end if nobody read that.
  await Promise.race([once(child.stderr, 'data'), ended]);
  child.stderr.resume();
  t.equal(child.exitCode, null, 'strace is there');
}

t.test('killed before it has renamed a new queue file, Postfix starts again', { skip }, async (t) => {
  const server = await RealServer.make('postfix');
  t.teardown(() => server.remove());
  await server.start();
  const queue = join(server.folder, 'postfix/queue');
  await killAtRename(t, Number(readFileSync(join(queue, 'pid/master.pid'), 'latin1')));
  const producer = await server.protocol.connect(server.port);
  const message = compose({ run: 'postfix-test', id: 'one', shape: 'tiny' }, testRandom(1));
  t.not((await producer.submit(message)).outcome, 'confirmed');
  await producer.close();
  await server.kill();
  const [left = ''] = readdirSync(join(queue, 'incoming'));
  t.match(left, /^\d+\.\d+$/, 'a file that has no number yet');
  await server.start();
  t.match(server.output(), `warning: bogus file name: incoming/${left}`, 'it has come upon the file');
});
