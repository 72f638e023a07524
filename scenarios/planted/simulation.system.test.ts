import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import t from 'tap';
import { loadPlantedBugs } from './definition.js';
import { plant } from './plant.js';

interface Result {
  verdict: string;
  requirement?: string;
  seed: number;
  path?: string;
  story?: string[];
}

/**
 * Budget of each search. It is generous, because it must not test the speed: the runs of a seed are always
 * the same, and one of the first hundred shows each of these bugs.
 */
const BUDGET = '240s';

/**
 * Bugs that need an order of events, or a moment of the crash, that occurs among real processes only by
 * chance.
 */
for (const id of ['token-of-another', 'confirm-before-msync']) {
  t.test(`the simulation finds ${id}, and its seed and path reproduce the failure`, async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'plugpull-simulated-'));
    t.teardown(() => rmSync(dir, { recursive: true, force: true }));
    const [bug] = loadPlantedBugs([id]);
    if (!bug) throw new Error(`${id} is a planted bug`);
    const { program } = plant(bug, dir);
    const simulate = async (...flags: string[]): Promise<{ code: number | undefined; result: Result }> => {
      const all = [program, 'simulate', '--json', '--budget', BUDGET, '--seed', '1', ...flags];
      const { stdout, exitCode } = await execa(process.execPath, all, { reject: false });
      return { code: exitCode, result: JSON.parse(stdout) as Result };
    };
    const first = await simulate();
    t.equal(first.code, 1);
    t.match(first.result, { verdict: 'fail', requirement: bug.requirement });
    t.match(first.result.story?.at(-1), /^PP-1: m\d+ was confirmed, and after the restore it is gone$/);
    const again = await simulate('--path', `${first.result.path}`);
    t.equal(again.code, 1);
    t.same(again.result.story, first.result.story);
  });
}
