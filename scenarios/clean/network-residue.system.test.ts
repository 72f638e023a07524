import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t from 'tap';
import { until } from '../../faults/waiting.js';
import { KitProcess, TestWorkspace } from '../fixtures/kit.js';
import { seesAllProcesses } from '../host/dead-runs.js';
import { allProcesses, commandLineOf } from '../host/processes.js';
import { registryFile } from '../host/registry.js';
import { packageRoot } from '../host/version.js';
import { nodeNetworkAvailability } from '../runtime/nodes/availability.js';

const availability = nodeNetworkAvailability();
const skip = availability.available ? false : availability.why;
const TIMEOUT_MS = 120_000;

interface Held {
  place: TestWorkspace;
  kit: KitProcess;
  runId: string;
  /** Lists links, mounts, files and processes of the network. */
  left(): string[];
}

let daemons = 0;

/** Starts a process that holds a network like a kit, with a daemon in it that nothing else identifies. */
async function holdNetwork(t: { teardown(end: () => unknown): void }): Promise<Held> {
  const place = new TestWorkspace();
  mkdirSync(place.state);
  const daemon = `/bin/sleep ${7_000_000 + process.pid * 10 + daemons++}`;
  const program = join(packageRoot(), 'dist/scenarios/fixtures/hold-network.js');
  const child = spawn(process.execPath, [program, ...daemon.split(' ')], {
    cwd: place.dir,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, PLUGPULL_STATE: place.state },
  });
  t.teardown(async () => {
    child.kill('SIGKILL');
    await place.run(['clean']);
    place.remove();
  });
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  const { runId, addresses } = JSON.parse(line) as { runId: string; addresses: string[] };
  const subnet = addresses[0]?.replace(/\d+$/, '') ?? '';
  const left = () => [
    ...execFileSync('ip', ['-o', 'address'], { encoding: 'utf8' })
      .split('\n')
      .filter((one) => one.includes(` ${subnet}`)),
    ...readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((one) => one.includes(runId)),
    ...readdirSync('/dev/shm').filter((one) => one.includes(runId)),
    ...allProcesses()
      .map(({ pid }) => commandLineOf(pid))
      .filter((one) => one === daemon),
  ];
  if (!(await until(() => left().includes(daemon), TIMEOUT_MS))) throw new Error('the daemon does not run');
  return { place, kit: new KitProcess(child), runId, left };
}

t.test('the watchdog removes the network of a killed kit, and the processes in it', { skip }, async (t) => {
  const { kit, left } = await holdNetwork(t);
  t.equal(left().length, 7, 'a link, four mounts, a directory and a daemon');
  kit.child.kill('SIGKILL');
  await kit.waitForExit();
  t.ok(await until(() => left().length === 0, TIMEOUT_MS), left().join('\n'));
});

t.test('clean removes the network of a killed kit, and leaves that of a live one', { skip }, async (t) => {
  const dead = await holdNetwork(t);
  const alive = await holdNetwork(t);
  await dead.kit.killWithWatchdog();
  t.equal(dead.left().length, 7);
  const { stdout, code } = await dead.place.run(['clean', '--json']);
  t.equal(code, 0);
  t.match(JSON.parse(stdout), {
    runs: [{ runId: dead.runId, networks: 1, processes: 1, problems: [], notRemoved: [] }],
  });
  t.same(dead.left(), []);
  await alive.place.run(['clean', '--all']);
  t.equal(alive.left().length, 7);
});

t.test(
  'clean --all finds the network of a killed kit without its list',
  { skip: skip || (seesAllProcesses() ? false : 'runs in a container') },
  async (t) => {
    const { place, kit, runId, left } = await holdNetwork(t);
    await kit.killWithWatchdog();
    rmSync(registryFile(runId) ?? '');
    const { stdout } = await place.run(['clean', '--all', '--json']);
    const { runs } = JSON.parse(stdout) as { runs: { runId: string }[] };
    t.match(
      runs.find((one) => one.runId === runId),
      { networks: 1, processes: 1, problems: [] },
      stdout,
    );
    t.same(left(), []);
  },
);
