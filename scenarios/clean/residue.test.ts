import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { TestWorkspace } from '../fixtures/kit.js';
import { processEntry } from '../host/processes.js';
import { newRunId, Registry, type Resource, registeredRuns } from '../host/registry.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';
import { clean } from './clean.js';

function newPlace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  return place;
}

/** Makes the run's kit count as dead, by a start time that does not belong to the registered pid. */
function forgetKit(place: TestWorkspace, runId: string): void {
  const file = join(place.state, 'residue', `${runId}.jsonl`);
  writeFileSync(file, readFileSync(file, 'utf8').replace(/"startTicks":\d+/, '"startTicks":1'));
}

/**
 * Runs `clean` in another process, after it has made the run's own kit, which is this process, count as dead.
 */
async function cleanElsewhere(place: TestWorkspace, runId: string): Promise<unknown> {
  forgetKit(place, runId);
  const { stdout } = await place.run(['clean', '--json']);
  return JSON.parse(stdout);
}

t.test('the registry lists what was made and not removed, newest first', async (t) => {
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
  t.match(registeredRuns(place.state), [{ resources: [b, a] }], 'a mount that is left stays registered');
  registry.gone(b);
  registry.close();
  t.same(registeredRuns(place.state), []);
});

t.test('a line that a crash has cut off does not hide the other lines', async (t) => {
  const place = newPlace(t);
  const registry = new Registry(newRunId(), place.state);
  registry.made({ kind: 'directory', path: '/a' });
  appendFileSync(join(place.state, 'residue', `${registry.runId}.jsonl`), '{"line":"made","resou');
  t.match(registeredRuns(place.state), [{ resources: [{ path: '/a' }] }]);
});

t.test('clean removes processes and directories of a dead run, and nothing of other runs', async (t) => {
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

  t.match(
    await clean(place.state),
    { runs: [], inUse: [registry.runId] },
    'a run whose kit is alive is left alone',
  );
  t.ok(existsSync(dirs[0] ?? ''));
  forgetKit(place, registry.runId);
  const exits = [marked, changed].map((child) => once(child, 'exit'));
  t.match(await clean(place.state), {
    runs: [{ runId: registry.runId, processes: 2, directories: 1, problems: [] }],
  });
  for (const exit of exits) t.same(await exit, [null, 'SIGKILL']);
  t.equal(other.exitCode ?? other.signalCode, null, 'a process of another run lives');
  t.equal(reused.exitCode ?? reused.signalCode, null, 'a process that only has the same pid lives');
  t.same(dirs.map(existsSync), [false, true]);
  t.same(readdirSync(join(place.state, 'residue')), []);
});

t.test(
  'clean ends a daemon that works in a data directory, and spares readers of the evidence',
  async (t) => {
    const place = newPlace(t);
    const registry = new Registry(newRunId(), place.state);
    const evidence = join(place.state, 'runs', registry.runId);
    const data = join(evidence, 'round-1', 'data');
    mkdirSync(data, { recursive: true });
    for (const path of [evidence, data]) registry.made({ kind: 'directory', path });
    const options = { stdio: 'ignore', detached: true, env: {} } as const;
    const daemon = spawn('/bin/sleep', ['60'], { ...options, cwd: data });
    const onlooker = spawn('/bin/sleep', ['60'], { ...options, cwd: evidence });
    t.teardown(() => onlooker.kill('SIGKILL'));
    await Promise.all([daemon, onlooker].map((child) => once(child, 'spawn')));
    const exit = once(daemon, 'exit');
    // Clean in another process: a process spares the children that it has started itself.
    const cleaned = await cleanElsewhere(place, registry.runId);
    t.match(cleaned, { runs: [{ runId: registry.runId, processes: 1, problems: [] }] });
    t.same(await exit, [null, 'SIGKILL']);
    t.equal(onlooker.exitCode ?? onlooker.signalCode, null, 'a process that works in the evidence lives');
  },
);

t.test('a kit that a dead run has started is ended with that run and cleaned after it', async (t) => {
  const place = newPlace(t);
  const [outer, inner] = ['1-outer', '2-inner'].map((id) => new Registry(id, place.state));
  if (outer === undefined || inner === undefined) return;
  const path = join(place.dir, 'of-inner');
  mkdirSync(path);
  inner.made({ kind: 'directory', path });
  const env = { [RUN_VARIABLE]: outer.runId };
  const kit = spawn('/bin/sleep', ['60'], { stdio: 'ignore', detached: true, env });
  await once(kit, 'spawn');
  const file = join(place.state, 'residue', `${inner.runId}.jsonl`);
  const [, ...made] = readFileSync(file, 'utf8').split('\n');
  const { boot } = JSON.parse(readFileSync(file, 'utf8').split('\n')[0] ?? '') as { boot: string };
  const startTicks = processEntry(kit.pid ?? 0)?.startTicks;
  const first = JSON.stringify({ line: 'kit', runId: inner.runId, pid: kit.pid, startTicks, boot });
  writeFileSync(file, [first, ...made].join('\n'));
  t.match(registeredRuns(place.state), [{ alive: true }, { alive: true }]);
  const cleaned = await cleanElsewhere(place, outer.runId);
  t.match(cleaned, {
    runs: [
      { runId: outer.runId, processes: 1 },
      { runId: inner.runId, directories: 1, problems: [] },
    ],
    inUse: [],
  });
  t.notOk(existsSync(path));
  t.same(registeredRuns(place.state), []);
});

t.test('a registry that cannot be written or read is reported in one line', async (t) => {
  const place = newPlace(t);
  mkdirSync(place.state);
  writeFileSync(join(place.state, 'residue'), '');
  t.throws(() => registeredRuns(place.state), { code: 'bad-usage', message: /PLUGPULL_STATE.*ENOTDIR/ });
  t.throws(() => new Registry(newRunId(), place.state), { code: 'bad-usage' });
  const full = join(place.dir, 'full');
  mkdirSync(full);
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'plugpull-test', full]).status !== 0) {
    t.comment('mounting is not allowed here');
    return;
  }
  try {
    mkdirSync(join(full, 'residue'));
    t.throws(() => writeFileSync(join(full, 'fill'), Buffer.alloc(1 << 20)), { code: 'ENOSPC' });
    t.throws(() => new Registry(newRunId(), full), { code: 'kit-failed', message: /residue.*ENOSPC/ });
    t.same(registeredRuns(full), []);
  } finally {
    spawnSync('umount', ['-l', full]);
  }
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
