import { rmSync } from 'node:fs';
import t from 'tap';
import { TestWorkspace } from '../fixtures/kit.js';
import type { GateResult } from './result.js';

/** Targets for which a run proves nothing, although no requirement fails. */
const CASES: [what: string, defect: string, faults: string[], tried: string, why: RegExp][] = [
  ['never confirms', 'never-confirms', ['kill'], 'kill-one', /^nothing was confirmed$/],
  ['is never hit', '', ['index-loss'], 'index-loss', /^none of \d+ faults hit$/],
  [
    'delivers before it confirms',
    'delivers-first',
    ['kill'],
    'kill-one',
    /nothing was at risk at any of \d+ crashes: all was delivered before it was confirmed/,
  ],
];

for (const [what, defect, faults, tried, why] of CASES) {
  t.test(
    `a target that ${what} is not measured, and the result has the reason`,
    { timeout: 120_000 },
    async (t) => {
      const workspace = new TestWorkspace();
      t.teardown(() => rmSync(workspace.dir, { recursive: true, force: true }));
      const target = workspace.queue(defect, faults);
      const args = [
        'gate',
        target,
        '--json',
        '--seed',
        '7',
        '--injections',
        '3',
        '--budget',
        '10m',
        '--faults',
        tried,
      ];
      const { code, stdout, stderr } = await workspace.run(args);
      t.equal(code, 3, stderr);
      const result = JSON.parse(stdout) as GateResult;
      t.equal(result.verdict, 'not-measured');
      t.match(result.why, why);
      t.notOk(
        result.requirements.some(({ verdict }) => verdict === 'pass'),
        'no requirement passes in a run that proves nothing',
      );
      t.match(stderr, /run it again: node \S+main\.js gate/);
    },
  );
}
