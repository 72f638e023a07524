import { execFile } from 'node:child_process';
import { statfsSync } from 'node:fs';
import { promisify } from 'node:util';
import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, killServices, liveServices, miss, scopeOf } from '../injection.js';
import { AVAILABLE, findProgram } from '../programs.js';
import { logUniformInt } from '../random-choice.js';

const run = promisify(execFile);
const FLOOD_TIMEOUT_MS = 4000;
const MAX_REJECTIONS = 20;
const CONFIRM_TIMEOUT_MS = 1000;
/**
 * Size limit of the filesystem in bytes while the fault is not active. It is a limit and reserves no memory.
 */
export const FILESYSTEM_LIMIT_BYTES = 8 * 1024 ** 3;

/**
 * Shrinks the filesystem that holds the data to the space in use while producers send as fast as they can. A
 * target that allocated all its space at install need not notice. A target whose files grow must reject what
 * it cannot store. Then all processes are killed before any receiver has taken a message, in half of the
 * cases after space is free again. Messages that were confirmed without being stored are then lost.
 */
export const diskFull: Fault = {
  name: 'disk-full',
  family: 'full',
  summary: 'the filesystem has no room left while messages come in: what was not stored is not confirmed',
  needs: { target: 'up', disk: 'limited' },
  actsOnStoredData: true,
  async available() {
    const remedy = 'run as root in an environment that may mount tmpfs';
    if (process.getuid?.() !== 0)
      return { available: false, why: 'it mounts a tmpfs, which needs root', remedy };
    if (findProgram('mount') === undefined)
      return { available: false, why: 'mount is not installed', remedy };
    return AVAILABLE;
  },
  async inject(context: FaultContext): Promise<Injection> {
    const before = statfsSync(context.dataDir);
    const usedBytes = (before.blocks - before.bfree) * before.bsize;
    await resize(context.dataDir, Math.max(usedBytes, before.bsize));
    context.flood(true);
    const rejections = logUniformInt(context.random, 1, MAX_REJECTIONS);
    await context.waitForRejections(rejections, FLOOD_TIMEOUT_MS);
    const after = statfsSync(context.dataDir);
    if (after.bavail > 0) return miss(`${after.bavail * after.bsize} bytes are still free`);
    const spaceRestored = context.random.int(2) === 0;
    if (spaceRestored) {
      await resize(context.dataDir, FILESYSTEM_LIMIT_BYTES);
      await context.waitForConfirms(1, CONFIRM_TIMEOUT_MS);
    }
    const killed = await killServices(liveServices(context));
    const when = spaceRestored ? 'with room again' : 'while full';
    return hit(
      `filesystem shrunk to the ${usedBytes} bytes in use, and flooded; SIGKILL to all ${when}`,
      scopeOf(killed, context),
      killed,
    );
  },
  async heal(context: FaultContext): Promise<void> {
    context.flood(false);
    await resize(context.dataDir, FILESYSTEM_LIMIT_BYTES);
  },
};

async function resize(mountPoint: string, sizeBytes: number): Promise<void> {
  await run('mount', ['-o', `remount,size=${sizeBytes}`, mountPoint]);
}
