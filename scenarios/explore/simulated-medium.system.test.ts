import { closeSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { execa } from 'execa';
import fc from 'fast-check';
import koffi from 'koffi';
import t from 'tap';
import { skipReason, withDisk } from '../../faults/power/fixtures/disk.js';
import { type Extent, extentsOf } from '../../faults/power/syscalls.js';
import { SECTOR_BYTES } from '../../faults/sector.js';
import { CrashModel } from '../../faults/write-log/model.js';
import { type LogEntry, WriteLog } from '../../faults/write-log/reader.js';
import { referenceProgram } from '../bench/programs.js';

const PAGE_BYTES = 4096;
const PAGES = 4;
const FILE_BYTES = PAGES * PAGE_BYTES;
const SECTORS = FILE_BYTES / SECTOR_BYTES;
const LISTS = 60;
const ZEROS = Buffer.alloc(PAGE_BYTES);

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MS_SYNC = 4;
/**
 * Flags of sync_file_range(2): WAIT_BEFORE | WRITE | WAIT_AFTER. The call then writes the pages to the drive,
 * without a flush of the drive's cache.
 */
const WRITE_BACK = 7;

const libc = koffi.load(null);
const mmap = libc.func(
  'void *mmap(void *at, size_t length, int protection, int flags, int fd, int64_t offset)',
);
const munmap = libc.func('int munmap(void *at, size_t length)');
const msync = libc.func('int msync(void *at, size_t length, int flags)');
const syncFileRange = libc.func('int sync_file_range(int fd, int64_t offset, int64_t length, uint flags)');

/**
 * One operation on a mapped file. `page` and `pages` count pages, `sector` counts sectors within the page.
 */
type FileOperation =
  | { do: 'store'; page: number; sector: number; value: number }
  | { do: 'msync' | 'write-back'; page: number; pages: number };

const page = fc.nat(PAGES - 1);
const range = <Do extends 'msync' | 'write-back'>(what: Do) =>
  fc.record({ do: fc.constant(what), page, reach: fc.nat(PAGES - 1) }).map(
    (fields): FileOperation => ({
      do: fields.do,
      page: fields.page,
      pages: Math.min(PAGES - fields.page, fields.reach + 1),
    }),
  );
const store: fc.Arbitrary<FileOperation> = fc.record({
  do: fc.constant('store' as const),
  page,
  sector: fc.nat(7),
  value: fc.integer({ min: 1, max: 250 }),
});
const lists = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: store },
    { weight: 2, arbitrary: range('msync') },
    { weight: 2, arbitrary: range('write-back') },
  ),
  { minLength: 1, maxLength: 14, size: 'max' },
);

/**
 * Does the operations on a mapped file. Returns the final content of its page cache, one value per sector.
 */
function runOperations(fd: number, operations: readonly FileOperation[]): number[] {
  const at: unknown = mmap(null, FILE_BYTES, PROT_READ_WRITE, MAP_SHARED, fd, 0n);
  const bytes = Buffer.from(koffi.view(at, FILE_BYTES));
  for (const operation of operations) {
    const from = operation.page * PAGE_BYTES;
    if (operation.do === 'store') {
      const start = from + operation.sector * SECTOR_BYTES;
      bytes.fill(operation.value, start, start + SECTOR_BYTES);
    } else if (operation.do === 'msync') {
      checkResult(msync(bytes.subarray(from), operation.pages * PAGE_BYTES, MS_SYNC));
    } else checkResult(syncFileRange(fd, BigInt(from), BigInt(operation.pages * PAGE_BYTES), WRITE_BACK));
  }
  const cache = valuesOf(bytes);
  munmap(at, FILE_BYTES);
  return cache;
}

/** @throws Error with the errno unless a system call returned 0. */
function checkResult(result: unknown): void {
  if (result !== 0) throw new Error(`a system call failed: errno ${koffi.errno()}`);
}

/** Returns the first byte of each sector; a store fills a whole sector with one value. */
const valuesOf = (bytes: Buffer): number[] =>
  Array.from({ length: SECTORS }, (_, sector) => bytes.readUInt8(sector * SECTOR_BYTES));

/** The record of one list of operations that was done on the real disk. */
interface RecordedOperations {
  operations: FileOperation[];
  extents: Extent[];
  /** Number of entries of the log before and after the operations. */
  begin: number;
  end: number;
  cache: number[];
}

/**
 * Returns the values that each sector may have after a power cut, according to the log of the recorded
 * device. The page cache may be lost, or the kernel may have written any part of it.
 */
function possibleValues(
  log: number,
  entries: readonly LogEntry[],
  recorded: RecordedOperations,
): Set<number>[] {
  const floor = new CrashModel(entries).durablePrefix(recorded.end);
  const sectors = Array.from({ length: SECTORS }, () => new Set([0]));
  for (const entry of entries.slice(recorded.begin, recorded.end)) {
    for (let sector = 0; sector < SECTORS; sector += 1) {
      const offset = deviceOffset(recorded.extents, sector * SECTOR_BYTES) - entry.offset;
      if (offset < 0 || offset >= entry.lengthBytes || entry.discard) continue;
      const value = Buffer.alloc(1);
      readSync(log, value, 0, 1, entry.dataAt + offset);
      // A flushed write replaces all earlier values.
      if (entry.index < floor) sectors[sector] = new Set([value.readUInt8(0)]);
      else sectors[sector]?.add(value.readUInt8(0));
    }
  }
  for (const [sector, value] of recorded.cache.entries()) sectors[sector]?.add(value);
  return sectors;
}

/** Returns the offset on the device of a byte of the file; -1 when no extent contains it. */
function deviceOffset(extents: readonly Extent[], at: number): number {
  const extent = extents.find(({ fileOffset, lengthBytes }) => at < fileOffset + lengthBytes);
  return extent ? extent.deviceOffset + at - extent.fileOffset : -1;
}

/**
 * Returns the possible values according to the simulation, through the command line of the reference queue.
 */
async function simulatedValues(all: readonly FileOperation[][]): Promise<Set<number>[][]> {
  const input = all.map((operations) => JSON.stringify({ pages: PAGES, operations })).join('\n');
  const { stdout } = await execa(
    process.execPath,
    [referenceProgram('synchronous/main.js'), 'simulated-medium'],
    {
      input,
    },
  );
  return stdout.split('\n').map((line) => {
    const { sectors } = JSON.parse(line) as { sectors: number[][] };
    return sectors.map((values) => new Set(values));
  });
}

t.test(
  'after the same operations, the simulated medium and a recorded block device may hold the same values',
  { skip: skipReason() },
  async (t) => {
    const all = fc.sample(lists, { numRuns: LISTS, seed: 7 });
    const recordedLists: RecordedOperations[] = [];
    let real: Set<number>[][] = [];
    await withDisk(async ({ disk, mountPoint }) => {
      const fds = all.map((_, number) => {
        const path = join(mountPoint, `${number}`);
        const fd = openSync(path, 'w+');
        // Write page by page, as the queue's install does: a larger write makes a large folio, whose pages
        // are written back together.
        for (let at = 0; at < FILE_BYTES; at += PAGE_BYTES) writeSync(fd, ZEROS, 0, PAGE_BYTES, at);
        fsyncSync(fd);
        return { fd, extents: extentsOf(path, FILE_BYTES) };
      });
      all.forEach((operations, number) => {
        const { fd, extents } = fds[number] as (typeof fds)[number];
        const begin = disk.completeEntries();
        const cache = runOperations(fd, operations);
        recordedLists.push({ operations, extents, begin, end: disk.completeEntries(), cache });
      });
      for (const { fd } of fds) closeSync(fd);
      const path = disk.endRecording().log;
      const log = new WriteLog(path);
      const entries = [...log.entries()];
      const fd = openSync(path, 'r');
      real = recordedLists.map((recorded) => possibleValues(fd, entries, recorded));
      closeSync(fd);
      log.close();
    });
    const simulated = await simulatedValues(all);
    let atRisk = 0;
    all.forEach((operations, number) => {
      const [fromDevice, fromSimulation] = [real[number] ?? [], simulated[number] ?? []];
      atRisk += fromSimulation.filter((values) => values.size > 1).length;
      t.same(fromDevice.map(sorted), fromSimulation.map(sorted), JSON.stringify(operations));
    });
    t.ok(atRisk > LISTS, `${atRisk} sectors were at risk`);
  },
);

const sorted = (values: ReadonlySet<number>): number[] => [...values].sort((a, b) => a - b);
