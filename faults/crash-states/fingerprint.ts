import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { SECTOR_BYTES } from '../sector.js';
import type { CrashState } from '../write-log/state.js';
import type { Recording } from './materialise.js';

/** So much of the high word fits a number beside the low one. */
const HIGH_BITS = 2 ** 21 - 1;

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
  /** By entry; undefined where it writes nothing. */
  readonly #written: (Written | undefined)[] = [];
  /** At [entry]: sum over all sectors when everything before it is on the medium; two words each. */
  readonly #sums: Uint32Array;
  /** Hashes of the sectors as they are in the base; two words each. */
  readonly #base: Uint32Array;
  /** The same when every entry before `#at` is on the medium. */
  readonly #certain: Uint32Array;
  #at = 0;
  /** The same in the state that is being looked at, where `#stamps` says so. */
  readonly #overlay: Uint32Array;
  readonly #stamps: Int32Array;
  #stamp = 0;

  /**
   * @param base a file that holds the device as it is when the entries before `baseAt` are on the medium.
   * @param counts which sectors of the device count; default: all.
   */
  constructor(recording: Recording, base: string, baseAt: number, counts?: (sector: number) => boolean) {
    this.#recording = recording;
    const { entries } = recording.model;
    const ids = new Map<number, number>();
    const hashes: number[] = [];
    const fd = openSync(base, 'r');
    try {
      for (const { index, lengthBytes } of entries.slice(baseAt)) {
        if (lengthBytes > 0) this.#written[index] = this.#read(index, ids, hashes, fd, counts);
      }
    } finally {
      closeSync(fd);
    }
    this.#base = Uint32Array.from(hashes);
    this.#certain = this.#base.slice();
    this.#stamps = new Int32Array(ids.size);
    this.#overlay = new Uint32Array(2 * ids.size);
    this.#sums = this.#add(entries.length);
  }

  #read(
    index: number,
    ids: Map<number, number>,
    hashes: number[],
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
        const before = Buffer.alloc(SECTOR_BYTES);
        readSync(base, before, 0, SECTOR_BYTES, sector * SECTOR_BYTES);
        hashes.push(...hashOf(sector, before));
      }
      written.ids[at] = id;
      written.hashes.set(
        hashOf(sector, bytes.subarray(place * SECTOR_BYTES, (place + 1) * SECTOR_BYTES)),
        2 * at,
      );
    });
    return written;
  }

  #add(count: number): Uint32Array {
    const sums = new Uint32Array(2 * (count + 1));
    const now = this.#certain;
    for (let index = 0; index < count; index++) {
      let [low, high] = [sums[2 * index] ?? 0, sums[2 * index + 1] ?? 0];
      const written = this.#written[index];
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
    this.#at = count;
    return sums;
  }

  /** Everything before this entry is on the medium: cheap when it is not far behind the last one. */
  #moveTo(entry: number): void {
    if (entry < this.#at) {
      this.#certain.set(this.#base);
      this.#at = 0;
    }
    for (; this.#at < entry; this.#at++) {
      const written = this.#written[this.#at];
      if (written === undefined) continue;
      const { ids, hashes } = written;
      for (let at = 0; at < ids.length; at++) {
        const id = ids[at] ?? 0;
        this.#certain[2 * id] = hashes[2 * at] ?? 0;
        this.#certain[2 * id + 1] = hashes[2 * at + 1] ?? 0;
      }
    }
  }

  /** Whether the entry writes a sector that counts. */
  readonly matters = (index: number): boolean => (this.#written[index]?.ids.length ?? 0) > 0;

  /**
   * Equal for states whose disks are equal, as far as they count; otherwise different but for one chance in 2^53. States
   * should come in the order of their cuts.
   */
  of(state: CrashState): number {
    const { model } = this.#recording;
    const floor = model.floorOf(state);
    this.#moveTo(floor);
    this.#stamp += 1;
    let low = this.#sums[2 * floor] ?? 0;
    let high = this.#sums[2 * floor + 1] ?? 0;
    for (const { entry, sectors } of model.applied(state, floor)) {
      const written = this.#written[entry.index];
      if (written === undefined) continue;
      const { ids, places, hashes } = written;
      let next = 0;
      for (let at = 0; at < ids.length; at++) {
        if (sectors !== undefined) {
          const place = places[at] ?? 0;
          while ((sectors[next] ?? place) < place) next++;
          if (sectors[next] !== place) continue;
        }
        const id = ids[at] ?? 0;
        const old = this.#stamps[id] === this.#stamp ? this.#overlay : this.#certain;
        const newLow = hashes[2 * at] ?? 0;
        const newHigh = hashes[2 * at + 1] ?? 0;
        low = (low + newLow - (old[2 * id] ?? 0)) >>> 0;
        high = (high + newHigh - (old[2 * id + 1] ?? 0)) >>> 0;
        this.#stamps[id] = this.#stamp;
        this.#overlay[2 * id] = newLow;
        this.#overlay[2 * id + 1] = newHigh;
      }
    }
    return low + (high & HIGH_BITS) * 2 ** 32;
  }
}

function hashOf(sector: number, content: Buffer): [number, number] {
  const digest = createHash('sha1').update(`${sector} `).update(content).digest();
  return [digest.readUInt32LE(0), digest.readUInt32LE(4)];
}
