import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../../faults/power/blocklog-availability.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { packageRoot } from '../../host/version.js';
import type { ReplayResult } from '../../replay/replay.js';
import type { ExploreResult } from '../result/result.js';

const availability = blocklogAvailability();
const skip = availability.available ? false : availability.why;
const FIXTURES = join(packageRoot(), 'conformance/fixtures');

type RecoveryMethod = 'restore program' | 'start';

const GUARANTEE = {
  faults: ['kill', 'crash-states'],
  duplicatesPerCrash: 0,
  redeliverySeconds: 6,
  recoverySeconds: 2,
};

/**
 * Writes the target file of a queue that rewrites its only file in place when it recovers. The rewriting is
 * the queue's only bug. `method` says how the queue is recovered: by the restore program or by a start of the
 * target.
 */
function makeInPlaceTarget(workspace: TestWorkspace, method: RecoveryMethod): string {
  const wrong = method === 'start' ? ['--wrong', 'rewrites'] : [];
  const restore = ['{node}', join(FIXTURES, 'restore-log.mjs'), '--wrong', 'in-place'];
  return workspace.target(
    ['{node}', join(FIXTURES, 'queue.mjs'), '--data', '{data}', '--port', '{port}', ...wrong],
    { guarantee: GUARANTEE, ...(method === 'restore program' ? { crashStates: { restore } } : {}) },
  );
}

for (const method of ['restore program', 'start'] as const) {
  t.test(
    `a loss that only a cut of the recovery by the ${method} shows is found, and its bundle gives the same verdict`,
    { skip },
    async (t) => {
      const workspace = new TestWorkspace();
      t.teardown(() => workspace.remove());
      const flags = [
        '--budget',
        '150s',
        '--states',
        method === 'start' ? '12' : '30',
        '--seed',
        '3',
        '--json',
      ];
      const explored = await workspace.run(['explore', makeInPlaceTarget(workspace, method), ...flags]);
      t.equal(explored.code, 1, explored.stderr);
      const { verdict, smallest, bundle, strategies } = JSON.parse(explored.stdout) as ExploreResult;
      t.equal(verdict, 'fail');
      const { states } = (method === 'start' ? strategies.target : strategies.mount) ?? { states: 0 };
      t.ok(states > 0, 'crash states of the run itself were inspected');
      t.match(smallest?.state, />/, 'the smallest state is a cut of a recovery');
      t.match(smallest?.recovery, { log: /^recovery-\d\.log$/ });
      t.match(
        smallest?.story.join('\n'),
        /in the recovery from there again.*\ncut after \d+ requests to the disk, the last flush was entry \d+; .*\nmessage \S+: gone after the second/,
      );
      const again = await workspace.run(['replay', bundle ?? '', '--json', '--shrink', '--budget', '20s']);
      t.equal(again.code, 1, again.stderr);
      const result = JSON.parse(again.stdout) as ReplayResult;
      t.match(result, { kind: 'crash-state', verdict: 'fail', reproduced: 1 });
      t.ok(result.why.includes(`lost in crash state ${smallest?.state};`), result.why);
      const [outer = ''] = (smallest?.state ?? '').split('>');
      t.ok(result.reproducer.startsWith(`${outer}>`), 'the smaller state has the same first cut');
      t.match(result.story.join('\n'), /^the run was cut at .*\ncut after .*\nmessage \S+: gone$/);
      const at = await workspace.run(['replay', bundle ?? '', '--at', '0']);
      t.match(at, { code: 0, stderr: /^the log of the recovery has \d+ entries$/m });
    },
  );
}
