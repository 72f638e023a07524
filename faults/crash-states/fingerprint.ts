import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import type { Recording } from './materialise.js';
import { SECTOR_BYTES } from './model.js';
import type { CrashState } from './state.js';

/** What one entry of the log makes of the sectors that count. */
interface Written {
  /** Dense numbers of the sectors. */
  ids: Int32Array;
  /** Which sector of the entry each is. */
  places: Int32Array;
  /** Two words of hash of sector and content each. */
  hashes: Uint32Array;
}

/**
 * Tells equal disks apart from different ones without making them: the hash of a disk is the sum of the hashes of its
 * sectors (number and content), so that a state costs no more than the writes in which it differs from what is certain.
 */
export class Fingerprints {
  readonly #recording: Recording;
  readonly #written = new Map<number, Written>();
  /** At [entry]: sum over all sectors when everything before it is on the medium; two words each. */
  readonly #sums: Uint32Array;
  /** By sector: the entries that wrote it, ascending, with the place of its hash in their lists. */
  readonly #writers: { entry: number; at: number }[][] = [];
  readonly #base: number[] = [];
  readonly #stamps: Int32Array;
  readonly #overlay: Uint32Array;
  #stamp = 0;

  /**
   * @param base a file that holds the device as it is when the entries before `baseAt` are on the medium.
   * @param counts which sectors of the device count; default: all.
   */
  constructor(recording: Recording, base: string, baseAt: number, counts?: (sector: number) => boolean) {
    this.#recording = recording;
    const { entries } = recording.model;
    const ids = new Map<number, number>();
    const fd = openSync(base, 'r');
    try {
      for (const { index, lengthBytes } of entries.slice(baseAt)) {
        if (lengthBytes > 0) this.#written.set(index, this.#read(index, ids, fd, counts));
      }
    } finally {
      closeSync(fd);
    }
    this.#stamps = new Int32Array(ids.size);
    this.#overlay = new Uint32Array(2 * ids.size);
    this.#sums = this.#add(entries.length);
  }

  #read(
    index: number,
    ids: Map<number, number>,
    base: number,
    counts: ((sector: number) => boolean) | undefined,
  ): Written {
    const { log, model } = this.#recording;
    const entry = model.entries[index];
    if (entry === undefined) throw new RangeError(`entry ${index}: the log has ${model.entries.length}`);
    const first = entry.offset / SECTOR_BYTES;
    const places: number[] = [];
    for (let place = 0; place < entry.lengthBytes / SECTOR_BYTES; place++) {
      if (counts === undefined || counts(first + place)) places.push(place);
    }
    const bytes = Buffer.alloc(places.length === 0 ? 0 : entry.lengthBytes);
    if (bytes.length > 0 && !entry.discard) log.readData(entry, 0, bytes);
    const written: Written = {
      ids: new Int32Array(places.length),
      places: Int32Array.from(places),
      hashes: new Uint32Array(2 * places.length),
    };
    places.forEach((place, at) => {
      const sector = first + place;
      let id = ids.get(sector);
      if (id === undefined) {
        id = ids.size;
        ids.set(sector, id);
        this.#writers.push([]);
        const before = Buffer.alloc(SECTOR_BYTES);
        readSync(base, before, 0, SECTOR_BYTES, sector * SECTOR_BYTES);
        this.#base.push(...hashOf(sector, before));
      }
      written.ids[at] = id;
      written.hashes.set(
        hashOf(sector, bytes.subarray(place * SECTOR_BYTES, (place + 1) * SECTOR_BYTES)),
        2 * at,
      );
      this.#writers[id]?.push({ entry: index, at });
    });
    return written;
  }

  #add(count: number): Uint32Array {
    const sums = new Uint32Array(2 * (count + 1));
    const now = Uint32Array.from(this.#base);
    for (let index = 0; index < count; index++) {
      let [low, high] = [sums[2 * index] ?? 0, sums[2 * index + 1] ?? 0];
      const written = this.#written.get(index);
      for (let at = 0; at < (written?.ids.length ?? 0); at++) {
        const id = written?.ids[at] ?? 0;
        low += (written?.hashes[2 * at] ?? 0) - (now[2 * id] ?? 0);
        high += (written?.hashes[2 * at + 1] ?? 0) - (now[2 * id + 1] ?? 0);
        now[2 * id] = written?.hashes[2 * at] ?? 0;
        now[2 * id + 1] = written?.hashes[2 * at + 1] ?? 0;
      }
      sums[2 * index + 2] = low;
      sums[2 * index + 3] = high;
    }
    return sums;
  }

  /** Whether the entry writes a sector that counts. */
  readonly matters = (index: number): boolean => (this.#written.get(index)?.ids.length ?? 0) > 0;

  /** Equal for states whose disks are equal, as far as they count; otherwise different but for one chance in 2^64. */
  of(state: CrashState): string {
    const { model } = this.#recording;
    const floor = model.floorOf(state);
    this.#stamp += 1;
    let low = this.#sums[2 * floor] ?? 0;
    let high = this.#sums[2 * floor + 1] ?? 0;
    for (const { entry, sectors } of model.applied(state, floor)) {
      const written = this.#written.get(entry.index);
      if (written === undefined) continue;
      const some = sectors === undefined ? undefined : new Set(sectors);
      for (let at = 0; at < written.ids.length; at++) {
        if (some !== undefined && !some.has(written.places[at] ?? 0)) continue;
        const id = written.ids[at] ?? 0;
        const [oldLow, oldHigh] = this.#now(id, floor);
        const newLow = written.hashes[2 * at] ?? 0;
        const newHigh = written.hashes[2 * at + 1] ?? 0;
        low = (low + newLow - oldLow) >>> 0;
        high = (high + newHigh - oldHigh) >>> 0;
        this.#stamps[id] = this.#stamp;
        this.#overlay[2 * id] = newLow;
        this.#overlay[2 * id + 1] = newHigh;
      }
    }
    return `${low.toString(36)}.${high.toString(36)}`;
  }

  /** The hash of what stands in a sector, in the state that is being looked at. */
  #now(id: number, floor: number): [number, number] {
    if (this.#stamps[id] === this.#stamp) return [this.#overlay[2 * id] ?? 0, this.#overlay[2 * id + 1] ?? 0];
    const last = this.#writers[id]?.findLast(({ entry }) => entry < floor);
    if (last === undefined) return [this.#base[2 * id] ?? 0, this.#base[2 * id + 1] ?? 0];
    const hashes = this.#written.get(last.entry)?.hashes;
    return [hashes?.[2 * last.at] ?? 0, hashes?.[2 * last.at + 1] ?? 0];
  }
}

function hashOf(sector: number, content: Buffer): [number, number] {
  const digest = createHash('sha1').update(`${sector} `).update(content).digest();
  return [digest.readUInt32LE(0), digest.readUInt32LE(4)];
}
