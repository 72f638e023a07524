import { execFile } from 'node:child_process';
import { statfsSync } from 'node:fs';
import { promisify } from 'node:util';
import type { Fault, FaultContext, Injection } from '../fault.js';
import { hit, killServices, liveServices, miss, scopeOf } from '../injection.js';
import { whyNoMounts } from '../privileges.js';
import { AVAILABLE, findProgram } from '../programs.js';
import { logUniformInt } from '../random-choice.js';
import { allThreadsInState } from '../thread-state.js';
import { until } from '../waiting.js';

const run = promisify(execFile);
const FLOOD_TIMEOUT_MS = 4000;
const MAX_REJECTIONS = 20;
const CONFIRM_TIMEOUT_MS = 1000;
/** Upper bound for stopping the target while its filesystem shrinks, in ms. */
const STOP_TIMEOUT_MS = 2000;
/** Upper bound for the attempts to shrink a filesystem that still grows, although its target is stopped. */
const MAX_SHRINKS = 20;
/**
 * Free space that the shrunk filesystem has, in bytes. When it is used up, the target has written to a full disk. A
 * filesystem without free space from the start would also look full to a target that needs no more space.
 */
const HEADROOM_BYTES = 64 * 1024;
/** Interval of the checks of the free space, in ms. A target that takes back a failed write may free some at once. */
const FREE_SPACE_POLL_MS = 2;
/**
 * Size limit of the filesystem in bytes while the fault is not active. It is a limit and reserves no memory.
 */
export const FILESYSTEM_LIMIT_BYTES = 8 * 1024 ** 3;

/**
 * Shrinks the filesystem that holds the data to little more than the space in use while producers send as fast as
 * they can. A target that allocated all its space at install need not notice, and makes the fault a miss. A target
 * whose files grow uses up the free space; then it must reject what it cannot store, or stop. Then all processes are
 * killed before any receiver has taken a message, in half of the cases after space is free again. Messages that were
 * confirmed without being stored are then lost.
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
    const noMounts = whyNoMounts();
    return noMounts === undefined ? AVAILABLE : { available: false, ...noMounts };
  },
  async inject(context: FaultContext): Promise<Injection> {
    const live = liveServices(context);
    const usedBytes = await shrink(context);
    if (usedBytes === undefined) return miss('the filesystem could not be shrunk: its use grew all the time');
    context.flood(true);
    const { leftBytes, rejects } = await waitUntilFull(
      context,
      logUniformInt(context.random, 1, MAX_REJECTIONS),
    );
    const ended = live.filter((service) => service.pids().length === 0).map(({ name }) => name);
    // A target that allocates large pieces may reject although a little space is left.
    if (leftBytes > 0 && !rejects && ended.length === 0)
      return miss(`nothing was rejected, and at least ${leftBytes} bytes were free all the time`);
    const spaceRestored = context.random.int(2) === 0;
    if (spaceRestored) {
      await resize(context.dataDir, FILESYSTEM_LIMIT_BYTES);
      if (liveServices(context).length > 0) await context.waitForConfirms(1, CONFIRM_TIMEOUT_MS);
    }
    const killed = await killServices(liveServices(context));
    const down = [...new Set([...ended, ...killed])];
    const exits = ended.length > 0 ? `${ended.join(' and ')} ended by itself` : undefined;
    const kill = killed.length > 0 ? 'SIGKILL to all' : undefined;
    const left = leftBytes > 0 && rejects ? ` until it rejected with ${leftBytes} bytes free` : '';
    const when = spaceRestored ? 'with free space again' : 'while full';
    return hit(
      `filesystem shrunk to the ${usedBytes} bytes in use and ${HEADROOM_BYTES} more, and flooded${left}; ${[exits, kill && `${kill} ${when}`].filter(Boolean).join('; ')}`,
      scopeOf(down, context),
      down,
    );
  },
  async heal(context: FaultContext): Promise<void> {
    context.flood(false);
    await resize(context.dataDir, FILESYSTEM_LIMIT_BYTES);
  },
};

/**
 * Shrinks the filesystem to the space in use and HEADROOM_BYTES more. The target is stopped meanwhile, because a
 * filesystem cannot become smaller than its content, and a running target makes it grow between the measurement and
 * the change.
 * @returns the space in use, in bytes; undefined when the filesystem grew at every attempt.
 */
async function shrink(context: FaultContext): Promise<number | undefined> {
  const stopped = liveServices(context);
  try {
    await Promise.all(stopped.map((service) => service.signal('SIGSTOP')));
    const pids = stopped.flatMap((service) => service.pids());
    await until(
      () => pids.every((pid) => allThreadsInState(pid, 'TtZX')),
      STOP_TIMEOUT_MS,
      context.signal,
      1,
    );
    for (let attempt = 1; attempt <= MAX_SHRINKS; attempt++) {
      const { blocks, bfree, bsize } = statfsSync(context.dataDir);
      const usedBytes = (blocks - bfree) * bsize;
      const sizeBytes = usedBytes + HEADROOM_BYTES;
      try {
        await resize(context.dataDir, sizeBytes);
        return usedBytes;
      } catch (error) {
        // A process that was created during the stop still writes. Pass on an error that has another cause.
        if (usedBlocks(context) * bsize <= sizeBytes) throw error;
      }
    }
    return undefined;
  } finally {
    await Promise.all(stopped.map((service) => service.signal('SIGCONT')));
  }
}

function usedBlocks({ dataDir }: FaultContext): number {
  const { blocks, bfree } = statfsSync(dataDir);
  return blocks - bfree;
}

/**
 * Waits until the target has rejected some messages or has ended, at most FLOOD_TIMEOUT_MS.
 * @returns `leftBytes`, the smallest number of free bytes that was seen: a target may free space by taking back a
 *   failed write; and whether it has rejected any message.
 */
async function waitUntilFull(
  context: FaultContext,
  rejections: number,
): Promise<{ leftBytes: number; rejects: boolean }> {
  const deadline = performance.now() + FLOOD_TIMEOUT_MS;
  let isOver = false;
  let rejects = false;
  let leftBytes = Number.POSITIVE_INFINITY;
  const waitForRejections = async () => {
    rejects = (await context.waitForRejections(1, FLOOD_TIMEOUT_MS)) === 'reached';
    if (rejects && rejections > 1)
      await context.waitForRejections(rejections - 1, deadline - performance.now());
  };
  void waitForRejections().finally(() => {
    isOver = true;
  });
  await until(
    () => {
      const { bavail, bsize } = statfsSync(context.dataDir);
      leftBytes = Math.min(leftBytes, bavail * bsize);
      return isOver || (context.services.length > 0 && liveServices(context).length === 0);
    },
    FLOOD_TIMEOUT_MS,
    context.signal,
    FREE_SPACE_POLL_MS,
  );
  return { leftBytes, rejects };
}

async function resize(mountPoint: string, sizeBytes: number): Promise<void> {
  await run('mount', ['-o', `remount,size=${sizeBytes}`, mountPoint]);
}
