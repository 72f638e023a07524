import { join } from 'node:path';
import t from 'tap';
import { TestWorkspace } from '../fixtures/kit.js';
import { makeTinyPackage, TINY_BUG } from './fixtures/second-package.js';
import { hunt, MODES } from './hunt.js';

t.test('a gate finds a bug in the copy of a second implementation', async (t) => {
  const workspace = new TestWorkspace();
  process.env.PLUGPULL_STATE = workspace.state;
  t.teardown(() => workspace.remove());
  const source = makeTinyPackage(join(workspace.dir, 'package'));
  const options = {
    seed: 1,
    budgetMs: 120_000,
    signal: new AbortController().signal,
    env: {},
    progress: (line: string) => t.comment(line),
  };
  const { modes } = await hunt(TINY_BUG, { modes: ['gate'], everyMode: true }, options, MODES, source);
  t.match(modes.gate, { outcome: 'yes', requirement: 'PP-2' }, modes.gate?.why ?? '');
});
