import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { createInterface, type Interface } from 'node:readline';
import t from 'tap';
import { until } from '../../../faults/waiting.js';
import { networkNamespaceOf, processEntry } from '../../host/processes.js';
import { newRunId, type Resource } from '../../host/registry.js';
import { nodeNetworkAvailability } from './availability.js';
import { createNodeNetwork } from './namespace-network.js';
import { processesInNetwork } from './namespaces.js';
import type { NodeNetwork } from './node-network.js';

const availability = nodeNetworkAvailability();
const skip = availability.available ? false : availability.why;
/** Generous limit for what takes milliseconds, and a retransmission some seconds. */
const TIMEOUT_MS = 60_000;
/** Longest attempt of a connection that is expected to fail, in ms. */
const ATTEMPT_MS = 1500;
const PORT = 7000;
const NODES = ['a', 'b', 'c'];

interface Teardown {
  teardown(end: () => unknown): void;
}

class FakeRegistry {
  readonly runId = newRunId();
  readonly left: Resource[] = [];
  made(resource: Resource): void {
    this.left.push(resource);
  }
  gone(resource: Resource): void {
    const at = this.left.findIndex((one) => JSON.stringify(one) === JSON.stringify(resource));
    if (at !== -1) this.left.splice(at, 1);
  }
}

async function makeNetwork(t: Teardown, nodes: readonly string[] = NODES) {
  const registry = new FakeRegistry();
  const network = await createNodeNetwork(nodes, registry);
  t.teardown(() => network.remove());
  const [resource] = registry.left;
  return { network, registry, dir: resource !== undefined && 'path' in resource ? resource.path : '' };
}

/**
 * Program of a node: an echo server. It reads `connect NAME ADDRESS` and `send NAME TEXT` from stdin, and prints
 * `connected NAME`, `failed NAME` and `echo NAME TEXT`.
 */
const PROGRAM = `
const net = require('node:net');
const sockets = new Map();
net.createServer((socket) => socket.on('error', () => {}).pipe(socket)).listen(${PORT}, () => console.log('ready'));
require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const [verb, name, value] = line.split(' ');
  if (verb === 'send') return sockets.get(name).write(value);
  const socket = net.connect(${PORT}, value);
  sockets.set(name, socket);
  const timer = setTimeout(() => { console.log('failed', name); socket.destroy(); }, ${ATTEMPT_MS});
  socket.on('connect', () => { clearTimeout(timer); console.log('connected', name); });
  socket.on('error', () => {});
  socket.on('data', (data) => console.log('echo', name, String(data)));
});`;

class NodeProcess {
  readonly child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #reader: Interface;
  #count = 0;

  constructor(t: Teardown, network: NodeNetwork, node: string) {
    const [program = '', ...args] = [...network.enter(node), process.execPath, '-e', PROGRAM];
    this.child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    t.teardown(() => this.child.kill('SIGKILL'));
    if (this.child.stdout === null) throw new Error('no stdout');
    this.#reader = createInterface({ input: this.child.stdout });
    this.#reader.on('line', (line) => this.#lines.push(line));
  }

  saw(line: string): Promise<boolean> {
    return until(() => this.#lines.includes(line), TIMEOUT_MS);
  }

  hasSeen(line: string): boolean {
    return this.#lines.includes(line);
  }

  command(line: string): void {
    this.child.stdin?.write(`${line}\n`);
  }

  /** Reports whether a new connection to an address is made. */
  async reaches(address: string | undefined): Promise<boolean> {
    const name = `attempt-${this.#count++}`;
    this.command(`connect ${name} ${address}`);
    const isDone = () => this.hasSeen(`connected ${name}`) || this.hasSeen(`failed ${name}`);
    if (!(await until(isDone, TIMEOUT_MS))) throw new Error('no answer');
    return this.hasSeen(`connected ${name}`);
  }
}

async function startNodes(t: Teardown, network: NodeNetwork): Promise<Record<'a' | 'b' | 'c', NodeProcess>> {
  const [a, b, c] = NODES.map((node) => new NodeProcess(t, network, node)) as [
    NodeProcess,
    NodeProcess,
    NodeProcess,
  ];
  for (const node of [a, b, c]) if (!(await node.saw('ready'))) throw new Error('a node is not ready');
  return { a, b, c };
}

async function kitConnects(address: string | undefined): Promise<Socket> {
  const socket = connect(PORT, address ?? '');
  await once(socket, 'connect');
  return socket;
}

/** What the machine's own network and mounts are, without those of other runs and programs. */
function machineState(dirs: readonly string[], addresses: readonly string[]): string[] {
  const tool = (program: string, args: readonly string[]) =>
    execFileSync(program, args, { encoding: 'utf8' }).split('\n');
  const isOurs = (line: string) => [...dirs, ...addresses].some((one) => line.includes(one));
  return [
    ...tool('ip', ['-o', 'address']),
    ...tool('ip', ['route', 'show', 'table', 'all']),
    ...tool('ip', ['neighbour']),
    ...readFileSync('/proc/self/mountinfo', 'utf8').split('\n'),
  ].filter(isOurs);
}

t.test(
  'three nodes reach each other, the kit reaches them, and a command keeps its process id',
  { skip },
  async (t) => {
    const { network } = await makeNetwork(t);
    t.same([...network.addresses.keys()], NODES);
    const nodes = await startNodes(t, network);
    for (const node of NODES) {
      const socket = await kitConnects(network.addresses.get(node));
      socket.destroy();
      for (const program of Object.values(nodes))
        t.ok(await program.reaches(network.addresses.get(node)), node);
    }
    t.ok(await nodes.a.reaches('127.0.0.1'), 'a node has a loopback of its own');
    for (const name of ['a', 'b', 'c'] as const) {
      const pid = nodes[name].child.pid ?? 0;
      t.equal(networkNamespaceOf(pid), network.namespaceOf?.(name));
      t.match(
        readFileSync(`/proc/${pid}/cmdline`, 'utf8'),
        /node/,
        'nothing stays between the kit and the command',
      );
    }
    t.not(network.namespaceOf?.('a'), networkNamespaceOf(process.pid));
  },
);

t.test(
  'a cut link carries nothing in its direction, and the kit still reaches the node',
  { skip },
  async (t) => {
    const { network } = await makeNetwork(t);
    const { addresses } = network;
    const nodes = await startNodes(t, network);
    nodes.b.command(`connect old ${addresses.get('a')}`);
    t.ok(await nodes.b.saw('connected old'));
    t.equal(await network.swallowedPackets(), 0);

    await network.cut([['a', 'b']]);
    t.equal(await network.swallowedPackets(), 0, 'nothing was sent yet');
    nodes.b.command('send old text');
    t.notOk(await nodes.a.reaches(addresses.get('b')));
    t.ok(await nodes.a.reaches(addresses.get('c')));
    t.ok((await network.swallowedPackets()) > 0);
    t.notOk(nodes.b.hasSeen('echo old text'), 'the echo of a does not arrive');
    (await kitConnects(addresses.get('a'))).destroy();
    (await kitConnects(addresses.get('b'))).destroy();

    await network.cut([['c', 'a']]);
    t.ok(await nodes.b.saw('echo old text'), 'b got the text from a, and now the echo arrives');
    t.ok(await nodes.a.reaches(addresses.get('b')), 'a cut replaces the one before');
    t.notOk(await nodes.a.reaches(addresses.get('c')), 'the answers of c do not arrive');

    await network.cut([]);
    t.equal(await network.swallowedPackets(), 0, 'each change counts anew');
    for (const node of NODES)
      for (const one of Object.values(nodes)) t.ok(await one.reaches(addresses.get(node)));
  },
);

t.test(
  'of two nodes, only the connections that exist are cut, and their packets arrive late',
  { skip },
  async (t) => {
    const { network } = await makeNetwork(t);
    const { addresses } = network;
    const { a, b, c } = await startNodes(t, network);
    a.command(`connect to-b ${addresses.get('b')}`);
    b.command(`connect to-a ${addresses.get('a')}`);
    c.command(`connect to-a ${addresses.get('a')}`);
    for (const [node, name] of [
      [a, 'to-b'],
      [b, 'to-a'],
      [c, 'to-a'],
    ] as const)
      t.ok(await node.saw(`connected ${name}`));

    await network.cutConnections('a', 'b');
    a.command('send to-b stale');
    b.command('send to-a stale');
    c.command('send to-a fresh');
    t.ok(await c.saw('echo to-a fresh'), 'other nodes are not concerned');
    t.ok(await a.reaches(addresses.get('b')));
    t.ok(await b.reaches(addresses.get('a')));
    t.ok(await until(async () => (await network.swallowedPackets()) >= 2, TIMEOUT_MS));
    t.notOk(a.hasSeen('echo to-b stale') || b.hasSeen('echo to-a stale'));

    await network.cut([['c', 'b']]);
    t.notOk(await c.reaches(addresses.get('b')), 'links can be cut at the same time');
    await network.cut([]);
    t.notOk(a.hasSeen('echo to-b stale') || b.hasSeen('echo to-a stale'), 'the connections are still cut');

    await network.healConnections();
    t.ok(await a.saw('echo to-b stale'));
    t.ok(await b.saw('echo to-a stale'));
    t.equal(await network.swallowedPackets(), 0);
  },
);

t.test('a wrong node is named, and a change after the end does nothing', { skip }, async (t) => {
  const { network } = await makeNetwork(t, ['a', 'b']);
  t.throws(() => network.enter('x'), /x: no such node, expected one of a, b/);
  t.throws(() => network.namespaceOf?.('x'), /no such node/);
  await t.rejects(async () => network.cut([['a', 'x']]), /no such node/);
  await t.rejects(async () => network.cut([['a', 'a']]), /expected two nodes/);
  network.remove();
  network.remove();
  await network.cut([]);
  t.equal(await network.swallowedPackets(), 0);
});

t.test('several networks at once do not meet, and nothing is left of them', { skip }, async (t) => {
  const made = await Promise.all([1, 2, 3, 4].map(() => makeNetwork(t, ['a', 'b', 'c'])));
  const addresses = made.flatMap(({ network }) => [...network.addresses.values()]);
  t.equal(new Set(addresses).size, 12);
  const [one, other] = made;
  if (one === undefined || other === undefined) return;
  const nodes = await startNodes(t, one.network);
  await startNodes(t, other.network);
  t.notOk(await nodes.a.reaches(other.network.addresses.get('a')));
  const dirs = made.map(({ dir }) => dir);
  t.not(machineState(dirs, addresses).length, 0);
  const pids = dirs.flatMap(processesInNetwork);
  t.equal(pids.length, 6);
  for (const { network } of made) network.remove();
  t.same(machineState(dirs, addresses), []);
  for (const dir of dirs) t.notOk(existsSync(dir));
  for (const { registry } of made) t.same(registry.left, []);
  t.ok(await until(() => pids.every((pid) => (processEntry(pid)?.state ?? 'Z') === 'Z'), TIMEOUT_MS));
});

t.test('nothing is left when the set-up fails', { skip }, async (t) => {
  const registry = new FakeRegistry();
  // No file can have this name.
  await t.rejects(createNodeNetwork(['a', 'b/c'], registry), { code: 'target-unavailable' });
  t.same(registry.left, []);
  t.notOk(readdirSync('/dev/shm').some((name) => name.includes(registry.runId)));
});
