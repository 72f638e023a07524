import { execFile } from 'node:child_process';
import { statfsSync } from 'node:fs';
import { promisify } from 'node:util';
import type { Fault, Ground, Injection } from '../fault.js';
import { hit, killServices, live, miss, scopeOf } from '../injection.js';
import { ALWAYS, findProgram } from '../programs.js';
import { spread } from '../random-choice.js';

const run = promisify(execFile);
const FLOOD_MS = 4000;
const MOST_REJECTIONS = 20;
const ROOM_AGAIN_MS = 1000;
/** What the filesystem may grow to when the fault is over; a limit, not a use of memory. */
export const ROOMY_BYTES = 8 * 1024 ** 3;

/**
 * The filesystem that holds the data shrinks to what is in use while producers send as much as they can. A target
 * that has taken all its room at install need not notice; one that grows must reject what it cannot store. Then all
 * processes are killed while nothing has been taken from the target, half the time when there is room again: what was
 * confirmed without being stored is gone.
 */
export const diskFull: Fault = {
  name: 'disk-full',
  family: 'full',
  summary: 'the filesystem has no room left while messages come in: what was not stored is not confirmed',
  needs: { target: 'up', disk: 'limited' },
  async available() {
    const remedy = 'run as root in an environment that may mount tmpfs';
    if (process.getuid?.() !== 0)
      return { available: false, why: 'it mounts a tmpfs, which needs root', remedy };
    if (findProgram('mount') === undefined)
      return { available: false, why: 'mount is not installed', remedy };
    return ALWAYS;
  },
  async inject(ground: Ground): Promise<Injection> {
    const before = statfsSync(ground.dataDir);
    const usedBytes = (before.blocks - before.bfree) * before.bsize;
    await resize(ground.dataDir, Math.max(usedBytes, before.bsize));
    ground.flood(true);
    const rejections = spread(ground.random, 1, MOST_REJECTIONS);
    await ground.afterRejections(rejections, FLOOD_MS);
    const after = statfsSync(ground.dataDir);
    if (after.bavail > 0) return miss(`${after.bavail * after.bsize} bytes are still free`);
    const withRoom = ground.random.int(2) === 0;
    if (withRoom) {
      await resize(ground.dataDir, ROOMY_BYTES);
      await ground.afterConfirms(1, ROOM_AGAIN_MS);
    }
    const killed = await killServices(live(ground));
    const when = withRoom ? 'with room again' : 'while full';
    return hit(
      `filesystem shrunk to the ${usedBytes} bytes in use, and flooded; SIGKILL to all ${when}`,
      scopeOf(killed, ground),
      killed,
    );
  },
  async heal(ground: Ground): Promise<void> {
    ground.flood(false);
    await resize(ground.dataDir, ROOMY_BYTES);
  },
};

async function resize(mountPoint: string, sizeBytes: number): Promise<void> {
  await run('mount', ['-o', `remount,size=${sizeBytes}`, mountPoint]);
}
