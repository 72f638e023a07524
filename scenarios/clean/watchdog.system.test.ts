import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { skipReason } from '../../faults/power/fixtures/disk.js';
import { until } from '../../faults/waiting.js';
import { processesBelow, TestWorkspace } from '../fixtures/kit.js';
import { allProcesses, commandLineOf, processEntry } from '../host/processes.js';
import { newRunId } from '../host/registry.js';
import { packageRoot } from '../host/version.js';

const TIMEOUT_MS = 120_000;
const skip = skipReason();

function newPlace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  return place;
}

/** Lists the mounts, loop devices and shared directories of runs. */
function thingsOf(runIds: readonly string[]): string[] {
  const isOurs = (text: string) => runIds.some((id) => text.includes(id));
  const loops = readdirSync('/sys/block').flatMap((name) => {
    try {
      return [readFileSync(join('/sys/block', name, 'loop/backing_file'), 'utf8')];
    } catch {
      // It is no loop device, or it has just been detached.
      return [];
    }
  });
  const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n');
  return [...mounts, ...loops, ...readdirSync('/dev/shm')].filter(isOurs);
}

t.test(
  'a kit that is killed while its disk is stopped leaves nothing that is stopped',
  { skip },
  async (t) => {
    const place = newPlace(t);
    const flags = ['--faults', 'power-cut', '--budget', '10m'];
    const kit = place.start(['gate', place.queue('', ['power-cut']), ...flags]);
    await kit.waitForStderr(/^power-cut/m);
    const runIds = place.runs();
    kit.child.kill('SIGSTOP');
    const daemons = processesBelow(place.dir).filter((pid) =>
      commandLineOf(pid).includes('qemu-storage-daemon'),
    );
    t.equal(daemons.length, 1);
    for (const pid of daemons) process.kill(pid, 'SIGSTOP');
    t.not(thingsOf(runIds).length, 0);
    kit.child.kill('SIGKILL');
    await kit.waitForExit();
    t.ok(await until(() => processesBelow(place.dir).length === 0, TIMEOUT_MS), 'no process is left');
    t.ok(
      await until(() => thingsOf(runIds).length === 0, TIMEOUT_MS),
      'no mount, loop device or image is left',
    );
    const { stdout } = await place.run(['clean', '--json']);
    t.match(JSON.parse(stdout), { runs: [{ runId: runIds[0], processes: 0, loops: 0, problems: [] }] });
  },
);

t.test(
  'a storage daemon that something kills is a failure of the kit, and no verdict',
  { skip },
  async (t) => {
    const place = newPlace(t);
    const flags = ['--faults', 'power-cut', '--budget', '10m'];
    const kit = place.start(['gate', place.queue('', ['power-cut']), ...flags]);
    // After its first cuts the target works for a while without one.
    await kit.waitForStderr(/^power-cut/m);
    const daemons = () =>
      processesBelow(place.dir).filter((pid) => commandLineOf(pid).includes('qemu-storage-daemon'));
    // Kill the daemon when the target runs: during a cut the kit itself replaces the daemon.
    for (let tries = 0; kit.child.exitCode === null && tries < 1000; tries++) {
      for (const pid of daemons()) if (processEntry(pid)?.state === 'S') process.kill(pid, 'SIGKILL');
      await until(() => kit.child.exitCode !== null, 200);
    }
    const { code, stderr } = await kit.waitForExit();
    t.equal(code, 4, stderr);
    t.match(stderr, /^plugpull: .*qemu-storage-daemon/m);
  },
);

t.test('a daemon without environment dies with a killed kit', async (t) => {
  const place = newPlace(t);
  const daemon = `/bin/sleep ${5_000_000 + process.pid}`;
  const queue = join(packageRoot(), 'conformance/fixtures/queue.mjs');
  const script = `cd /; setsid -f env -i ${daemon} </dev/null >/dev/null 2>&1; exec "$0" "$@"`;
  const target = place.target(['sh', '-c', script, '{node}', queue, '--data', '{data}', '--port', '{port}']);
  const daemons = () =>
    allProcesses()
      .filter(({ pid }) => commandLineOf(pid) === daemon)
      .map(({ pid }) => pid);
  const kit = place.start(['gate', target, '--budget', '10m']);
  await kit.waitForStderr(/^round 1/m);
  t.ok(await until(() => daemons().length > 0, TIMEOUT_MS));
  kit.child.kill('SIGSTOP');
  // The kit may just have killed its target for a fault: what runs at this moment must end.
  kit.child.kill('SIGKILL');
  await kit.waitForExit();
  t.ok(await until(() => daemons().length === 0 && processesBelow(place.dir).length === 0, TIMEOUT_MS));
});

t.test('a gate and an exploration name a daemon that has escaped, and leave none', async (t) => {
  const daemon = `/bin/sleep ${6_000_000 + process.pid}`;
  const queue = join(packageRoot(), 'conformance/fixtures/queue.mjs');
  const script = `cd /; setsid -f env -i ${daemon} </dev/null >/dev/null 2>&1; exec "$0" "$@"`;
  const runs = [
    ['gate', '--rounds', '1', '--injections', '1'],
    ...(skip ? [] : [['explore', '--states', '5']]),
  ];
  for (const [command = '', ...flags] of runs) {
    const place = newPlace(t);
    const target = place.target(
      ['sh', '-c', script, '{node}', queue, '--data', '{data}', '--port', '{port}'],
      { guarantee: { faults: ['kill', 'crash-states'], duplicatesPerCrash: 0, redeliverySeconds: 6 } },
    );
    const { stdout, stderr } = await place.run([command, target, ...flags, '--budget', '20s', '--json']);
    const { warnings } = JSON.parse(stdout) as { warnings: string[] };
    t.match(warnings, [`escaped from its services; they were killed: ${daemon}`], stderr);
    t.equal(warnings.length, 1);
    t.same(
      allProcesses().filter(({ pid }) => commandLineOf(pid) === daemon),
      [],
    );
  }
});

/**
 * Script for a machine that has only the processes that it starts: the storage daemon of a dead run is stopped.
 * It prints what doctor and gate say, and what \`clean --all\` does.
 */
const HUNG = `
kit() { code=0; "$NODE" "$KIT" "$@" || code=$?; echo "exit code $code"; }
(PLUGPULL_RUN="$RUN" setsid "$DAEMONS/$RUN/qemu-storage-daemon" 600 >/dev/null 2>&1 &)
(PLUGPULL_RUN="$OTHER" setsid "$DAEMONS/$OTHER/qemu-storage-daemon" 601 >/dev/null 2>&1 & exec sleep 602) &
sleep=$!
until [ "$(cat /proc/[0-9]*/comm | grep -c qemu-storage-da)" = 2 ]; do sleep 0.1; done
kill -STOP $(grep -l qemu-storage-da /proc/[0-9]*/comm | cut -d / -f 3)
until [ "$(cat /proc/[0-9]*/stat | grep -c 'qemu-storage-da) T')" = 2 ]; do sleep 0.1; done
echo "--- another user"
setpriv --reuid=65534 --regid=65534 --clear-groups "$NODE" "$KIT" doctor
code=0; setpriv --reuid=65534 --regid=65534 --clear-groups "$NODE" "$KIT" gate /no-target.json 2>&1 || code=$?
echo "exit code $code"
echo "--- root"
kit doctor
kit gate
kit clean --all
cat /proc/[0-9]*/stat | grep -c 'qemu-storage-da) T'
kill "$sleep"
kit gate
kit clean --all
kit doctor
`;

const needsRoot = process.getuid?.() === 0 ? false : 'makes a pid namespace, which needs root';

t.test(
  'a stopped disk of a dead run is named by doctor and gate, and clean --all of any directory removes it',
  { skip: needsRoot },
  async (t) => {
    const place = newPlace(t);
    mkdirSync(place.state);
    const [runId, other] = [newRunId(), newRunId()];
    // A program with the name of the daemon. The kernel shows the first 15 bytes of the name.
    for (const id of [runId, other]) {
      const daemon = join(place.dir, id, 'qemu-storage-daemon');
      mkdirSync(join(place.dir, id));
      copyFileSync('/bin/sleep', daemon);
      execFileSync('chmod', ['755', daemon]);
    }
    const script = join(place.dir, 'hung.sh');
    writeFileSync(script, HUNG);
    const output = execFileSync(
      'unshare',
      ['--pid', '--fork', '--mount-proc', '--kill-child', 'sh', script],
      {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: TIMEOUT_MS,
        env: {
          ...process.env,
          ...{
            NODE: process.execPath,
            KIT: join(packageRoot(), 'dist/scenarios/cli/main.js'),
            DAEMONS: place.dir,
          },
          ...{ RUN: runId, OTHER: other, PLUGPULL_STATE: place.state },
        },
      },
    );
    const line = new RegExp(
      `qemu-storage-daemon \\(process \\d+\\) of run ${runId} is stopped .*clean --all`,
    );
    const [, ofUser = '', ofRoot = ''] = output.split(/^--- .*$/m);
    const warned = ofUser.match(
      /a disk of another user's run is stopped: qemu-storage-daemon .* of run (\S+);/g,
    );
    t.equal(warned?.length, 4, 'doctor and gate of another user name both disks');
    t.notMatch(ofUser, /its kit is dead:/);
    t.match(ofUser, /exit code 2/, 'the gate goes on to its target, which is missing');
    t.match(ofRoot, line);
    t.equal(output.match(/exit code 4/g)?.length, 2, 'both gates refuse to run');
    t.match(output, new RegExp(`${runId}: 0 containers, 1 processes`));
    const [before = '', after = ''] = output.split(`${runId}: 0 containers, 1 processes`);
    t.notMatch(before, new RegExp(`${other} is stopped|${other}:`), 'a run whose kit lives is left alone');
    t.match(
      after,
      new RegExp(`${other}: 0 containers, 1 processes`),
      'once its kit has ended, it is removed too',
    );
  },
);
