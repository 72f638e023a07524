import { execFileSync } from 'node:child_process';
import { readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { enumerate } from '../../../../faults/crash-states/enumerate.js';
import { materialise, openRecording, type Recording } from '../../../../faults/crash-states/materialise.js';
import { findProgram } from '../../../../faults/programs.js';
import { type CrashState, formatState, NOTHING_TORN } from '../../../../faults/write-log/state.js';
import { seeded } from '../../../host/random.js';
import { type KernelLog, recordKernelLog } from './fixtures/kernel-log.js';
import { NOT_BUILT, newWorkspace, recordIn } from './fixtures/workspace.js';
import { Machine } from './machine.js';

const DISK_BYTES = 32 * 2 ** 20;
/** One of EVERY states is inspected. States of the family `random`, which is unlimited, are left out. */
const EVERY = 3;
const TOOL_TIMEOUT_MS = 20_000;
const noTools =
  ['e2fsck', 'debugfs'].some((program) => findProgram(program) === undefined) &&
  'not measured: e2fsck and debugfs are not installed: apt-get install e2fsprogs';

t.test('the reader reads logs that the kernel itself has written', { skip: NOT_BUILT }, async (t) => {
  const place = newWorkspace(t);
  t.teardown(() => place.run(['lab', 'down']));
  const up = await place.run(['lab', 'up']);
  t.equal(up.code, 0, up.stderr);
  const { agent } = await Machine.find(recordIn(place).address);
  t.teardown(() => agent.close());

  for (const sectorBytes of [512, 4096]) {
    await t.test(`sectors of ${sectorBytes} bytes`, async (t) => {
      const kernel = await recordKernelLog(agent, join(place.dir, `${sectorBytes}`), sectorBytes);
      const recording = openRecording(join(kernel.dir, 'log.img'));
      t.teardown(() => recording.close());
      checkEntries(t, kernel, recording, sectorBytes);
      for (const [mark, copy] of [
        ['frozen', 'frozen.img'],
        ['dm-log-writes-end', 'disk.img'],
      ] as const) {
        const replayed = diskOf(recording, everythingUpTo(recording, mark), kernel.dir);
        const same = readFileSync(replayed).equals(readFileSync(join(kernel.dir, copy)));
        t.ok(same, `replayed up to the mark ${mark}, the log gives the disk byte for byte`);
      }
      // One log is enough for this test: the model does not depend on the log's sector size.
      if (sectorBytes > 512) return;
      await t.test(
        'a file that was synced before a mark is in every crash state after the mark',
        { skip: noTools },
        async (t) => exploreBehindMark(t, recording, kernel.dir),
      );
    });
  }
});

function checkEntries(t: Test, kernel: KernelLog, { log, model }: Recording, sectorBytes: number): void {
  const { entries } = model;
  const marks = entries.flatMap(({ mark }) => (mark === undefined ? [] : [mark]));
  t.equal(log.sectorBytes, sectorBytes);
  t.same(marks, ['made', 'synced', 'frozen', 'unmounted', 'dm-log-writes-end']);
  t.same(
    kernel.onDevice,
    { sectorBytes, entries: entries.length, marks },
    'the reader reads the same from the block device',
  );
  // The kernel's own counts are comparable, because no write was under way after these marks.
  t.equal(
    placeOf(entries, 'frozen') + 1,
    kernel.frozen,
    'the kernel counts the same entries at the mark frozen',
  );
  t.equal(
    placeOf(entries, 'unmounted') + 1,
    kernel.unmounted,
    'the kernel counts the same entries at the mark unmounted',
  );
  t.equal(entries.at(-1)?.mark, 'dm-log-writes-end', 'the last entry is that of the removal');
  const count = (is: (entry: (typeof entries)[number]) => boolean) => entries.filter(is).length;
  t.ok(
    count(({ flush }) => flush),
    'flushes',
  );
  t.ok(
    count(({ fua, lengthBytes }) => fua && lengthBytes > 0),
    'FUA writes',
  );
  t.ok(
    count(({ metadata }) => metadata),
    'metadata',
  );
  t.ok(
    count(({ discard, lengthBytes }) => discard && lengthBytes === DISK_BYTES),
    'mkfs discards the whole disk',
  );
  t.ok(
    count(({ discard, index }) => discard && index > placeOf(entries, 'synced')) > 0,
    'ext4 discards a removed file',
  );
  // This is the flush of a commit record: the kernel logs as two entries what QEMU logs as one.
  t.ok(
    count(({ flush, fua, lengthBytes }) => flush && fua && lengthBytes === 0),
    'a bare flush with FUA',
  );
}

/**
 * Checks that every state after the mark has the file. A state before the write lacks it, so the check can
 * fail.
 */
function exploreBehindMark(t: Test, recording: Recording, dir: string): void {
  const { entries } = recording.model;
  const written = readFileSync(join(dir, 'one'));
  const holds = (state: CrashState) => fileOn(diskOf(recording, state, dir), 'one')?.equals(written);
  const without: CrashState = { prefix: placeOf(entries, 'made') + 1, kept: [], torn: NOTHING_TORN };
  t.notOk(holds(without), 'the file is absent before it is written');
  const lacking: string[] = [];
  let [met, looked, unreadable] = [0, 0, 0];
  for (const { family, state } of enumerate(recording.model, placeOf(entries, 'synced') + 1, seeded(1))) {
    if (family === 'random') break;
    if (met++ % EVERY > 0) continue;
    looked++;
    const found = holds(state);
    // A torn superblock does not count as a lost file: ext4 itself refuses such a disk.
    if (found === undefined && family === 'torn') unreadable++;
    else if (!found) lacking.push(`${family} ${formatState(state)}`);
  }
  t.same(lacking, [], `states without the file, of ${looked}`);
  t.ok(looked - unreadable > 100, `${looked} states were inspected, ${unreadable} with a torn superblock`);
}

function placeOf(entries: Recording['model']['entries'], mark: string): number {
  return entries.findIndex((entry) => entry.mark === mark);
}

function everythingUpTo({ model }: Recording, mark: string): CrashState {
  const prefix = placeOf(model.entries, mark);
  return { prefix, kept: model.optional(prefix), torn: NOTHING_TORN };
}

/** Makes the crash state on an empty disk and returns the image file. */
function diskOf(recording: Recording, state: CrashState, dir: string): string {
  const image = join(dir, 'state.img');
  writeFileSync(image, '');
  truncateSync(image, DISK_BYTES);
  materialise(recording, state, image);
  return image;
}

/**
 * Replays the journal as a mount does, and reads a file. It needs neither root privileges nor a device.
 * @returns the content; empty when the file is missing, undefined when the superblock is torn.
 */
function fileOn(image: string, name: string): Buffer | undefined {
  const options = { stdio: 'pipe', timeout: TOOL_TIMEOUT_MS } as const;
  try {
    execFileSync('e2fsck', ['-y', '-E', 'journal_only', image], options);
  } catch (error) {
    if (/Superblock checksum does not match/.test(String(error))) return undefined;
    throw error;
  }
  return execFileSync('debugfs', ['-R', `cat /${name}`, image], options);
}
