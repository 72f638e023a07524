import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { removeSharedMemory } from './shared-memory.js';

const idsOf = (): string[] =>
  readFileSync('/proc/sysvipc/shm', 'utf8')
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.trim().split(/\s+/)[1] ?? '');

t.test('shared memory of the given processes is removed, and that of other processes stays', async (t) => {
  const made = spawnSync('ipcmk', ['--shmem', '4096'], { encoding: 'utf8' });
  if (made.status !== 0) {
    t.pass('not measured: no System V shared memory can be made here');
    return;
  }
  const id = /(\d+)\s*$/.exec(made.stdout)?.[1] ?? '';
  t.ok(idsOf().includes(id), 'the segment outlives its creator');
  t.equal(removeSharedMemory(new Set([made.pid + 1_000_000])), 0);
  t.ok(idsOf().includes(id), 'a segment that another process created stays');
  t.equal(removeSharedMemory(new Set([made.pid])), 1);
  t.notOk(idsOf().includes(id));
});
