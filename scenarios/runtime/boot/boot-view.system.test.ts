import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../../faults/waiting.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { newRunId, Registry, registeredRuns } from '../../host/registry.js';
import { ProcessDeployment } from '../process/process-runtime.js';
import type { DeploymentPlan } from '../runtime.js';
import { BOOT_ID_FILE, BootView, bootViewAvailability } from './boot-view.js';

const availability = bootViewAvailability();
const skip = availability.available ? false : availability.why;

/** Shell lines that print the boot id and the marks, and leave marks in every directory that a boot empties. */
const LOOK = `cat ${BOOT_ID_FILE}; for dir in /tmp /run /dev/shm; do ls $dir | grep '^mark' || :; touch $dir/mark-$NAME; done`;

function deploy(t: { teardown(end: () => unknown): void }, services: Readonly<Record<string, string>>) {
  const place = new TestWorkspace();
  const [logDir, workingDir, dataDir] = ['logs', 'scratch', 'data'].map((name) => join(place.dir, name)) as [
    string,
    string,
    string,
  ];
  for (const dir of [logDir, workingDir, dataDir]) mkdirSync(dir);
  const registry = new Registry(newRunId(), place.state);
  const plan: DeploymentPlan = {
    runId: registry.runId,
    registry,
    dataDir,
    workingDir,
    scratchDir: workingDir,
    logDir,
    ports: [],
    sink: '',
    services: Object.entries(services).map(([name, script]) => ({ name, command: ['sh', '-c', script] })),
    onStarted: () => {},
    onExited: () => {},
  };
  const deployment = new ProcessDeployment(plan);
  t.teardown(async () => {
    await deployment.destroy();
    place.remove();
  });
  const outputOf = (name: string) =>
    readFileSync(join(logDir, `${name}.log`), 'utf8')
      .trim()
      .split('\n');
  return { deployment, place, plan, outputOf };
}

t.test(
  'services and commands of one boot see the same boot id and directories, and the next boot others',
  { skip },
  async (t) => {
    const { deployment, place, plan, outputOf } = deploy(t, {
      a: `NAME=a; ${LOOK}`,
      b: `NAME=b; ${LOOK}`,
    });
    const runAll = async () => {
      for (const service of deployment.services) {
        await service.start();
        await service.waitForExit(10_000);
      }
      const { stdout } = await deployment.runCommand('verify', ['sh', '-c', `NAME=v; ${LOOK}`], 10_000);
      return stdout.trim().split('\n');
    };
    const first = await runAll();
    const [id] = first;
    t.same(outputOf('a'), [id], 'nothing is there at first');
    t.same(outputOf('b'), [id, 'mark-a', 'mark-a', 'mark-a']);
    t.equal(first.filter((line) => line === 'mark-b').length, 3);
    await deployment.services[0]?.start(['env'], { NAME: 'unused' });
    await deployment.services[0]?.waitForExit(10_000);
    t.equal(outputOf('a')[1], id, 'a start under a wrapper is in the same boot');
    t.equal(await deployment.reboot(), undefined);
    const second = await runAll();
    t.not(second[0], id);
    t.same(outputOf('a').slice(-1), [second[0]], 'the directories are empty after the crash');
    const own = readFileSync(BOOT_ID_FILE, 'latin1').trim();
    t.notOk([id, second[0]].includes(own), 'neither is the boot of this machine');
    t.notOk(existsSync('/tmp/mark-a') || existsSync('/run/mark-a') || existsSync('/dev/shm/mark-a'));
    await deployment.destroy();
    t.same(
      readdirSync('/dev/shm').filter((name) => name.includes(plan.runId)),
      [],
    );
    t.same(readdirSync(place.dir).sort(), ['data', 'logs', 'scratch', 'state']);
    t.same(
      registeredRuns(place.state)[0]?.resources.filter(({ kind }) => kind !== 'process'),
      [],
    );
  },
);

t.test(
  'paths below /tmp that the target needs stay, and keep what is written to them',
  { skip },
  async (t) => {
    const { deployment, place, plan } = deploy(t, {});
    const { dataDir } = plan;
    writeFileSync(join(dataDir, 'file'), 'x');
    const script = `cat ${dataDir}/file; echo y > ${dataDir}/more; ls /tmp`;
    const { stdout, stderr } = await deployment.runCommand('verify', ['sh', '-c', script], 10_000);
    t.match(stdout, /^x/, stderr);
    t.equal(readFileSync(join(dataDir, 'more'), 'utf8'), 'y\n');
    t.ok(place.dir.startsWith('/tmp/') || process.env.TMPDIR !== undefined);
  },
);

t.test(
  'the namespace of a boot ends with its processes, and it holds no disk of another target',
  { skip },
  async (t) => {
    const place = new TestWorkspace();
    const image = join(place.dir, 'image');
    const mountPoint = join(place.dir, 'other');
    const sh = (script: string) => {
      const { status, stdout, stderr } = spawnSync('sh', ['-ec', script], { encoding: 'utf8' });
      if (status !== 0) throw new Error(stderr);
      return stdout.trim();
    };
    mkdirSync(mountPoint);
    sh(`truncate -s 16M ${image}; mkfs.ext4 -q ${image}; mount -o loop ${image} ${mountPoint}`);
    const device = sh(`findmnt -n -o SOURCE ${mountPoint}`);
    const { deployment, outputOf } = deploy(t, { a: `echo up; exec sleep 1000` });
    t.teardown(() => {
      spawnSync('umount', [mountPoint]);
      place.remove();
    });
    const [service] = deployment.services;
    await service?.start();
    t.ok(await until(() => outputOf('a').includes('up'), 10_000));
    sh(`umount ${mountPoint}`);
    const isAttached = () => sh(`losetup --list --noheadings --output NAME`).split('\n').includes(device);
    t.ok(await until(() => !isAttached(), 10_000), 'its disk is free while the service runs');
    const pid = service?.pids()[0];
    t.notSame(sh(`readlink /proc/${pid}/ns/mnt`), sh('readlink /proc/self/ns/mnt'));
    await service?.signal('SIGKILL');
    await service?.waitForExit(10_000);
  },
);

t.test('a program that does not exist is an error of the start', { skip }, async (t) => {
  const { deployment } = deploy(t, {});
  await t.rejects(deployment.runCommand('verify', ['no-such-program'], 1000), /ENOENT/);
});

t.test('without a mount namespace the reason is given and the commands run as they are', async (t) => {
  const view = new BootView({
    dir: '/nowhere',
    keep: [],
    trees: [],
    words: [],
    registry: { runId: 'r', made: () => t.fail('nothing is made'), gone: () => {} },
    availability: { available: false, why: 'no root', remedy: '' },
  });
  t.same(view.enter(['a', 'b']), ['a', 'b']);
  t.equal(view.reboot(), 'no root');
  view.remove();
});
