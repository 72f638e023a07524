import { createHash } from 'node:crypto';
import { openSync, readFileSync, readSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { QueueError } from '../errors.js';
import { checkLists } from '../index/check.js';
import { IndexImage } from '../index/image.js';
import { decodeIndexHead } from '../index/index-file.js';
import { markConsumed } from '../index/marks.js';
import { type DataBytes, DataMap } from '../memory/data-map.js';
import { withTemporaryMaps } from '../memory/linux.js';
import { PAGE_BYTES } from '../memory/map.js';
import type { ChecksumKey } from '../record/checksum.js';
import { decodeBody } from '../record/codec.js';
import { decodeHead, RING_START } from '../record/data-file.js';
import { SLOT_BYTES } from '../record/layout.js';
import { type AtSlot, bodyOf, type RecordHeader } from '../record/record.js';
import { applyPlan } from '../restore/apply.js';
import { planRestore } from '../restore/plan.js';
import { RememberedSlots } from '../restore/remembered-slots.js';
import type { Ring } from '../ring/reserve.js';
import { INSTALLED_NAME, loadSettings } from '../settings/load.js';
import type { QueueSettings } from '../settings/settings.js';
import { machine } from './ground.js';
import { Pair } from './pair.js';
import type { PairDirectories } from './places.js';

/** What a restore left in the queue. */
export interface Restored {
  /** The messages that the queue holds, each by the number under which `names` (of this answer or an earlier one) has it. */
  live: number[];
  /** SHA-256 (hex) of the message's bytes, by number; each message is named once. */
  names: Record<number, string>;
  /** What was found wrong after the restore; one line each. */
  problems: string[];
  /** Records that can no longer be read and are kept aside. */
  keptAside: number;
}

/** What is remembered of one data file. */
interface Seen {
  slots: RememberedSlots;
  sizeBytes: number;
  key: ChecksumKey;
  /** The last message at each slot. */
  named: (Named | undefined)[];
}

interface Named {
  /** What stood there. */
  at: AtSlot;
  /** When its page has changed, it need not have. */
  bytes: Buffer;
  number: number;
}

/** Part of a file: from this byte to the one before that. */
export type ByteRange = readonly [from: number, to: number];

type Listed = Pick<RecordHeader, 'offset' | 'type' | 'sizeBytes' | 'number' | 'dateMs'>;

/**
 * Restores one queue after the other in one process, as the first worker after a crash does, and says what each then
 * holds. Queues that differ in little are the purpose: what stands on pages that are the same as before, byte for byte, is
 * not read and hashed again.
 */
export class RestoreCheck {
  /** By the place of the data file. */
  readonly #seen = new Map<string, Seen>();
  readonly #numbers = new Map<string, number>();
  #settings: { directory: string; text: string | undefined; settings: QueueSettings } | undefined;
  readonly #dataFiles = new Map<string, DataBytes>();
  readonly #indexFiles = new Map<string, { fd: number; bytes: Buffer }>();

  /**
   * Restores the queue in a directory, for good: index and data file are as after a start.
   * @throws QueueError as a worker would at its start.
   */
  directory(directory: string): Restored {
    const settings = this.#settingsOf(directory);
    const restored = nothing();
    const { directory: dead, ...geometry } = settings.deadLetter;
    const pairs: [PairDirectories, { entries: number; workerSlots: number }][] = [
      ...settings.pairs.map((pair): [PairDirectories, typeof settings] => [pair, settings]),
      [
        { directory: dead, indexDirectory: dead },
        { ...geometry, workerSlots: settings.workerSlots },
      ],
    ];
    withTemporaryMaps((kernel) => {
      for (const [number, [places, wishes]] of pairs.entries()) {
        const slots = (data: DataBytes, key: ChecksumKey) => this.#look(`${number}`, data, key).slots;
        this.#open(number, Pair.open(places, wishes, { ...machine, kernel, slots }), restored);
      }
    });
    return restored;
  }

  /** They are checked once: thousands of queues have the same. */
  #settingsOf(directory: string): QueueSettings {
    const file = join(directory, INSTALLED_NAME);
    const text = textOf(file);
    const known = this.#settings;
    if (text !== undefined && known?.directory === directory && known.text === text) return known.settings;
    const settings = loadSettings({ directory, installed: 'needed' });
    this.#settings = { directory, text, settings };
    return settings;
  }

  #open(number: number, pair: Pair, into: Restored): void {
    try {
      const { data, ring, key, image, restore, directories } = pair;
      if (!restore)
        throw new QueueError(
          'queue-in-use',
          `${directories.directory} is in use: stop its workers and helper first`,
        );
      into.keptAside += restore.damaged.length;
      into.problems.push(...checkLists(image));
      // Read again: not what the restore believes that it has listed, but what the next one would find.
      const seen = this.#look(`${number}`, data, key);
      const { alive } = planRestore(data, ring, key, image, undefined, seen.slots);
      this.#list(seen, data, key, alive, into);
      if (alive.length !== restore.restored)
        into.problems.push(`restored ${restore.restored} messages, a second restore would ${alive.length}`);
    } finally {
      pair.close();
    }
  }

  /**
   * The same from the bytes of a data file and its index file, of which nothing is changed. Both stay open: they may be
   * changed between two calls, and must not shrink.
   * @param changed which parts of the data file may differ from the last call; default: all.
   * @throws QueueError when the data file is none.
   */
  files(dataPath: string, indexPath: string, changed?: readonly ByteRange[]): Restored {
    try {
      return this.#restoreFiles(dataPath, indexPath, changed);
    } catch (error) {
      // Its changes may not have been looked at.
      this.#seen.delete(dataPath);
      throw error;
    }
  }

  #restoreFiles(dataPath: string, indexPath: string, changed: readonly ByteRange[] | undefined): Restored {
    const data = this.#dataFile(dataPath);
    const first = data.place(0, PAGE_BYTES);
    const head = decodeHead(first.bytes.subarray(first.at, first.at + PAGE_BYTES), dataPath);
    const ring = { start: RING_START, end: head.sizeBytes - PAGE_BYTES };
    const restored = nothing();
    const image = this.#readIndex(indexPath, head.queueId, head.sizeBytes);
    const seen = this.#look(dataPath, data, head.key, changed);
    const plan = planRestore(data, ring, head.key, image, undefined, seen.slots);
    this.#list(seen, data, head.key, plan.alive, restored);
    restored.keptAside = plan.damage.length;
    if (image && image.geometry.entries >= plan.alive.length)
      restored.problems.push(...applied(image, ring, head.key, plan));
    return restored;
  }

  #dataFile(path: string): DataBytes {
    let file = this.#dataFiles.get(path);
    if (!file) {
      const map = new DataMap(openSync(path, 'r+'), statSync(path).size, 0);
      // What is read again and again is in memory: nothing need be asked for ahead.
      file = {
        sizeBytes: map.sizeBytes,
        place: (offset, length) => map.place(offset, length),
        willNeed: () => undefined,
      };
      this.#dataFiles.set(path, file);
    }
    return file;
  }

  /** A copy of the index in memory; undefined when it is of no use. */
  #readIndex(path: string, queueId: string, dataBytes: number): IndexImage | undefined {
    let file = this.#indexFiles.get(path);
    if (!file) {
      file = { fd: openSync(path, 'r'), bytes: Buffer.from(new ArrayBuffer(statSync(path).size)) };
      this.#indexFiles.set(path, file);
    }
    const { fd, bytes } = file;
    const length = readSync(fd, bytes, 0, bytes.length, 0);
    const head = decodeIndexHead(bytes.subarray(0, PAGE_BYTES), length, queueId, dataBytes);
    return head.usable ? new IndexImage(bytes, head.geometry) : undefined;
  }

  /** What is remembered of a place, brought up to date. */
  #look(place: string, data: DataBytes, key: ChecksumKey, changed?: readonly ByteRange[]): Seen {
    let seen = this.#seen.get(place);
    let pages = changed && pagesOf(changed);
    const same = seen?.sizeBytes === data.sizeBytes && seen.key.low === key.low && seen.key.high === key.high;
    if (seen === undefined || !same) {
      const { sizeBytes } = data;
      seen = {
        slots: new RememberedSlots(sizeBytes),
        sizeBytes,
        key,
        named: new Array<Named | undefined>(Math.ceil(sizeBytes / SLOT_BYTES)).fill(undefined),
      };
      this.#seen.set(place, seen);
      pages = undefined;
    }
    seen.slots.refresh(data, pages);
    return seen;
  }

  #list(
    { slots, named }: Seen,
    data: DataBytes,
    key: ChecksumKey,
    records: readonly Listed[],
    into: Restored,
  ): void {
    for (const record of records) {
      const at = slots.read(data, key, record.offset);
      const slot = record.offset / SLOT_BYTES;
      const last = named[slot];
      if (last?.at === at) {
        into.live.push(last.number);
        continue;
      }
      const bytes = bodyOf(data, record);
      if (last?.bytes.equals(bytes)) {
        last.at = at;
        into.live.push(last.number);
        continue;
      }
      const name = createHash('sha256').update(decodeBody(record.type, bytes).data).digest('hex');
      let number = this.#numbers.get(name);
      if (number === undefined) {
        number = this.#numbers.size;
        this.#numbers.set(name, number);
        into.names[number] = name;
      }
      named[slot] = { at, bytes: Buffer.from(bytes), number };
      into.live.push(number);
    }
  }
}

/** Undefined when it cannot be read; whoever needs it says why. */
function textOf(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

function* pagesOf(ranges: readonly ByteRange[]): Generator<number> {
  for (const [from, to] of ranges) {
    for (let page = Math.floor(from / PAGE_BYTES); page * PAGE_BYTES < to; page += 1) yield page;
  }
}

const nothing = (): Restored => ({ live: [], names: {}, problems: [], keptAside: 0 });

/** What is wrong with the lists that the plan makes. */
function applied(
  image: IndexImage,
  ring: Ring,
  key: ChecksumKey,
  plan: ReturnType<typeof planRestore>,
): string[] {
  for (const { offset, number } of plan.settled) markConsumed(image, key, offset, number);
  applyPlan(image, ring, plan);
  return checkLists(image);
}
