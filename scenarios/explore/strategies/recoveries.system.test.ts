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

const GUARANTEE = { faults: ['kill', 'crash-states'], duplicatesPerCrash: 0, recoverySeconds: 2 };

/** A queue that writes its only file anew in place when it recovers, and is right in all else. */
function recoversInPlace(place: TestWorkspace, by: 'its program' | 'its start'): string {
  const wrong = by === 'its start' ? ['--wrong', 'rewrites'] : [];
  const restore = ['{node}', join(FIXTURES, 'restore-log.mjs'), '--wrong', 'in-place'];
  return place.target(
    ['{node}', join(FIXTURES, 'queue.mjs'), '--data', '{data}', '--port', '{port}', ...wrong],
    { guarantee: GUARANTEE, ...(by === 'its program' ? { crashStates: { restore } } : {}) },
  );
}

for (const by of ['its program', 'its start'] as const) {
  t.test(
    `what only a cut of the recovery by ${by} loses is found, and its bundle gives the same verdict again`,
    { skip },
    async (t) => {
      const place = new TestWorkspace();
      t.teardown(() => place.remove());
      const flags = [
        '--budget',
        '45s',
        '--states',
        by === 'its start' ? '12' : '30',
        '--seed',
        '3',
        '--json',
      ];
      const explored = await place.run(['explore', recoversInPlace(place, by), ...flags]);
      t.equal(explored.code, 1, explored.stderr);
      const { verdict, smallest, bundle, strategies } = JSON.parse(explored.stdout) as ExploreResult;
      t.equal(verdict, 'fail');
      const { states } = (by === 'its start' ? strategies.target : strategies.mount) ?? { states: 0 };
      t.ok(states > 0, 'the states of the run itself were looked at, too');
      t.match(smallest?.state, />/, 'and it is a cut of a recovery that shows it');
      t.match(smallest?.recovery, { log: /^recovery-\d\.log$/ });
      t.match(
        smallest?.story.join('\n'),
        /in the recovery from there again.*\ncut after \d+ requests to the disk, the last flush was entry \d+; .*\nmessage \S+: gone after the second/,
      );
      const again = await place.run(['replay', bundle ?? '', '--json', '--shrink', '--budget', '20s']);
      t.equal(again.code, 1, again.stderr);
      const result = JSON.parse(again.stdout) as ReplayResult;
      t.match(result, { kind: 'crash-state', verdict: 'fail', reproduced: 1 });
      t.ok(result.why.endsWith(`lost in crash state ${smallest?.state}`), result.why);
      const [outer = ''] = (smallest?.state ?? '').split('>');
      t.ok(result.reproducer.startsWith(`${outer}>`), 'the first cut stays where it was');
      t.match(result.story.join('\n'), /^the run was cut at .*\ncut after .*\nmessage \S+: gone$/);
      const at = await place.run(['replay', bundle ?? '', '--at', '0']);
      t.match(at, { code: 0, stderr: /^the log of the recovery has \d+ entries$/m });
    },
  );
}
