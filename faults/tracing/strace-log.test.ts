import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { descriptorOf, parseStraceLog, quotedPath, readStraceLog, splitArguments } from './strace-log.js';

t.test('a complete line is parsed into a call with its arguments and result', async (t) => {
  const [call] = parseStraceLog('7 pwrite64(20</tmp/a, b>, ""..., 3, 100) = 3\n');
  t.match(call, {
    thread: 7,
    name: 'pwrite64',
    args: ['20</tmp/a, b>', '""...', '3', '100'],
    result: '3',
    entry: 1,
  });
});

t.test('the two halves of a call are joined, and the call begins at the first half', async (t) => {
  const log = [
    '8 fsync(20</tmp/a> <unfinished ...>',
    '9 close(3</tmp/b>)              = 0',
    '8 <... fsync resumed>)              = 0',
    '',
  ].join('\n');
  const calls = parseStraceLog(log);
  t.match(calls[0], { thread: 8, name: 'fsync', args: ['20</tmp/a>'], result: '0', entry: 1 });
  t.equal(calls[0]?.doneOffset, log.length, 'the call ends where the second half ends');
  t.equal(calls.length, 2);
});

t.test('a call that had not returned at the kill has no result', async (t) => {
  for (const log of ['8 msync(0x7f00, 4096, MS_SYNC <unfinished ...>\n', '8 msync(0x7f00, 4096, MS_SYNC']) {
    const [call] = parseStraceLog(log);
    t.match(call, { name: 'msync', result: undefined, doneOffset: Number.POSITIVE_INFINITY });
    t.same(call?.args, ['0x7f00', '4096', 'MS_SYNC']);
  }
});

t.test('lines of signals and exits are not parsed as calls', async (t) => {
  const log = '7 --- SIGCHLD {si_signo=SIGCHLD} ---\n7 +++ exited with 0 +++\n\n';
  t.same(parseStraceLog(log), []);
});

t.test('commas in strings, paths and lists do not split arguments', async (t) => {
  t.same(splitArguments('AT_FDCWD</a,b>, "c,\\"d", [{x=1, y=2}], 0'), [
    'AT_FDCWD</a,b>',
    '"c,\\"d"',
    '[{x=1, y=2}]',
    '0',
  ]);
  t.same(splitArguments(''), []);
});

t.test('paths are unescaped and decoded as UTF-8', async (t) => {
  t.same(descriptorOf('18</tmp/d,a ta\\76x>'), { fd: 18, path: '/tmp/d,a ta>x', deleted: false });
  t.same(descriptorOf('3</tmp/\\303\\251>(deleted)'), { fd: 3, path: '/tmp/é', deleted: true });
  t.equal(descriptorOf('0x7f00'), undefined);
  t.equal(quotedPath('"/tmp/a\\"b\\n"'), '/tmp/a"b\n');
  t.equal(quotedPath('NULL'), undefined);
});

t.test('a log is read up to a limit, and a missing one is empty', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-strace-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const log = join(dir, 'log');
  t.equal(readStraceLog(log), '');
  writeFileSync(log, '7 fsync(3) = 0\n7 fsync(4) = 0\n');
  t.equal(readStraceLog(log), '7 fsync(3) = 0\n7 fsync(4) = 0\n');
  t.equal(readStraceLog(log, 15), '7 fsync(3) = 0\n');
});
