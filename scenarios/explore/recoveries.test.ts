import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../faults/power/available.js';
import { TestPlace } from '../fixtures/kit.js';
import type { ReplayResult } from '../replay/replay.js';
import { packageRoot } from '../version.js';
import type { ExploreResult } from './result.js';

const availability = blocklogAvailability();
const skip = availability.available ? false : availability.why;
const FIXTURES = join(packageRoot(), 'conformance/fixtures');

/** A queue that is right, with a recovery that writes its only file anew in place. */
function recoversInPlace(place: TestPlace): string {
  return place.target(['{node}', join(FIXTURES, 'queue.mjs'), '--data', '{data}', '--port', '{port}'], {
    guarantee: { faults: ['kill', 'crash-states'], duplicatesPerCrash: 0, recoverySeconds: 2 },
    crashStates: { restore: ['{node}', join(FIXTURES, 'restore-log.mjs'), '--wrong', 'in-place'] },
  });
}

t.test(
  'what only a cut of the recovery loses is found, and its bundle gives the same verdict again',
  { skip },
  async (t) => {
    const place = new TestPlace();
    t.teardown(() => place.remove());
    const flags = ['--budget', '45s', '--states', '30', '--seed', '3', '--json'];
    const explored = await place.run(['explore', recoversInPlace(place), ...flags]);
    t.equal(explored.code, 1, explored.stderr);
    const { verdict, smallest, bundle, ways } = JSON.parse(explored.stdout) as ExploreResult;
    t.equal(verdict, 'fail');
    t.ok((ways.mount?.states ?? 0) > 0, 'the states of the run itself were looked at, too');
    t.match(smallest?.state, />/, 'and it is a cut of a recovery that shows it');
    t.match(smallest?.recovery, { log: /^recovery-\d\.log$/ });
    t.match(
      smallest?.story.join('\n'),
      /in the recovery from there again.*\nmessage \S+: gone after the second/,
    );
    const again = await place.run(['replay', bundle ?? '', '--json', '--shrink', '--budget', '20s']);
    t.equal(again.code, 1, again.stderr);
    const result = JSON.parse(again.stdout) as ReplayResult;
    t.match(result, { kind: 'crash-state', verdict: 'fail', reproduced: 1 });
    t.ok(result.why.endsWith(`lost in crash state ${smallest?.state}`), result.why);
    const [outer = ''] = (smallest?.state ?? '').split('>');
    t.ok(result.schedule.startsWith(`${outer}>`), 'the first cut stays where it was');
    t.match(result.story.join('\n'), /^the run was cut at .*\ncut after .*\nmessage \S+: gone$/);
    const at = await place.run(['replay', bundle ?? '', '--at', '0']);
    t.match(at, { code: 0, stderr: /^the log of the recovery has \d+ entries$/m });
  },
);
