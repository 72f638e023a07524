import fs, {
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import t from 'tap';
import { TestWorkspace } from '../fixtures/kit.js';
import { Registry } from '../host/registry.js';
import { keptRuns, removeOldEvidence, removeRuns } from './evidence.js';

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

t.test('the evidence of a run of this process stays, although the clock was set back', async (t) => {
  const { state } = newState(t);
  withLimits(t, 'kept-runs=1');
  const own = '20250101-120000-00000000';
  new Registry(own, state).close();
  mkdirSync(join(state, 'runs', own));
  t.match(removeOldEvidence(state), /of 4 runs/);
  t.same(readdirSync(join(state, 'runs')), [own]);
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

/** What `clean` says on stderr without evidence: at most that the user has an image of the lab VM. */
const NO_EVIDENCE = /^(?:the image of the lab VM .*\n)?$/;

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
  t.match(await place.run(['clean']), { code: 0, stdout: 'nothing was left\n', stderr: NO_EVIDENCE });
  t.same(keptRuns(place.state), []);
});

t.test('evidence that another kit removes at the same moment is no problem', async (t) => {
  const { state } = newState(t);
  const { readdirSync: list } = fs;
  t.teardown(() => {
    fs.readdirSync = list;
    syncBuiltinESMExports();
  });
  // The other kit removes the oldest run right after this one has listed the directory.
  const listed: string[] = [];
  fs.readdirSync = Object.assign((...args: Parameters<typeof list>) => {
    const names = list(...args);
    listed.push(String(args[0]));
    if (args[0] === join(state, 'runs')) rmSync(join(state, 'runs', RUN_IDS[1] ?? ''), { recursive: true });
    return names;
  }, list) as typeof list;
  syncBuiltinESMExports();
  const kept = keptRuns(state);
  fs.readdirSync = list;
  syncBuiltinESMExports();
  t.ok(listed.includes(join(state, 'runs')));
  t.same(
    kept.map(({ runId }) => runId),
    [RUN_IDS[3], RUN_IDS[2], RUN_IDS[0]],
  );
  rmSync(join(state, 'runs'), { recursive: true });
  const { removed, problem } = removeRuns(kept);
  t.equal(problem, undefined);
  t.same(
    removed.map(({ runId }) => runId),
    [RUN_IDS[0]],
  );
});

t.test(
  'evidence behind a link is not that of this state directory, and is neither listed nor removed',
  async (t) => {
    const { state, dir } = newState(t);
    withLimits(t, 'kept-runs=1');
    const other = join(dir, 'other');
    renameSync(state, other);
    mkdirSync(join(state, 'planted'), { recursive: true });
    symlinkSync(join(other, 'runs'), join(state, 'runs'));
    symlinkSync(join(other, 'replays'), join(state, 'replays'));
    symlinkSync(join(other, 'runs', RUN_IDS[2] ?? ''), join(state, 'planted', RUN_IDS[2] ?? ''));
    t.same(keptRuns(state), []);
    t.equal(removeOldEvidence(state), undefined);
    const link = join(dir, 'link');
    symlinkSync(other, link);
    for (const path of [link, `${link}/`]) t.same(keptRuns(path), [], path);
    t.equal(keptRuns(other).length, 4, 'everything is still there');
  },
);

t.test('a run that another state directory has registered is left alone', async (t) => {
  const { state, dir } = newState(t);
  const registry = new Registry(RUN_IDS[1] ?? '', join(dir, 'another'));
  t.teardown(() => registry.close());
  t.notOk(keptRuns(state).some(({ runId }) => runId === RUN_IDS[1]));
});
