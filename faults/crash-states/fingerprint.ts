import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { SECTOR_BYTES } from '../sector.js';
import type { CrashState } from '../write-log/state.js';
import type { Recording } from './materialise.js';

/** Mask of the 21 bits of the high word that fit into a number (53 bits) beside the low word. */
const HIGH_WORD_MASK = 2 ** 21 - 1;

/** The sectors that one entry of the log writes, in order. */
interface EntrySectors {
  /** Number of each sector among those that the log writes, from 0 without gaps. */
  ids: Int32Array;
  /** Hash of the position and content of each sector; two words per sector. */
  hashes: Uint32Array;
}

/**
 * Computes fingerprints by which equal disks are recognised without making the disks. The hash of a disk is
 * the sum of the hashes of its sectors (position and content). The cost of a state therefore depends only on
 * its writes that are not certainly on the medium.
 */
export class Fingerprints {
  readonly #recording: Recording;
  /** Sectors by entry number; undefined for an entry that writes nothing. */
  readonly #entrySectors: (EntrySectors | undefined)[] = [];
  /**
   * Hash sums of all sectors by entry number, for the disk on which every entry before that number is on the
   * medium; two words each.
   */
  readonly #sums: Uint32Array;
  /** Hashes of the sectors in the base image; two words each. */
  readonly #base: Uint32Array;
  /** Hashes of the sectors when every entry before `#durableBefore` is on the medium; two words each. */
  readonly #durable: Uint32Array;
  #durableBefore = 0;
  /**
   * Hashes of the sectors in the current state. Valid only where `#overlayGenerations` equals `#generation`.
   */
  readonly #overlay: Uint32Array;
  readonly #overlayGenerations: Int32Array;
  #generation = 0;

  /**
   * @param base path of an image of the recorded disk on which the first `baseAt` writes and flushes of the log
   * are done.
   */
  constructor(recording: Recording, base: string, baseAt: number) {
    this.#recording = recording;
    const { entries } = recording.model;
    const ids = new Map<number, number>();
    const hashes: number[] = [];
    const fd = openSync(base, 'r');
    try {
      for (const { index, lengthBytes } of entries.slice(baseAt)) {
        if (lengthBytes > 0) this.#entrySectors[index] = this.#hashEntry(index, ids, hashes, fd);
      }
    } finally {
      closeSync(fd);
    }
    this.#base = Uint32Array.from(hashes);
    this.#durable = this.#base.slice();
    this.#overlayGenerations = new Int32Array(ids.size);
    this.#overlay = new Uint32Array(2 * ids.size);
    this.#sums = this.#buildSums(entries.length);
  }

  #hashEntry(index: number, ids: Map<number, number>, hashes: number[], base: number): EntrySectors {
    const { log, model } = this.#recording;
    const entry = model.entries[index];
    if (entry === undefined) throw new RangeError(`entry ${index}: the log has ${model.entries.length}`);
    const first = entry.offset / SECTOR_BYTES;
    const count = entry.lengthBytes / SECTOR_BYTES;
    const bytes = Buffer.alloc(entry.lengthBytes);
    if (!entry.discard) log.readData(entry, 0, bytes);
    const entrySectors: EntrySectors = { ids: new Int32Array(count), hashes: new Uint32Array(2 * count) };
    for (let at = 0; at < count; at++) {
      const sector = first + at;
      let id = ids.get(sector);
      if (id === undefined) {
        id = ids.size;
        ids.set(sector, id);
        const before = Buffer.alloc(SECTOR_BYTES);
        readSync(base, before, 0, SECTOR_BYTES, sector * SECTOR_BYTES);
        hashes.push(...hashOf(sector, before));
      }
      entrySectors.ids[at] = id;
      entrySectors.hashes.set(
        hashOf(sector, bytes.subarray(at * SECTOR_BYTES, (at + 1) * SECTOR_BYTES)),
        2 * at,
      );
    }
    return entrySectors;
  }

  #buildSums(count: number): Uint32Array {
    const sums = new Uint32Array(2 * (count + 1));
    const now = this.#durable;
    for (let index = 0; index < count; index++) {
      let [low, high] = [sums[2 * index] ?? 0, sums[2 * index + 1] ?? 0];
      const entrySectors = this.#entrySectors[index];
      for (let at = 0; at < (entrySectors?.ids.length ?? 0); at++) {
        const id = entrySectors?.ids[at] ?? 0;
        low += (entrySectors?.hashes[2 * at] ?? 0) - (now[2 * id] ?? 0);
        high += (entrySectors?.hashes[2 * at + 1] ?? 0) - (now[2 * id + 1] ?? 0);
        now[2 * id] = entrySectors?.hashes[2 * at] ?? 0;
        now[2 * id + 1] = entrySectors?.hashes[2 * at + 1] ?? 0;
      }
      sums[2 * index + 2] = low;
      sums[2 * index + 3] = high;
    }
    this.#durableBefore = count;
    return sums;
  }

  /**
   * Updates `#durable` to the disk on which every entry before `entry` is on the medium. The update is cheap
   * when `entry` is near the entry of the previous call.
   */
  #advanceTo(entry: number): void {
    if (entry < this.#durableBefore) {
      this.#durable.set(this.#base);
      this.#durableBefore = 0;
    }
    for (; this.#durableBefore < entry; this.#durableBefore++) {
      const entrySectors = this.#entrySectors[this.#durableBefore];
      if (entrySectors === undefined) continue;
      const { ids, hashes } = entrySectors;
      for (let at = 0; at < ids.length; at++) {
        const id = ids[at] ?? 0;
        this.#durable[2 * id] = hashes[2 * at] ?? 0;
        this.#durable[2 * id + 1] = hashes[2 * at + 1] ?? 0;
      }
    }
  }

  /**
   * Returns the fingerprint of a state. States with equal disks have equal fingerprints. Two different disks
   * have the same fingerprint with a probability of 2^-53. The calls are faster when the states come in the
   * order of their cuts.
   */
  of(state: CrashState): number {
    const { model } = this.#recording;
    const durablePrefix = model.durablePrefixOf(state);
    this.#advanceTo(durablePrefix);
    this.#generation += 1;
    let low = this.#sums[2 * durablePrefix] ?? 0;
    let high = this.#sums[2 * durablePrefix + 1] ?? 0;
    for (const { entry, sectors } of model.appliedWrites(state, durablePrefix)) {
      const entrySectors = this.#entrySectors[entry.index];
      if (entrySectors === undefined) continue;
      const { ids, hashes } = entrySectors;
      const count = sectors?.length ?? ids.length;
      for (let place = 0; place < count; place++) {
        const at = sectors === undefined ? place : (sectors[place] ?? 0);
        const id = ids[at] ?? 0;
        const old = this.#overlayGenerations[id] === this.#generation ? this.#overlay : this.#durable;
        const newLow = hashes[2 * at] ?? 0;
        const newHigh = hashes[2 * at + 1] ?? 0;
        low = (low + newLow - (old[2 * id] ?? 0)) >>> 0;
        high = (high + newHigh - (old[2 * id + 1] ?? 0)) >>> 0;
        this.#overlayGenerations[id] = this.#generation;
        this.#overlay[2 * id] = newLow;
        this.#overlay[2 * id + 1] = newHigh;
      }
    }
    return low + (high & HIGH_WORD_MASK) * 2 ** 32;
  }
}

function hashOf(sector: number, content: Buffer): [number, number] {
  const digest = createHash('sha1').update(`${sector} `).update(content).digest();
  return [digest.readUInt32LE(0), digest.readUInt32LE(4)];
}
