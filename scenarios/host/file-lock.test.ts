import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { tryLock, waitForLock } from './file-lock.js';

function newFile(t: { teardown(remove: () => void): void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-lock-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return join(dir, 'lock');
}

t.test('one part of the kit at a time holds a lock', async (t) => {
  const file = newFile(t);
  const first = tryLock(file);
  t.ok(first);
  t.equal(tryLock(file), undefined);
  first?.release();
  first?.release();
  const second = tryLock(file);
  t.ok(second, 'a released lock is free');
  second?.release();
});

t.test('a lock is free when its holder was killed, although a child of the holder lives', async (t) => {
  const file = newFile(t);
  const program = `
    const { spawn } = await import('node:child_process');
    const { tryLock } = await import(${JSON.stringify(fileURLToPath(new URL('./file-lock.js', import.meta.url)))});
    const lock = tryLock(${JSON.stringify(file)});
    const child = spawn('sleep', ['60'], { stdio: 'ignore', detached: true });
    console.log(lock === undefined ? 'none' : child.pid);
    setInterval(() => {}, 1000);`;
  const holder = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => holder.kill('SIGKILL'));
  const [text] = (await once(holder.stdout, 'data')) as [Buffer];
  const child = Number(text.toString());
  t.ok(child > 0, 'the other process has locked the file');
  t.teardown(() => process.kill(child, 'SIGKILL'));
  t.equal(tryLock(file), undefined);
  let waited = 0;
  const waiting = waitForLock(file, 60_000, () => waited++);
  holder.kill('SIGKILL');
  const lock = await waiting;
  t.equal(waited, 1, 'the wait was announced once');
  lock.release();
});

t.test('a wait that takes too long names the file', async (t) => {
  const file = newFile(t);
  const lock = tryLock(file);
  await t.rejects(
    waitForLock(file, 10, () => {}),
    new RegExp(`another process holds ${file}`),
  );
  lock?.release();
});

t.test('a link is not followed', async (t) => {
  const file = newFile(t);
  symlinkSync('/dev/null', file);
  t.throws(() => tryLock(file), { code: 'ELOOP' });
});
