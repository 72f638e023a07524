import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { loadTarget } from '../../conformance/target-file/load.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { makeTinyPackage, TINY, TINY_BUG } from './fixtures/second-package.js';
import { hunt, MODES } from './hunt.js';
import type { HuntOptions, Mode } from './mode.js';
import { plant } from './plant.js';
import { referenceDigest } from './results.js';

const OPTIONS: HuntOptions = {
  seed: 7,
  budgetMs: 10_000,
  signal: new AbortController().signal,
  env: {},
  progress: () => {},
};

function useWorkspace(t: Test): TestWorkspace {
  const workspace = new TestWorkspace();
  const before = process.env.PLUGPULL_STATE;
  process.env.PLUGPULL_STATE = workspace.state;
  t.teardown(() => {
    if (before === undefined) delete process.env.PLUGPULL_STATE;
    else process.env.PLUGPULL_STATE = before;
    workspace.remove();
  });
  return workspace;
}

t.test('a copy has the implementation that the bug names, what it shares, and no other one', async (t) => {
  const { dir } = useWorkspace(t);
  const source = makeTinyPackage(join(dir, 'package'));
  const { target, program } = plant(TINY_BUG, join(dir, 'copy'), source);
  t.equal(program, join(dir, 'copy', TINY.program));
  const { dir: targetDir, services } = loadTarget(target);
  const [, file = ''] = services.server?.command ?? [];
  t.equal(join(file.replace('{dir}', targetDir)), program, 'the target file starts the copy');
  const queue = (root: string) => readFileSync(join(root, 'dist/reference-impl/tiny/queue.js'), 'utf8');
  t.notMatch(queue(join(dir, 'copy')), 'bodies.delete(done)');
  t.match(queue(join(dir, 'package')), 'bodies.delete(done)', 'the original is unchanged');
  t.ok(existsSync(join(dir, 'copy/dist/reference-impl/common/text.js')));
  t.notOk(existsSync(join(dir, 'copy/dist/reference-impl/other')));

  const shared = { ...TINY_BUG, file: 'common/text.ts', find: 'common', replace: 'planted' };
  plant(shared, join(dir, 'copy'), source);
  t.match(readFileSync(join(dir, 'copy/dist/reference-impl/common/text.js'), 'utf8'), 'planted');
});

t.test('a hunt runs the program of the copy, and a mode that is not offered is not measured', async (t) => {
  const { dir } = useWorkspace(t);
  const source = makeTinyPackage(join(dir, 'package'));
  const never: Mode = async () => {
    throw new Error('this mode is not offered');
  };
  const modeFunctions = { ...MODES, explore: never };
  const plan = { modes: ['explore', 'simulate'] as const, everyMode: true };
  const found = await hunt(TINY_BUG, plan, OPTIONS, modeFunctions, source);
  t.match(found, { id: TINY_BUG.id, implementation: 'tiny', expected: 'PP-2' });
  t.match(found.modes.simulate, { outcome: 'yes', requirement: 'PP-2', runs: 3, seed: 7 });
  t.match(found.modes.explore, { outcome: 'not-measured', why: TINY.missingModes.explore });
  const harmless = { ...TINY_BUG, replace: `${TINY_BUG.find} // unchanged` };
  const missed = await hunt(harmless, plan, OPTIONS, modeFunctions, source);
  t.match(missed.modes.simulate, { outcome: 'no' }, 'it was the bug that was found');
});

t.test('an implementation that is not compiled makes its hunts errors that say so', async (t) => {
  const { dir } = useWorkspace(t);
  const source = makeTinyPackage(join(dir, 'package'));
  const absent = { ...TINY, program: 'dist/reference-impl/tiny/none.js' };
  const plan = { modes: ['simulate'] as const, everyMode: true };
  const done = await hunt(TINY_BUG, plan, OPTIONS, MODES, { ...source, implementations: [absent] });
  t.match(done.modes.simulate, {
    outcome: 'error',
    why: /none\.js is not there: expected .* tiny, compiled/,
  });
  t.throws(() => plant({ ...TINY_BUG, implementation: 'tinny' }, join(dir, 'copy'), source), {
    exitCode: 2,
    message:
      /^planted bug tiny-resurrects: implementation: tinny: .* expected one of tiny \(did you mean tiny\?\)$/,
  });
});

t.test('the digest of an implementation depends on its sources and on what it shares, only', async (t) => {
  const { dir } = useWorkspace(t);
  const { root } = makeTinyPackage(join(dir, 'package'));
  const first = referenceDigest('tiny', root);
  t.match(first, /^[0-9a-f]{12}$/);
  mkdirSync(join(root, 'reference-impl/other'));
  writeFileSync(join(root, 'reference-impl/other/main.ts'), '');
  writeFileSync(join(root, 'reference-impl/tiny/main.test.ts'), '');
  t.equal(referenceDigest('tiny', root), first);
  appendFileSync(join(root, 'reference-impl/common/text.ts'), '\n');
  const second = referenceDigest('tiny', root);
  t.not(second, first);
  appendFileSync(join(root, 'reference-impl/tiny/main.ts'), '\n');
  t.not(referenceDigest('tiny', root), second);
});
