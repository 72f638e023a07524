import {
  closeSync,
  constants,
  copyFileSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { descriptorPath, unlessGone, withFileBelow } from '../files/open-below.js';
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
    for (const file of regularFiles(directory)) unlessGone(() => this.#save(file));
  }

  /**
   * Updates the snapshot to the current state, and copies only changed sectors. No process may write
   * meanwhile.
   */
  refresh(): void {
    for (const file of regularFiles(this.#directory)) unlessGone(() => this.#refreshFile(file));
  }

  #refreshFile(file: string): void {
    const { isSaved, sizeBytes } = this.#open(file, constants.O_RDONLY, (now, saved) => {
      const { size } = fstatSync(now);
      return { isSaved: saved?.sizeBytes === size, sizeBytes: size };
    });
    if (!isSaved) {
      this.#save(file);
      return;
    }
    const changed = this.changedSectors(file);
    if (changed.length === 0) return;
    this.#open(file, constants.O_RDONLY, (now, saved) => {
      if (saved !== undefined) copySectors(now, saved.copy, changed, sizeBytes);
    });
  }

  #save(file: string): void {
    this.#open(file, constants.O_RDONLY, (now, saved) => {
      const copy = saved?.copy ?? join(this.#copies, String(this.#files.size));
      copyFileSync(descriptorPath(now), copy, constants.COPYFILE_FICLONE);
      this.#files.set(identityOf(now), { copy, sizeBytes: fstatSync(now).size });
    });
  }

  /** Returns the size of a file (in bytes) at the snapshot; 0 when it did not exist. */
  sizeOf(file: string): number {
    return unlessGone(() => this.#open(file, constants.O_RDONLY, (_, saved) => saved?.sizeBytes)) ?? 0;
  }

  /** Returns the identity of the file that has this name now (`identityOf`); undefined when there is none. */
  identityOf(file: string): string | undefined {
    return unlessGone(() => this.#open(file, constants.O_RDONLY, identityOf));
  }

  /**
   * Returns the numbers of the changed sectors of a file, ascending. The part by which the file has grown
   * counts as zeros at the snapshot. A file that is gone has none.
   */
  changedSectors(file: string): number[] {
    return unlessGone(() => this.#changedSectors(file)) ?? [];
  }

  #changedSectors(file: string): number[] {
    const changed: number[] = [];
    // Open the file only for reading: a running program cannot be opened for writing, and need not be if it
    // is unchanged.
    this.#withBoth(file, constants.O_RDONLY, (before, now) => {
      const sizeBytes = fstatSync(now).size;
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
      this.#withBoth(file, constants.O_RDONLY, (before, now) => {
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
    this.#withBoth(file, constants.O_RDWR, (before, now) => {
      const sizeBytes = fstatSync(now).size;
      const sector = Buffer.alloc(SECTOR_BYTES);
      for (const number of sectors) {
        const start = number * SECTOR_BYTES;
        if (start >= sizeBytes) continue;
        readZeroPadded(before, sector, start);
        writeSync(now, sector, 0, Math.min(SECTOR_BYTES, sizeBytes - start), start);
      }
      ftruncateSync(now, sizeBytes);
    });
  }

  /** Deletes the copies. */
  remove(): void {
    removeTree(this.#copies);
  }

  /** Opens a file of the directory and finds what was saved of it. */
  #open<T>(file: string, flags: number, use: (now: number, saved: SavedFile | undefined) => T): T {
    return withFileBelow(this.#directory, file, flags, (now) => use(now, this.#files.get(identityOf(now))));
  }

  #withBoth(file: string, flags: number, use: (before: number | undefined, now: number) => void): void {
    this.#open(file, flags, (now, saved) => {
      const before = saved && openSync(saved.copy, 'r');
      try {
        use(before, now);
      } finally {
        if (before !== undefined) closeSync(before);
      }
    });
  }
}

/** @param source descriptor of the file whose sectors are copied. */
function copySectors(source: number, to: string, sectors: readonly number[], sizeBytes: number): void {
  const target = openSync(to, 'r+');
  try {
    const sector = Buffer.alloc(SECTOR_BYTES);
    for (const number of sectors) {
      const start = number * SECTOR_BYTES;
      const length = readSync(source, sector, 0, Math.min(SECTOR_BYTES, sizeBytes - start), start);
      writeSync(target, sector, 0, length, start);
    }
  } finally {
    closeSync(target);
  }
}

/** Fills `into` with the bytes of a file from `start` on, and with zeros behind its end. */
function readZeroPadded(file: number | undefined, into: Buffer, start: number): void {
  const length = file === undefined ? 0 : readSync(file, into, 0, into.length, start);
  into.fill(0, length);
}

/**
 * Returns a key of an open file from its inode number and creation time: the number alone is reused after a
 * deletion.
 */
function identityOf(fd: number): string {
  const { dev, ino, birthtimeNs } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}:${birthtimeNs}`;
}
