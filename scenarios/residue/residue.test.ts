import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { TestPlace } from '../fixtures/kit.js';
import { processEntry } from '../runtime/processes.js';
import { clean } from './clean.js';
import { newRunId, Registry, type Resource, registeredRuns } from './registry.js';

function newPlace(t: { teardown(remove: () => void): void }): TestPlace {
  const place = new TestPlace();
  t.teardown(() => place.remove());
  return place;
}

/** Makes the run one whose kit is dead: no process starts twice at the same tick with the same pid. */
function forgetKit(place: TestPlace, runId: string): void {
  const file = join(place.state, 'residue', `${runId}.jsonl`);
  writeFileSync(file, readFileSync(file, 'utf8').replace(/"startTicks":\d+/, '"startTicks":1'));
}

t.test('what was made and not removed is known, the newest first', async (t) => {
  const place = newPlace(t);
  const registry = new Registry(newRunId(), place.state);
  const [a, b]: Resource[] = [
    { kind: 'directory', path: '/a' },
    { kind: 'mount', path: '/b' },
  ];
  if (a === undefined || b === undefined) return;
  registry.made(a);
  registry.made(b);
  registry.made({ kind: 'directory', path: '/c' });
  registry.gone({ kind: 'directory', path: '/c' });
  t.match(registeredRuns(place.state), [
    { runId: registry.runId, alive: true, sameBoot: true, resources: [b, a] },
  ]);
  registry.close();
  t.match(registeredRuns(place.state), [{ resources: [b, a] }], 'a mount that is left is not forgotten');
  registry.gone(b);
  registry.close();
  t.same(registeredRuns(place.state), []);
});

t.test('a line that a crash has cut off does not hide the others', async (t) => {
  const place = newPlace(t);
  const registry = new Registry(newRunId(), place.state);
  registry.made({ kind: 'directory', path: '/a' });
  appendFileSync(join(place.state, 'residue', `${registry.runId}.jsonl`), '{"line":"made","resou');
  t.match(registeredRuns(place.state), [{ resources: [{ path: '/a' }] }]);
});

t.test('clean removes processes and directories of a dead run, and nothing of others', async (t) => {
  const place = newPlace(t);
  const registry = new Registry(newRunId(), place.state);
  const dirs = ['mine', 'not-mine'].map((name) => join(place.dir, name));
  for (const dir of dirs) mkdirSync(dir);
  registry.made({ kind: 'directory', path: dirs[0] ?? '' });
  const options = { stdio: 'ignore', detached: true } as const;
  const marked = spawn('/bin/sleep', ['60'], { ...options, env: { PLUGPULL_RUN: registry.runId } });
  const other = spawn('/bin/sleep', ['60'], { ...options, env: { PLUGPULL_RUN: 'another' } });
  const changed = spawn('/bin/sleep', ['60'], { ...options, env: {} });
  const reused = spawn('/bin/sleep', ['60'], { ...options, env: {} });
  t.teardown(() => [other, reused].map((child) => child.kill('SIGKILL')));
  await Promise.all([marked, other, changed, reused].map((child) => once(child, 'spawn')));
  const ticks = (pid = 0) => processEntry(pid)?.startTicks ?? 0;
  registry.made({ kind: 'process', pid: changed.pid ?? 0, startTicks: ticks(changed.pid) });
  registry.made({ kind: 'process', pid: reused.pid ?? 0, startTicks: ticks(reused.pid) - 1 });

  t.match(await clean(place.state), { runs: [], inUse: [registry.runId] }, 'a run that lives is left alone');
  t.ok(existsSync(dirs[0] ?? ''));
  forgetKit(place, registry.runId);
  const exits = [marked, changed].map((child) => once(child, 'exit'));
  t.match(await clean(place.state), {
    runs: [{ runId: registry.runId, processes: 2, directories: 1, problems: [] }],
  });
  for (const exit of exits) t.same(await exit, [null, 'SIGKILL']);
  t.equal(other.exitCode ?? other.signalCode, null, 'a process of another run lives');
  t.equal(reused.exitCode ?? reused.signalCode, null, 'a process that only has the number lives');
  t.same(dirs.map(existsSync), [false, true]);
  t.same(readdirSync(join(place.state, 'residue')), []);
});

t.test('clean unmounts what a run had mounted before it removes directories', async (t) => {
  const place = newPlace(t);
  const registry = new Registry(newRunId(), place.state);
  const path = join(place.dir, 'disk');
  mkdirSync(path);
  registry.made({ kind: 'directory', path });
  registry.made({ kind: 'mount', path });
  if (spawnSync('mount', ['-t', 'tmpfs', 'plugpull-test', path]).status !== 0) {
    t.comment('mounting is not allowed here');
    return;
  }
  writeFileSync(join(path, 'file'), '');
  forgetKit(place, registry.runId);
  t.match(await clean(place.state), { runs: [{ mounts: 1, directories: 1, problems: [] }] });
  t.notOk(existsSync(path));
  t.notOk(readFileSync('/proc/self/mounts', 'utf8').includes(path));
});
