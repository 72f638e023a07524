import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { cpioArchive } from './disks.js';

t.test('every entry begins on a multiple of four bytes, and its header has its length', async (t) => {
  t.equal(cpioArchive([]).length, 124, 'no entries: the trailer alone');
  const entry = fc.record({
    path: fc.string({ minLength: 1, maxLength: 40 }).filter((path) => !path.includes('\0')),
    data: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  });
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 6 }), (entries) => {
      const archive = cpioArchive(entries);
      let offset = 0;
      for (const { path, data } of [...entries, { path: 'TRAILER!!!', data: Buffer.alloc(0) }]) {
        const head = archive.toString('latin1', offset, offset + 110);
        const number = (field: number) => Number.parseInt(head.slice(6 + 8 * field, 14 + 8 * field), 16);
        const nameAt = offset + 110;
        const dataAt = Math.ceil((nameAt + number(11)) / 4) * 4;
        if (head.slice(0, 6) !== '070701' || number(6) !== data.length) return false;
        if (archive.toString('utf8', nameAt, nameAt + number(11) - 1) !== Buffer.from(path).toString())
          return false;
        if (!archive.subarray(dataAt, dataAt + data.length).equals(data)) return false;
        offset = Math.ceil((dataAt + data.length) / 4) * 4;
      }
      return offset === archive.length;
    }),
  );
});

const CPIO = ['/usr/bin/cpio', '/bin/cpio'].find(existsSync);

t.test(
  'the program cpio unpacks the archive',
  { skip: CPIO === undefined && 'cpio is not installed' },
  async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'plugpull-test-'));
    t.teardown(() => rmSync(dir, { recursive: true, force: true }));
    const archive = cpioArchive([{ path: 'a' }, { path: 'a/b', data: Buffer.from('hello') }]);
    const { status, stderr } = spawnSync(CPIO ?? '', ['-id'], { cwd: dir, input: archive, encoding: 'utf8' });
    t.equal(status, 0, stderr);
    t.equal(readFileSync(join(dir, 'a/b'), 'utf8'), 'hello');
    t.ok(statSync(join(dir, 'a/b')).mode & 0o100, 'unpacked files are executable');
  },
);
