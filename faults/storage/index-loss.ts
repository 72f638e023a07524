import { constants, copyFileSync, mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Fault, Ground, Injection } from '../fault.js';
import { filesMatching } from '../files/walk.js';
import { hit, miss } from '../injection.js';
import { ALWAYS } from '../programs.js';
import { damage, pickWay } from './index-damage.js';

const START = 'index-at-start';
const LAST = 'index-at-last-loss';

/**
 * Loses or damages what the target can rebuild, while it is down. Copies are kept from the start of the round and from
 * before each loss: an old state that comes back is one of these.
 */
export const indexLoss: Fault = {
  name: 'index-loss',
  family: 'index-loss',
  summary: 'the index removed, cut, damaged or put back to an old state while down: it can be rebuilt',
  needs: { target: 'down', disk: 'any' },
  available: async () => ALWAYS,
  async prepare(ground: Ground): Promise<void> {
    for (const folder of [START, LAST]) keepCopies(ground, folder);
  },
  async inject(ground: Ground): Promise<Injection> {
    const files = filesMatching(ground.dataDir, ground.indexFiles);
    if (files.length === 0) {
      const why = ground.indexFiles.length === 0 ? 'the target names none' : ground.indexFiles.join(', ');
      return miss(`no index file was found (${why})`);
    }
    const way = pickWay(ground.random);
    const copies = join(ground.scratchDir, ground.random.pick([START, LAST]));
    const done: string[] = [];
    for (const file of files) {
      const victim = { path: join(ground.dataDir, file), earlier: join(copies, file) };
      const before = join(ground.scratchDir, 'index-now', file);
      keepCopy(victim.path, before);
      const what = damage(victim, way, ground.random);
      keepCopy(before, join(ground.scratchDir, LAST, file));
      if (what !== undefined) done.push(`${file} ${what}`);
    }
    if (done.length === 0) return miss(`index ${way}: nothing to change in ${files.join(', ')}`);
    return { ...hit(`index ${done.join('; ')}`, 'none', []), indexDamaged: true };
  },
  heal: async () => {},
};

function keepCopies(ground: Ground, folder: string): void {
  for (const file of filesMatching(ground.dataDir, ground.indexFiles)) {
    keepCopy(join(ground.dataDir, file), join(ground.scratchDir, folder, file));
  }
}

function keepCopy(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  copyFileSync(from, to, constants.COPYFILE_FICLONE);
}
