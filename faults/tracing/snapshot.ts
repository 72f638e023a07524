import {
  closeSync,
  constants,
  copyFileSync,
  mkdirSync,
  openSync,
  readSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { removeTree } from '../files/remove-tree.js';
import { regularFiles } from '../files/walk.js';
import { SECTOR_BYTES } from '../sector.js';

const BLOCK_BYTES = 256 * 1024;

interface SavedFile {
  copy: string;
  sizeBytes: number;
}

/** The files of a directory as they were at one moment. A file is recognised after a rename. */
export class Snapshot {
  readonly #directory: string;
  readonly #copies: string;
  readonly #files = new Map<string, SavedFile>();

  /**
   * Copies every regular file of `directory` to `copies`, which is emptied first. No process may write
   * meanwhile. A file that vanishes is left out, here and in every other method: a stopped process may still be in the
   * middle of an unlink or a rename.
   */
  constructor(directory: string, copies: string) {
    this.#directory = directory;
    this.#copies = copies;
    removeTree(copies);
    mkdirSync(copies, { recursive: true });
    for (const file of regularFiles(directory)) unlessGone(() => this.#save(join(directory, file)));
  }

  /**
   * Updates the snapshot to the current state, and copies only changed sectors. No process may write
   * meanwhile.
   */
  refresh(): void {
    for (const file of regularFiles(this.#directory)) unlessGone(() => this.#refreshFile(file));
  }

  #refreshFile(file: string): void {
    const path = join(this.#directory, file);
    const saved = this.#files.get(fileIdentity(path));
    const sizeBytes = statSync(path).size;
    if (saved === undefined || saved.sizeBytes !== sizeBytes) {
      this.#save(path);
      return;
    }
    const changed = this.changedSectors(file);
    if (changed.length > 0) copySectors(path, saved.copy, changed, sizeBytes);
  }

  #save(path: string): void {
    const key = fileIdentity(path);
    const copy = this.#files.get(key)?.copy ?? join(this.#copies, String(this.#files.size));
    copyFileSync(path, copy, constants.COPYFILE_FICLONE);
    this.#files.set(key, { copy, sizeBytes: statSync(copy).size });
  }

  /** Returns the size of a file (in bytes) at the snapshot; 0 when it did not exist. */
  sizeOf(file: string): number {
    return unlessGone(() => this.#savedFile(file))?.sizeBytes ?? 0;
  }

  /** Returns the identity of the file that has this name now (`fileIdentity`); undefined when there is none. */
  identityOf(file: string): string | undefined {
    return unlessGone(() => fileIdentity(join(this.#directory, file)));
  }

  /**
   * Returns the numbers of the changed sectors of a file, ascending. The part by which the file has grown
   * counts as zeros at the snapshot. A file that is gone has none.
   */
  changedSectors(file: string): number[] {
    return unlessGone(() => this.#changedSectors(file)) ?? [];
  }

  #changedSectors(file: string): number[] {
    const sizeBytes = statSync(join(this.#directory, file)).size;
    const changed: number[] = [];
    // Open the file only for reading: a running program cannot be opened for writing, and need not be if it
    // is unchanged.
    this.#withBoth(file, 'r', (before, now) => {
      const beforeBytes = Buffer.alloc(BLOCK_BYTES);
      const nowBytes = Buffer.alloc(BLOCK_BYTES);
      for (let start = 0; start < sizeBytes; start += BLOCK_BYTES) {
        const length = readSync(now, nowBytes, 0, BLOCK_BYTES, start);
        readZeroPadded(before, beforeBytes, start);
        if (beforeBytes.compare(nowBytes, 0, length, 0, length) === 0) continue;
        for (let at = 0; at < length; at += SECTOR_BYTES) {
          const end = Math.min(at + SECTOR_BYTES, length);
          if (beforeBytes.compare(nowBytes, at, end, at, end) !== 0)
            changed.push((start + at) / SECTOR_BYTES);
        }
      }
    });
    return changed;
  }

  /** Reports whether one of the first `endBytes` bytes of a file has changed. */
  isChangedBefore(file: string, endBytes: number): boolean {
    const [beforeBytes, nowBytes] = [Buffer.alloc(endBytes), Buffer.alloc(endBytes)];
    unlessGone(() =>
      this.#withBoth(file, 'r', (before, now) => {
        readZeroPadded(before, beforeBytes, 0);
        readZeroPadded(now, nowBytes, 0);
      }),
    );
    return !beforeBytes.equals(nowBytes);
  }

  /**
   * Reverts sectors of a file to the snapshot. The size and the name of the file do not change. Sectors behind its end
   * are left out: a call that was under way at the stop may have cut the file shorter.
   */
  revertSectors(file: string, sectors: readonly number[]): void {
    const path = join(this.#directory, file);
    const sizeBytes = statSync(path).size;
    this.#withBoth(file, 'r+', (before, now) => {
      const sector = Buffer.alloc(SECTOR_BYTES);
      for (const number of sectors) {
        const start = number * SECTOR_BYTES;
        if (start >= sizeBytes) continue;
        readZeroPadded(before, sector, start);
        writeSync(now, sector, 0, Math.min(SECTOR_BYTES, sizeBytes - start), start);
      }
    });
    truncateSync(path, sizeBytes);
  }

  /** Deletes the copies. */
  remove(): void {
    removeTree(this.#copies);
  }

  #savedFile(file: string): SavedFile | undefined {
    return this.#files.get(fileIdentity(join(this.#directory, file)));
  }

  #withBoth(file: string, flags: 'r' | 'r+', use: (before: number | undefined, now: number) => void): void {
    const saved = this.#savedFile(file);
    const before = saved && openSync(saved.copy, 'r');
    const now = openSync(join(this.#directory, file), flags);
    try {
      use(before, now);
    } finally {
      closeSync(now);
      if (before !== undefined) closeSync(before);
    }
  }
}

/** Returns what `use` returns, or undefined when the file that it uses is gone. */
function unlessGone<T>(use: () => T): T | undefined {
  try {
    return use();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw error;
  }
}

function copySectors(from: string, to: string, sectors: readonly number[], sizeBytes: number): void {
  const source = openSync(from, 'r');
  const target = openSync(to, 'r+');
  try {
    const sector = Buffer.alloc(SECTOR_BYTES);
    for (const number of sectors) {
      const start = number * SECTOR_BYTES;
      const length = readSync(source, sector, 0, Math.min(SECTOR_BYTES, sizeBytes - start), start);
      writeSync(target, sector, 0, length, start);
    }
  } finally {
    closeSync(source);
    closeSync(target);
  }
}

/** Fills `into` with the bytes of a file from `start` on, and with zeros behind its end. */
function readZeroPadded(file: number | undefined, into: Buffer, start: number): void {
  const length = file === undefined ? 0 : readSync(file, into, 0, into.length, start);
  into.fill(0, length);
}

/**
 * Returns a key of a file from its inode number and creation time: the number alone is reused after a
 * deletion.
 */
function fileIdentity(path: string): string {
  const { dev, ino, birthtimeNs } = statSync(path, { bigint: true });
  return `${dev}:${ino}:${birthtimeNs}`;
}
