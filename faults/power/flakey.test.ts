import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { FlakeyDisk } from './flakey.js';
import { type CommandHost, localHost } from './host.js';
import { RESUMED_EARLY } from './mounts.js';

/**
 * Programs in the place of dmsetup and its like, which keep the state of one device in files: `state` (Active or Suspended),
 * `live` and `inactive` (tables). A resume takes the inactive table into use, as the kernel does.
 */
const DMSETUP = `#!/bin/sh
cd "$DEVICE" || exit 1
echo "$*" >> calls
case $1 in
  create) echo Active > state; echo "$5" > live ;;
  suspend) echo Suspended > state ;;
  resume) if [ -f inactive ]; then mv inactive live; fi; echo Active > state ;;
  load) echo "$4" > inactive ;;
  clear) rm -f inactive ;;
  info) case "$*" in *suspended*) cat state ;; *major*) echo 0:0 ;; *open*) echo 0 ;; *) test -f state ;; esac ;;
esac`;

/** Makes a host without a device mapper, on which the scripts of FlakeyDisk run against one device of files. */
function makeHost(t: Test): { host: CommandHost; dir: string; read: (name: string) => string } {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-flakey-test-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const bin = join(dir, 'bin');
  mkdirSync(bin);
  const nothing = '#!/bin/sh\n';
  const programs = { dmsetup: DMSETUP, blockdev: '#!/bin/sh\necho 8', modprobe: nothing, mount: nothing };
  for (const [name, text] of Object.entries({ ...programs, umount: nothing, 'mkfs.ext4': nothing })) {
    writeFileSync(join(bin, name), text);
    chmodSync(join(bin, name), 0o755);
  }
  const host: CommandHost = {
    run: (command, timeoutMs) =>
      localHost.run(['env', `DEVICE=${dir}`, `PATH=${bin}:${process.env.PATH ?? ''}`, ...command], timeoutMs),
  };
  return { host, dir, read: (name) => readFileSync(join(dir, name), 'utf8').trim() };
}

const filesystem = { type: 'ext4', mountOptions: '' } as const;

for (const killer of ['the caller', 'the disk'] as const) {
  /** Makes a disk whose processes are killed by `killer`; `during` are shell lines of that moment. */
  const makeDisk = async (t: Test, during: string) => {
    const { host, dir, read } = makeHost(t);
    const disk = await FlakeyDisk.create({
      ...{ host, device: '/dev/test', name: 'plugpull-test', mountPoint: join(dir, 'mount'), filesystem },
      ...(killer === 'the disk' ? { killAll: during } : {}),
    });
    const stopAndResume = async () => {
      await disk.stop();
      if (killer === 'the caller') await host.run(['sh', '-euc', during], 10_000);
      await disk.resume();
    };
    return { stopAndResume, read };
  };

  t.test(
    `a disk that stays stopped until ${killer} has killed the target drops all later writes`,
    async (t) => {
      const { stopAndResume, read } = await makeDisk(t, 'true');
      t.match(read('live'), / flakey \S+ 0 60 0$/);
      await stopAndResume();
      t.match(read('live'), / flakey \S+ 0 0 60 1 drop_writes$/);
      t.equal(read('state'), 'Active');
    },
  );

  t.test(`a disk that was resumed before ${killer} has killed the target is no cut`, async (t) => {
    const { stopAndResume, read } = await makeDisk(t, 'dmsetup resume --noudevsync plugpull-test');
    await t.rejects(stopAndResume(), { message: RESUMED_EARLY });
    t.match(read('live'), / 60 0$/, 'the writes since then are on the disk');
  });
}

t.test('a stall stops the disk, kills nothing, and ends with all writes done', async (t) => {
  const { host, dir, read } = makeHost(t);
  const options = { device: '/dev/test', name: 'plugpull-test', mountPoint: join(dir, 'mount'), filesystem };
  const disk = await FlakeyDisk.create({ host, ...options, killAll: 'echo > killed' });
  await disk.stall.end();
  t.equal(read('state'), 'Active');
  await disk.stall.begin();
  await disk.stall.begin();
  t.equal(read('state'), 'Suspended');
  await disk.stall.end();
  await disk.stall.end();
  t.equal(read('state'), 'Active');
  t.match(read('live'), / flakey \S+ 0 60 0$/, 'no write is dropped');
  t.throws(() => read('killed'), 'no process was killed');
});

t.test('a stall that something else has ended is reported', async (t) => {
  const { host, dir } = makeHost(t);
  const options = { device: '/dev/test', name: 'plugpull-test', mountPoint: join(dir, 'mount'), filesystem };
  const disk = await FlakeyDisk.create({ host, ...options });
  await disk.stall.begin();
  await host.run(['dmsetup', 'resume', '--noudevsync', 'plugpull-test'], 10_000);
  await t.rejects(disk.stall.end(), { message: RESUMED_EARLY });
});

t.test('a power cut after a stall drops all later writes', async (t) => {
  const { host, dir, read } = makeHost(t);
  const options = { device: '/dev/test', name: 'plugpull-test', mountPoint: join(dir, 'mount'), filesystem };
  const disk = await FlakeyDisk.create({ host, ...options });
  await disk.stall.begin();
  await disk.stop();
  await disk.resume();
  t.match(read('live'), / flakey \S+ 0 0 60 1 drop_writes$/);
  await disk.stall.end();
  t.match(read('live'), / drop_writes$/, 'the end of the stall changes nothing any more');
});
