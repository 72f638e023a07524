import { statfsSync } from 'node:fs';

const LEAST_BYTES = 1024 ** 3;
const LEAST_SHARE = 0.25;
const LOOK_EVERY_MS = 25;

/**
 * Watches the room that is left where a round works, and calls `onFull` once, before the last of it is gone: a target
 * that fills the disk must not take the kit's own evidence, or its host, with it.
 * @param path any path on that filesystem.
 */
export function watchRoom(path: string, onFull: (words: string) => void): { stop(): void } {
  const timer = setInterval(() => {
    const { bavail, blocks, bsize } = statfsSync(path);
    const leastBytes = Math.min(LEAST_BYTES, blocks * bsize * LEAST_SHARE);
    if (bavail * bsize >= leastBytes) return;
    clearInterval(timer);
    onFull(`${Math.round((bavail * bsize) / 2 ** 20)} MiB left`);
  }, LOOK_EVERY_MS);
  timer.unref();
  return { stop: () => clearInterval(timer) };
}
