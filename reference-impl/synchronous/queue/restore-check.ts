import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { DataBytes } from '../../common/platform/data-map.js';
import { QueueError } from '../../common/platform/errors.js';
import { readTextFile, withTemporaryMaps } from '../../common/platform/linux.js';
import type { ChecksumKey } from '../../common/record/checksum.js';
import { checkLists } from '../index/check.js';
import { decodeBody } from '../record/codec.js';
import { SLOT_BYTES } from '../record/layout.js';
import { bodyOf, type RecordHeader, type SlotContent } from '../record/record.js';
import { CachedSlotReader } from '../restore/cached-slot-reader.js';
import { planRestore } from '../restore/plan.js';
import { INSTALLED_SETTINGS_FILE, loadSettings } from '../settings/load.js';
import type { QueueSettings } from '../settings/settings.js';
import { Pair } from './pair.js';
import type { PairDirectories } from './paths.js';
import { hostPlatform } from './platform.js';

/** Content of a queue after its restore. */
export interface RestoreCheckResult {
  /**
   * Messages in the queue. A number is a key of `names` in this result or in an earlier one of the same
   * process.
   */
  live: number[];
  /** SHA-256 of each message that has a new number, as it was submitted, in hex, by number. */
  names: Record<number, string>;
  /** Broken invariants after the restore, one line each. */
  problems: string[];
  /** Number of records that can no longer be read and were kept aside by this restore. */
  keptAside: number;
}

/** State that is saved of one data file for the next restore. */
interface RememberedFile {
  slots: CachedSlotReader;
  sizeBytes: number;
  key: ChecksumKey;
  /**
   * Messages that were at each slot, the latest last. Earlier messages are saved too, because a message of
   * one crash state may be missing in the next and be back in a later one.
   */
  knownAtSlot: (KnownMessage[] | undefined)[];
}

/** A message that was at a slot, with its hash already computed. */
interface KnownMessage {
  /**
   * Content of the slot when the message was last there. The slot reader returns the same object while the
   * content is unchanged.
   */
  at: SlotContent;
  type: number;
  bytes: Buffer;
  number: number;
}

type RecordFields = Pick<RecordHeader, 'offset' | 'type' | 'sizeBytes' | 'number' | 'dateMs'>;

/**
 * Restores one queue after another in one process, as the first worker after a crash does, and reports what
 * each then holds. It is made for queues that differ little, such as crash states: records on pages that are
 * equal to those of the previous queue, byte for byte, are not read and hashed again.
 */
export class RestoreCheck {
  /** Saved states by the number of the pair. */
  readonly #remembered = new Map<number, RememberedFile>();
  /** Numbers of the messages by their hashes. */
  readonly #numbers = new Map<string, number>();
  readonly #asSubmitted: (stored: Buffer) => Buffer;
  #settings: { directory: string; text: string | undefined; settings: QueueSettings } | undefined;

  /** @param asSubmitted returns a stored message as it was submitted: a gateway may have put a header in front */
  constructor(asSubmitted: (stored: Buffer) => Buffer) {
    this.#asSubmitted = asSubmitted;
  }

  /**
   * Restores the queue in a directory. It changes the files: index and data file are then as after the start
   * of a worker.
   * @throws QueueError as a worker at its start; `queue-in-use` when another process has the queue open.
   */
  directory(directory: string): RestoreCheckResult {
    const settings = this.#settingsOf(directory);
    const restored: RestoreCheckResult = { live: [], names: {}, problems: [], keptAside: 0 };
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
          this.#refresh(number, data, key).slots;
        this.#open(
          number,
          Pair.open(directories, options, { ...hostPlatform, kernel, createSlotReader }),
          restored,
        );
      }
    });
    return restored;
  }

  /**
   * Loads the settings of a queue, and uses the previous ones if the text is the same: thousands of queues
   * have the same settings.
   */
  #settingsOf(directory: string): QueueSettings {
    const file = join(directory, INSTALLED_SETTINGS_FILE);
    const text = readText(file);
    const known = this.#settings;
    if (text !== undefined && known?.directory === directory && known.text === text) return known.settings;
    const settings = loadSettings({ directory, installed: 'needed' });
    this.#settings = { directory, text, settings };
    return settings;
  }

  /** Checks a restored pair, adds its messages to the result, and closes it. */
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
      // Plan a second restore instead of trusting the list that the first one made: the result is what is in
      // the files.
      const seen = this.#refresh(number, data, key);
      const { live } = planRestore(data, ring, key, image, { slots: seen.slots });
      this.#list(seen, data, key, live, into);
      if (live.length !== restore.restored)
        into.problems.push(`restored ${restore.restored} messages, a second restore would ${live.length}`);
    } finally {
      pair.close();
    }
  }

  /** Returns the saved state of a pair, updated to its present data file. */
  #refresh(pair: number, data: DataBytes, key: ChecksumKey): RememberedFile {
    let seen = this.#remembered.get(pair);
    const same = seen?.sizeBytes === data.sizeBytes && seen.key.low === key.low && seen.key.high === key.high;
    if (seen === undefined || !same) {
      const { sizeBytes } = data;
      seen = {
        slots: new CachedSlotReader(sizeBytes),
        sizeBytes,
        key,
        knownAtSlot: new Array<KnownMessage[] | undefined>(Math.ceil(sizeBytes / SLOT_BYTES)).fill(undefined),
      };
      this.#remembered.set(pair, seen);
    }
    seen.slots.refresh(data);
    return seen;
  }

  /**
   * Adds the messages of the given records to the result. It hashes only messages that are new at their slot.
   */
  #list(
    { slots, knownAtSlot }: RememberedFile,
    data: DataBytes,
    key: ChecksumKey,
    records: readonly RecordFields[],
    into: RestoreCheckResult,
  ): void {
    for (const record of records) {
      const at = slots.read(data, key, record.offset);
      const slot = record.offset / SLOT_BYTES;
      const known = knownAtSlot[slot] ?? [];
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
      const message = this.#asSubmitted(decodeBody(type, bytes).data);
      const name = createHash('sha256').update(message).digest('hex');
      let number = this.#numbers.get(name);
      if (number === undefined) {
        number = this.#numbers.size;
        this.#numbers.set(name, number);
        into.names[number] = name;
      }
      if (known.length === MAX_MESSAGES_PER_SLOT) known.shift();
      known.push({ at, type, bytes: Buffer.from(bytes), number });
      knownAtSlot[slot] = known;
      into.live.push(number);
    }
  }
}

/** Largest number of messages that are saved per slot. */
const MAX_MESSAGES_PER_SLOT = 8;

/**
 * Returns the text of a file, or undefined if it cannot be read. `loadSettings` then throws the error with
 * its reason.
 */
function readText(file: string): string | undefined {
  try {
    return readTextFile(file);
  } catch {
    return undefined;
  }
}
