import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { straceAvailability } from '../../faults/programs.js';
import { processesBelow, TestWorkspace } from '../fixtures/kit.js';
import type { SweepResult } from './sweep.js';

const skip = straceAvailability().available ? false : 'strace is not installed';

t.test(
  'a correct queue outlives every call of its life, and every failure of its syncs',
  { skip },
  async (t) => {
    const place = new TestWorkspace();
    t.teardown(() => place.remove());
    const target = place.queue('', ['kill', 'io-error'], 20);
    const { code, stdout, stderr } = await place.run([
      'sweep',
      target,
      '--json',
      '--each',
      '1',
      '--budget',
      '90s',
      '--seed',
      '1',
    ]);
    t.equal(code, 0, stderr);
    const result = JSON.parse(stdout) as SweepResult;
    const row = (kind: string, what: string) =>
      result.sweep.find((one) => one.kind === kind && one.what === what) ?? {
        places: 0,
        tried: 0,
        reached: 0,
      };
    for (const [kind, what] of [
      ['sync', 'kill'],
      ['write', 'kill'],
      ['read', 'kill'],
      ['sync', 'EIO'],
      ['write', 'ENOSPC'],
    ] as const) {
      const { places, tried, reached } = row(kind, what);
      t.ok(places > 0 && tried > 0 && reached > 0, `${kind} ${what}: ${reached} of ${tried} of ${places}`);
    }
    t.match(stderr, /server +sync +kill +enumerated \d+ +tried \d+ +hit \d+/);
    t.match(stderr, /\d+ places were left out: more than 1 of a kind \(--each\)/);
    t.same(readdirSync(join(place.state, 'runs')), []);
    t.same(processesBelow(place.dir), []);
  },
);

t.test('a queue that goes on after a failed sync is caught at the first one', { skip }, async (t) => {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const target = place.queue('goes-on-after-errors', ['kill', 'io-error'], 20);
  const flags = ['--faults', 'io-error', '--each', '1', '--budget', '60s', '--seed', '1', '--json'];
  const { code, stdout, stderr } = await place.run(['sweep', target, ...flags]);
  t.equal(code, 1, stderr);
  const { requirements } = JSON.parse(stdout) as SweepResult;
  t.ok(
    requirements.some(({ id, verdict }) => id === 'PP-14' && verdict === 'fail'),
    stderr,
  );
  t.match(stderr, /EIO from 1 calls of fdatasync \(each thread's 1\).* unsynced sectors put back: \d+/);
});

t.test('what cannot be swept is told so', { skip }, async (t) => {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  t.match(await place.run(['sweep', place.queue(''), '--faults', 'io-error']), {
    code: 2,
    stderr: /--faults io-error: the target test does not claim to survive it/,
  });
});
