import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { loadTarget } from '../../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../../conformance/targets/reference.js';
import { until } from '../../../faults/waiting.js';
import { clean } from '../../clean/clean.js';
import { engineSkipReason } from '../../fixtures/engine.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { networkNamespaceOf } from '../../host/processes.js';
import { newRunId, Registry, registryFile } from '../../host/registry.js';
import { nodeNetworkAvailability } from '../nodes/availability.js';
import type { PreparedRuntime } from '../runtime.js';
import { dockerRuntime } from './container-deployment.js';
import { connectEngine, engineAddress, RUN_LABEL } from './engine.js';

const availability = nodeNetworkAvailability();
const skip = availability.available ? await engineSkipReason() : availability.why;
const TIMEOUT_MS = 60_000;
const PORT = 7001;
const NODES = ['a', 'b'];
const ECHO = `require('node:net').createServer((socket) => socket.pipe(socket)).listen(${PORT})`;
/** Connects to an address, and prints `connected`, or `silent` when nothing answers within two seconds. */
const CONNECT = `
const socket = require('node:net').connect(${PORT}, process.argv[1]);
const end = (text) => { console.log(text); process.exit(); };
socket.on('connect', () => end('connected'));
socket.on('error', ({ code }) => end(code));
setTimeout(end, 2000, 'silent');`;

const runtime: PreparedRuntime | undefined =
  skip === false ? await dockerRuntime.prepare(loadTarget(REFERENCE_TARGET), () => {}) : undefined;

/** Deploys an echo server as a container on each of two nodes. */
async function deployNodes(t: { teardown(end: () => unknown): void }) {
  const place = new TestWorkspace();
  const registry = new Registry(newRunId(), place.state);
  const { runId } = registry;
  const network = await runtime?.makeNetwork?.(NODES, registry);
  if (runtime === undefined || network === undefined) throw new Error('the runtime makes no network');
  const [a, b] = NODES.map((name) => {
    const dirs = { logDir: 'logs', workingDir: 'scratch', dataDir: 'data' };
    const [logDir = '', workingDir = '', dataDir = ''] = Object.values(dirs).map((dir) => {
      const path = join(place.dir, name, dir);
      mkdirSync(path, { recursive: true });
      return path;
    });
    return runtime.deploy({
      ...{ runId: `${runId}-${name}`, registry, dataDir, workingDir, scratchDir: workingDir, logDir },
      ...{ ports: [PORT], sink: '', node: { name, network } },
      services: [{ name: `server@${name}`, command: ['node', '-e', ECHO] }],
      onStarted: () => {},
      onExited: () => {},
    });
  });
  if (a === undefined || b === undefined) throw new Error('no deployments');
  const destroy = async () => {
    await Promise.all([a.destroy(), b.destroy()]);
    await network.end?.();
    network.remove();
  };
  t.teardown(async () => {
    await destroy();
    place.remove();
  });
  const connect = async (from: typeof a, to: string) =>
    (await from.runCommand('connect', ['node', '-e', CONNECT, to], TIMEOUT_MS)).stdout.trim();
  return { a, b, network, registry, connect, destroy, place };
}

/** Counts the containers of a run. */
async function countContainers(runId: string): Promise<number> {
  const engine = await connectEngine(engineAddress());
  const filters = { label: [`${RUN_LABEL}=${runId}`] };
  return (await engine.listContainers({ all: true, filters })).length;
}

t.test('the containers of a node share its network, and cut links carry nothing', { skip }, async (t) => {
  const { a, b, network, connect } = await deployNodes(t);
  for (const { services } of [a, b]) await services[0]?.start();
  const pids = a.services[0]?.pids() ?? [];
  t.ok(pids.length > 0);
  for (const pid of pids) t.equal(networkNamespaceOf(pid), network.namespaceOf?.('a'));
  const answers = async (to: string) => (await connect(a, to)) === 'connected';
  t.ok(await until(() => answers('a'), TIMEOUT_MS), 'a node knows its own name');
  t.ok(await until(() => answers('b'), TIMEOUT_MS), 'and that of the others');
  await network.cut([['a', 'b']]);
  t.equal(await connect(a, 'b'), 'silent', 'a does not reach b');
  t.equal(await connect(a, 'a'), 'connected', 'and reaches itself');
  t.ok((await network.swallowedPackets()) > 0);
  await network.cut([]);
  t.equal(await connect(a, 'b'), 'connected');
  const { stdout } = await b.runCommand('name', ['node', '-p', 'os.hostname()'], TIMEOUT_MS);
  t.equal(stdout.trim(), 'b', 'the host name is that of the node');
});

t.test(
  'a node that dies keeps its network, and the end of one node leaves the others',
  { skip },
  async (t) => {
    const { a, b, network, connect, registry, destroy, place } = await deployNodes(t);
    await b.services[0]?.start();
    await b.services[0]?.signal('SIGKILL');
    await b.services[0]?.waitForExit(TIMEOUT_MS);
    await b.reboot();
    await b.services[0]?.start();
    t.ok(await until(async () => (await connect(a, 'b')) === 'connected', TIMEOUT_MS));
    await a.destroy();
    t.ok((b.services[0]?.pids().length ?? 0) > 0, 'b goes on');
    const namespaces = network.enter('b')[1]?.replace('--net=', '') ?? '';
    t.ok(existsSync(namespaces));
    await destroy();
    t.equal(await countContainers(registry.runId), 0);
    t.notOk(existsSync(namespaces));
    registry.close();
    t.equal(registryFile(registry.runId), undefined, 'nothing is left to clean up');
    t.same((await clean(place.state)).runs, []);
  },
);

t.test('a network whose deployments were never made is removed with its pods', { skip }, async (t) => {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const registry = new Registry(newRunId(), place.state);
  const network = await runtime?.makeNetwork?.(NODES, registry);
  t.equal(await countContainers(registry.runId), 2);
  network?.remove();
  network?.remove();
  t.ok(await until(async () => (await countContainers(registry.runId)) === 0, TIMEOUT_MS));
});
