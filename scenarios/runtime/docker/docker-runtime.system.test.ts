import { once } from 'node:events';
import { cpSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import t from 'tap';
import { loadTarget } from '../../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../../conformance/targets/reference.js';
import { baseKey } from '../../../docker/image/base.js';
import { buildImage } from '../../../docker/image/build-image.js';
import { allThreadsInState } from '../../../faults/thread-state.js';
import { until } from '../../../faults/waiting.js';
import { engineSkipReason } from '../../fixtures/engine.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import type { GateResult } from '../../gate/result.js';
import { reservePort } from '../../host/ports.js';
import { newRunId, Registry, registeredRuns } from '../../host/registry.js';
import { packageRoot } from '../../host/version.js';
import { BOOT_ID_FILE } from '../boot/boot-view.js';
import type { Deployment, DeploymentPlan } from '../runtime.js';
import { dockerRuntime } from './container-deployment.js';
import { networkError } from './container-network.js';
import { connectEngine, engineAddress, labelsOf, RUN_LABEL } from './engine.js';

const skip = await engineSkipReason();
const FOREVER = 'setInterval(() => {}, 1000)';
const prepared =
  skip === false ? await dockerRuntime.prepare(loadTarget(REFERENCE_TARGET), () => {}) : undefined;

interface Deployed {
  place: TestWorkspace;
  plan: DeploymentPlan;
  deployment: Deployment;
  /** Reported exits: service, incarnation, code, signal. */
  exits: (string | number | null)[][];
}

function deploy(
  t: { teardown(end: () => unknown): void },
  services: Readonly<Record<string, readonly string[]>>,
  {
    ports = [],
    sink = '',
    runtime = prepared,
    user,
  }: Partial<Pick<DeploymentPlan, 'ports' | 'sink'>> & { runtime?: typeof prepared; user?: string } = {},
): Deployed {
  if (runtime === undefined) throw new Error('no engine');
  const place = new TestWorkspace();
  const folders = { workingDir: join(place.dir, 'scratch'), logDir: join(place.dir, 'logs') };
  const dataDir = join(place.dir, 'data');
  for (const folder of [...Object.values(folders), dataDir]) mkdirSync(folder);
  const exits: Deployed['exits'] = [];
  const registry = new Registry(newRunId(), place.state);
  const plan: DeploymentPlan = {
    ...folders,
    dataDir,
    scratchDir: folders.workingDir,
    ports,
    sink,
    registry,
    runId: registry.runId,
    services: Object.entries(services).map(([name, command]) => ({
      name,
      command,
      env: { GREETING: name },
      user,
    })),
    onStarted: () => {},
    onExited: (...exit) => exits.push(exit),
  };
  const deployment = runtime.deploy(plan);
  t.teardown(async () => {
    await deployment.destroy();
    place.remove();
  });
  return { place, plan, deployment, exits };
}

function only({ deployment }: Deployed) {
  const [service] = deployment.services;
  if (service === undefined) throw new Error('no service');
  return service;
}

const logOf = ({ plan }: Deployed, name: string) => readFileSync(join(plan.logDir, `${name}.log`), 'utf8');

/**
 * Returns the sorted lines of a service's log: stdout and stderr come through two pipes of the container
 * engine, in no fixed order.
 */
const linesOf = (deployed: Parameters<typeof logOf>[0], name: string): string =>
  logOf(deployed, name).trim().split('\n').sort().join(' ');

t.test(
  'concurrent starts make one container, and the output of a service is in its log',
  {
    skip,
  },
  async (t) => {
    const deployed = deploy(t, { a: ['node', '-e', `console.log('up'); console.error('err'); ${FOREVER}`] });
    const service = only(deployed);
    await Promise.all([service.start(), service.start()]);
    await service.start();
    t.equal(service.pids().length, 1);
    t.ok(await until(() => linesOf(deployed, 'a') === 'err up', 10_000), logOf(deployed, 'a'));
    t.equal(await service.signal('SIGKILL'), 1);
    await service.waitForExit(10_000);
    t.same(service.pids(), []);
    t.equal(await service.signal('SIGKILL'), 0);
    await service.start();
    t.ok(await until(() => linesOf(deployed, 'a') === 'err err up up', 10_000), logOf(deployed, 'a'));
    await deployed.deployment.stop(200);
    t.same(deployed.exits, [
      ['a', 1, null, 'SIGKILL'],
      ['a', 2, null, 'SIGKILL'],
    ]);
  },
);

t.test('children belong to the service: they stop, continue and die with it', { skip }, async (t) => {
  const source = `
    const { spawn } = require('node:child_process');
    for (let child = 0; child < 2; child++)
      spawn('node', ['-e', '${FOREVER}'], { detached: true, stdio: 'ignore' });
    ${FOREVER}`;
  const service = only(deploy(t, { a: ['node', '-e', source] }));
  await service.start();
  t.ok(await until(() => service.pids().length === 3, 10_000), `${service.pids().length} processes`);
  const pids = service.pids();
  t.equal(await service.signal('SIGSTOP'), 3);
  t.ok(await until(() => pids.every((pid) => allThreadsInState(pid, 'T')), 5000));
  t.equal(await service.signal('SIGCONT'), 3);
  t.ok(await until(() => !pids.some((pid) => allThreadsInState(pid, 'T')), 5000));
  await service.signal('SIGKILL');
  await service.waitForExit(10_000);
  t.same(
    pids.filter((pid) => !allThreadsInState(pid, 'ZX')),
    [],
  );
});

t.test('a wrapper and variables apply to one start only', { skip }, async (t) => {
  const print = 'console.log(process.env.WORD, process.ppid)';
  const deployed = deploy(t, { a: ['node', '-e', print] });
  const service = only(deployed);
  const trace = join(deployed.plan.workingDir, 'trace');
  await service.start(['strace', '-f', '-o', trace, '-e', 'trace=execve'], { WORD: 'hello' });
  await service.waitForExit(20_000);
  await service.start();
  await service.waitForExit(20_000);
  t.match(readFileSync(trace, 'latin1'), /execve\(.*node/);
  t.equal(logOf(deployed, 'a'), 'hello 1\nundefined 0\n');
});

t.test(
  'a command returns its exit code and output, and is killed when it takes too long',
  {
    skip,
  },
  async (t) => {
    const deployed = deploy(t, { a: ['true'] });
    const { deployment } = deployed;
    const source = 'console.log(1); console.error(2); process.exit(3)';
    const done = await deployment.runCommand('verify', ['node', '-e', source], 20_000);
    t.match(done, { code: 3, signal: null, stdout: '1\n', stderr: '2\n', timedOut: false });
    const slow = await deployment.runCommand('verify', ['node', '-e', FOREVER], 100);
    t.match(slow, { code: null, signal: 'SIGKILL', timedOut: true });
    t.match(logOf(deployed, 'verify'), 'process.exit(3)');
    const missing = await deployment.runCommand('verify', ['no-such-program'], 10_000);
    t.match(missing, { code: 127, stderr: /no-such-program: no such program in the image/ });
  },
);

t.test(
  'containers and their network carry the id of the run, have limits, and are removed afterwards',
  {
    skip,
  },
  async (t) => {
    const deployed = deploy(t, { a: ['node', '-e', FOREVER] });
    await only(deployed).start();
    const { runId } = deployed.plan;
    const engine = await connectEngine(engineAddress());
    const filters = { label: [`${RUN_LABEL}=${runId}`] };
    t.match(registeredRuns(deployed.place.state), [{ resources: [{ kind: 'containers' }] }]);
    const all = await engine.listContainers({ all: true, filters });
    const found = all.find(({ Names }) => Names.some((name) => name.endsWith('-a-1')));
    const { HostConfig, Config } = await engine.getContainer(found?.Id ?? '').inspect();
    t.ok((HostConfig.Memory ?? 0) > 0);
    t.ok((HostConfig.PidsLimit ?? 0) > 0);
    t.equal(HostConfig.Privileged, false);
    t.match(HostConfig, { NetworkMode: /^container:/, RestartPolicy: { Name: 'no' } });
    t.notOk(Config.ExposedPorts);
    const networks = () => engine.listNetworks({ filters: JSON.stringify(filters) });
    t.match(await networks(), [{ Driver: 'bridge', Labels: labelsOf(runId) }]);
    await deployed.deployment.destroy();
    t.same(await engine.listContainers({ all: true, filters }), []);
    t.same(await networks(), []);
    t.match(registeredRuns(deployed.place.state), [{ resources: [] }]);
    t.ok(await until(() => deployed.exits.length === 1, 5000));
  },
);

/**
 * Makes the source of a server on loopback. It answers with the address of its caller and with what it
 * received from port `of`.
 */
const ECHO = (port: number, of: number) => `
  const { connect, createServer } = require('node:net');
  createServer((client) => {
    const said = (answer) => client.end(client.remoteAddress + ' ' + answer);
    connect(${of}, '127.0.0.1').on('data', (data) => said('got ' + data)).on('error', (error) => said(error.code));
  }).listen(${port}, '127.0.0.1', () => console.log('up'));`;

/** Reads everything that is sent on a connection to a port of this machine's loopback. */
async function askPort(port: number): Promise<string> {
  return text(connect(port, '127.0.0.1')).catch((error: unknown) => String(error));
}

/**
 * Starts a receiver on loopback that sends `word` to each caller and closes the connection. Returns its
 * address.
 */
async function receiver(t: { teardown(end: () => unknown): void }, word: string): Promise<string> {
  const server = createServer((client) => client.end(word));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

t.test(
  'on loopback, the kit reaches services, services reach each other, and they reach the receiver',
  { skip },
  async (t) => {
    // Make two deployments at once. Ports are the same inside and outside, and each run has its own loopback.
    for (const run of await Promise.all(
      ['one', 'two'].map(async (word) => {
        const sink = await receiver(t, word);
        const ports = [await reservePort(), await reservePort()];
        const [a = 0, b = 0] = ports;
        const server = (port: number, of: number) => ['node', '-e', ECHO(port, of)];
        const services = { a: server(a, b), b: server(b, Number(sink.split(':')[1])) };
        const deployed = deploy(t, services, { ports, sink });
        for (const service of deployed.deployment.services) await service.start();
        return { word, deployed, a, b };
      }),
    )) {
      const { deployed, a, b, word } = run;
      const up = () => ['a', 'b'].every((name) => logOf(deployed, name).includes('up'));
      t.ok(await until(up, 20_000));
      t.equal(await askPort(b), `127.0.0.1 got ${word}`);
      t.equal(await askPort(a), `127.0.0.1 got 127.0.0.1 got ${word}`);
      const [first, second] = deployed.deployment.services;
      await second?.signal('SIGKILL');
      await second?.waitForExit(10_000);
      t.equal(await askPort(a), '127.0.0.1 ECONNREFUSED', 'a service that is down refuses connections');
      t.equal(await askPort(b), '', 'a service that is down sends nothing to the kit');
      t.equal(first?.pids().length, 1, 'the network outlives a service');
    }
  },
);

t.test('the error for an engine that has no addresses left says what to do', async (t) => {
  for (const words of [
    '(HTTP code 404) not found - could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network',
    '(HTTP code 500) server error - all predefined address pools have been fully subscribed',
  ]) {
    const told = networkError(new Error(words), 'unix:///here');
    t.match(told, { code: 'target-unavailable', message: /no addresses left.* clean, docker network prune/ });
  }
  const other = new Error('something else');
  t.equal(networkError(other, 'unix:///here'), other);
});

t.test(
  'two workers and a helper, each as process 1 of a separate container, survive kills',
  {
    skip,
  },
  async (t) => {
    const places = prepared?.pathsFor() ?? { dir: '', node: '' };
    const queue = (data: string) => [
      `${places.dir}/../../dist/reference-impl/synchronous/main.js`,
      '--queue',
      data,
    ];
    const command = (name: string, data: string, ...flags: string[]) => {
      const [program = '', ...rest] = queue(data);
      return [places.node, program, name, ...rest, ...flags];
    };
    // The path is relative, because the absolute one is known only after `deploy`. Paths are the same inside
    // and outside.
    const data = '../data/queue';
    const ports = [await reservePort(), await reservePort()];
    const worker = (port = 0) =>
      command('worker', data, '--smtp-port', `${port}`, '--next-hop', '127.0.0.1:1');
    const deployed = deploy(t, {
      helper: command('helper', data, '--pair', '0'),
      'worker-a': worker(ports[0]),
      'worker-b': worker(ports[1]),
    });
    const { deployment } = deployed;
    const installed = await deployment.runCommand(
      'install',
      command('install', data, '--data-bytes', '1MiB', '--entries', '64'),
      30_000,
    );
    t.equal(installed.code, 0, installed.stderr);
    const ready = (life: number) =>
      until(
        () => deployment.services.every(({ name }) => logOf(deployed, name).split('"ready"').length > life),
        20_000,
      );
    for (let life = 1; life <= 2; life++) {
      for (const service of deployment.services) await service.start();
      t.ok(await ready(life), `incarnation ${life}`);
      for (const { name, pids } of deployment.services.map((one) => ({ name: one.name, pids: one.pids() }))) {
        const status = readFileSync(`/proc/${pids[0]}/status`, 'latin1');
        t.match(status, /^NSpid:\s+\d+\s+1$/m, name);
      }
      await Promise.all(deployment.services.map((service) => service.signal('SIGKILL')));
      await Promise.all(deployment.services.map((service) => service.waitForExit(10_000)));
    }
    // The live services take over from one that dies alone. Each of them is process 1, as the dead one was.
    for (const service of deployment.services) await service.start();
    t.ok(await ready(3));
    for (const service of deployment.services) {
      await service.signal('SIGKILL');
      await service.waitForExit(10_000);
      await service.start();
    }
    t.ok(await ready(4));
    const verified = await deployment.runCommand('verify', command('verify', data), 20_000);
    t.match(JSON.parse(verified.stdout), { ok: true, problems: [] });
  },
);

t.test('a missing engine and an invalid address are reported in one line', async (t) => {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const run = async (address: string) => {
    const before = process.env.DOCKER_HOST;
    process.env.DOCKER_HOST = address;
    try {
      return await place.run(['gate', '--runtime', 'docker', '--budget', '5s']);
    } finally {
      if (before === undefined) delete process.env.DOCKER_HOST;
      else process.env.DOCKER_HOST = before;
    }
  };
  t.match(await run(`unix://${place.dir}/none.sock`), {
    code: 3,
    stderr: /no container engine.*as root: .* setup/,
  });
  t.match(await run('tcp://127.0.0.1:1'), { code: 3, stderr: /no container engine.*127.0.0.1:1/ });
  t.match(await run('somewhere'), { code: 2, stderr: /DOCKER_HOST somewhere: expected unix/ });
});

t.test(
  'a target runs in the image that it names, and faults that need a tool in that image are not tried',
  {
    skip,
  },
  async (t) => {
    const place = new TestWorkspace();
    t.teardown(() => place.remove());
    cpSync(join(packageRoot(), 'conformance/fixtures/queue.mjs'), join(place.dir, 'queue.mjs'));
    const target = (image: string) =>
      place.target([], {
        services: {
          server: { image, command: ['{node}', '{dir}/queue.mjs', '--data', '{data}', '--port', '{port}'] },
        },
        guarantee: { faults: ['kill', 'tear'], duplicatesPerCrash: 0, recoverySeconds: 20 },
      });
    // This image has Node and nothing of the kit, and no strace.
    const image = `plugpull/test:${newRunId()}`;
    const engine = await connectEngine(engineAddress());
    const context = join(place.dir, 'image');
    mkdirSync(context);
    const remove = 'RUN ["/bin/busybox", "rm", "/usr/bin/strace"]';
    writeFileSync(join(context, 'Dockerfile'), `FROM plugpull/base:${baseKey()}\n${remove}\n`);
    await buildImage(engine, context, { tag: image });
    t.teardown(() => engine.getImage(image).remove());
    const flags = ['--runtime', 'docker', '--seed', '4', '--json'];
    const ran = await place.run(['gate', target(image), ...flags, '--injections', '3', '--budget', '10m']);
    const { faults, confirmed } = JSON.parse(ran.stdout) as GateResult;
    t.ok(confirmed > 0);
    t.ok(faults.some(({ hit }) => hit > 0));
    t.match(
      faults.find(({ name }) => name === 'tear'),
      { tried: 0, why: /needs strace in the image, and plugpull.test:.* has none/ },
    );
    const missing = await place.run(['gate', target('plugpull.invalid/none:1'), ...flags]);
    t.match(missing, {
      code: 3,
      stderr: /image plugpull.invalid\/none:1: it is not on the engine and cannot/,
    });
  },
);

t.test('a command that the image lacks is reported as a mistake in the target file', { skip }, async (t) => {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const target = place.target(['/no/such/program', '{port}']);
  const { code, stderr } = await place.run(['gate', target, '--runtime', 'docker', '--budget', '10m']);
  t.equal(code, 2, stderr);
  t.match(
    stderr,
    /services\.server\.command\.0: image plugpull.* has no program .no.such.program: expected a program of the image/,
  );
});

/** Program that prints the boot id, and which of its marks are there; then it leaves marks. */
const LOOK = `
  const { existsSync, readFileSync, writeFileSync } = require('node:fs');
  const id = readFileSync('${BOOT_ID_FILE}', 'latin1').trim();
  const marks = ['/tmp/mark', '/run/mark', '/dev/shm/mark'];
  console.log(id + ' ' + marks.filter((path) => existsSync(path)).join(' '));
  for (const mark of marks) writeFileSync(mark, '');`;
const noRoot = process.getuid?.() === 0 ? false : 'the boot id of a container needs root';

t.test(
  'the containers of one boot see the same boot id, and after a reboot another one and no old files',
  { skip: skip || noRoot },
  async (t) => {
    const command = ['node', '-e', LOOK];
    const deployed = deploy(t, { a: command, b: command });
    const { deployment } = deployed;
    const lastLine = (name: string) => logOf(deployed, name).trim().split('\n').at(-1) ?? '';
    const runAll = async () => {
      for (const service of deployment.services) {
        await service.start();
        await service.waitForExit(10_000);
      }
      return (await deployment.runCommand('verify', command, 10_000)).stdout.trim();
    };
    const first = await runAll();
    t.match(first, /^[0-9a-f-]{36}$/);
    const own = readFileSync(BOOT_ID_FILE, 'latin1').trim();
    t.not(first, own, 'it is not the boot id of this machine');
    t.same(
      [lastLine('a'), lastLine('b')],
      [`${first} `, `${first} `].map((line) => line.trim()),
    );
    await runAll();
    t.match(lastLine('a'), `${first} /tmp/mark /run/mark`, 'a kill of processes keeps the files');
    t.equal(await deployment.reboot(), undefined);
    const second = await runAll();
    t.notOk(second.startsWith(first));
    t.equal(lastLine('a'), second);
    t.equal(lastLine('b'), second);
    t.equal(readFileSync(BOOT_ID_FILE, 'latin1').trim(), own);
  },
);

t.test(
  'a service has the environment variables and the user of the target file, and the data belongs to it',
  { skip: skip || noRoot },
  async (t) => {
    const target = { ...loadTarget(REFERENCE_TARGET) };
    const services = Object.entries(target.services).map(([name, service]) => [
      name,
      { ...service, user: '1234' },
    ]);
    const runtime = await dockerRuntime.prepare(
      { ...target, services: Object.fromEntries(services) },
      () => {},
    );
    const [first = ''] = Object.keys(target.services);
    const show = 'console.log(process.getuid(), process.env.GREETING)';
    const deployed = deploy(t, { [first]: ['node', '-e', show] }, { runtime, user: '1234' });
    await deployed.deployment.handOver?.();
    t.equal(statSync(deployed.plan.dataDir).uid, 1234);
    const service = only(deployed);
    await service.start();
    await service.waitForExit(10_000);
    t.equal(logOf(deployed, first).trim(), `1234 ${first}`);
    const unknown = Object.entries(target.services).map(([name, service]) => [
      name,
      { ...service, user: 'nosuch' },
    ]);
    await t.rejects(
      dockerRuntime.prepare({ ...target, services: Object.fromEntries(unknown) }, () => {}),
      /services.*user: image plugpull.reference.* has no user nosuch: expected one of its .etc.passwd/,
    );
  },
);
