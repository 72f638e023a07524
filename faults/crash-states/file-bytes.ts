import { closeSync, openSync, readSync } from 'node:fs';
import type { Extent } from '../power/syscalls.js';
import { SECTOR_BYTES } from '../sector.js';
import type { LogEntry } from '../write-log/reader.js';
import type { CrashState } from '../write-log/state.js';
import type { Recording } from './materialise.js';

/** A file on the recorded disk that never moves there. */
export interface FileLayout {
  extents: readonly Extent[];
  sizeBytes: number;
}

/** Part of a file: from this byte to the one before that. */
export type FileRange = readonly [from: number, to: number];

/** Part of a write that lies in the file. */
interface Piece {
  fileOffset: number;
  entryOffset: number;
  bytes: Buffer;
}

const PAGE_BYTES = 4096;

/** Is the sector of the device part of one of the files? */
export function sectorFilterOf(
  files: readonly { extents: readonly Extent[] }[],
): (sector: number) => boolean {
  const sectors = new Set<number>();
  for (const { deviceOffset, lengthBytes } of files.flatMap(({ extents }) => extents)) {
    for (let at = 0; at < lengthBytes; at += SECTOR_BYTES) sectors.add((deviceOffset + at) / SECTOR_BYTES);
  }
  return (sector) => sectors.has(sector);
}

/**
 * The bytes of one file as one crash state after the other has them, without a filesystem. Only what differs from the
 * state before is touched. States should come in the order of their cuts.
 */
export class FileBytes {
  readonly #recording: Recording;
  readonly #file: FileLayout;
  readonly #baseAt: number;
  readonly #base: Buffer;
  readonly #stable: Buffer;
  readonly #current: Buffer;
  readonly #pieces = new Map<number, Piece[]>();
  #stableAt: number;
  /** Pages of the last state that differ from the stable bytes. */
  #dirty = new Set<number>();

  /** @param image holds the device as it is when the entries before `baseAt` are on the medium. */
  constructor(recording: Recording, file: FileLayout, image: string, baseAt: number) {
    this.#recording = recording;
    this.#file = file;
    this.#baseAt = baseAt;
    this.#stableAt = baseAt;
    this.#base = readFromImage(image, file);
    this.#stable = Buffer.from(this.#base);
    this.#current = Buffer.from(this.#base);
  }

  /** What the file holds in the last state that was made; not to be changed. */
  get bytes(): Buffer {
    return this.#current;
  }

  /** Makes `bytes` what they are in this state. @returns the parts in which they may differ from the last one. */
  materialise(state: CrashState): FileRange[] {
    const { model } = this.#recording;
    const durablePrefix = model.durablePrefixOf(state);
    const touched = this.#dirty;
    this.#dirty = new Set();
    for (const page of touched) this.#revert(page);
    if (durablePrefix < this.#stableAt) {
      this.#base.copy(this.#stable);
      this.#base.copy(this.#current);
      for (let page = 0; page * PAGE_BYTES < this.#current.length; page++) touched.add(page);
      this.#stableAt = this.#baseAt;
    }
    for (const { entry } of model.writes(this.#stableAt, durablePrefix)) {
      for (const { fileOffset, bytes } of this.#piecesOf(entry)) {
        bytes.copy(this.#stable, fileOffset);
        bytes.copy(this.#current, fileOffset);
        addPages(touched, fileOffset, bytes.length);
      }
    }
    this.#stableAt = Math.max(this.#stableAt, durablePrefix);
    for (const { entry, sectors } of model.appliedWrites(state, durablePrefix)) {
      for (const piece of this.#piecesOf(entry)) this.#put(piece, sectors);
    }
    for (const page of this.#dirty) touched.add(page);
    return this.#rangesOf(touched);
  }

  #revert(page: number): void {
    this.#stable.copy(this.#current, page * PAGE_BYTES, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
  }

  #put({ fileOffset, entryOffset, bytes }: Piece, sectors: readonly number[] | undefined): void {
    if (sectors === undefined) {
      bytes.copy(this.#current, fileOffset);
      addPages(this.#dirty, fileOffset, bytes.length);
      return;
    }
    for (const sector of sectors) {
      const at = sector * SECTOR_BYTES - entryOffset;
      if (at < 0 || at >= bytes.length) continue;
      bytes.copy(this.#current, fileOffset + at, at, at + SECTOR_BYTES);
      addPages(this.#dirty, fileOffset + at, SECTOR_BYTES);
    }
  }

  #rangesOf(pages: ReadonlySet<number>): FileRange[] {
    const ranges: FileRange[] = [];
    const order = [...pages].sort((a, b) => a - b);
    for (let at = 0; at < order.length; ) {
      const first = order[at] ?? 0;
      let end = first + 1;
      for (at++; order[at] === end; at++) end++;
      ranges.push([first * PAGE_BYTES, Math.min(end * PAGE_BYTES, this.#current.length)]);
    }
    return ranges;
  }

  #piecesOf(entry: LogEntry): Piece[] {
    let pieces = this.#pieces.get(entry.index);
    if (pieces === undefined) {
      pieces = this.#file.extents.flatMap((extent) => this.#overlap(entry, extent));
      this.#pieces.set(entry.index, pieces);
    }
    return pieces;
  }

  #overlap(entry: LogEntry, { fileOffset, deviceOffset, lengthBytes }: Extent): Piece[] {
    const begin = Math.max(entry.offset, deviceOffset);
    const end = Math.min(
      entry.offset + entry.lengthBytes,
      deviceOffset + lengthBytes,
      deviceOffset + this.#file.sizeBytes - fileOffset,
    );
    if (end <= begin) return [];
    const bytes = Buffer.alloc(end - begin);
    if (!entry.discard) this.#recording.log.readData(entry, begin - entry.offset, bytes);
    return [{ fileOffset: fileOffset + begin - deviceOffset, entryOffset: begin - entry.offset, bytes }];
  }
}

function addPages(pages: Set<number>, offset: number, length: number): void {
  for (let page = Math.floor(offset / PAGE_BYTES); page * PAGE_BYTES < offset + length; page++)
    pages.add(page);
}

/** The bytes of a file from the image of its disk. */
function readFromImage(image: string, { extents, sizeBytes }: FileLayout): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  const fd = openSync(image, 'r');
  try {
    for (const { fileOffset, deviceOffset, lengthBytes } of extents) {
      const length = Math.min(lengthBytes, sizeBytes - fileOffset);
      if (length > 0) readSync(fd, bytes, fileOffset, length, deviceOffset);
    }
  } finally {
    closeSync(fd);
  }
  return bytes;
}
