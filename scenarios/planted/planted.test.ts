import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { loadTarget } from '../../conformance/target-file/load.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';
import { loadPlantedBugs, type PlantedBug } from './definition.js';
import { plant, plantedSource } from './plant.js';

function newWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

const BUG: PlantedBug = {
  id: 'other-message',
  description: 'an error has another text',
  file: 'common/platform/errors.ts',
  find: 'invariant broken: ',
  replace: 'planted: ',
  requirement: 'PP-1',
  alsoAccepted: [],
  faults: ['kill'],
  shownBy: 'process',
};

t.test('a planted copy contains the bug, and its target file starts the copy', async (t) => {
  const workspace = newWorkspace(t);
  const dir = join(workspace.dir, 'copy');
  const target = loadTarget(plant(BUG, dir));
  t.equal(target.name, BUG.id);
  const changed = join(target.dir, '../../dist/reference-impl/common/platform/errors.js');
  t.match(readFileSync(changed, 'utf8'), 'planted: ');
  const original = join(packageRoot(), 'dist/reference-impl/common/platform/errors.js');
  t.match(readFileSync(original, 'utf8'), 'invariant broken: ', 'the original is unchanged');
  const copy = (await import(changed)) as { assert(condition: boolean, what: string): void };
  t.throws(() => copy.assert(false, 'x'), /planted: x/);
});

t.test(
  'a find text that does not occur exactly once is refused with its number of occurrences',
  async (t) => {
    const workspace = newWorkspace(t);
    const dir = join(workspace.dir, 'copy');
    t.throws(
      () => plant({ ...BUG, find: 'no such text' }, dir),
      /other-message.*find.*errors\.ts.*found it 0 times/,
    );
    t.throws(() => plant({ ...BUG, find: 'e' }, dir), /exactly once.*found it \d+ times/);
    t.throws(() => plant({ ...BUG, file: 'no/such.ts' }, dir), /other-message.*no\/such\.ts/);
    t.notOk(existsSync(dir));
  },
);

t.test('every planted bug applies to its source file and changes the compiled code', async (t) => {
  const bugs = loadPlantedBugs([]);
  t.ok(bugs.length >= 30, `${bugs.length} bugs`);
  for (const bug of bugs) {
    t.not(plantedSource(bug), plantedSource({ ...bug, replace: bug.find }), bug.id);
  }
});

t.test('the error for a wrong definition names the file and the key', async (t) => {
  const workspace = newWorkspace(t);
  const dir = join(workspace.dir, 'planted');
  mkdirSync(dir);
  writeFileSync(join(dir, 'a.json'), JSON.stringify({ ...BUG, requirement: 'PP-99' }));
  t.throws(() => loadPlantedBugs([], dir), /a\.json: requirement/);
  const { description: sentence, alsoAccepted: also, ...rest } = BUG;
  writeFileSync(join(dir, 'a.json'), JSON.stringify({ ...rest, sentence, also }));
  t.throws(() => loadPlantedBugs([], dir), {
    exitCode: 2,
    message: /^\S+a\.json: description: .*Unrecognized keys: "sentence", "also"$/,
  });
  writeFileSync(join(dir, 'a.json'), '{');
  t.throws(() => loadPlantedBugs([], dir), /a\.json: expected JSON/);
  writeFileSync(join(dir, 'a.json'), JSON.stringify(BUG));
  t.same(
    loadPlantedBugs(['other-message'], dir).map(({ id }) => id),
    ['other-message'],
  );
  t.throws(() => loadPlantedBugs(['nope'], dir), /nope.*other-message/);
});
