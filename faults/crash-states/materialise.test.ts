import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { SECTOR_BYTES } from '../sector.js';
import { LogWritesError } from '../write-log/reader.js';
import { parseState } from '../write-log/state.js';
import { WriteLogWriter } from '../write-log/writer.js';
import { materialise, openRecording } from './materialise.js';

const dir = mkdtempSync(join(tmpdir(), 'plugpull-states-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
const logFile = join(dir, 'writes.log');
const image = join(dir, 'disk.img');

function record(): void {
  const log = new WriteLogWriter(logFile);
  const write = (
    sector: number,
    sectors: number,
    letter: string,
    flags: { flush?: boolean; fua?: boolean } = {},
  ) =>
    log.add({ offset: sector * SECTOR_BYTES, data: Buffer.alloc(sectors * SECTOR_BYTES, letter), ...flags });
  write(0, 4, 'a');
  log.add({ flush: true });
  write(0, 2, 'b');
  write(1, 3, 'c');
  log.add({ offset: 3 * SECTOR_BYTES, discardBytes: SECTOR_BYTES });
  write(2, 1, 'd', { flush: true, fua: true });
  write(0, 4, 'e');
  log.close();
}

/** Returns the first letter of each sector of the state's disk; a dot stands for zeros. */
function diskOf(address: string): string {
  writeFileSync(image, Buffer.alloc(4 * SECTOR_BYTES, 'z'));
  const recording = openRecording(logFile);
  try {
    materialise(recording, parseState(address), image);
  } finally {
    recording.close();
  }
  const bytes = readFileSync(image);
  const sectors = Array.from({ length: 4 }, (_, n) =>
    bytes.subarray(n * SECTOR_BYTES, (n + 1) * SECTOR_BYTES),
  );
  for (const sector of sectors)
    t.ok(
      sector.every((byte) => byte === sector[0]),
      'all bytes of a sector come from one write',
    );
  return sectors.map((sector) => (sector[0] === 0 ? '.' : String.fromCharCode(sector[0] ?? 0))).join('');
}

t.test('a state holds the flushed writes and those in its address, and nothing else', async (t) => {
  record();
  const cases: [string, string][] = [
    ['0', 'zzzz'],
    ['1', 'zzzz'],
    ['1+0', 'aaaa'],
    ['2', 'aaaa'],
    ['4', 'aaaa'],
    ['4+3', 'accc'],
    ['4+2-3', 'bccc'],
    ['4+2~3:1-2', 'bbcc'],
    ['4~2:1~3:0', 'acaa'],
    ['5+4', 'aaa.'],
    ['5~5:0', 'bcd.'],
    ['6', 'bcd.'],
    ['7', 'bcd.'],
    ['7~6:0,3', 'ecde'],
    ['7+6', 'eeee'],
  ];
  for (const [address, expected] of cases) t.equal(diskOf(address), expected, address);
  t.throws(() => diskOf('6+3'), RangeError);
});

t.test('a foreign log, one of another version and a truncated one are reported as such', async (t) => {
  record();
  const whole = readFileSync(logFile);
  const other = Buffer.from(whole);
  other.writeBigUInt64LE(2n, 8);
  const cases: [Buffer, LogWritesError['code'], RegExp][] = [
    [Buffer.alloc(4096), 'foreign', /its mark is missing/],
    [other, 'foreign', /version 1 .* found 2/],
    [whole.subarray(0, whole.length - 700), 'truncated', /within entry 6/],
    [whole.subarray(0, 20), 'truncated', /has 20 bytes/],
  ];
  for (const [bytes, code, message] of cases) {
    writeFileSync(logFile, bytes);
    t.throws(() => openRecording(logFile), { name: 'LogWritesError', code, message });
  }
  t.ok(new LogWritesError('foreign', 'x') instanceof Error);
});
