import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { FlakeyDisk } from '../../../../faults/power/flakey.js';
import { type CommandHost, runScript } from '../../../../faults/power/host.js';
import type { TestWorkspace } from '../../../fixtures/kit.js';
import { bootId, processEntry } from '../../../host/processes.js';
import { registeredRuns } from '../../../host/registry.js';
import { runFixture, stageKit } from './fixtures/run-in-vm.js';
import { NOT_BUILT, newWorkspace, recordIn, workspaceWithImage } from './fixtures/workspace.js';
import { imageKey } from './image.js';
import type { LabRecord } from './lab.js';
import { isMachineAlive, Machine } from './machine.js';

const TIMEOUT_MS = 30_000;

t.test('without a VM, lab status and lab down each print one line', async (t) => {
  const place = newWorkspace(t);
  t.match(await place.run(['lab', 'status']), {
    code: 3,
    stdout: /^down; node \S+main\.js lab up starts it\n$/,
  });
  t.match(await place.run(['lab', 'down']), { code: 0, stdout: /^no lab VM was up\n$/ });
  t.match(JSON.parse((await place.run(['lab', 'status', '--json'])).stdout), { state: 'down' });
});

t.test('a stale VM is recognised, and another process with its pid is left alone', async (t) => {
  const place = newWorkspace(t);
  const startTicks = processEntry(process.pid)?.startTicks ?? 0;
  const address = {
    pid: process.pid,
    startTicks,
    agentPort: 1,
    enginePort: 1,
    dir: join(place.state, 'lab/vm/x'),
  };
  const record = { runId: 'x', key: imageKey(), boot: bootId(), accelerator: 'tcg', upAt: '', address };
  const cases: [Partial<LabRecord>, RegExp][] = [
    [{ boot: 'an earlier one' }, /^stale: the machine has been started again since; node \S+main\.js lab up/],
    [{ address: { ...address, startTicks: 1 } }, /^stale: its process \d+ has gone/],
    [{ key: 'of something else' }, /^stale: it was made by another version/],
    [{}, /^stale: it does not answer on port 1: /],
  ];
  for (const [change, expected] of cases) {
    writeFileSync(join(place.state, 'lab/up.json'), JSON.stringify({ ...record, ...change }), {
      mode: 0o600,
    });
    const { code, stdout } = await place.run(['lab', 'status']);
    t.match(stdout, expected);
    t.equal(stdout.split('\n').length, 2, 'one line');
    t.equal(code, 3);
  }
  const other = { ...record, address: { ...address, startTicks: 1 } };
  writeFileSync(join(place.state, 'lab/up.json'), JSON.stringify(other));
  t.match(await place.run(['lab', 'down']), { code: 0, stdout: /^down\n$/ });
  t.notOk(
    existsSync(join(place.state, 'lab/up.json')),
    'the record is removed, and this process, which has its pid, lives',
  );
});

t.test('a record of a VM that somebody else has written is not believed', async (t) => {
  const place = newWorkspace(t);
  const precious = join(place.dir, 'precious');
  mkdirSync(precious);
  const file = join(place.state, 'lab/up.json');
  const address = { pid: 1 << 22, startTicks: 1, agentPort: 1, enginePort: 1, dir: precious };
  const record = { runId: 'x', key: '', boot: 'an earlier one', accelerator: 'tcg', upAt: '', address };
  writeFileSync(file, JSON.stringify(record));
  for (const [mode, why] of [
    [0o644, /up\.json is not believed: its mode is 644/],
    [0o600, /up\.json is not believed: it names .*precious, expected a directory in/],
  ] as const) {
    chmodSync(file, mode);
    for (const command of ['up', 'down', 'status']) {
      const { code, stderr } = await place.run(['lab', command]);
      t.notOk(code === 0, command);
      if (code === 2) t.match(stderr, why);
    }
    t.ok(existsSync(precious));
  }
});

t.test('a gate in a VM that was not built reports how to build it', async (t) => {
  const place = newWorkspace(t);
  const { code, stderr } = await place.run(['gate', '--runtime', 'vm']);
  t.equal(code, 3);
  t.match(stderr, /^plugpull: --runtime vm: .*(main\.js lab up|apt-get install|run it on).*\n$/);
});

t.test(
  'a VM starts, loses what was not flushed when its power is cut, and stops',
  { skip: NOT_BUILT },
  async (t) => {
    const place = workspaceWithImage(t);
    t.teardown(() => place.run(['lab', 'down']));
    const up = await place.run(['lab', 'up']);
    t.equal(up.code, 0, up.stderr);
    t.match(await place.run(['lab', 'status']), {
      code: 0,
      stdout: /^up: engine at tcp:\/\/127\.0\.0\.1:\d+/,
    });
    const { address } = recordIn(place);
    const machine = await Machine.find(address);
    const { agent: host } = machine;
    for (const type of ['ext4', 'xfs'] as const) {
      const disk = await FlakeyDisk.create({
        ...{ host, device: '/dev/vdb', name: `test-${type}`, mountPoint: '/lab/disk' },
        ...{ filesystem: { type, mountOptions: '' }, killAll: '' },
      });
      const write = 'cd /lab/disk; echo one > kept; sync -f kept; echo two > kept.new; echo lost > lost';
      await runScript(host, write, [], TIMEOUT_MS);
      const { unflushedWrites } = await cutAt(disk);
      const left = await runScript(host, 'cd /lab/disk; ls; cat kept', [], TIMEOUT_MS);
      t.equal(left.replace('lost+found\n', ''), 'kept\none\n', `${type}: only what was synced is left`);
      t.ok(unflushedWrites > 0, `${type}: ${unflushedWrites} writes were dropped`);
      await failingWrites(t, host, disk, type);
      await runScript(host, 'mkdir -p /tmp/second; mount --bind /lab/disk /tmp/second', [], TIMEOUT_MS);
      await t.rejects(cutAt(disk), /still in use/, `${type}: a second mount would keep dirty pages alive`);
      await runScript(host, 'umount /tmp/second', [], TIMEOUT_MS);
      await disk.remove();
      await disk.remove();
    }
    t.equal((await runScript(host, 'dmsetup ls', [], TIMEOUT_MS)).trim(), 'No devices found');
    // Do what a gate does with `--power flakey` on a machine whose own kernel has a device mapper.
    const kit = await stageKit(host);
    const cut = (await runFixture(host, kit, 'flakey-local')) as Awaited<ReturnType<typeof cutAt>>;
    t.match(cut, { files: ['kept'], kept: 'one', registered: [], devices: false, loops: false });
    t.ok(cut.unflushedWrites > 0, `${cut.unflushedWrites} writes were dropped`);
    checkErrors(t, (await runFixture(host, kit, 'io-error-local')) as ErrorRun[]);
    machine.agent.close();
    t.match(await place.run(['lab', 'down']), { code: 0, stdout: /^down\n$/ });
    t.notOk(isMachineAlive(address));
    t.notOk(existsSync(address.dir));
  },
);

interface ErrorRun {
  goesOn: boolean;
  hit: boolean;
  detail: string;
  lost: number;
}

/**
 * Checks runs of `io-error` by dm-flakey: a writer that stops at a failed sync loses nothing, a writer that
 * continues loses something.
 */
function checkErrors(t: Test, runs: readonly ErrorRun[]): void {
  for (const { goesOn, hit, detail, lost } of runs) {
    t.ok(hit, detail);
    t.match(detail, /^EIO from \d+ writes of the disk \(dm-flakey\), .*; SIGKILL to all$/);
    if (!goesOn) t.equal(lost, 0, 'a writer that stops has lost nothing that it confirmed');
  }
  t.ok(
    runs.some(({ goesOn, lost }) => goesOn && lost > 0),
    'a writer that goes on has lost what it confirmed',
  );
  for (const how of [/well again/, /until the end/])
    t.ok(
      runs.some(({ detail }) => how.test(detail)),
      `${how}`,
    );
}

/**
 * Checks that a failed sync leaves nothing on the disk, and that the disk writes again after `end` or a
 * remount.
 */
async function failingWrites(t: Test, host: CommandHost, disk: FlakeyDisk, type: string): Promise<void> {
  const synced = (name: string) =>
    host.run(['dd', 'if=/dev/zero', `of=/lab/disk/${name}`, 'bs=4096', 'count=1', 'conv=fsync'], TIMEOUT_MS);
  await disk.writeErrors.begin();
  t.match(await synced('failed'), { code: 1, stderr: /Input\/output error/ }, `${type}: the sync fails`);
  t.ok((await disk.writeErrors.failedWrites()) > 0, 'the failed writes are counted');
  await disk.writeErrors.remount();
  t.match(await synced('well'), { code: 0 }, `${type}: the disk writes again after a remount`);
  await disk.writeErrors.begin();
  await disk.writeErrors.end();
  t.match(await synced('too'), { code: 0 }, 'the disk writes again without a remount');
  await disk.writeErrors.remount();
  const left = await runScript(host, 'cd /lab/disk; ls; cat kept', [], TIMEOUT_MS);
  t.equal(
    left.replace('lost+found\n', ''),
    'kept\ntoo\nwell\none\n',
    `${type}: the failed write is not on the disk`,
  );
}

async function cutAt(disk: FlakeyDisk) {
  await disk.stop();
  await disk.resume();
  return disk.cut();
}

t.test('clean removes the VM and the files of a gate that was killed', { skip: NOT_BUILT }, async (t) => {
  const place = workspaceWithImage(t);
  const gate = place.start(['gate', '--runtime', 'vm', '--faults', 'power-cut']);
  const dir = join(place.state, 'lab/vm');
  await gate.waitForStderr(/^round 1/m, 4 * TIMEOUT_MS);
  const pid = machinesIn(place)[0] ?? 0;
  t.not(pid, 0, 'the gate has started a VM');
  await gate.killWithWatchdog();
  t.ok(processEntry(pid), 'the VM outlives the gate');
  const { code, stdout } = await place.run(['clean', '--json']);
  t.equal(code, 0, stdout);
  const state = () => processEntry(pid)?.state ?? 'gone';
  t.ok(['Z', 'gone'].includes(state()), 'the process of the VM has gone');
  t.same(readdirSync(dir), [], 'the files of the VM are removed');
  t.match(await place.run(['clean']), { code: 0, stdout: 'nothing was left\n' });
});

/** Lists the registered processes of all runs. */
function machinesIn(place: TestWorkspace): number[] {
  return registeredRuns(place.state).flatMap(({ resources }) =>
    resources.flatMap((resource) => (resource.kind === 'process' ? [resource.pid] : [])),
  );
}
