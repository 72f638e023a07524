import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { until } from '../../faults/waiting.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { allProcesses, commandLineOf, processEntry } from './processes.js';
import { newRunId, registryFile } from './registry.js';

const TIMEOUT_MS = 60_000;
const moduleUrl = (path: string) => new URL(path, import.meta.url).href;

/** A process that does what a kit does: it runs the source with a registry, and then goes on for ever. */
interface FakeKit {
  child: ChildProcess;
  place: TestWorkspace;
  runId: string;
  registryFile: string;
  /** Process that the source has started and left stopped. */
  stoppedPid: number;
}

/**
 * Starts a fake kit.
 * @param source statements that may use `registry`, `disks` (the functions for stopped disks) and `sleeper`, a stopped
 *   process.
 */
async function startKit(t: Test, source: string): Promise<FakeKit> {
  const place = new TestWorkspace();
  const runId = newRunId();
  const program = `
    import { spawn } from 'node:child_process';
    import { once } from 'node:events';
    import { Registry } from '${moduleUrl('./registry.js')}';
    import * as disks from '${moduleUrl('./watchdog.js')}';
    import { processEntry } from '${moduleUrl('./processes.js')}';
    const registry = new Registry('${runId}', '${place.state}');
    const sleeper = spawn('/bin/sleep', ['600'], { stdio: 'ignore', detached: true, env: { PLUGPULL_RUN: '${runId}' } });
    await once(sleeper, 'spawn');
    const register = () => registry.made(
      { kind: 'process', pid: sleeper.pid, startTicks: processEntry(sleeper.pid).startTicks });
    sleeper.kill('SIGSTOP');
    ${source}
    console.log(sleeper.pid);
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  const stoppedPid = Number(line);
  t.teardown(() => {
    child.kill('SIGKILL');
    if (commandLineOf(stoppedPid) === '/bin/sleep 600') process.kill(stoppedPid, 'SIGKILL');
    place.remove();
  });
  return { child, place, runId, registryFile: registryFile(runId) ?? '', stoppedPid };
}

/** Lists the watchdogs of a fake kit, dead ones included. */
function watchdogsOf({ child }: FakeKit): number[] {
  const isWatchdog = (pid: number) => commandLineOf(pid).endsWith(`watchdog-program.js ${child.pid}`);
  return allProcesses().flatMap(({ pid }) => (isWatchdog(pid) ? [pid] : []));
}

const stateOf = (pid: number) => processEntry(pid)?.state ?? 'gone';
const isGone = (pid: number) => ['gone', 'Z'].includes(stateOf(pid));

t.test('what a killed kit has made is removed without clean, and its evidence stays for clean', async (t) => {
  const kit = await startKit(t, 'register();');
  const evidence = join(kit.place.state, 'runs', kit.runId);
  const data = join(kit.place.dir, `plugpull-${kit.runId}-data`);
  for (const path of [evidence, data]) {
    mkdirSync(path, { recursive: true });
    const line = JSON.stringify({ line: 'made', resource: { kind: 'directory', path } });
    appendFileSync(kit.registryFile, `${line}\n`);
  }
  kit.child.kill('SIGKILL');
  t.ok(await until(() => isGone(kit.stoppedPid), TIMEOUT_MS), 'the stopped process is gone');
  t.ok(await until(() => !existsSync(data), TIMEOUT_MS), 'the data directory is gone');
  t.ok(existsSync(evidence));
  const { stdout } = await kit.place.run(['clean', '--json']);
  t.match(JSON.parse(stdout), { runs: [{ runId: kit.runId, directories: 1, problems: [] }] });
  t.notOk(existsSync(evidence));
});

t.test('a run that releases its processes keeps what outlives it', async (t) => {
  const kit = await startKit(t, 'register(); registry.release();');
  kit.child.kill('SIGKILL');
  await once(kit.child, 'exit');
  t.ok(await until(() => watchdogsOf(kit).every(isGone), TIMEOUT_MS), 'the watchdog ends with the kit');
  t.equal(stateOf(kit.stoppedPid), 'T', 'the process still lives');
});

t.test('a process that still lives when its run is closed dies with the kit', async (t) => {
  const kit = await startKit(t, 'register(); registry.close();');
  kit.child.kill('SIGKILL');
  await once(kit.child, 'exit');
  t.ok(await until(() => isGone(kit.stoppedPid), TIMEOUT_MS));
});

t.test(
  'a disk that a hung kit keeps stopped is resumed, and another watchdog follows a killed one',
  async (t) => {
    const kit = await startKit(
      t,
      "register(); disks.diskStopping({ kind: 'process', pid: sleeper.pid }, 3_000);",
    );
    const [first = 0] = watchdogsOf(kit);
    t.not(first, 0, 'the kit has a watchdog');
    process.kill(first, 'SIGKILL');
    t.ok(await until(() => watchdogsOf(kit).some((pid) => pid !== first && !isGone(pid)), TIMEOUT_MS));
    const [second] = watchdogsOf(kit).filter((pid) => pid !== first && !isGone(pid));
    const isNoted = () =>
      readFileSync(kit.registryFile, 'utf8').includes(`"line":"watchdog","pid":${second},`);
    t.ok(await until(isNoted, TIMEOUT_MS), 'the list names the new watchdog, so that clean waits for it');
    t.ok(await until(() => stateOf(kit.stoppedPid) === 'S', TIMEOUT_MS), 'the stopped process runs again');
    t.equal(kit.child.exitCode, null, 'the kit is still alive');
  },
);

t.test('a disk that the kit stops on purpose for longer stays stopped', async (t) => {
  const kit = await startKit(
    t,
    `register();
    const other = spawn('/bin/sleep', ['601'], { stdio: 'ignore', detached: true });
    await once(other, 'spawn');
    other.kill('SIGSTOP');
    disks.diskStopping({ kind: 'process', pid: sleeper.pid }, 100);
    disks.diskStopping({ kind: 'process', pid: sleeper.pid }, 600_000);
    disks.diskStopping({ kind: 'process', pid: other.pid }, 2_000);`,
  );
  const other = allProcesses().find(
    ({ pid, parent }) => parent === kit.child.pid && commandLineOf(pid) === '/bin/sleep 601',
  );
  t.ok(other, 'the other process was found');
  if (other === undefined) return;
  t.teardown(() => process.kill(other.pid, 'SIGKILL'));
  t.ok(await until(() => stateOf(other.pid) === 'S', TIMEOUT_MS), 'the later deadline has passed');
  t.equal(stateOf(kit.stoppedPid), 'T');
});

t.test('a disk that the kit has resumed itself is left alone', async (t) => {
  const kit = await startKit(
    t,
    `register();
     disks.diskStopping({ kind: 'process', pid: sleeper.pid }, 50);
     disks.diskResumed({ kind: 'process', pid: sleeper.pid });
     const other = spawn('/bin/sleep', ['601'], { stdio: 'ignore', detached: true, env: {} });
     await once(other, 'spawn');
     other.kill('SIGSTOP');
     disks.diskStopping({ kind: 'process', pid: other.pid }, 100);
     while (processEntry(other.pid).state === 'T') await new Promise((done) => setTimeout(done, 5));
     other.kill('SIGKILL');`,
  );
  t.equal(stateOf(kit.stoppedPid), 'T', 'a later deadline has passed, and this process is still stopped');
});
