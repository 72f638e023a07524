import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

/**
 * Removes the System V shared memory that processes of these ids have made and that nobody has attached: the kernel keeps
 * it when its maker is killed (PostgreSQL leaves one piece for each data directory).
 * @returns how many pieces were removed.
 */
export function removeSharedMemory(creatorPids: ReadonlySet<number>): number {
  let removed = 0;
  for (const { id, maker, attached } of readSegments()) {
    if (attached > 0 || !creatorPids.has(maker)) continue;
    if (spawnSync('ipcrm', ['--shmem-id', `${id}`], { stdio: 'ignore' }).status === 0) removed += 1;
  }
  return removed;
}

/** The kernel's table: a line of names, then one line for each piece. */
function readSegments(): { id: number; maker: number; attached: number }[] {
  let text: string;
  try {
    text = readFileSync('/proc/sysvipc/shm', 'utf8');
  } catch {
    // A kernel without System V shared memory.
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
