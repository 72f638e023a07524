import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { defineTarget } from '../../../conformance/target-file/load.js';
import { until } from '../../../faults/waiting.js';
import { allProcesses, commandLineOf, networkNamespaceOf, sendSignal } from '../../host/processes.js';
import { newRunId, Registry } from '../../host/registry.js';
import { bootViewAvailability } from '../boot/boot-view.js';
import { nodeNetworkAvailability } from '../nodes/availability.js';
import { processRuntime } from './process-runtime.js';

const availability = nodeNetworkAvailability();
const skip = availability.available ? false : availability.why;
const TIMEOUT_MS = 60_000;
const PORT = 7001;
const ECHO = `require('node:net').createServer((socket) => socket.pipe(socket)).listen(${PORT})`;

/** Deploys an echo server on each of two nodes. */
async function deployNodes(t: { teardown(end: () => unknown): void }, user?: string) {
  const dir = mkdtempSync('/tmp/plugpull-nodes-test-');
  chmodSync(dir, 0o755);
  const registry = new Registry(newRunId(), join(dir, 'state'));
  const target = defineTarget(
    {
      name: 'x',
      protocol: 'http',
      nodes: ['a', 'b'],
      services: { server: { command: ['node', '{port}'], ...(user === undefined ? {} : { user }) } },
      guarantee: { faults: ['kill'], duplicatesPerCrash: 0, cluster: { tolerates: 0 } },
    },
    dir,
  );
  const runtime = await processRuntime.prepare(target, () => {});
  const network = await runtime.makeNetwork?.(['a', 'b'], registry);
  if (network === undefined) throw new Error('the runtime makes no network');
  const escaped: string[] = [];
  const deployments = ['a', 'b'].map((name) => {
    const [logDir, workingDir, dataDir] = ['logs', 'scratch', 'data'].map((one) => join(dir, name, one)) as [
      string,
      string,
      string,
    ];
    for (const path of [logDir, workingDir, dataDir]) mkdirSync(path, { recursive: true });
    return runtime.deploy({
      ...{ runId: registry.runId, registry, dataDir, workingDir, scratchDir: workingDir, logDir },
      ...{ ports: [PORT], sink: '', node: { name, network } },
      services: [{ name: `server@${name}`, command: [process.execPath, '-e', ECHO], user }],
      onStarted: () => {},
      onExited: () => {},
      onEscaped: (command) => escaped.push(command),
    });
  });
  t.teardown(async () => {
    for (const deployment of deployments) await deployment.destroy();
    network.remove();
    registry.close();
    rmSync(dir, { recursive: true });
  });
  const [a, b] = deployments;
  if (a === undefined || b === undefined) throw new Error('no deployments');
  return { a, b, network, escaped, dir };
}

async function answers(address: string | undefined): Promise<boolean> {
  const socket = connect(PORT, address ?? '');
  return once(socket, 'connect')
    .then(
      () => true,
      () => false,
    )
    .finally(() => socket.destroy());
}

t.test(
  'services and commands of a node run in its network, with strace in front too',
  { skip },
  async (t) => {
    const { a, b, network, dir } = await deployNodes(t);
    for (const [deployment, name] of [
      [a, 'a'],
      [b, 'b'],
    ] as const) {
      const { stdout, stderr } = await deployment.runCommand(
        'install',
        ['readlink', '/proc/self/ns/net'],
        TIMEOUT_MS,
      );
      t.equal(stdout.trim(), network.namespaceOf?.(name), stderr);
    }
    const [service] = a.services;
    const trace = join(dir, 'a/scratch/trace');
    await service?.start(
      existsSync('/usr/bin/strace') ? ['strace', '-f', '-qq', '-e', 'trace=listen', '-o', trace] : [],
    );
    t.ok(await until(() => answers(network.addresses.get('a')), TIMEOUT_MS));
    t.notOk(await answers(network.addresses.get('b')), 'the same port of the other node is free');
    for (const pid of service?.pids() ?? []) t.equal(networkNamespaceOf(pid), network.namespaceOf?.('a'));
    t.not(service?.pids().length, 0);
    if (existsSync('/usr/bin/strace')) t.match(readFileSync(trace, 'utf8'), /listen\(/);
    await service?.signal('SIGKILL');
    await service?.waitForExit(TIMEOUT_MS);
    t.notOk(await answers(network.addresses.get('a')));
  },
);

t.test('nodes know each other by name', { skip: skip || !bootViewAvailability().available }, async (t) => {
  const { a, network } = await deployNodes(t);
  const { stdout } = await a.runCommand('install', ['getent', 'ahostsv4', 'b', '127.0.0.1'], TIMEOUT_MS);
  t.match(stdout, new RegExp(`^${network.addresses.get('b')} .* b\\n`));
  const { stdout: own } = await a.runCommand('install', ['cat', '/etc/hosts'], TIMEOUT_MS);
  t.ok(own.endsWith(readFileSync('/etc/hosts', 'utf8')), 'the names of the machine stay');
});

t.test('a service of a node runs as its user', { skip }, async (t) => {
  const { a, network } = await deployNodes(t, 'nobody');
  await a.handOver?.();
  const { stdout } = await a.runCommand(
    'install',
    ['sh', '-c', 'id -un; readlink /proc/self/ns/net'],
    TIMEOUT_MS,
  );
  t.equal(stdout, `nobody\n${network.namespaceOf?.('a')}\n`);
  await a.services[0]?.start();
  t.ok(await until(() => answers(network.addresses.get('a')), TIMEOUT_MS));
});

t.test(
  'what has escaped from a node is killed by its network, and other programs are spared',
  { skip },
  async (t) => {
    const { a, b, network, escaped } = await deployNodes(t);
    // The machine may use the port of the nodes, also by a program that was started later.
    const listener = spawn(process.execPath, ['-e', `${ECHO}; console.log('up')`], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    t.teardown(() => listener.kill('SIGKILL'));
    await once(listener.stdout, 'data');
    const other = createServer().listen(0);
    t.teardown(() => other.close());
    // The daemon is started from outside, as from a shell in the network: it has no mark and no parent of the run.
    const daemon = `/bin/sleep ${8_000_000 + process.pid}`;
    const [program = '', ...args] = network.enter('b');
    const helper = spawn('setsid', ['--fork', program, ...args, 'env', '-i', ...daemon.split(' ')], {
      cwd: '/',
      stdio: 'ignore',
    });
    await once(helper, 'exit');
    const daemons = () => allProcesses().flatMap(({ pid }) => (commandLineOf(pid) === daemon ? [pid] : []));
    t.teardown(() => daemons().map((pid) => sendSignal(pid, 'SIGKILL')));
    t.ok(await until(() => daemons().length === 1, TIMEOUT_MS));
    await a.destroy();
    t.equal(daemons().length, 1, 'it belongs to the other node');
    await b.destroy();
    t.ok(await until(() => daemons().length === 0, TIMEOUT_MS));
    t.same(escaped, [daemon]);
    t.equal(
      listener.exitCode ?? listener.signalCode,
      null,
      'a listener on the same port of the machine goes on',
    );
  },
);
