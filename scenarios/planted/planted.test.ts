import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { KitError } from '../../conformance/errors.js';
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
  implementation: 'synchronous',
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
  const target = loadTarget(plant(BUG, dir).target);
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
  writeFileSync(join(dir, 'other-message.json'), JSON.stringify({ ...BUG, requirement: 'PP-99' }));
  t.throws(() => loadPlantedBugs([], { dir }), /other-message\.json: requirement/);
  const { description: sentence, alsoAccepted: also, ...rest } = BUG;
  writeFileSync(join(dir, 'other-message.json'), JSON.stringify({ ...rest, sentence, also }));
  t.throws(() => loadPlantedBugs([], { dir }), {
    exitCode: 2,
    message: /^\S+other-message\.json: description: .*Unrecognized keys: "sentence", "also"$/,
  });
  writeFileSync(join(dir, 'other-message.json'), '{');
  t.throws(() => loadPlantedBugs([], { dir }), /other-message\.json: expected JSON/);
  writeFileSync(join(dir, 'other-message.json'), JSON.stringify(BUG));
  t.same(
    loadPlantedBugs(['other-message'], { dir }).map(({ id }) => id),
    ['other-message'],
  );
  t.throws(() => loadPlantedBugs(['nope'], { dir }), /nope.*other-message/);
});

t.test('a definition names a known implementation, and changes only what this one runs', async (t) => {
  const workspace = newWorkspace(t);
  const { dir } = workspace;
  const refusal = (change: Partial<PlantedBug>) => {
    writeFileSync(join(dir, 'other-message.json'), JSON.stringify({ ...BUG, ...change }));
    try {
      loadPlantedBugs([], { dir });
    } catch (error) {
      if (error instanceof KitError && error.exitCode === 2) return error.message.replace(`${dir}/`, '');
      throw error;
    }
    return undefined;
  };
  t.equal(refusal({}), undefined);
  t.equal(refusal({ file: 'synchronous/main.ts' }), undefined);
  t.match(
    refusal({ implementation: 'synchronus' }),
    /^other-message\.json: implementation: synchronus: no such implementation, expected one of synchronous, .* \(did you mean synchronous\?\)$/,
  );
  for (const file of ['checkpointed/main.ts', 'main.ts', 'common/../checkpointed/main.ts', '../common/a.ts'])
    t.equal(
      refusal({ file }),
      `other-message.json: file: expected a path below synchronous/ or common/, found ${file}`,
    );
  t.equal(
    refusal({ id: 'another' }),
    'other-message.json: id: expected other-message as in the name of the file, found another',
  );
});

t.test(
  'the bugs of one implementation are selected, and an id of another one is unknown there',
  async (t) => {
    const { dir } = newWorkspace(t);
    const other = { ...BUG, id: 'other', implementation: 'checkpointed' };
    for (const bug of [BUG, other]) writeFileSync(join(dir, `${bug.id}.json`), JSON.stringify(bug));
    const ids = (implementation?: string, wanted: string[] = []) =>
      loadPlantedBugs(wanted, { dir, implementation }).map(({ id }) => id);
    t.same(ids(), ['other-message', 'other']);
    t.same(ids('synchronous'), ['other-message']);
    t.same(ids('checkpointed', ['other']), ['other']);
    t.throws(() => ids('checkpointed', ['other-message']), {
      exitCode: 2,
      message: /^other-message: no such planted bug of checkpointed, expected one of: other$/,
    });
    rmSync(join(dir, 'other.json'));
    t.throws(() => ids('checkpointed'), {
      exitCode: 2,
      message: /^--implementation checkpointed: \S+ has no planted bug of it$/,
    });
    t.throws(() => ids('checkpoint'), { exitCode: 2, message: /^--implementation checkpoint: / });
  },
);
