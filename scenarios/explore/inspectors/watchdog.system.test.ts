import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../../faults/power/blocklog-availability.js';
import { processesBelow, TestWorkspace } from '../../fixtures/kit.js';
import { packageRoot } from '../../host/version.js';
import type { ExploreResult } from '../result/result.js';

const availability = blocklogAvailability();
const skip = availability.available ? false : availability.why;
const FIXTURES = join(packageRoot(), 'conformance/fixtures');

/** Writes the target file of the small queue, with a restore program that misbehaves on some states. */
function makeTarget(workspace: TestWorkspace, wrong: string): string {
  return workspace.target(['{node}', join(FIXTURES, 'queue.mjs'), '--data', '{data}', '--port', '{port}'], {
    guarantee: { faults: ['kill', 'crash-states'], duplicatesPerCrash: 0, recoverySeconds: 2 },
    crashStates: { restore: ['{node}', join(FIXTURES, 'restore-log.mjs'), '--wrong', wrong] },
  });
}

for (const [wrong, budget, message] of [
  ['hangs', '60s', /no recovery: crashStates\.restore did not answer within 10 s/],
  ['dies', '30s', /no recovery: crashStates\.restore ended with code 7/],
  ['babbles', '30s', /no recovery: crashStates\.restore: expected JSON, found recovered, I think/],
] as const) {
  t.test(
    `a restore program that ${wrong} on some states is reported within the budget, and its bundle shows it again`,
    { skip },
    async (t) => {
      const workspace = new TestWorkspace();
      t.teardown(() => workspace.remove());
      const flags = ['--budget', budget, '--seed', '3', '--json'];
      const { code, stdout, stderr } = await workspace.run([
        'explore',
        makeTarget(workspace, wrong),
        ...flags,
      ]);
      t.equal(code, 1, stderr);
      const result = JSON.parse(stdout) as ExploreResult;
      t.match(result, { verdict: 'fail', violations: [{ requirement: 'PP-13', what: message }] });
      t.match(result.bundle, /bundle\.tar\.gz$/);
      t.same(processesBelow(workspace.dir), [], 'no process of the exploration is left');
      // The replay reproduces the failure exactly, also when the program hangs.
      const again = await workspace.run(['replay', result.bundle ?? '', '--json']);
      t.equal(again.code, 1, again.stderr);
      t.match(again.stderr, message);
    },
  );
}

t.test('a restore program that never works is an error of the target', { skip }, async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const target = workspace.target(
    ['{node}', join(FIXTURES, 'queue.mjs'), '--data', '{data}', '--port', '{port}'],
    {
      guarantee: { faults: ['kill', 'crash-states'], duplicatesPerCrash: 0 },
      crashStates: { restore: ['{node}', '-e', 'process.exit(5)'] },
    },
  );
  const ended = await workspace.run(['explore', target, '--budget', '10s', '--seed', '3']);
  t.match(ended, {
    code: 2,
    stderr: /^plugpull: crashStates\.restore ended with code 5, on every crash state$/m,
  });
});
