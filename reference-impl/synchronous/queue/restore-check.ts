import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { checkLists } from '../index/check.js';
import { IndexImage } from '../index/image.js';
import { decodeIndexHeader } from '../index/index-file.js';
import { markConsumed } from '../index/marks.js';
import type { DataBytes } from '../platform/data-map.js';
import { assert, QueueError } from '../platform/errors.js';
import { withTemporaryMaps } from '../platform/linux.js';
import { PAGE_BYTES } from '../platform/map.js';
import { MemoryData } from '../platform/memory-data.js';
import type { ChecksumKey } from '../record/checksum.js';
import { decodeBody } from '../record/codec.js';
import { decodeDataFileHeader, RING_START } from '../record/data-file.js';
import { SLOT_BYTES } from '../record/layout.js';
import { bodyOf, type RecordHeader, type SlotContent } from '../record/record.js';
import { applyPlan } from '../restore/apply.js';
import { CachedSlotReader } from '../restore/cached-slot-reader.js';
import { planRestore } from '../restore/plan.js';
import type { Ring } from '../ring/reserve.js';
import { INSTALLED_SETTINGS_FILE, loadSettings } from '../settings/load.js';
import type { QueueSettings } from '../settings/settings.js';
import { Pair } from './pair.js';
import type { PairDirectories } from './paths.js';
import { hostPlatform } from './platform.js';

/** What a restore left in the queue. */
export interface RestoreCheckResult {
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
interface RememberedFile {
  slots: CachedSlotReader;
  sizeBytes: number;
  key: ChecksumKey;
  /** The messages that have been at each slot, the latest last: from one state to the next they come and go. */
  knownAtSlot: (KnownMessage[] | undefined)[];
}

interface KnownMessage {
  /** What stood there when it was seen last. */
  at: SlotContent;
  type: number;
  bytes: Buffer;
  number: number;
}

/** Bytes that are put into a file: from this byte of it to the one before that, and where they begin among those that came. */
export type Patch = readonly [from: number, to: number, at: number];

/** How a data file and its index file differ from what they were before. */
export interface StatePatches {
  data: readonly Patch[];
  index: readonly Patch[];
}

/** A data file and its index file in memory, which are restored as if they were files. */
interface FileContents {
  data: MemoryData;
  index: Buffer;
  /** For an index in which a restore can write. */
  scratch: Buffer;
}

type RecordFields = Pick<RecordHeader, 'offset' | 'type' | 'sizeBytes' | 'number' | 'dateMs'>;

/**
 * Restores one queue after the other in one process, as the first worker after a crash does, and says what each then
 * holds. Queues that differ in little are the purpose: what stands on pages that are the same as before, byte for byte, is
 * not read and hashed again.
 */
export class RestoreCheck {
  /** By the place of the data file. */
  readonly #remembered = new Map<string, RememberedFile>();
  readonly #numbers = new Map<string, number>();
  #settings: { directory: string; text: string | undefined; settings: QueueSettings } | undefined;
  /** By the place of the data file. */
  readonly #contents = new Map<string, FileContents>();

  /**
   * Restores the queue in a directory, for good: index and data file are as after a start.
   * @throws QueueError as a worker would at its start.
   */
  directory(directory: string): RestoreCheckResult {
    const settings = this.#settingsOf(directory);
    const restored = emptyResult();
    const { directory: dead, ...geometry } = settings.deadLetter;
    const pairs: [PairDirectories, { entries: number; workerSlots: number }][] = [
      ...settings.pairs.map((pair): [PairDirectories, typeof settings] => [pair, settings]),
      [
        { directory: dead, indexDirectory: dead },
        { ...geometry, workerSlots: settings.workerSlots },
      ],
    ];
    withTemporaryMaps((kernel) => {
      for (const [number, [directories, options]] of pairs.entries()) {
        const createSlotReader = (data: DataBytes, key: ChecksumKey) =>
          this.#refresh(`${number}`, data, key).slots;
        this.#open(
          number,
          Pair.open(directories, options, { ...hostPlatform, kernel, createSlotReader }),
          restored,
        );
      }
    });
    return restored;
  }

  /** They are checked once: thousands of queues have the same. */
  #settingsOf(directory: string): QueueSettings {
    const file = join(directory, INSTALLED_SETTINGS_FILE);
    const text = readText(file);
    const known = this.#settings;
    if (text !== undefined && known?.directory === directory && known.text === text) return known.settings;
    const settings = loadSettings({ directory, installed: 'needed' });
    this.#settings = { directory, text, settings };
    return settings;
  }

  #open(number: number, pair: Pair, into: RestoreCheckResult): void {
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
      const seen = this.#refresh(`${number}`, data, key);
      const { live: alive } = planRestore(data, ring, key, image, undefined, seen.slots);
      this.#list(seen, data, key, alive, into);
      if (alive.length !== restore.restored)
        into.problems.push(`restored ${restore.restored} messages, a second restore would ${alive.length}`);
    } finally {
      pair.close();
    }
  }

  /**
   * The same from the bytes of a data file and its index file, of which nothing is changed.
   * @throws QueueError when the data file is none.
   */
  restoreFiles(dataPath: string, indexPath: string): RestoreCheckResult {
    const index = readFileSync(indexPath);
    const content = {
      data: new MemoryData(readFileSync(dataPath)),
      index,
      scratch: Buffer.from(new ArrayBuffer(index.length)),
    };
    this.#contents.set(dataPath, content);
    return this.#restoreBytes(dataPath, content);
  }

  /**
   * The same from the bytes that `files` or `step` has seen last at this place, with others put into them.
   * @param bytes from which the patches are taken.
   * @throws QueueError when the data file is none; when a patch does not fit.
   */
  restorePatched(dataPath: string, step: StatePatches, bytes: Buffer): RestoreCheckResult {
    const content = this.#contents.get(dataPath);
    assert(content !== undefined, 'a data file is seen before bytes are put into it');
    for (const [patches, into] of [
      [step.data, content.data.bytes],
      [step.index, content.index],
    ] as const) {
      for (const [from, to, at] of patches) {
        const fits = from <= to && to <= into.length && at + to - from <= bytes.length;
        assert(fits, 'a patch lies within its file, and its bytes were given');
        bytes.copy(into, from, at, at + to - from);
      }
    }
    return this.#restoreBytes(dataPath, content, step.data);
  }

  #restoreBytes(dataPath: string, content: FileContents, changed?: readonly Patch[]): RestoreCheckResult {
    try {
      return this.#restoreContent(dataPath, content, changed);
    } catch (error) {
      // Its changes may not have been looked at.
      this.#remembered.delete(dataPath);
      throw error;
    }
  }

  #restoreContent(
    dataPath: string,
    content: FileContents,
    changed: readonly Patch[] | undefined,
  ): RestoreCheckResult {
    const { data } = content;
    const head = decodeDataFileHeader(data.bytes.subarray(0, PAGE_BYTES), dataPath);
    const ring = { start: RING_START, end: head.sizeBytes - PAGE_BYTES };
    const restored = emptyResult();
    const image = copyIndex(content, head.queueId, head.sizeBytes);
    const seen = this.#refresh(dataPath, data, head.key, changed);
    const plan = planRestore(data, ring, head.key, image, undefined, seen.slots);
    this.#list(seen, data, head.key, plan.live, restored);
    restored.keptAside = plan.damage.length;
    if (image && image.geometry.entries >= plan.live.length)
      restored.problems.push(...checkApplied(image, ring, head.key, plan));
    return restored;
  }

  /** What is remembered of a place, brought up to date. */
  #refresh(dataPath: string, data: DataBytes, key: ChecksumKey, changed?: readonly Patch[]): RememberedFile {
    let seen = this.#remembered.get(dataPath);
    let pages = changed && pagesOf(changed);
    const same = seen?.sizeBytes === data.sizeBytes && seen.key.low === key.low && seen.key.high === key.high;
    if (seen === undefined || !same) {
      const { sizeBytes } = data;
      seen = {
        slots: new CachedSlotReader(sizeBytes),
        sizeBytes,
        key,
        knownAtSlot: new Array<KnownMessage[] | undefined>(Math.ceil(sizeBytes / SLOT_BYTES)).fill(undefined),
      };
      this.#remembered.set(dataPath, seen);
      pages = undefined;
    }
    seen.slots.refresh(data, pages);
    return seen;
  }

  #list(
    { slots, knownAtSlot: named }: RememberedFile,
    data: DataBytes,
    key: ChecksumKey,
    records: readonly RecordFields[],
    into: RestoreCheckResult,
  ): void {
    for (const record of records) {
      const at = slots.read(data, key, record.offset);
      const slot = record.offset / SLOT_BYTES;
      const known = named[slot] ?? [];
      const last = known.at(-1);
      if (last?.at === at) {
        into.live.push(last.number);
        continue;
      }
      const { type } = record;
      const bytes = bodyOf(data, record);
      const knownIndex = known.findIndex((one) => one.type === type && one.bytes.equals(bytes));
      const returning = known[knownIndex];
      if (returning !== undefined) {
        returning.at = at;
        known.splice(knownIndex, 1);
        known.push(returning);
        into.live.push(returning.number);
        continue;
      }
      const name = createHash('sha256').update(decodeBody(type, bytes).data).digest('hex');
      let number = this.#numbers.get(name);
      if (number === undefined) {
        number = this.#numbers.size;
        this.#numbers.set(name, number);
        into.names[number] = name;
      }
      if (known.length === MAX_MESSAGES_PER_SLOT) known.shift();
      known.push({ at, type, bytes: Buffer.from(bytes), number });
      named[slot] = known;
      into.live.push(number);
    }
  }
}

/** More are not remembered. */
const MAX_MESSAGES_PER_SLOT = 8;

/** Undefined when it cannot be read; whoever needs it says why. */
function readText(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined;
  }
}

function* pagesOf(ranges: readonly Patch[]): Generator<number> {
  for (const [from, to] of ranges) {
    for (let page = Math.floor(from / PAGE_BYTES); page * PAGE_BYTES < to; page += 1) yield page;
  }
}

/** A copy of the index, in which a restore can write; undefined when it is of no use. */
function copyIndex(
  { index, scratch }: FileContents,
  queueId: string,
  dataBytes: number,
): IndexImage | undefined {
  const head = decodeIndexHeader(index.subarray(0, PAGE_BYTES), index.length, queueId, dataBytes);
  if (!head.usable) return undefined;
  index.copy(scratch);
  return new IndexImage(scratch, head.geometry);
}

const emptyResult = (): RestoreCheckResult => ({ live: [], names: {}, problems: [], keptAside: 0 });

/** What is wrong with the lists that the plan makes. */
function checkApplied(
  image: IndexImage,
  ring: Ring,
  key: ChecksumKey,
  plan: ReturnType<typeof planRestore>,
): string[] {
  for (const { offset, number } of plan.toMarkConsumed) markConsumed(image, key, offset, number);
  applyPlan(image, ring, plan);
  return checkLists(image);
}
