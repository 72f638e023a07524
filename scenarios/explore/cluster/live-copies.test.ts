import { spawn } from 'node:child_process';
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { Service } from '../../../faults/fault.js';
import { hasThreadInState } from '../../../faults/thread-state.js';
import { until } from '../../../faults/waiting.js';
import { copyFiles, restoreFiles, whileStopped } from './live-copies.js';

t.test('a copy gives back files, modes and empty directories, and nothing else', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-copies-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  const from = join(dir, 'data');
  mkdirSync(join(from, 'empty'), { recursive: true });
  mkdirSync(join(from, 'sub'));
  writeFileSync(join(from, 'sub', 'log'), 'what was written');
  chmodSync(join(from, 'sub', 'log'), 0o600);
  chmodSync(from, 0o750);
  const archive = join(dir, 'copy.tar');
  await copyFiles(from, archive);
  writeFileSync(join(from, 'sub', 'log'), 'later');
  const to = join(dir, 'again');
  mkdirSync(to);
  writeFileSync(join(to, 'other'), 'of an earlier state');
  await restoreFiles(archive, to);
  t.equal(readFileSync(join(to, 'sub', 'log'), 'utf8'), 'what was written');
  t.equal(lstatSync(join(to, 'sub', 'log')).mode & 0o777, 0o600);
  t.equal(lstatSync(to).mode & 0o777, 0o750);
  t.ok(lstatSync(join(to, 'empty')).isDirectory());
  t.throws(() => lstatSync(join(to, 'other')), { code: 'ENOENT' });
});

t.test('a copy that cannot be made or read is an error with the reason', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-copies-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  await t.rejects(copyFiles(join(dir, 'missing'), join(dir, 'copy.tar')), /tar: .*missing/s);
  writeFileSync(join(dir, 'wrong.tar'), 'no archive');
  await t.rejects(restoreFiles(join(dir, 'wrong.tar'), join(dir, 'to')), /tar: /);
});

t.test('all processes are stopped during the work, and continue after it, also when it fails', async (t) => {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 5)'], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  const pid = child.pid ?? 0;
  const service = {
    name: 'server@a',
    pids: () => [pid],
    signal: async (signal: NodeJS.Signals) => Number(process.kill(pid, signal)),
  } as unknown as Service;
  const isStopped = () => hasThreadInState(pid, 'T');
  t.equal(await whileStopped([service], async () => isStopped()), true);
  t.ok(await until(() => !isStopped(), 10_000), 'it continues');
  await t.rejects(
    whileStopped([service], async () => {
      throw new Error('no space');
    }),
    /no space/,
  );
  t.ok(await until(() => !isStopped(), 10_000), 'it continues after a failure');
});
