import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { skipReason, withDisk } from '../power/fixtures/disk.js';
import { contents } from './fixtures/log-contents.js';
import { WriteLogWriter } from './writer.js';

t.test('rewriting a log of the storage daemon gives the same bytes', { skip: skipReason() }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-writer-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const file = join(dir, 'written.log');
  await withDisk(async ({ disk, mountPoint }) => {
    for (let n = 0; n < 5; n++) {
      writeFileSync(join(mountPoint, `${n}`), Buffer.alloc(5000, n), { flush: true });
    }
    disk.stop();
    const [, original = ''] = disk.evidence;
    const log = new WriteLogWriter(file, 512);
    for (const entry of contents(original)) log.add(entry);
    log.close();
    const [ours, theirs] = [readFileSync(file), readFileSync(original)];
    t.ok(ours.length > 10_000, `${ours.length} bytes`);
    t.ok(ours.equals(theirs.subarray(0, ours.length)));
    disk.resume();
  });
});
