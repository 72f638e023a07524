import { execa } from 'execa';
import { programOf } from './programs.js';
import { measureQueue } from './queue.js';

/** A restore from nothing but the data file. */
export interface RestoreFigures {
  messages: number;
  seconds: number;
  /** The same again with the data file no longer in the page cache; null without the right to drop it. */
  coldSeconds: number | null;
}

interface Report {
  pairs: { restored: number; tookMs: number }[];
}

/** Fills the queue, puts its index aside and lets `rebuild` make a new one. */
export async function measureRestore(queue: string): Promise<RestoreFigures> {
  await measureQueue(queue, 4, 16, 600);
  const warm = await rebuild(queue);
  const coldSeconds = (await dropCaches()) ? (await rebuild(queue)).seconds : null;
  return { ...warm, coldSeconds };
}

async function rebuild(queue: string): Promise<{ messages: number; seconds: number }> {
  const { stdout } = await execa(process.execPath, [
    programOf('synchronous/main.js'),
    ...['rebuild', '--from-nothing', '--queue', queue],
  ]);
  const [pair] = (JSON.parse(stdout) as Report).pairs;
  return { messages: pair?.restored ?? 0, seconds: (pair?.tookMs ?? 0) / 1000 };
}

async function dropCaches(): Promise<boolean> {
  const { failed } = await execa('sh', ['-c', 'sync; echo 1 > /proc/sys/vm/drop_caches'], { reject: false });
  return !failed;
}
