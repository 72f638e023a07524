import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { defineTarget } from '../../../conformance/target-file/load.js';
import { until } from '../../../faults/waiting.js';
import { seeded } from '../../host/random.js';
import { newRunId, Registry, registryFile } from '../../host/registry.js';
import { NOT_BUILT, newWorkspace } from './lab/fixtures/workspace.js';
import { vmRuntime } from './vm-runtime.js';

/** The processors of the lab VM may be emulated, on a busy machine. */
const TIMEOUT_MS = 240_000;
const PORT = 23_001;
const NODES = ['a', 'b'];
const EXT4 = { type: 'ext4', mountOptions: '' } as const;
/** Prints the milliseconds that a connection to the node $1 took, or why there is none. */
const CONNECT = `
const started = performance.now();
const socket = require('node:net').connect(${PORT}, process.argv[1]);
const end = (text) => { console.log(text); process.exit(); };
socket.on('connect', () => end(Math.round(performance.now() - started)));
socket.on('error', ({ code }) => end(code));
setTimeout(end, 4000, 'silent');`;
const ECHO = `require('node:net').createServer((socket) => socket.pipe(socket)).listen(${PORT})`;
/** Writes a file and syncs it, and one that it does not sync. */
const WRITE = 'cd "$0"; echo one > kept; sync -f kept; echo two > unsynced';

t.test(
  'nodes in the lab VM have their own disks and links, which fail one by one',
  { skip: NOT_BUILT },
  async (t) => {
    const place = newWorkspace(t);
    const { PLUGPULL_STATE: before } = process.env;
    process.env.PLUGPULL_STATE = place.state;
    t.teardown(() => {
      if (before === undefined) delete process.env.PLUGPULL_STATE;
      else process.env.PLUGPULL_STATE = before;
    });
    const target = defineTarget(
      {
        name: 'x',
        protocol: 'http',
        nodes: NODES,
        services: { server: { command: ['node', '{port}'] } },
        guarantee: { faults: ['kill'], duplicatesPerCrash: 0, cluster: { tolerates: 1 } },
      },
      place.dir,
    );
    const runtime = await vmRuntime.prepare(target, () => {});
    let closing: Promise<void> | undefined;
    const close = () => (closing ??= runtime.close?.());
    t.teardown(close);
    const registry = new Registry(newRunId(), place.state);
    const network = await runtime.makeNetwork?.(NODES, registry);
    if (network === undefined || runtime.makeDisk === undefined) throw new Error('the runtime has no nodes');
    const makeDisk = (node: string) =>
      runtime.makeDisk?.(join(place.dir, node), 'power', EXT4, registry, node);
    const [diskA, diskB] = await Promise.all(NODES.map(makeDisk));
    if (diskA?.power === undefined || diskB === undefined) throw new Error('no disks');
    const [a, b] = [diskA, diskB].map(({ dataDir }, index) => {
      const name = NODES[index] ?? '';
      const logDir = join(place.dir, 'logs');
      mkdirSync(logDir, { recursive: true });
      const workingDir = join(place.dir, 'scratch', name);
      return runtime.deploy({
        ...{ runId: `${registry.runId}-${name}`, registry, dataDir, workingDir, logDir },
        ...{ scratchDir: join(workingDir, 'target'), ports: [PORT], sink: '', node: { name, network } },
        services: [{ name: `server@${name}`, command: ['node', '-e', ECHO] }],
        onStarted: () => {},
        onExited: () => {},
      });
    });
    if (a === undefined || b === undefined) throw new Error('no deployments');
    const run = async (on: typeof a, command: readonly string[]) => {
      const { code, stdout, stderr } = await on.runCommand('command', command, TIMEOUT_MS);
      t.equal(code, 0, stderr);
      return stdout.trim();
    };
    const reach = (on: typeof a, to: string) => run(on, ['node', '-e', CONNECT, to]);
    for (const { services } of [a, b]) await services[0]?.start();

    // Forwarding accepts each connection. Only an answer shows that the node is reached.
    const echoes = (node: string) => echo(network.kitAddresses?.get(node) ?? '');
    t.ok(await until(() => echoes('a'), TIMEOUT_MS), 'the kit reaches a');
    t.ok(await until(() => echoes('b'), TIMEOUT_MS), 'and b, at the same port');
    t.match(await reach(a, 'b'), /^\d+$/, 'nodes reach each other by name');
    await network.cut([['a', 'b']]);
    t.equal(await reach(a, 'b'), 'silent');
    t.ok((await network.swallowedPackets()) > 0);
    t.ok(await echoes('b'), 'the kit still reaches it');
    await network.cut([]);
    await network.impair?.('b', { delayMs: 700 });
    t.ok(Number(await reach(a, 'b')) >= 700, 'what b sends is late');
    await network.impair?.('b', {});

    await run(b, ['sh', '-c', WRITE, diskB.dataDir]);
    // Right before the cut: the kernel writes what is unsynced after half a minute.
    await run(a, ['sh', '-c', WRITE, diskA.dataDir]);
    await diskA.power.stop();
    await a.services[0]?.waitForExit(TIMEOUT_MS);
    await diskA.power.resume();
    const { unflushedWrites } = await diskA.power.cut(0, 'all-lost', seeded('x'));
    t.ok(unflushedWrites > 0);
    const read = 'cd "$0"; cat kept unsynced 2>&1 | grep -x -e one -e two';
    t.equal(await run(a, ['sh', '-c', read, diskA.dataDir]), 'one', 'a lost what was not synced');
    t.equal(await run(b, ['sh', '-c', read, diskB.dataDir]), 'one\ntwo', 'b lost nothing');
    t.ok(await echoes('b'), 'the service of b has lived through it');
    t.notOk(await echoes('a'));
    await a.services[0]?.start();
    t.ok(await until(() => echoes('a'), TIMEOUT_MS));

    await Promise.all([a.destroy(), b.destroy()]);
    await network.end?.();
    network.remove();
    registry.close();
    t.equal(registryFile(registry.runId), undefined, 'nothing is left to clean up');
    // The next network must not meet what is left of the one before.
    const second = new Registry(newRunId(), place.state);
    const again = await runtime.makeNetwork?.(NODES, second);
    again?.remove();
    await close();
    second.close();
    t.equal(registryFile(second.runId), undefined, 'nor of the second one');
  },
);

/** Reports whether a server answers at an address of this machine. */
async function echo(address: string): Promise<boolean> {
  const socket = connect(PORT, address);
  socket.on('error', () => {});
  socket.setTimeout(5000, () => socket.destroy());
  socket.write('x');
  return Promise.race([
    once(socket, 'data').then(
      () => true,
      () => false,
    ),
    once(socket, 'close').then(
      () => false,
      () => false,
    ),
  ]).finally(() => socket.destroy());
}
