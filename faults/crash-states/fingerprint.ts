import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { SECTOR_BYTES } from '../sector.js';
import type { CrashState } from '../write-log/state.js';
import type { Recording } from './materialise.js';

/** So much of the high word fits a number beside the low one. */
const HIGH_WORD_MASK = 2 ** 21 - 1;

/** What one entry of the log makes of the sectors that count. */
interface EntrySectors {
  /** Dense numbers of the sectors. */
  ids: Int32Array;
  /** Which sector of the entry each is. */
  sectorIndexes: Int32Array;
  /** Two words of hash of sector and content each. */
  hashes: Uint32Array;
}

/**
 * Tells equal disks apart from different ones without making them: the hash of a disk is the sum of the hashes of its
 * sectors (number and content), so that a state costs no more than the writes in which it differs from what is certain.
 */
export class Fingerprints {
  readonly #recording: Recording;
  /** By entry; undefined where it writes nothing. */
  readonly #entrySectors: (EntrySectors | undefined)[] = [];
  /** At [entry]: sum over all sectors when everything before it is on the medium; two words each. */
  readonly #sums: Uint32Array;
  /** Hashes of the sectors as they are in the base; two words each. */
  readonly #base: Uint32Array;
  /** The same when every entry before `#at` is on the medium. */
  readonly #durable: Uint32Array;
  #durableBefore = 0;
  /** The same in the state that is being looked at, where `#stamps` says so. */
  readonly #overlay: Uint32Array;
  readonly #overlayGenerations: Int32Array;
  #generation = 0;

  /**
   * @param base a file that holds the device as it is when the entries before `baseAt` are on the medium.
   * @param isRelevantSector which sectors of the device count; default: all.
   */
  constructor(
    recording: Recording,
    base: string,
    baseAt: number,
    isRelevantSector?: (sector: number) => boolean,
  ) {
    this.#recording = recording;
    const { entries } = recording.model;
    const ids = new Map<number, number>();
    const hashes: number[] = [];
    const fd = openSync(base, 'r');
    try {
      for (const { index, lengthBytes } of entries.slice(baseAt)) {
        if (lengthBytes > 0)
          this.#entrySectors[index] = this.#hashEntry(index, ids, hashes, fd, isRelevantSector);
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

  #hashEntry(
    index: number,
    ids: Map<number, number>,
    hashes: number[],
    base: number,
    isRelevantSector: ((sector: number) => boolean) | undefined,
  ): EntrySectors {
    const { log, model } = this.#recording;
    const entry = model.entries[index];
    if (entry === undefined) throw new RangeError(`entry ${index}: the log has ${model.entries.length}`);
    const first = entry.offset / SECTOR_BYTES;
    const sectorIndexes: number[] = [];
    for (let sectorIndex = 0; sectorIndex < entry.lengthBytes / SECTOR_BYTES; sectorIndex++) {
      if (isRelevantSector === undefined || isRelevantSector(first + sectorIndex))
        sectorIndexes.push(sectorIndex);
    }
    const bytes = Buffer.alloc(sectorIndexes.length === 0 ? 0 : entry.lengthBytes);
    if (bytes.length > 0 && !entry.discard) log.readData(entry, 0, bytes);
    const entrySectors: EntrySectors = {
      ids: new Int32Array(sectorIndexes.length),
      sectorIndexes: Int32Array.from(sectorIndexes),
      hashes: new Uint32Array(2 * sectorIndexes.length),
    };
    sectorIndexes.forEach((sectorIndex, at) => {
      const sector = first + sectorIndex;
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
        hashOf(sector, bytes.subarray(sectorIndex * SECTOR_BYTES, (sectorIndex + 1) * SECTOR_BYTES)),
        2 * at,
      );
    });
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

  /** Everything before this entry is on the medium: cheap when it is not far behind the last one. */
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

  /** Whether the entry writes a sector that counts. */
  readonly isRelevant = (index: number): boolean => (this.#entrySectors[index]?.ids.length ?? 0) > 0;

  /**
   * Equal for states whose disks are equal, as far as they count; otherwise different but for one chance in 2^53. States
   * should come in the order of their cuts.
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
      const { ids, sectorIndexes: places, hashes } = entrySectors;
      let next = 0;
      for (let at = 0; at < ids.length; at++) {
        if (sectors !== undefined) {
          const sectorIndex = places[at] ?? 0;
          while ((sectors[next] ?? sectorIndex) < sectorIndex) next++;
          if (sectors[next] !== sectorIndex) continue;
        }
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
