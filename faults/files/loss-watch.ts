import { createHash } from 'node:crypto';
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import type { LossObserver, LostFile } from '../fault.js';
import { readEnd } from './search.js';
import { regularFiles } from './walk.js';

const PAGE_BYTES = 4096;
/**
 * Upper bound of the bytes that are read and compared at one crash. The files that changed last come first. After a
 * crash the files are read from the disk, and more bytes would leave time for fewer crashes.
 */
const MAX_COMPARED_BYTES = 16 * 2 ** 20;
/** Upper bound of the files that are listed at one crash. More would hide the ones that matter. */
const MAX_LISTED_FILES = 20;
/** Upper bound of the message ids that are listed for one file. */
const MAX_LISTED_IDS = 500;
/** Coarsest step of a filesystem's clock, in ms. A file that changed this shortly before the last crash is read again. */
const CLOCK_STEP_MS = 20;

/** A file of the data directory at one moment. */
interface SeenFile {
  /** Inode number and creation time: they stay the same when the file is renamed. */
  identity: string;
  sizeBytes: number;
  changedMs: number;
  /** The bytes of the file; undefined when it was not read. */
  bytes: Buffer | undefined;
}

/** Hash of the 4 KiB page that begins at `from`; the kernel fills the last page of a file with zeros. */
export function pageHash(bytes: Buffer, from: number): string {
  const page = bytes.subarray(from, from + PAGE_BYTES);
  const hash = createHash('sha1').update(page);
  if (page.length < PAGE_BYTES) hash.update(Buffer.alloc(PAGE_BYTES - page.length));
  return hash.digest('base64');
}

/**
 * Finds out what a crash took from the files of a data directory. `before` reads the files as the target saw
 * them, with everything that is only in the page cache. `after` reads what the crash has left, and returns the
 * difference. The target must be down at both, so that it changes nothing meanwhile. A failure to read a file
 * never breaks a run: the file is then left out.
 *
 * Only files that changed since the last crash are read, because no other file can have lost anything.
 */
export class LossWatch implements LossObserver {
  readonly #dataDir: string;
  readonly #messagesIn: (bytes: Buffer) => Iterable<string>;
  /** Files that did not change since then are on the disk: the last crash could not take anything from them. */
  #sinceMs = 0;
  #beforeMs = 0;
  #before: Map<string, SeenFile> | undefined;

  /** @param messagesIn returns the ids of the messages at risk whose bytes are in a part of a file. */
  constructor(dataDir: string, messagesIn: (bytes: Buffer) => Iterable<string>) {
    this.#dataDir = dataDir;
    this.#messagesIn = messagesIn;
  }

  /** Remembers the files as they are now. */
  before(): void {
    this.#before = undefined;
    this.#beforeMs = Date.now();
    const files = this.#list();
    if (files === undefined) return;
    const changed = [...files].filter(([, { changedMs }]) => changedMs >= this.#sinceMs - CLOCK_STEP_MS);
    changed.sort(([, one], [, other]) => other.changedMs - one.changedMs);
    let leftBytes = MAX_COMPARED_BYTES;
    for (const [name, file] of changed) {
      if (file.sizeBytes > leftBytes) continue;
      file.bytes = this.#readWhole(name);
      leftBytes -= file.bytes?.length ?? 0;
    }
    this.#before = files;
  }

  /**
   * Compares the files with those of the last `before`.
   * @param driveLost hashes (`pageHash`) of the pages that the drive had in its cache and lost; undefined when the
   *   drive lost nothing.
   * @returns the files that lost bytes, their name or all of it; those with the most messages come first.
   */
  after(driveLost: ReadonlySet<string> = new Set()): LostFile[] {
    const before = this.#before;
    this.#before = undefined;
    if (before === undefined) return [];
    this.#sinceMs = this.#beforeMs;
    const after = this.#list();
    if (after === undefined) return [];
    const names = new Map([...after].map(([name, { identity }]) => [identity, name]));
    const lost: LostFile[] = [];
    /** Ids of messages that the file before the crash held, by file. Only for files that lost something. */
    const idsBefore = new Map<LostFile, Set<string>>();
    const read = new Map<string, Buffer | undefined>();
    for (const [file, seen] of before) {
      const nameAfter = after.has(file) ? file : names.get(seen.identity);
      const bytesAfter =
        nameAfter === undefined || seen.bytes === undefined ? undefined : this.#readWhole(nameAfter);
      if (nameAfter !== undefined) read.set(nameAfter, bytesAfter);
      const sizeAfterBytes = nameAfter === undefined ? null : (after.get(nameAfter)?.sizeBytes ?? 0);
      const bytes = lostBytes(seen, sizeAfterBytes, bytesAfter, driveLost);
      const renamedTo = nameAfter === undefined || nameAfter === file ? null : nameAfter;
      if (bytes.cacheBytes + bytes.driveBytes === 0 && nameAfter !== undefined && renamedTo === null)
        continue;
      const entry = {
        file,
        sizeBytes: seen.sizeBytes,
        sizeAfterBytes,
        nameAfter: renamedTo,
        ...bytes,
        messages: [],
      };
      lost.push(entry);
      if (seen.bytes !== undefined) idsBefore.set(entry, new Set(this.#messagesIn(seen.bytes)));
    }
    const survivors = this.#survivors(after, read, idsBefore);
    for (const [entry, ids] of survivors === undefined ? [] : idsBefore)
      entry.messages = [...ids].filter((id) => survivors?.has(id) === false).slice(0, MAX_LISTED_IDS);
    lost.sort(
      (one, other) =>
        other.messages.length - one.messages.length ||
        other.cacheBytes + other.driveBytes - one.cacheBytes - one.driveBytes,
    );
    return lost.slice(0, MAX_LISTED_FILES);
  }

  /**
   * Returns the ids of the messages that are still in any file; undefined when a file cannot be read, because a
   * message may be in it.
   */
  #survivors(
    after: ReadonlyMap<string, SeenFile>,
    read: ReadonlyMap<string, Buffer | undefined>,
    idsBefore: ReadonlyMap<LostFile, ReadonlySet<string>>,
  ): Set<string> | undefined {
    const found = new Set<string>();
    if ([...idsBefore.values()].every((ids) => ids.size === 0)) return found;
    let leftBytes = MAX_COMPARED_BYTES;
    for (const [name, { sizeBytes }] of after) {
      let bytes = read.get(name);
      if (bytes === undefined && sizeBytes <= leftBytes) {
        bytes = this.#readWhole(name);
        leftBytes -= bytes?.length ?? 0;
      }
      if (bytes === undefined) return undefined;
      for (const id of this.#messagesIn(bytes)) found.add(id);
    }
    return found;
  }

  #readWhole(name: string): Buffer | undefined {
    return readEnd(name, Number.POSITIVE_INFINITY, this.#dataDir)?.bytes;
  }

  /** Lists the files; undefined when the filesystem refuses it, as one that has shut itself down does. */
  #list(): Map<string, SeenFile> | undefined {
    try {
      return new Map(regularFiles(this.#dataDir).map((name) => [name, seenFile(join(this.#dataDir, name))]));
    } catch {
      return undefined;
    }
  }
}

function seenFile(path: string): SeenFile {
  const { ino, birthtimeNs, size, ctimeMs } = lstatSync(path, { bigint: true });
  return {
    identity: `${ino}:${birthtimeNs}`,
    sizeBytes: Number(size),
    changedMs: Number(ctimeMs),
    bytes: undefined,
  };
}

/** Counts the bytes that a file lost, by the place that had them: the page cache, or the cache of the drive. */
function lostBytes(
  { bytes, sizeBytes }: SeenFile,
  sizeAfterBytes: number | null,
  bytesAfter: Buffer | undefined,
  driveLost: ReadonlySet<string>,
): { cacheBytes: number; driveBytes: number } {
  const counts = { cacheBytes: 0, driveBytes: 0 };
  if (bytes === undefined || (bytesAfter === undefined && sizeAfterBytes !== null)) {
    counts.cacheBytes = Math.max(0, sizeBytes - (sizeAfterBytes ?? 0));
    return counts;
  }
  for (let at = 0; at < bytes.length; at += PAGE_BYTES) {
    const page = bytes.subarray(at, at + PAGE_BYTES);
    const other = bytesAfter?.subarray(at, at + PAGE_BYTES) ?? Buffer.alloc(0);
    const lost = differingBytes(page, other);
    if (lost === 0) continue;
    if (driveLost.size > 0 && driveLost.has(pageHash(bytes, at))) counts.driveBytes += lost;
    else counts.cacheBytes += lost;
  }
  return counts;
}

/** Returns the length of the range of `page` outside which `other` has the same bytes. */
function differingBytes(page: Buffer, other: Buffer): number {
  if (other.length >= page.length && page.compare(other, 0, page.length) === 0) return 0;
  let first = 0;
  while (first < page.length && first < other.length && page[first] === other[first]) first++;
  let end = page.length;
  while (end > first && end <= other.length && page[end - 1] === other[end - 1]) end--;
  return end - first;
}

/**
 * Describes in one line how much was only in the page cache, and in which files; empty when nothing was lost that way.
 * @param maxFiles number of files that are named.
 */
export function describeCacheLoss(files: readonly LostFile[], maxFiles = 3): string {
  const cached = files.filter(({ cacheBytes, nameAfter, sizeAfterBytes }) => {
    return cacheBytes > 0 || nameAfter !== null || sizeAfterBytes === null;
  });
  if (cached.length === 0) return 'nothing was only in the page cache';
  const total = cached.reduce((sum, { cacheBytes }) => sum + cacheBytes, 0);
  const named = cached
    .slice(0, maxFiles)
    .map(({ file, cacheBytes }) =>
      cacheBytes > 0 ? `${cacheBytes} of ${file}` : total > 0 ? `the name ${file}` : file,
    );
  const more = cached.length > maxFiles ? ` and ${cached.length - maxFiles} more` : '';
  const what =
    total > 0
      ? `${total} bytes were only in the page cache and are gone`
      : 'names of files are gone that no sync of their directory had covered';
  return `${what}: ${named.join(', ')}${more}`;
}
