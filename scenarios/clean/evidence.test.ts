import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { TestWorkspace } from '../fixtures/kit.js';
import { Registry } from '../host/registry.js';
import { keptRuns, removeOldEvidence } from './evidence.js';

const RUN_IDS = [1, 2, 3, 4].map((day) => `2026010${day}-120000-0000000${day}`);

/** Makes a state directory with evidence of four runs of 64 KiB each. */
function newState(t: { teardown(remove: () => void): void }): TestWorkspace {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  for (const [index, runId] of RUN_IDS.entries()) {
    const dir = join(place.state, index === 0 ? 'replays' : 'runs', runId, 'round-1');
    mkdirSync(dir, { recursive: true });
    writeFileSync(join(dir, 'history.jsonl'), Buffer.alloc(64 * 1024, 1));
  }
  return place;
}

const withLimits = (t: { teardown(undo: () => void): void }, text: string) => {
  process.env.PLUGPULL_LIMITS = text;
  t.teardown(() => {
    delete process.env.PLUGPULL_LIMITS;
  });
};

t.test('evidence is kept up to its number of runs, and the oldest is removed first', async (t) => {
  const { state } = newState(t);
  t.equal(removeOldEvidence(state), undefined, 'nothing is removed below the limits');
  withLimits(t, 'kept-runs=2');
  t.match(removeOldEvidence(state), /^removed the evidence of 2 runs \(1 MiB\), the oldest in .*kept-runs=2/);
  t.same(readdirSync(join(state, 'runs')).sort(), RUN_IDS.slice(2));
  t.same(readdirSync(join(state, 'replays')), []);
  t.equal(removeOldEvidence(state), undefined);
});

t.test('evidence is kept up to its size, and that of the newest run always stays', async (t) => {
  const { state } = newState(t);
  withLimits(t, `kept-bytes=${130 * 1024}`);
  t.match(removeOldEvidence(state), /of 2 runs/);
  process.env.PLUGPULL_LIMITS = 'kept-bytes=1';
  t.match(removeOldEvidence(state), /of 1 run /);
  t.same(readdirSync(join(state, 'runs')), [RUN_IDS[3]]);
});

t.test('what a registered run has made, and what is no run, is not evidence', async (t) => {
  const { state } = newState(t);
  const registry = new Registry(RUN_IDS[0] ?? '', state);
  mkdirSync(join(state, 'runs', 'mine'));
  t.same(
    keptRuns(state).map(({ runId }) => runId),
    RUN_IDS.slice(1).reverse(),
  );
  registry.close();
});

t.test('clean names evidence on stderr only, and removes it with --evidence', async (t) => {
  const place = newState(t);
  const plain = await place.run(['clean']);
  t.match(plain, {
    code: 0,
    stdout: 'nothing was left\n',
    stderr: /the evidence of 4 runs .* --evidence removes it/,
  });
  t.ok(existsSync(join(place.state, 'runs', RUN_IDS[3] ?? '')));
  t.match(await place.run(['clean', '--evidence']), {
    code: 0,
    stdout: /^the evidence of 4 runs .* was removed\n$/,
  });
  t.match(await place.run(['clean']), { code: 0, stdout: 'nothing was left\n', stderr: '' });
  t.same(keptRuns(place.state), []);
});
