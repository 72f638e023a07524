import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import t from 'tap';
import { defineTarget } from '../../../conformance/target-file/load.js';
import type { Availability } from '../../../faults/fault.js';
import { until } from '../../../faults/waiting.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { newRunId, Registry, registeredRuns, registryFile, registryPlaces } from '../../host/registry.js';
import { type ProcessContext, ProcessDeployment, processRuntime } from '../process/process-runtime.js';
import type { DeploymentPlan } from '../runtime.js';
import { BOOT_ID_FILE, BootView, bootViewAvailability, writeBootId } from './boot-view.js';

const availability = bootViewAvailability();
const skip = availability.available ? false : availability.why;
const skipDisks = process.getuid?.() === 0 ? false : 'a mount of a disk needs root';

/** Shell lines that print the boot id and the marks, and leave marks in every directory that a boot empties. */
const LOOK = `cat ${BOOT_ID_FILE}; for dir in /tmp /run /dev/shm; do ls $dir | grep '^mark' || :; touch $dir/mark-$NAME; done`;

interface Teardown {
  teardown(end: () => unknown): void;
}

/** Makes a directory directly in /tmp, wherever the temporary files of the tests are. */
function makeVolatileDir(t: Teardown): string {
  const dir = mkdtempSync('/tmp/plugpull-boot-test-');
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** @param options.root path under which the target has its directories. Default: the workspace itself. */
function deploy(
  t: Teardown,
  services: Readonly<Record<string, string>>,
  options: ProcessContext & { root?: string; env?: Record<string, string> } = {},
) {
  const place = new TestWorkspace();
  const { root = place.dir, env = {}, ...context } = options;
  const [logDir, workingDir, dataDir] = ['logs', 'scratch', 'data'].map((name) => join(root, name)) as [
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
    services: Object.entries(services).map(([name, script]) => ({
      name,
      command: ['sh', '-c', script],
      env,
    })),
    onStarted: () => {},
    onExited: () => {},
  };
  const deployment = new ProcessDeployment(plan, context);
  t.teardown(async () => {
    await deployment.destroy();
    place.remove();
  });
  const outputOf = (name: string) =>
    readFileSync(join(logDir, `${name}.log`), 'utf8')
      .trim()
      .split('\n');
  /** Runs a script in the boot, and returns its output. */
  const sh = async (script: string) => {
    const { stdout, stderr } = await deployment.runCommand('verify', ['sh', '-c', script], 10_000);
    return `${stdout}${stderr}`.trim();
  };
  return { deployment, place, plan, outputOf, sh };
}

t.test('a target does not see which bundles the user has made', { skip }, async (t) => {
  const { deployment } = deploy(t, { a: 'true' });
  // Not below /tmp, which is empty in the target's view anyway.
  const base = mkdtempSync('/var/tmp/plugpull-boot-test-');
  t.teardown(() => rmSync(base, { recursive: true, force: true }));
  process.env.XDG_STATE_HOME = base;
  const list = join(base, 'plugpull/bundles');
  await deployment.runCommand('verify', ['sh', '-c', `mkdir -p ${list}; touch ${list}/forged`], 10_000);
  t.same(readdirSync(list), [], 'the list is there, and what the target wrote is not in it');
  await deployment.destroy();
});

t.test('a target can make no place for lists of runs, also where none is yet', { skip }, async (t) => {
  const base = mkdtempSync('/var/tmp/plugpull-boot-test-');
  const { TMPDIR, XDG_STATE_HOME } = process.env;
  const restore = (name: string, value: string | undefined) => {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  };
  t.teardown(() => {
    restore('TMPDIR', TMPDIR);
    restore('XDG_STATE_HOME', XDG_STATE_HOME);
    rmSync(base, { recursive: true, force: true });
  });
  const { deployment } = deploy(t, { a: 'true' });
  for (const name of ['TMPDIR', 'XDG_STATE_HOME']) {
    process.env[name] = join(base, name);
    mkdirSync(join(base, name));
  }
  const places = registryPlaces();
  t.equal(places.filter((place) => place.startsWith(base)).length, 2);
  const forge = places.map((place) => `mkdir -p ${place}/runs; touch ${place}/runs/forged.jsonl;`).join(' ');
  await deployment.runCommand('verify', ['sh', '-c', `${forge} true`], 10_000);
  t.same(
    places.filter((place) => existsSync(join(place, 'runs/forged.jsonl'))),
    [],
  );
  for (const place of places.filter((one) => one.startsWith(base)))
    t.equal(statSync(place).mode & 0o777, 0o700);
  await deployment.destroy();
});

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

t.test('a target does not see the lists of resources, and the kit still has them', { skip }, async (t) => {
  const { place, sh } = deploy(t, {});
  const [run] = registeredRuns(place.state);
  const file = registryFile(run?.runId ?? '') ?? '';
  t.ok(existsSync(file));
  t.equal(await sh(`ls -A ${dirname(dirname(file))}`), '');
  t.match(await sh(`echo x >> ${dirname(dirname(file))}/file`), /Read-only/);
  t.ok(existsSync(file));
});

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

const inShell = (script: string) => {
  const { status, stdout, stderr } = spawnSync('sh', ['-ec', script], { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return stdout.trim();
};

/** Mounts a new disk, whose image is in `imageDir`; returns its loop device. */
function mountDisk(t: Teardown, imageDir: string, mountPoint: string): string {
  const image = join(imageDir, 'image');
  for (const dir of [imageDir, mountPoint]) mkdirSync(dir);
  t.teardown(() => spawnSync('umount', [mountPoint]));
  inShell(`truncate -s 16M ${image}; mkfs.ext4 -q ${image}; mount -o loop ${image} ${mountPoint}`);
  return inShell(`findmnt -n -o SOURCE ${mountPoint}`);
}

t.test(
  'the namespace of a boot ends with its processes, and it holds no disk of another target',
  { skip: skip || skipDisks },
  async (t) => {
    const { deployment, outputOf, place } = deploy(t, { a: `echo up; exec sleep 1000` });
    const mountPoint = join(place.dir, 'other');
    const device = mountDisk(t, join(place.dir, `plugpull-${newRunId()}-round-1`), mountPoint);
    const [service] = deployment.services;
    await service?.start();
    t.ok(await until(() => outputOf('a').includes('up'), 10_000));
    inShell(`umount ${mountPoint}`);
    const isAttached = () =>
      inShell(`losetup --list --noheadings --output NAME`).split('\n').includes(device);
    t.ok(await until(() => !isAttached(), 10_000), 'its disk is free while the service runs');
    const pid = service?.pids()[0];
    t.notSame(inShell(`readlink /proc/${pid}/ns/mnt`), inShell('readlink /proc/self/ns/mnt'));
    await service?.signal('SIGKILL');
    await service?.waitForExit(10_000);
  },
);

t.test('disks of the user stay mounted', { skip: skip || skipDisks }, async (t) => {
  const mountPoint = mkdtempSync('/var/tmp/plugpull-boot-test-');
  rmdirSync(mountPoint);
  const image = `${mountPoint}-image`;
  t.teardown(() => {
    rmSync(mountPoint, { recursive: true, force: true });
    rmSync(image, { recursive: true, force: true });
  });
  mountDisk(t, image, mountPoint);
  t.teardown(() => spawnSync('umount', [mountPoint]));
  writeFileSync(join(mountPoint, 'file'), 'x');
  const { sh } = deploy(t, {});
  t.equal(await sh(`cat ${mountPoint}/file`), 'x');
});

t.test('a program that is a link is there with the files beside it', { skip }, async (t) => {
  const venv = makeVolatileDir(t);
  mkdirSync(join(venv, 'bin'));
  symlinkSync('sh', join(venv, 'bin/shell'));
  symlinkSync('/bin/sh', join(venv, 'bin/sh'));
  writeFileSync(join(venv, 'library'), 'x');
  const program = join(venv, 'bin/shell');
  const { deployment } = deploy(t, {}, { words: [program] });
  const { stdout, stderr } = await deployment.runCommand(
    'verify',
    [program, '-c', `cat ${venv}/library`],
    10_000,
  );
  t.equal(stdout, 'x', stderr);
});

t.test(
  'directories that are reached through a link of /tmp are there under both paths',
  { skip },
  async (t) => {
    const [links, real] = [makeVolatileDir(t), makeVolatileDir(t)];
    for (const dir of ['root', 'target']) {
      mkdirSync(join(real, dir));
      symlinkSync(join(real, dir), join(links, dir));
    }
    writeFileSync(join(real, 'target/program'), 'x');
    const root = join(links, 'root');
    const { sh } = deploy(t, {}, { root, targetDir: join(links, 'target') });
    t.equal(await sh(`cat ${links}/target/program ${real}/target/program`), 'xx');
    t.equal(await sh(`echo y > ${root}/data/file; cat ${real}/root/data/file`), 'y');
    const other = `${links}-link`;
    t.teardown(() => rmSync(other, { force: true }));
    symlinkSync(real, other);
    mkdirSync(join(real, 'more'));
    const more = deploy(t, {}, { root: join(other, 'more'), targetDir: '/var/tmp' });
    t.equal(await more.sh(`echo z > ${other}/more/data/file; cat ${real}/more/data/file`), 'z');
  },
);

t.test('a program that the install command has put into /tmp can be started', { skip }, async (t) => {
  const { deployment, sh } = deploy(t, {});
  const program = `/tmp/plugpull-program-${process.pid}`;
  t.equal(await sh(`echo 'echo started' | install -m 755 /dev/stdin ${program}`), '');
  const { stdout } = await deployment.runCommand('verify', ['sh', program], 10_000);
  t.equal(stdout, 'started\n');
  await sh(`printf '#!/bin/sh\\necho alone\\n' > ${program}`);
  t.equal((await deployment.runCommand('verify', [program], 10_000)).stdout, 'alone\n');
  await t.rejects(deployment.runCommand('verify', [`${program}-2`], 10_000), /ENOENT/);
});

t.test(
  'the programs beside a target file in /tmp itself are there, other files are not',
  { skip },
  async (t) => {
    const name = `/tmp/plugpull-sibling-${process.pid}`;
    const files = [`${name}.mjs`, `${name}.db`];
    t.teardown(() => {
      for (const file of files) rmSync(file, { force: true });
    });
    for (const file of files) writeFileSync(file, 'x');
    const { sh } = deploy(t, {}, { targetDir: '/tmp' });
    t.equal(await sh(`ls ${name}* ; cat ${name}.mjs`), `${name}.mjs\nx`);
  },
);

t.test('files that any command of the target names are there', { skip }, async (t) => {
  const files = ['install', 'verify', 'nudge', 'restore', 'env'].map((name) => {
    const file = join(makeVolatileDir(t), `${name}.sh`);
    writeFileSync(file, `echo ${name}`);
    return file;
  });
  const [install = '', verify = '', nudge = '', restore = '', env = ''] = files;
  const target = defineTarget(
    {
      name: 'test',
      protocol: 'http',
      services: { a: { command: ['sh', '{port}'] } },
      install: ['sh', install],
      verify: ['sh', verify],
      nudge: ['sh', nudge],
      crashStates: { restore: ['sh', restore] },
      guarantee: { faults: ['kill'], duplicatesPerCrash: 0 },
    },
    '/var/tmp',
  );
  const { plan } = deploy(t, { a: 'unused' }, { env: { FILE: `file=${env}` } });
  const runtime = await processRuntime.prepare(target, () => {});
  const deployment = runtime.deploy(plan);
  t.teardown(() => deployment.destroy());
  const { stdout, stderr } = await deployment.runCommand('verify', ['cat', ...files], 10_000);
  t.equal(stdout, 'echo installecho verifyecho nudgeecho restoreecho env', stderr);
});

t.test('sockets of other daemons are there, those of ended processes are not', { skip }, async (t) => {
  const dir = makeVolatileDir(t);
  const [live, stale] = [join(dir, '.s.PGSQL.5432'), join(dir, 'stale.sock')];
  const server = createServer((socket) => socket.on('error', () => {}).end('hello'));
  await once(server.listen(live), 'listening');
  t.teardown(() => server.close());
  const bindAndDie = `require('node:net').createServer().listen('${stale}', () => process.kill(process.pid, 9))`;
  spawnSync(process.execPath, ['-e', bindAndDie]);
  t.ok(existsSync(stale));
  const connect = `require('node:net').connect('${live}').pipe(process.stdout)`;
  for (const words of [[`--socket=${live}`, stale], [dir]]) {
    const { deployment, sh } = deploy(t, {}, { words });
    const { stdout } = await deployment.runCommand('verify', [process.execPath, '-e', connect], 10_000);
    t.equal(stdout, 'hello');
    t.equal(await sh(`ls -A ${dir}`), '.s.PGSQL.5432');
  }
});

t.test('a file that has disappeared since is left out', { skip }, async (t) => {
  const dir = makeVolatileDir(t);
  const file = join(dir, 'program.sh');
  writeFileSync(file, '');
  const { sh } = deploy(t, {}, { words: [file] });
  rmSync(dir, { recursive: true });
  t.equal(await sh('echo started'), 'started');
});

t.test('what links in the folder of a target lead to is there', { skip }, async (t) => {
  const [dir, elsewhere] = [makeVolatileDir(t), makeVolatileDir(t)];
  mkdirSync(join(elsewhere, 'modules'));
  writeFileSync(join(elsewhere, 'modules/one.js'), '');
  symlinkSync(join(elsewhere, 'modules'), join(dir, 'node_modules'));
  const { sh } = deploy(t, {}, { targetDir: dir });
  t.equal(await sh(`ls ${dir}/node_modules/`), 'one.js');
});

t.test('files of an earlier run that a command names are not there', { skip }, async (t) => {
  const dir = makeVolatileDir(t);
  const stale = [`${dir}.pid`, join(dir, 'queue.db')];
  t.teardown(() => rmSync(`${dir}.pid`, { force: true }));
  for (const file of stale) writeFileSync(file, 'x');
  const { sh } = deploy(t, {}, { words: [`--pidfile=${stale[0]}`, `${stale[1]}`] });
  t.equal(await sh(`ls -d ${dir}*; :`), `ls: cannot access '${dir}*': No such file or directory`);
});

t.test('without root a target sees its own boots as well', async (t) => {
  const dir = makeVolatileDir(t);
  for (const name of ['boots', 'bundle']) mkdirSync(join(dir, name), { mode: 0o755 });
  chmodSync(dir, 0o755);
  const nobody = 65534;
  chownSync(join(dir, 'boots'), nobody, nobody);
  // The user may not enter the folder of this tree, so give it the module as one file.
  const bundle = join(dir, 'bundle/view.mjs');
  const module = fileURLToPath(new URL('./boot-view.js', import.meta.url));
  await build({ entryPoints: [module], outfile: bundle, bundle: true, platform: 'node', format: 'esm' });
  const script = `
    const { BootView, bootViewAvailability } = await import('${bundle}');
    const { spawnSync } = await import('node:child_process');
    const availability = bootViewAvailability();
    const registry = { runId: 'user', made() {}, gone() {} };
    const view = new BootView({ dir: '${dir}/boots', keep: [], trees: [], words: [], registry });
    const look = () => {
      const [program, ...args] = view.enter(['sh', '-c', 'cat ${BOOT_ID_FILE}; id -u; id -g; ls /tmp; touch /tmp/mark']);
      const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
      return [...stdout.trim().split('\\n'), stderr];
    };
    const result = { availability, first: look(), reboot: view.reboot(), second: look() };
    view.remove();
    console.log(JSON.stringify(result));`;
  const ids = [`--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups'];
  const asNobody = process.getuid?.() === 0 ? ['setpriv', ...ids] : [];
  const [program = '', ...args] = [...asNobody, process.execPath, '--input-type=module', '-e', script];
  const { stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    cwd: '/',
    // A directory of PATH is kept in every boot. That of this project may be below /tmp.
    env: { PATH: ['/usr/bin', '/bin', '/usr/sbin', '/sbin'].join(':'), HOME: '/' },
  });
  const result = JSON.parse(stdout || JSON.stringify({ stderr })) as {
    availability: Availability;
    first: string[];
    second: string[];
    reboot?: string;
  };
  const [mount = '', ...how] = [
    ...asNobody,
    'unshare',
    '--user',
    '--map-root-user',
    '--mount',
    'mount',
    '--rbind',
    '/tmp',
    '/run',
  ];
  const mayMount = spawnSync(mount, how).status === 0;
  t.equal(
    result.availability.available,
    mayMount,
    'it is available exactly where the kernel lets users mount',
  );
  if (!result.availability.available) {
    t.match(result.reboot, /mount namespace/, 'the reason is given');
    t.comment(result.availability.why);
    return;
  }
  const { first, second } = result;
  t.same(first.slice(1), [`${nobody}`, `${nobody}`, ''], 'the target has its user, and nothing is there');
  t.same(second.slice(1), first.slice(1), 'the directories are empty after the crash');
  t.equal(new Set([first[0], second[0], readFileSync(BOOT_ID_FILE, 'utf8').trim()]).size, 3);
  t.same(readdirSync(join(dir, 'boots')), []);
});

t.test('every user can read the boot id, whatever the umask is', async (t) => {
  const file = join(makeVolatileDir(t), 'boot_id');
  const before = process.umask(0o077);
  t.teardown(() => process.umask(before));
  writeBootId(file, 'id');
  t.equal(statSync(file).mode & 0o777, 0o444);
});

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
