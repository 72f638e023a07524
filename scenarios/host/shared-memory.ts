import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { throwIfExhausted } from '../../faults/exhausted.js';

/**
 * Removes the System V shared memory segments that processes with the given ids have created and that no
 * process has attached. The kernel keeps a segment when its creator is killed (PostgreSQL leaves one for each
 * data directory).
 * @returns the number of segments removed.
 */
export function removeSharedMemory(creatorPids: ReadonlySet<number>): number {
  let removed = 0;
  for (const { id, maker, attached } of readSegments()) {
    if (attached > 0 || !creatorPids.has(maker)) continue;
    if (spawnSync('ipcrm', ['--shmem-id', `${id}`], { stdio: 'ignore' }).status === 0) removed += 1;
  }
  return removed;
}

/** Reads the kernel's table: a line of column names, then one line for each segment. */
function readSegments(): { id: number; maker: number; attached: number }[] {
  let text: string;
  try {
    text = readFileSync('/proc/sysvipc/shm', 'utf8');
  } catch (error) {
    throwIfExhausted(error);
    // This kernel has no System V shared memory.
    return [];
  }
  const [names = '', ...lines] = text.trim().split('\n');
  const columns = names.trim().split(/\s+/);
  return lines.map((line) => {
    const fields = line.trim().split(/\s+/).map(Number);
    const field = (name: string) => fields[columns.indexOf(name)] ?? 0;
    return { id: field('shmid'), maker: field('cpid'), attached: field('nattch') };
  });
}
