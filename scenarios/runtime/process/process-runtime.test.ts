import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../../faults/waiting.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { withDescendants } from '../../host/descendants.js';
import { allProcesses, commandLineOf, processEntry } from '../../host/processes.js';
import { newRunId, Registry } from '../../host/registry.js';
import { bootViewAvailability } from '../boot/boot-view.js';
import type { Deployment } from '../runtime.js';
import { ProcessDeployment } from './process-runtime.js';

const FOREVER = 'setInterval(() => {}, 1000)';

function deploy(t: { teardown(end: () => unknown): void }, command: readonly string[]) {
  const place = new TestWorkspace();
  const logDir = join(place.dir, 'logs');
  mkdirSync(logDir);
  const exits: (string | number | null)[][] = [];
  const starts: number[] = [];
  const escaped: string[] = [];
  const registry = new Registry(newRunId(), place.state);
  const deployment: Deployment = new ProcessDeployment({
    runId: registry.runId,
    registry,
    dataDir: place.dir,
    scratchDir: place.dir,
    ports: [],
    sink: '',
    services: [{ name: 'a', command }],
    workingDir: place.dir,
    logDir,
    onStarted: (_, incarnation) => starts.push(incarnation),
    onExited: (...exit) => exits.push(exit),
    onEscaped: (command) => escaped.push(command),
  });
  t.teardown(async () => {
    await deployment.destroy();
    place.remove();
  });
  const [service] = deployment.services;
  if (service === undefined) throw new Error('no service');
  return { deployment, service, exits, starts, logDir, escaped };
}

/** Lists the live processes with this command line. */
function processesRunning(command: string): number[] {
  return allProcesses().flatMap(({ pid }) => (commandLineOf(pid) === command ? [pid] : []));
}

/** Makes the command of a service that starts a daemon in a session of its own, without environment, parent or files. */
function withDaemon(daemon: string): string[] {
  const away = `cd /; setsid -f env -i ${daemon} </dev/null >/dev/null 2>&1; exec "$0" -e '${FOREVER}'`;
  return ['sh', '-c', away, process.execPath];
}

t.test('concurrent starts start a service once, and every real start is counted', async (t) => {
  const { service, exits, starts } = deploy(t, [process.execPath, '-e', FOREVER]);
  await Promise.all([service.start(), service.start()]);
  await service.start();
  t.same(starts, [1]);
  // The commands that prepare the boot belong to the service until its program runs.
  t.ok(await until(() => service.pids().length === 1, 20_000), `${service.pids().length} processes`);
  t.equal(await service.signal('SIGKILL'), 1);
  await service.waitForExit(5000);
  t.ok(await until(() => exits.length > 0, 5000));
  t.same(exits, [['a', 1, null, 'SIGKILL']]);
  await service.start();
  t.same(starts, [1, 2]);
});

t.test('the log of a service has the output of all its incarnations', async (t) => {
  const { service, logDir } = deploy(t, [process.execPath, '-e', 'console.log("out"); console.error("err")']);
  for (let life = 0; life < 2; life++) {
    await service.start();
    await service.waitForExit(5000);
  }
  t.equal(readFileSync(join(logDir, 'a.log'), 'utf8'), 'out\nerr\nout\nerr\n');
});

t.test('children and a daemon outside the process group belong to the service and die with it', async (t) => {
  const source = `
    const { spawn } = require('node:child_process');
    spawn('/bin/sleep', ['61']);
    spawn('/bin/sleep', ['62'], { detached: true, stdio: 'ignore' }).unref();
    spawn('/usr/bin/setsid', ['-f', '/bin/sleep', '63'], { stdio: 'ignore' });
    ${FOREVER}`;
  const { service, deployment } = deploy(t, [process.execPath, '-e', source]);
  await service.start();
  t.ok(await until(() => service.pids().length >= 4, 10_000), `${service.pids().length} processes`);
  await service.signal('SIGSTOP');
  await service.signal('SIGCONT');
  await deployment.destroy();
  t.same(service.pids(), []);
});

t.test('a daemon that only its command line identifies dies with the deployment', async (t) => {
  const { service, deployment, logDir } = deploy(t, ['true']);
  // No other process of this machine has this path in its command line.
  const word = join(logDir, 'word');
  const daemons = () =>
    allProcesses().filter(({ pid }) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(word);
      } catch {
        return false;
      }
    });
  await service.start();
  // The daemon works in no directory of the target, has opened no file and has no parent. Every daemon begins
  // like that.
  const away = `cd / && setsid -f env -i "$0" -e '${FOREVER}' '${word}' </dev/null >/dev/null 2>&1`;
  execFileSync('sh', ['-c', away, process.execPath]);
  t.ok(await until(() => daemons().length === 1, 10_000));
  await deployment.destroy();
  t.ok(await until(() => daemons().length === 0, 5000));
});

t.test('a daemon that has cleared its environment is killed and stopped with its service', async (t) => {
  // No other process of this machine sleeps for this time.
  const daemon = `/bin/sleep ${2_000_000 + process.pid}`;
  const { service, deployment, escaped } = deploy(t, withDaemon(daemon));
  await service.start();
  t.ok(await until(() => processesRunning(daemon).length === 1, 10_000));
  const [pid = 0] = processesRunning(daemon);
  const stateIs = (state: string) => () => processEntry(pid)?.state === state;
  t.ok(await until(() => processEntry(pid)?.parent === process.pid, 10_000), 'the kit has adopted it');
  await service.signal('SIGSTOP');
  t.ok(await until(stateIs('T'), 10_000));
  await service.signal('SIGCONT');
  t.ok(await until(stateIs('S'), 10_000));
  t.notOk(service.pids().includes(pid), 'it is no sign that the service lives');
  await service.signal('SIGKILL');
  await service.waitForExit(10_000);
  t.same(processesRunning(daemon), []);
  t.ok(await until(() => processEntry(pid) === undefined, 10_000), 'no zombie of it is left');
  t.same(escaped, [], 'what a fault has killed is not reported');
  await service.start();
  t.ok(await until(() => processesRunning(daemon).length === 1, 10_000));
  await deployment.destroy();
  t.same(processesRunning(daemon), []);
  t.same(escaped, [daemon]);
});

t.test('a daemon that has escaped dies with its own deployment, and not with another one', async (t) => {
  const daemons = [3_000_000, 4_000_000].map((seconds) => `/bin/sleep ${seconds + process.pid}`);
  const [first, second] = daemons.map((daemon) => deploy(t, withDaemon(daemon)));
  if (first === undefined || second === undefined) return;
  for (const { service } of [first, second]) await service.start();
  t.ok(await until(() => daemons.every((daemon) => processesRunning(daemon).length === 1), 10_000));
  for (const { service } of [first, second]) service.pids();
  await first.deployment.destroy();
  if (bootViewAvailability().available) {
    t.same(
      daemons.map((daemon) => processesRunning(daemon).length),
      [0, 1],
    );
    t.same([first.escaped, second.escaped], [[daemons[0]], []]);
  }
  await second.deployment.destroy();
  t.same(
    daemons.map((daemon) => processesRunning(daemon).length),
    [0, 0],
  );
});

t.test('descendants are found in any order of the process list', async (t) => {
  const processes = [
    { pid: 3, parent: 32_000 },
    { pid: 4, parent: 3 },
    { pid: 700, parent: 1 },
    { pid: 32_000, parent: 31_999 },
    { pid: 31_999, parent: 1 },
  ];
  t.same([...withDescendants(new Set([31_999]), processes)].sort(), [3, 31_999, 32_000, 4]);
});

t.test(
  'children that leave the process group and the environment during a scan die with their service',
  async (t) => {
    for (let round = 0; round < 5; round++) {
      // No other process of this machine sleeps for this time.
      const long = `${1_000_000 + process.pid}.${round}`;
      // A bound: on a busy machine, the scans of this test take longer than a thousand forks.
      const forks = `n=0; while [ $((n += 1)) -le 1000 ]; do setsid env -i "$(command -v sleep)" ${long} & done; wait`;
      const { service } = deploy(t, ['env', '-i', `PATH=${process.env.PATH}`, 'sh', '-c', forks]);
      const sleepers = () =>
        allProcesses().filter(({ pid }) => {
          try {
            return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(`\0${long}\0`);
          } catch {
            return false;
          }
        });
      await service.start();
      await until(() => sleepers().length > 20, 10_000);
      await service.signal('SIGKILL');
      await service.waitForExit(5000);
      const left = sleepers();
      for (const { pid } of left) process.kill(pid, 'SIGKILL');
      t.same(left, [], `round ${round}`);
    }
  },
);

t.test('a service that ignores SIGTERM is killed after the grace period', async (t) => {
  const { service, deployment, logDir } = deploy(t, [
    process.execPath,
    '-e',
    `process.on('SIGTERM', () => console.log('asked')); console.log('up'); ${FOREVER}`,
  ]);
  await service.start();
  t.ok(await until(() => readFileSync(join(logDir, 'a.log'), 'utf8').includes('up'), 10_000));
  await deployment.stop(200);
  t.same(service.pids(), []);
  t.match(readFileSync(join(logDir, 'a.log'), 'utf8'), 'asked');
});

t.test('a command returns its exit code and output, and is killed when it takes too long', async (t) => {
  const { deployment, logDir } = deploy(t, ['true']);
  const done = await deployment.runCommand(
    'verify',
    [process.execPath, '-e', 'console.log(1); process.exit(3)'],
    10_000,
  );
  t.match(done, { code: 3, stdout: '1\n', timedOut: false });
  const slow = await deployment.runCommand('verify', [process.execPath, '-e', FOREVER], 100);
  t.match(slow, { code: null, signal: 'SIGKILL', timedOut: true });
  t.match(readFileSync(join(logDir, 'verify.log'), 'utf8'), 'process.exit(3)');
  await t.rejects(deployment.runCommand('verify', ['/no/such/program'], 100), /ENOENT/);
});

t.test('a command ends although a process that it left behind keeps its output open', async (t) => {
  const { deployment } = deploy(t, [process.execPath, '-e', FOREVER]);
  const leavesOne = 'setsid sleep 100000 & echo done';
  t.match(await deployment.runCommand('verify', ['sh', '-c', leavesOne], 60_000), {
    code: 0,
    stdout: 'done\n',
  });
});

t.test('the log of a service that writes without end keeps its head and its tail', async (t) => {
  process.env.PLUGPULL_LIMITS = 'log-head-bytes=4096,log-tail-bytes=8192';
  t.teardown(() => {
    delete process.env.PLUGPULL_LIMITS;
  });
  const writes = 'seq 1 200000; echo the end; exec sleep 100000';
  const { deployment, service, logDir } = deploy(t, ['sh', '-c', writes]);
  await service.start();
  const log = join(logDir, 'a.log');
  await until(() => readFileSync(log, 'latin1').endsWith('the end\n'), 60_000);
  await deployment.destroy();
  const text = readFileSync(log, 'latin1');
  t.ok(text.startsWith('1\n2\n'));
  t.match(text, /\[plugpull: \d+ bytes of this log were dropped here\]/);
  t.ok(text.endsWith('the end\n'));
  t.ok(text.length < 32_000, `${text.length} bytes`);
});
