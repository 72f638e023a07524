import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { findProgram } from '../programs.js';
import { until } from '../waiting.js';
import { recordingDirectory } from './blocklog-availability.js';
import { DEFAULT_FILESYSTEM, forceDropFilesystem, MIN_DISK_BYTES } from './filesystem.js';
import { remainingResources, skipReason, withDisk } from './fixtures/disk.js';
import { detachLoops } from './loop.js';
import { abortFuse, type StoppedDisk, unmountDead } from './mounts.js';

const TIMEOUT_MS = 60_000;
const skip = skipReason();

t.test(
  'a stopped daemon dies with the process that has started it',
  { skip: skip || (findProgram('setpriv') ? false : 'setpriv is not installed') },
  async (t) => {
    const dir = mkdtempSync(join(recordingDirectory() ?? tmpdir(), 'plugpull-disk-'));
    const mountPoint = mkdtempSync(join(tmpdir(), 'plugpull-mount-'));
    const options = { dir, mountPoint, sizeBytes: MIN_DISK_BYTES, filesystem: DEFAULT_FILESYSTEM };
    const source = `
      import { BlocklogDisk } from '${new URL('./blocklog.js', import.meta.url).href}';
      const registry = { made() {}, gone() {} };
      const options = { ...${JSON.stringify(options)}, recorded: true, env: {}, registry };
      const disk = await BlocklogDisk.create(options);
      disk.stop();
      console.log(disk.daemonPid);
      setInterval(() => {}, 1000);`;
    const owner = spawn(process.execPath, ['--input-type=module', '-e', source], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let daemon = 0;
    t.teardown(() => {
      owner.kill('SIGKILL');
      if (isLive()) process.kill(daemon, 'SIGKILL');
      forceDropFilesystem(mountPoint);
      detachLoops(join(dir, 'device'));
      for (const path of [join(dir, 'device'), join(dir, 'control')]) unmountDead(path);
      for (const path of [dir, mountPoint]) rmSync(path, { recursive: true, force: true });
    });
    const isLive = () => remainingResources({ dir, mountPoint }, daemon).includes(`process ${daemon}`);
    daemon = Number((await once(owner.stdout, 'data')) as [Buffer]);
    t.ok(isLive());
    owner.kill('SIGKILL');
    t.ok(await until(() => !isLive(), TIMEOUT_MS));
  },
);

t.test('a disk that was resumed by another process before its time fails the cut', { skip }, async (t) => {
  await withDisk(async ({ disk }) => {
    disk.stop();
    t.doesNotThrow(() => disk.resume());
    disk.stop();
    process.kill(disk.daemonPid ?? 0, 'SIGCONT');
    t.throws(() => disk.resume(), /was resumed before its target was killed/);
  });
});

t.test('a watchdog hears of every stop before it, and of every resume after it', { skip }, async (t) => {
  const heard: (string | StoppedDisk)[] = [];
  await withDisk(
    async ({ disk }) => {
      const stopped: StoppedDisk = { kind: 'process', pid: disk.daemonPid ?? 0 };
      disk.stop();
      t.same(heard.splice(0), ['stopping', stopped]);
      disk.resume();
      t.same(heard.splice(0), ['resumed', stopped]);
    },
    DEFAULT_FILESYSTEM,
    {
      stopping: (disk) => void heard.push('stopping', disk),
      resumed: (disk) => void heard.push('resumed', disk),
    },
  );
});

t.test('a daemon that was killed is reported once, a daemon that was removed is not', { skip }, async (t) => {
  await withDisk(async ({ disk }) => {
    const lost: string[] = [];
    disk.onLost = (why) => void lost.push(why);
    process.kill(disk.daemonPid ?? 0, 'SIGKILL');
    t.ok(await until(() => lost.length > 0, TIMEOUT_MS));
    t.match(lost, [/qemu-storage-daemon, .* ended with SIGKILL/]);
    t.equal(disk.lost, lost[0]);
  });
  await withDisk(async ({ disk }) => {
    const pid = disk.daemonPid ?? 0;
    disk.remove();
    await until(
      () => remainingResources({ dir: '/none', mountPoint: '/none' }, pid).length === 0,
      TIMEOUT_MS,
    );
    t.equal(disk.lost, undefined);
  });
});

t.test(
  'a process that waits for a stopped daemon goes on when its FUSE connection is aborted',
  { skip },
  async (t) => {
    await withDisk(async ({ disk, dir }) => {
      disk.stop();
      const device = join(dir, 'device');
      const reader = spawn('cat', [device], { stdio: 'ignore' });
      const ended = once(reader, 'exit');
      await until(() => reader.exitCode !== null, 300);
      t.equal(reader.exitCode, null, 'the reader waits');
      abortFuse(device);
      await ended;
      t.not(reader.exitCode, 0);
      disk.resume();
    });
  },
);
