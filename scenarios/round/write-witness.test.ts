import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { hit } from '../../faults/injection.js';
import { straceAvailability } from '../../faults/programs.js';
import { judgeWritten, WriteWitness } from './write-witness.js';

const { signal } = new AbortController();

/** What stands for a message at risk in the files. */
const MESSAGE = 'the message at risk';

/**
 * Makes a witness of a directory, and a process that has `openFiles` open for writing.
 * @param more program text that the process runs too; `dir` is the directory.
 */
async function makeWitness(t: { teardown(end: () => void): void }, openFiles: string[], more = '') {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), 'plugpull-witness-')));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const [dataDir, scratchDir] = [join(dir, 'data'), join(dir, 'scratch')];
  for (const folder of [dataDir, scratchDir, join(dir, 'logs')]) mkdirSync(folder);
  const files = openFiles.map((file) => join(dir, file));
  const program = `const dir = ${JSON.stringify(dir)}; ${more}; for (const file of ${JSON.stringify(files)}) require('node:fs').openSync(file, 'a');
    console.log('ready'); setInterval(() => {}, 1000);`;
  const child: ChildProcess = spawn(process.execPath, ['-e', program], {
    // An inherited stderr could be a file, which would be named too.
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.teardown(() => child.kill('SIGKILL'));
  if (child.stdout !== null) await once(child.stdout, 'data');
  const tally = { submitted: 0, confirmed: 0, rejected: 0, indefinite: 0, delivered: 0, outstanding: 0 };
  const counts = { ...tally, inFlight: 0, backlogBytes: 0 };
  const witness = new WriteWitness({ tally: counts, dataDir, scratchDir, ignored: [join(dir, 'logs')] });
  await witness.noteReady(signal);
  const service = { name: 'server', pids: () => [child.pid ?? 0] };
  const inspect = () =>
    witness.inspect([service as unknown as Parameters<WriteWitness['inspect']>[0][number]], (bytes) =>
      bytes.includes(MESSAGE) ? ['1'] : [],
    );
  const confirm = (count: number) => {
    counts.confirmed += count;
    counts.outstanding += count;
  };
  return { witness, inspect, confirm, counts, child, dir, log: join(dataDir, 'log') };
}

t.test(
  'messages that are confirmed while nothing changes are stored elsewhere, and the file is named',
  async (t) => {
    const { inspect, confirm, dir } = await makeWitness(t, ['queue.db', 'logs/server.log', 'data/pid']);
    confirm(5);
    const unwritten = await inspect();
    t.match(unwritten, { how: 'unstored', writesElsewhere: true });
    t.match(unwritten?.why, /^5 messages were confirmed and nothing in \{data\} changed: /);
    t.ok(unwritten?.why.endsWith(`it writes ${join(dir, 'queue.db')} outside {data}`), 'it names the file');
    t.match(judgeWritten({ needs: { target: 'up', disk: 'any' } }, hit('cut', 'machine', []), unwritten), {
      hit: false,
      scope: 'machine',
      detail: /^5 messages were confirmed .*; cut$/,
    });
  },
);

t.test('a write to {data} after the start counts, and other files are a warning', async (t) => {
  const { witness, inspect, confirm, dir, log } = await makeWitness(t, ['queue.db']);
  confirm(1);
  writeFileSync(log, 'x');
  t.equal(await inspect(), undefined);
  t.same(witness.writtenOutside, [join(dir, 'queue.db')]);
});

t.test(
  'messages in a file outside {data} and in none of its files are stored elsewhere, although {data} changes',
  async (t) => {
    const { witness, inspect, confirm, counts, dir, log } = await makeWitness(t, ['queue.db', 'other.log']);
    confirm(1);
    writeFileSync(log, 'message 1');
    appendFileSync(join(dir, 'queue.db'), MESSAGE);
    const expected = {
      how: 'unstored',
      writesElsewhere: true,
      why: `the target keeps its messages elsewhere: those at risk are in no file of {data}; it writes ${join(dir, 'queue.db')} outside {data}`,
    };
    t.match(await inspect(), expected);
    t.same(witness.writtenOutside, [join(dir, 'other.log'), join(dir, 'queue.db')]);
    counts.outstanding = 0;
    t.match(await inspect(), expected, 'it holds while nothing is at risk, because that may change at once');
    confirm(1);
    appendFileSync(log, 'message 2');
    rmSync(join(dir, 'queue.db'));
    t.match(await inspect(), expected, 'it holds until a message is seen in {data}');
    appendFileSync(log, MESSAGE);
    t.equal(await inspect(), undefined);
  },
);

t.test('a message that is in {data} too, or a large {data}, is no reason for a miss', async (t) => {
  for (const isLarge of [false, true]) {
    const { inspect, confirm, dir, log } = await makeWitness(t, ['queue.db']);
    confirm(1);
    writeFileSync(log, isLarge ? 'compressed' : MESSAGE);
    if (isLarge) truncateSync(log, 17 * 2 ** 20);
    appendFileSync(join(dir, 'queue.db'), MESSAGE);
    t.equal(await inspect(), undefined);
  }
});

const strace = straceAvailability();
t.test(
  'messages in a maildir outside {data} are found although none of its files stays open',
  { skip: strace.available ? false : strace.why },
  async (t) => {
    const spool = `const fs = require('node:fs'); let n = 0;
      for (const name of ['tmp', 'new']) fs.mkdirSync(dir + '/spool/' + name, { recursive: true });
      setInterval(() => {
        fs.writeFileSync(dir + '/spool/tmp/' + ++n, ${JSON.stringify(MESSAGE)});
        fs.renameSync(dir + '/spool/tmp/' + n, dir + '/spool/new/' + n);
      }, 5)`;
    const { inspect, confirm, log } = await makeWitness(t, ['other.log'], spool);
    confirm(1);
    writeFileSync(log, 'message 1');
    t.match(await inspect(), { how: 'unstored', why: /it writes \S+\/spool\/(new|tmp)\/\d+/ });
  },
);

t.test('a file outside {data} that is opened after the first search is found', async (t) => {
  const late = `process.on('SIGUSR2', () => {
    require('node:fs').openSync(dir + '/late.log', 'a'); console.log('open');
  })`;
  const { witness, inspect, confirm, child, dir, log } = await makeWitness(t, [], late);
  confirm(1);
  writeFileSync(log, MESSAGE);
  t.equal(await inspect(), undefined);
  t.same(witness.writtenOutside, []);
  const opened = child.stdout === null ? undefined : once(child.stdout, 'data');
  child.kill('SIGUSR2');
  await opened;
  t.equal(await inspect(), undefined);
  t.same(witness.writtenOutside, [join(dir, 'late.log')]);
});

t.test('a fault that has damaged stored messages stays a hit', async (t) => {
  const unwritten = { how: 'unstored', why: 'elsewhere', writesElsewhere: true } as const;
  const injection = { ...hit('2 bits', 'all-processes', ['server']), rotted: ['1'] };
  t.equal(judgeWritten({ needs: { target: 'down', disk: 'any' } }, injection, unwritten), injection);
});

t.test('with nothing at risk, there is nothing to say', async (t) => {
  const { inspect } = await makeWitness(t, []);
  t.equal(await inspect(), undefined);
});

t.test(
  'a second power cut is a miss when nothing changed since the first, and other faults are not',
  async (t) => {
    const { witness, inspect, confirm, counts, log } = await makeWitness(t, []);
    confirm(3);
    writeFileSync(log, 'x');
    t.equal(await inspect(), undefined);
    // The write and the hit must not be in the same tick of the filesystem's clock.
    await witness.noteReady(signal);
    witness.noteHit();
    const unwritten = await inspect();
    t.match(unwritten, { how: 'unchanged' });
    t.match(judgeWritten({ needs: { target: 'up', disk: 'power' } }, hit('cut', 'machine', []), unwritten), {
      hit: false,
      detail: 'nothing in {data} changed since the last fault hit it; cut',
    });
    t.match(judgeWritten({ needs: { target: 'up', disk: 'any' } }, hit('torn', 'machine', []), unwritten), {
      hit: true,
    });
    appendFileSync(log, 'y');
    counts.confirmed += 1;
    t.equal(await inspect(), undefined);
  },
);

t.test('a message that was in flight when the target was ready may have been written before', async (t) => {
  const { witness, inspect, confirm, counts, log } = await makeWitness(t, []);
  counts.inFlight = 1;
  writeFileSync(log, 'x');
  await witness.noteReady(signal);
  counts.inFlight = 0;
  confirm(1);
  t.equal(await inspect(), undefined);
});
