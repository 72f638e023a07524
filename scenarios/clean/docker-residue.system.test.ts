import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../faults/waiting.js';
import { engineSkipReason } from '../fixtures/engine.js';
import { type KitProcess, TestWorkspace } from '../fixtures/kit.js';
import { newRunId, registryFile } from '../host/registry.js';
import { packageRoot } from '../host/version.js';
import {
  connectEngine,
  engineAddress,
  labelledRuns,
  labelsOf,
  RUN_LABEL,
  tolerateGone,
} from '../runtime/docker/engine.js';
import { nodeNetworkAvailability } from '../runtime/nodes/availability.js';
import type { CleanResult } from './clean.js';

const skip = await engineSkipReason();
const engine = await connectEngine(engineAddress());
/** The first run of an example builds its image from Debian packages. */
const IMAGE_TIMEOUT_MS = 600_000;
const fixture = (name: string) => join(packageRoot(), 'conformance/fixtures', `${name}.json`);

function newPlace(t: { teardown(remove: () => unknown): void }): TestWorkspace {
  const place = new TestWorkspace();
  t.teardown(async () => {
    await place.run(['clean']);
    place.remove();
  });
  return place;
}

/** Starts a gate that ends by `limits`, or is ended by the test. */
function gate(place: TestWorkspace, target: string, ...limits: string[]): KitProcess {
  const flags = ['--runtime', 'docker', '--budget', '10m', '--seed', '3', ...limits];
  return place.start(['gate', fixture(target), ...flags]);
}

/**
 * Lists the containers of the given runs with their states, running or not, and the networks with their
 * drivers.
 */
async function leftOf(runIds: readonly string[]): Promise<string[]> {
  const ofRuns = ({ Labels }: { Labels?: Record<string, string> | undefined }) =>
    runIds.includes(Labels?.[RUN_LABEL] ?? '');
  const containers = (await engine.listContainers({ all: true })).filter(ofRuns);
  const networks = (await engine.listNetworks()).filter(ofRuns);
  return [
    ...containers.map(({ Names, State }) => `${Names[0]} ${State}`),
    ...networks.map(({ Name, Driver }) => `${Name} ${Driver}`),
  ];
}

t.test('nothing of a run is left on the engine after it has passed or failed', { skip }, async (t) => {
  for (const [target, code] of [
    ['correct', 0],
    ['delivers-twice', 1],
  ] as const) {
    const place = newPlace(t);
    const kit = gate(place, target, '--injections', '3');
    await kit.waitForStderr(/^round 1/m);
    const runs = place.runs();
    t.ok(await until(async () => (await leftOf(runs)).length > 0, 20_000), 'the run has containers');
    const hasNetwork = async () => (await leftOf(runs)).some((line) => line.endsWith(' bridge'));
    t.ok(await until(hasNetwork, 20_000), 'the containers have a separate network');
    const ended = await kit.waitForExit();
    t.equal(ended.code, code, ended.stderr);
    t.match(ended.stderr, /kill +tried [1-9]\d* +hit [1-9]/);
    t.same(await leftOf(runs), []);
    t.same(place.runs(), []);
  }
});

t.test(
  'Ctrl-C removes all containers; a second one stops at once, and clean removes the rest',
  {
    skip,
  },
  async (t) => {
    for (const times of [1, 2]) {
      const place = newPlace(t);
      const kit = gate(place, 'correct');
      await kit.waitForStderr(/^kill/m);
      const runs = place.runs();
      for (let time = 0; time < times; time++) kit.child.kill('SIGINT');
      const { code, stderr } = await kit.waitForExit();
      t.equal(code, 130, stderr);
      if (times === 2) {
        const running = async () => (await leftOf(runs)).filter((line) => line.endsWith('running'));
        t.ok(
          await until(async () => (await running()).length === 0, 10_000),
          'every container is killed, even if it is not removed',
        );
        t.equal((await place.run(['clean'])).code, 0);
      }
      t.same(await leftOf(runs), []);
      t.same(place.runs(), []);
    }
  },
);

t.test(
  "clean removes the containers and links of a killed kit's nodes",
  { skip: skip || !nodeNetworkAvailability().available },
  async (t) => {
    const place = newPlace(t);
    const killed = gate(place, '../examples/python/primary-backup', '--faults', 'kill');
    await killed.waitForStderr(/^kill/m, IMAGE_TIMEOUT_MS);
    const runs = place.runs();
    await killed.killWithWatchdog();
    t.ok((await leftOf(runs)).filter((line) => line.endsWith(' running')).length >= 2, 'a pod per node');
    const links = () => execFileSync('ip', ['-details', 'link', 'show'], { encoding: 'utf8' });
    t.ok(runs.some((run) => links().includes(run)));
    const { code, stdout } = await place.run(['clean', '--json']);
    t.equal(code, 0, stdout);
    t.same(await leftOf(runs), []);
    t.notOk(runs.some((run) => links().includes(run)));
    t.same(place.runs(), []);
  },
);

t.test(
  "clean removes a killed kit's containers, networks and volumes, and no others",
  {
    skip,
  },
  async (t) => {
    const place = newPlace(t);
    const killed = gate(place, 'correct');
    await killed.waitForStderr(/^kill/m);
    const left = place.runs();
    await killed.killWithWatchdog();
    const alive = await leftOf(left);
    // A service may be down at this moment, but the pod, which keeps the network, is running.
    t.ok(
      alive.some((line) => line.endsWith(' running')),
      `containers outlive the kit: ${alive}`,
    );
    t.ok(
      alive.some((line) => line.endsWith(' bridge')),
      'the network outlives the kit',
    );
    const labels = { [RUN_LABEL]: left[0] ?? '' };
    await engine.createNetwork({ Name: `plugpull-test-${process.pid}`, Internal: true, Labels: labels });
    await engine.createVolume({ Name: `plugpull-test-${process.pid}`, Labels: labels });
    const strange = `plugpull-test-other-${process.pid}`;
    await engine.createVolume({ Name: strange });
    t.teardown(() => engine.getVolume(strange).remove());

    const living = gate(place, 'correct');
    await living.waitForStderr(/^kill/m);
    const livingRuns = place.runs().filter((run) => !left.includes(run));
    const { code, stdout } = await place.run(['clean', '--json']);
    t.equal(code, 0, stdout);
    const cleaned = JSON.parse(stdout) as CleanResult;
    t.match(cleaned, { runs: [{ runId: left[0], problems: [] }], inUse: livingRuns });
    t.ok((cleaned.runs[0]?.containers ?? 0) >= 5, stdout);
    t.same(await leftOf(left), []);
    const { Volumes } = await engine.listVolumes();
    t.ok(Volumes.some(({ Name }) => Name === strange));
    t.notOk(Volumes.some(({ Name }) => Name === `plugpull-test-${process.pid}`));
    const networks = await engine.listNetworks();
    t.notOk(networks.some(({ Name }) => Name === `plugpull-test-${process.pid}`));
    await living.waitForAnother(/^kill/gm);
    living.child.kill('SIGINT');
    const { code: livingCode, stderr } = await living.waitForExit();
    t.equal(livingCode, 130, stderr);
    t.same(await leftOf(livingRuns), []);
  },
);

t.test('a run stays on the list, with the reason, when its engine is gone', { skip }, async (t) => {
  const place = newPlace(t);
  const killed = gate(place, 'correct');
  await killed.waitForStderr(/^kill/m);
  const runs = place.runs();
  await killed.killWithWatchdog();
  const file = registryFile(runs[0] ?? '') ?? '';
  const text = readFileSync(file, 'utf8');
  writeFileSync(file, text.replaceAll(engineAddress(), `unix://${place.dir}/none.sock`));
  const away = await place.run(['clean']);
  t.equal(away.code, 4);
  t.match(away.stdout, /left: containers on .*none.sock/);
  writeFileSync(file, text);
  t.equal((await place.run(['clean'])).code, 0);
  t.same(await leftOf(runs), []);
});

t.test(
  'a run whose engine goes away is reported as not measured, not as a violation of the target',
  {
    skip: skip || (engineAddress().startsWith('unix://') ? false : 'needs an engine at a socket'),
  },
  async (t) => {
    const place = newPlace(t);
    const connections = new Set<Socket>();
    const proxy = createServer((client) => {
      const socket = connect(engineAddress().slice('unix://'.length));
      for (const one of [client, socket]) {
        connections.add(one);
        one.on('error', () => {});
        one.on('close', () => {
          client.destroy();
          socket.destroy();
        });
      }
      client.pipe(socket).pipe(client);
    });
    const listen = async (port: number) => {
      proxy.listen(port, '127.0.0.1');
      await once(proxy, 'listening');
      return (proxy.address() as AddressInfo).port;
    };
    const port = await listen(0);
    const goAway = () => {
      proxy.close();
      for (const one of connections) one.destroy();
    };
    t.teardown(goAway);
    const before = process.env.DOCKER_HOST;
    process.env.DOCKER_HOST = `tcp://127.0.0.1:${port}`;
    const kit = gate(place, 'correct');
    if (before === undefined) delete process.env.DOCKER_HOST;
    else process.env.DOCKER_HOST = before;
    await kit.waitForStderr(/^kill/m);
    const runs = place.runs();
    goAway();
    const { code, stderr } = await kit.waitForExit();
    t.equal(code, 3, stderr);
    t.match(stderr, /the container engine at tcp:\S+ has gone/);
    t.same(place.runs(), runs, 'what could not be removed stays on the list');
    await listen(port);
    t.equal((await place.run(['clean'])).code, 0);
    t.same(await leftOf(runs), []);
  },
);

t.test('only runs of this user and this boot count as found without a list', { skip }, async (t) => {
  const objects = [
    labelsOf(newRunId()),
    { ...labelsOf(newRunId()), 'plugpull.uid': '54321' },
    { [RUN_LABEL]: newRunId() },
  ];
  const name = (index: number) => `plugpull-test-${process.pid}-${index}`;
  t.teardown(async () => {
    for (const index of objects.keys()) await tolerateGone(engine.getNetwork(name(index)).remove());
  });
  for (const [index, labels] of objects.entries())
    await engine.createNetwork({ Name: name(index), Internal: true, Labels: labels });
  const runIds = objects.map((labels) => labels[RUN_LABEL] ?? '');
  const found = await labelledRuns(engine);
  t.same(
    runIds.map((runId) => found.includes(runId)),
    [true, false, false],
  );
});
