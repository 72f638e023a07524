import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { TestWorkspace } from '../fixtures/kit.js';
import { seesAllProcesses } from '../host/dead-runs.js';
import { OUT_MARKER } from '../host/out-directory.js';
import { bootId, processEntry } from '../host/processes.js';
import {
  makeRegistryPlace,
  newRunId,
  Registry,
  type Resource,
  refusedFiles,
  registeredRuns,
  registryFile,
  registryPlaces,
} from '../host/registry.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';
import { clean } from './clean.js';

function newPlace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  return place;
}

/** Returns the list of a run's resources. */
function listOf(runId: string): string {
  return registryFile(runId) ?? '';
}

/** Makes a directory as a run makes it, in its folder of the state directory. */
function makeOwn(place: TestWorkspace, runId: string, name: string): string {
  const path = join(place.state, 'runs', runId, name);
  mkdirSync(path, { recursive: true });
  return path;
}

/** Makes the run's kit count as dead, by a start time that does not belong to the registered pid. */
function forgetKit(runId: string): void {
  const file = listOf(runId);
  writeFileSync(file, readFileSync(file, 'utf8').replace(/"startTicks":\d+/, '"startTicks":1'));
}

/**
 * Runs `clean` in another process, after it has made the run's own kit, which is this process, count as dead.
 */
async function cleanElsewhere(place: TestWorkspace, runId: string): Promise<unknown> {
  forgetKit(runId);
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
  appendFileSync(listOf(registry.runId), '{"line":"made","resou');
  t.match(registeredRuns(place.state), [{ resources: [{ path: '/a' }] }]);
});

t.test('clean removes processes and directories of a dead run, and nothing of other runs', async (t) => {
  const place = newPlace(t);
  const registry = new Registry(newRunId(), place.state);
  const dirs = ['mine', 'not-mine'].map((name) => makeOwn(place, registry.runId, name));
  registry.made({ kind: 'directory', path: dirs[0] ?? '' });
  const options = { stdio: 'ignore', detached: true } as const;
  const marked = spawn('/bin/sleep', ['60'], { ...options, env: { PLUGPULL_RUN: registry.runId } });
  const other = spawn('/bin/sleep', ['60'], { ...options, env: { PLUGPULL_RUN: 'another' } });
  const changed = spawn('/bin/sleep', ['60'], { ...options, env: {}, cwd: dirs[1] });
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
  forgetKit(registry.runId);
  const exits = [marked, changed].map((child) => once(child, 'exit'));
  t.match(await clean(place.state), {
    runs: [{ runId: registry.runId, processes: 2, directories: 1, problems: [] }],
  });
  for (const exit of exits) t.same(await exit, [null, 'SIGKILL']);
  t.equal(other.exitCode ?? other.signalCode, null, 'a process of another run lives');
  t.equal(reused.exitCode ?? reused.signalCode, null, 'a process that only has the same pid lives');
  t.same(dirs.map(existsSync), [false, true]);
  t.same(place.runs(), []);
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
  const [first, second] = [newRunId(), newRunId()].sort();
  const [outer, inner] = [first ?? '', second ?? ''].map((id) => new Registry(id, place.state));
  if (outer === undefined || inner === undefined) return;
  const path = makeOwn(place, inner.runId, 'of-inner');
  inner.made({ kind: 'directory', path });
  const env = { [RUN_VARIABLE]: outer.runId };
  const kit = spawn('/bin/sleep', ['60'], { stdio: 'ignore', detached: true, env });
  await once(kit, 'spawn');
  const file = listOf(inner.runId);
  const [, ...made] = readFileSync(file, 'utf8').split('\n');
  const head = JSON.parse(readFileSync(file, 'utf8').split('\n')[0] ?? '') as object;
  const startTicks = processEntry(kit.pid ?? 0)?.startTicks;
  writeFileSync(file, [JSON.stringify({ ...head, pid: kit.pid, startTicks }), ...made].join('\n'));
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
  writeFileSync(place.state, '');
  t.throws(() => new Registry(newRunId(), place.state), { code: 'bad-usage', message: /PLUGPULL_STATE/ });
  const full = join(place.dir, 'full');
  mkdirSync(full);
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=64k,mode=700', 'plugpull-test', full]).status !== 0) {
    t.comment('mounting is not allowed here');
    return;
  }
  const before = process.env.XDG_STATE_HOME;
  process.env.XDG_STATE_HOME = full;
  try {
    mkdirSync(join(full, 'plugpull/runs'), { recursive: true, mode: 0o700 });
    t.throws(() => writeFileSync(join(full, 'fill'), Buffer.alloc(1 << 20)), { code: 'ENOSPC' });
    const other = join(place.dir, 'state');
    rmSync(other);
    t.throws(() => new Registry(newRunId(), other), { code: 'kit-failed', message: /runs.*ENOSPC/ });
    t.same(registeredRuns(other), []);
  } finally {
    if (before === undefined) delete process.env.XDG_STATE_HOME;
    else process.env.XDG_STATE_HOME = before;
    spawnSync('umount', ['-l', full]);
  }
});

t.test('clean unmounts what a run had mounted before it removes directories', async (t) => {
  const place = newPlace(t);
  const registry = new Registry(newRunId(), place.state);
  const path = makeOwn(place, registry.runId, 'disk');
  registry.made({ kind: 'directory', path });
  registry.made({ kind: 'mount', path });
  if (spawnSync('mount', ['-t', 'tmpfs', 'plugpull-test', path]).status !== 0) {
    t.comment('mounting is not allowed here');
    return;
  }
  writeFileSync(join(path, 'file'), '');
  forgetKit(registry.runId);
  t.match(await clean(place.state), { runs: [{ mounts: 1, directories: 1, problems: [] }] });
  t.notOk(existsSync(path));
  t.notOk(readFileSync('/proc/self/mounts', 'utf8').includes(path));
});

t.test('clean leaves everything that the run has not certainly made, and says why', async (t) => {
  const place = newPlace(t);
  const registry = new Registry(newRunId(), place.state, join(place.dir, 'out'));
  t.teardown(() => rmSync(listOf(registry.runId), { force: true }));
  const precious = join(place.dir, 'precious');
  const evidence = join(place.state, 'runs', 'of-another-run');
  for (const dir of [precious, join(precious, 'data'), evidence]) mkdirSync(dir, { recursive: true });
  const own = makeOwn(place, registry.runId, 'round-1');
  const linked = join(own, 'linked');
  symlinkSync(precious, linked);
  const bystander = spawn('/bin/sleep', ['60'], { stdio: 'ignore', detached: true, env: {}, cwd: precious });
  t.teardown(() => bystander.kill('SIGKILL'));
  await once(bystander, 'spawn');
  const startTicks = processEntry(bystander.pid ?? 0)?.startTicks ?? 0;
  const strange: [Resource, RegExp][] = [
    [{ kind: 'directory', path: precious }, /is not in a folder of the run/],
    [{ kind: 'mount', path: precious }, /is not in a folder of the run/],
    [{ kind: 'loop', path: precious }, /is not in a folder of the run/],
    [{ kind: 'directory', path: `${own}/../../../../precious` }, /without \. and \.\./],
    [{ kind: 'directory', path: join(place.state, 'runs') }, /is not in a folder of the run/],
    [{ kind: 'directory', path: evidence }, /is not in a folder of the run/],
    [{ kind: 'directory', path: join(place.state, '..') }, /is not in a folder of the run/],
    [{ kind: 'directory', path: join(linked, 'data') }, /linked is a link to .*precious/],
    [{ kind: 'mapping', path: '/dev/mapper/control' }, /expected \/dev\/mapper\/plugpull-/],
    [{ kind: 'process', pid: bystander.pid ?? 0, startTicks }, /neither its environment nor its files/],
    [{ kind: 'containers', engine: 'tcp://192.0.2.1:2375' }, /expected a socket of this machine/],
  ];
  for (const [resource] of strange) registry.made(resource);
  registry.made({ kind: 'directory', path: own });
  forgetKit(registry.runId);
  const { code, stdout } = await place.run(['clean']);
  t.equal(code, 4);
  for (const [resource, why] of strange) {
    const name = 'path' in resource ? resource.path : 'pid' in resource ? `${resource.pid}` : resource.engine;
    const line = stdout
      .split('\n')
      .find(
        (one) =>
          new RegExp(`not removed: ${resource.kind} (on )?`).test(one) && one.includes(`${name} because`),
      );
    if (existsSync(name) || resource.kind !== 'mapping') t.match(line, why, `${resource.kind} ${name}`);
  }
  t.ok(existsSync(join(precious, 'data')));
  t.ok(existsSync(evidence));
  t.notOk(existsSync(own), 'the directory of the run is removed');
  t.equal(bystander.exitCode ?? bystander.signalCode, null);
  t.ok(existsSync(listOf(registry.runId)), 'the list stays until somebody has looked at it');
});

t.test('a list in a checkout is not believed, and does not keep clean from succeeding', async (t) => {
  const place = newPlace(t);
  const precious = join(place.dir, 'precious');
  mkdirSync(precious);
  const runId = newRunId();
  const lines = [
    { line: 'kit', runId, pid: 1 << 22, startTicks: 1, boot: 'x', state: place.state },
    { line: 'made', resource: { kind: 'directory', path: precious } },
  ];
  mkdirSync(join(place.state, 'residue'), { recursive: true });
  writeFileSync(
    join(place.state, 'residue', `${runId}.jsonl`),
    lines.map((line) => JSON.stringify(line)).join('\n'),
  );
  const { code, stdout } = await place.run(['clean']);
  t.equal(code, 0);
  t.match(stdout, /^not removed: what \S+residue\S+jsonl names, because .*checkout/m);
  t.match(stdout, /^nothing was left$/m);
  t.ok(existsSync(precious));
});

t.test('a list that another user could have written is not believed', async (t) => {
  const place = newPlace(t);
  const registry = new Registry(newRunId(), place.state);
  const file = listOf(registry.runId);
  t.teardown(() => rmSync(file, { force: true }));
  t.equal(statSync(file).mode & 0o777, 0o600);
  const refused = () => refusedFiles(place.state).find((one) => one.file === file)?.why;
  t.equal(refused(), undefined);
  chmodSync(file, 0o644);
  t.match(refused(), /mode is 644/);
  t.same(place.runs(), []);
  const moved = join(place.dir, 'moved');
  renameSync(file, moved);
  chmodSync(moved, 0o600);
  symlinkSync(moved, file);
  t.match(refused(), /ELOOP/);
  t.same(place.runs(), []);
  for (const dir of registryPlaces()) if (existsSync(dir)) t.equal(statSync(dir).mode & 0o077, 0, dir);
});

t.test('a second line of a kit, which a target has appended, changes nothing', async (t) => {
  const place = newPlace(t);
  const registry = new Registry(newRunId(), place.state);
  const file = listOf(registry.runId);
  t.teardown(() => rmSync(file, { force: true }));
  const head = JSON.parse(readFileSync(file, 'utf8')) as object;
  appendFileSync(file, `${JSON.stringify({ ...head, state: '/home', out: '/', pid: 1 << 22 })}\n`);
  t.match(registeredRuns(place.state), [{ stateDir: place.state, outDir: undefined, alive: true }]);
});

/** Writes a list as a target could write it; returns its path. */
function forge(dir: string, head: Record<string, unknown>, ...resources: Resource[]): string {
  mkdirSync(join(dir, 'runs'), { recursive: true, mode: 0o700 });
  const file = join(dir, 'runs', `${head.runId}.jsonl`);
  const kit = { line: 'kit', pid: 1 << 22, startTicks: 1, boot: bootId(), ...head };
  const lines = [kit, ...resources.map((resource) => ({ line: 'made', resource }))];
  writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(''), { mode: 0o600 });
  return file;
}

t.test(
  'below --out only what the kit makes there is removed, and only with the mark of the run',
  async (t) => {
    const place = newPlace(t);
    const victim = join(place.dir, 'victim');
    const [photos, data] = [join(victim, 'photos'), join(victim, 'data')];
    const recovery = join(victim, 'recovery-0');
    for (const dir of [photos, data, recovery]) mkdirSync(dir, { recursive: true });
    const bystander = spawn('/bin/sleep', ['60'], { stdio: 'ignore', detached: true, env: {}, cwd: victim });
    t.teardown(() => bystander.kill('SIGKILL'));
    await once(bystander, 'spawn');
    const { pid = 0 } = bystander;
    const { startTicks = 0 } = processEntry(pid) ?? {};
    const runId = newRunId();
    const [usual = ''] = registryPlaces();
    const head = { runId, state: place.state, out: victim };
    const made = [photos, data, recovery].map((path): Resource => ({ kind: 'directory', path }));
    const file = forge(usual, head, ...made, { kind: 'process', pid, startTicks });
    const { code, stdout } = await place.run(['clean']);
    t.equal(code, 4);
    for (const path of [photos, data])
      t.match(stdout, `not removed: directory ${path} because it is not in a folder of the run`);
    t.ok(existsSync(photos) && existsSync(data));
    t.equal(bystander.exitCode ?? bystander.signalCode, null);
    rmSync(file);

    const registry = new Registry(newRunId(), place.state, victim);
    const mark = join(victim, OUT_MARKER);
    t.equal(statSync(mark).mode & 0o777, 0o600);
    for (const resource of made) registry.made(resource);
    forgetKit(registry.runId);
    const { stdout: second } = await place.run(['clean']);
    t.match(second, `not removed: directory ${photos} because the kit makes nothing of this name`);
    t.ok(existsSync(photos));
    t.notOk(existsSync(data) || existsSync(recovery), 'what the run has made is removed');
    rmSync(listOf(registry.runId));

    const third = new Registry(newRunId(), place.state, victim);
    third.close();
    t.notOk(existsSync(mark), 'a run that has ended in order leaves no mark');
  },
);

t.test('a list is read only where the kit itself would write one', async (t) => {
  const place = newPlace(t);
  const runId = newRunId();
  const [first = '', , ...later] = registryPlaces();
  const last = later.at(-1) ?? '';
  const before = process.env.TMPDIR;
  process.env.TMPDIR = place.dir;
  t.teardown(() => {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
  });
  const forged = registryPlaces().at(-1) ?? '';
  t.not(forged, last);
  makeRegistryPlace(forged);
  t.equal(statSync(forged).mode & 0o777, 0o700);
  forge(forged, { runId, state: place.state });
  t.same(registeredRuns(place.state), []);
  t.equal(registryFile(runId), undefined);
  // The first place is not there yet, and the kit would make it.
  process.env.XDG_STATE_HOME = join(place.dir, 'new');
  t.teardown(() => {
    process.env.XDG_STATE_HOME = dirname(first);
  });
  t.same(registeredRuns(place.state), []);
});

t.test('a list is never there without the line of its kit, and is not believed without it', async (t) => {
  const place = newPlace(t);
  const registry = new Registry(newRunId(), place.state);
  const file = listOf(registry.runId);
  t.teardown(() => rmSync(file, { force: true }));
  const [kit = ''] = readFileSync(file, 'utf8').split('\n');
  const made = JSON.stringify({ line: 'made', resource: { kind: 'directory', path: '/a' } });
  const other = kit.replace(registry.runId, newRunId());
  for (const text of ['', `${made}\n`, `${kit.slice(0, 30)}`, `${other}\n${made}\n`]) {
    writeFileSync(file, text);
    t.same(place.runs(), [], text);
    t.match(refusedFiles(place.state), [{ file, why: /does not begin with the line of the kit/ }], text);
    t.equal((await place.run(['clean'])).code, 0);
    t.ok(existsSync(file), 'clean leaves it');
  }
  rmSync(file);
  t.throws(() => registry.made({ kind: 'directory', path: '/a' }), {
    code: 'kit-failed',
    message: /cannot be written: ENOENT/,
  });
  t.notOk(existsSync(file), 'a list that has vanished is not made again');
  registry.close();
});

t.test('a list is complete when it appears', async (t) => {
  const place = newPlace(t);
  const [usual = ''] = registryPlaces();
  const runs = join(usual, 'runs');
  mkdirSync(runs, { recursive: true, mode: 0o700 });
  const script = `
    import { Registry, newRunId } from '${new URL('../host/registry.js', import.meta.url).href}';
    for (let i = 0; i < 200; i++) new Registry(newRunId(), '${place.state}').close();`;
  const seen: string[] = [];
  const watcher = watch(runs, (_, name) => {
    if (!name?.endsWith('.jsonl')) return;
    try {
      seen.push(readFileSync(join(runs, name), 'utf8'));
    } catch {
      // The run has ended meanwhile.
    }
  });
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'ignore' });
  const looking = setInterval(() => {
    for (const name of readdirSync(runs).filter((one) => one.endsWith('.jsonl')))
      try {
        seen.push(readFileSync(join(runs, name), 'utf8'));
      } catch {
        // As above.
      }
  }, 0);
  const [code] = (await once(child, 'exit')) as [number];
  clearInterval(looking);
  watcher.close();
  t.equal(code, 0);
  t.ok(seen.length > 0);
  t.same(
    seen.filter((text) => !text.startsWith('{"line":"kit"')),
    [],
  );
});

t.test('a run in another pid namespace is alive as long as this machine may have its kit', async (t) => {
  const place = newPlace(t);
  const registry = new Registry(newRunId(), place.state);
  const file = listOf(registry.runId);
  t.teardown(() => rmSync(file, { force: true }));
  const [line = ''] = readFileSync(file, 'utf8').split('\n');
  const kit = JSON.parse(line) as object;
  t.match(kit, { pidNamespace: /^pid:\[\d+\]$/ });
  const runs = () => registeredRuns(place.state).map(({ alive }) => alive);
  const write = (more: object) =>
    writeFileSync(file, `${JSON.stringify({ ...kit, ...more })}\n`, { mode: 0o600 });
  const nobody = { pid: 1 << 22, startTicks: 1 };
  write(nobody);
  t.same(runs(), [false], 'in this namespace no process has the id');
  write({ ...nobody, pidNamespace: 'pid:[1]' });
  t.same(runs(), [true], 'a process has the list open');
  t.match(await place.run(['clean']), { code: 0 });
  t.ok(existsSync(file), 'clean leaves the run alone');
  registry.close();
  write({ ...nobody, pidNamespace: 'pid:[1]' });
  t.same(runs(), [!seesAllProcesses()], 'no process has the list open');
});
