import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import type { ExploreResult } from '../explore/result/result.js';

const PROGRAM = fileURLToPath(new URL('../cli/main.js', import.meta.url));

/** Different disks a second, by all workers together, start-up included: straight in the image, and mounted. */
export async function measureExplore(): Promise<Pick<ExploreResult, 'ways' | 'states' | 'verdict'>> {
  const args = [PROGRAM, 'explore', '--budget', '24s', '--seed', '1', '--json'];
  const { stdout } = await execa(process.execPath, args, { stderr: 'ignore' });
  const { ways, states, verdict } = JSON.parse(stdout) as ExploreResult;
  return { ways, states, verdict };
}
