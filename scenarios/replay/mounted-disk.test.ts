import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { handMadeLog } from '../../faults/write-log/fixtures/log.js';
import { WriteLogWriter } from '../../faults/write-log/writer.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { openRecordedDisk, requireRoot, stateBefore } from './mounted-disk.js';

t.test(
  'a log of another format or version, or one that is cut off, is rejected with exit code 2',
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    t.equal(openRecordedDisk(workspace.dir), undefined, 'a bundle without a recorded disk');
    writeFileSync(join(workspace.dir, 'disk.img'), '');
    const log = join(workspace.dir, 'writes.log');
    const version = Buffer.alloc(512);
    version.writeBigUInt64LE(0x6a736677736872n, 0);
    version.writeBigUInt64LE(9n, 8);
    for (const [bytes, message] of [
      [Buffer.alloc(4096, 'no log'), /expected a write log \(dm-log-writes\)/],
      [version, /expected version 1 of the format, found 9/],
      [Buffer.alloc(3), /the file has 3 bytes/],
    ] as const) {
      writeFileSync(log, bytes);
      t.throws(() => openRecordedDisk(workspace.dir), { code: 'bad-bundle', exitCode: 2, message });
    }
  },
);

t.test('a log that writes beyond its disk is rejected, also for bytes that no disk has', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  writeFileSync(join(workspace.dir, 'disk.img'), Buffer.alloc(4096));
  for (const entry of [
    { sector: 8, sectors: 1 },
    { sector: 2 ** 40, sectors: 1 },
    { sectors: 2 ** 40, flags: ['discard'] as const },
  ]) {
    writeFileSync(join(workspace.dir, 'writes.log'), handMadeLog([{ sector: 7, sectors: 1 }, entry]));
    t.throws(() => openRecordedDisk(workspace.dir), {
      ...{ code: 'bad-bundle', exitCode: 2 },
      message: /writes\.log: entry 1 writes to byte \d+, expected a disk of 4096 bytes/,
    });
  }
});

t.test('the disk before an entry has every earlier write, flushed or not', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  writeFileSync(join(workspace.dir, 'disk.img'), Buffer.alloc(512));
  const log = new WriteLogWriter(join(workspace.dir, 'writes.log'));
  for (const flush of [false, true, false]) log.add({ offset: 0, data: Buffer.alloc(512), flush });
  log.close();
  const disk = openRecordedDisk(workspace.dir);
  if (disk === undefined) throw new Error('expected a recorded disk');
  t.match(stateBefore(disk, 1), { prefix: 1, kept: [0] });
  t.match(stateBefore(disk, 3), { prefix: 3, kept: [1, 2] });
  t.throws(() => stateBefore(disk, 4), { exitCode: 2, message: /--at 4: expected 0 to 3/ });
  disk.recording.close();
});

t.test('a mount without root is rejected, and the replay is not measured', async (t) => {
  t.intercept(process, 'getuid', { value: () => 65534 });
  t.throws(() => requireRoot(), { code: 'target-unavailable', exitCode: 3, message: /needs root/ });
});
