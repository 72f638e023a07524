import type { Kernel } from '../../common/platform/kernel.js';
import { type ControlEntry, type ControlRecord, parseControl } from '../checkpoint/control.js';
import { claimOfSlot, parseSlotName, type ReadSlot, readSlot, slotPath } from '../checkpoint/slot.js';
import { hex16, readWhole } from '../files.js';
import { scanLog } from '../log/scan.js';
import { type InstalledSettings, pathsOf } from '../settings.js';
import type { AsidePart } from './aside.js';
import { RestoredQueue, redo } from './redo.js';

/** The state of a stored queue: what a recovery makes of the files, before it changes any. */
export interface StoredState {
  /** The control record in force, or the one that the slots show. */
  control: ControlRecord;
  /** Whether no copy of the control record could be read. */
  isControlLost: boolean;
  queues: RestoredQueue[];
  damaged: AsidePart[];
  /** Highest generation of which there is a trace. */
  generation: number;
  /** Lowest segment that was never used. */
  nextSequence: number;
}

/**
 * Reads a stored queue: the newest control record, the slots that it names, and the transactions of the log behind them. It
 * changes nothing.
 */
export function readState(directory: string, settings: InstalledSettings, kernel: Kernel): StoredState {
  const paths = pathsOf(directory);
  const stored = kernel.exists(paths.control) ? parseControl(readWhole(kernel, paths.control)) : undefined;
  const control = stored ?? controlOfSlots(paths.queues, settings, kernel);
  const damaged: AsidePart[] = [];
  const queues = control.queues.map((entry) => {
    const slot = readEntry(paths.queues, entry, settings, kernel);
    for (const part of partsOfSlot(entry, slot)) damaged.push(part);
    return new RestoredQueue(entry, slot);
  });
  const from = queues.length === 0 ? 0 : Math.min(...queues.map((queue) => queue.redo));
  const log = scanLog(
    {
      directory: paths.log,
      segmentBytes: settings.segmentBytes,
      key: settings.key,
      from,
      generation: stored?.generation,
    },
    kernel,
  );
  for (const { position, record, bytes, isConfirmed } of log.damaged) {
    const what =
      record === undefined ? `${bytes.length} bytes` : `message ${record.id} of queue ${record.queue}`;
    const state = isConfirmed ? 'damaged' : 'damaged or torn';
    const named = { name: `log-${hex16(position)}`, what: `log position ${position}: ${what}, ${state}` };
    damaged.push({ ...named, bytes, isConfirmed });
  }
  const afterRedo = Math.ceil(Math.max(0, ...queues.map((queue) => queue.redo)) / settings.segmentBytes);
  return {
    control,
    isControlLost: stored === undefined,
    queues: redo(queues, log.records),
    damaged,
    generation: Math.max(control.generation, log.generation ?? 0),
    nextSequence: Math.max(log.nextSequence, afterRedo),
  };
}

function readEntry(
  directory: string,
  entry: ControlEntry,
  { key }: InstalledSettings,
  kernel: Kernel,
): ReadSlot {
  const path = slotPath(directory, entry.id, entry.slot);
  const bytes = kernel.exists(path) ? readWhole(kernel, path) : Buffer.alloc(0);
  return readSlot(bytes, { key, queue: entry.id, checkpoint: entry.checkpoint });
}

function partsOfSlot({ id, slot, definition }: ControlEntry, { header, damaged }: ReadSlot): AsidePart[] {
  const parts = damaged.map(({ at, message, bytes }) => {
    const what = message === undefined ? `${bytes.length} bytes` : `message ${message.id}`;
    return {
      name: `slot-${hex16(id)}-${message === undefined ? `at-${at}` : hex16(message.number)}`,
      what: `queue ${definition.name}, slot ${slot}, byte ${at}: ${what}, damaged`,
      bytes,
      isConfirmed: true,
    };
  });
  if (header !== undefined) return parts;
  const what = `queue ${definition.name}, slot ${slot}: the header is damaged`;
  return [...parts, { name: `slot-${hex16(id)}-header`, what, bytes: Buffer.alloc(0), isConfirmed: true }];
}

/**
 * Makes a control record out of the slots, when both copies of it are lost: for each queue the newest slot with an intact
 * header. A slot is in force as soon as it is whole: it says itself from where the log is redone.
 */
function controlOfSlots(directory: string, { key }: InstalledSettings, kernel: Kernel): ControlRecord {
  const entries = new Map<number, ControlEntry>();
  let generation = 0;
  for (const name of kernel.list(directory)) {
    const place = parseSlotName(name);
    if (place === undefined) continue;
    const bytes = readWhole(kernel, slotPath(directory, place.queue, place.slot));
    const claim = claimOfSlot(bytes);
    if (claim === undefined) continue;
    const { header, messages } = readSlot(bytes, { key, queue: place.queue, checkpoint: claim.checkpoint });
    if (header === undefined || messages.length < header.count) continue;
    generation = Math.max(generation, header.generation);
    const known = entries.get(place.queue);
    if (known !== undefined && known.checkpoint > header.checkpoint) continue;
    const { checkpoint, redo, definition } = header;
    entries.set(place.queue, { id: place.queue, slot: place.slot, checkpoint, redo, definition });
  }
  const queues = [...entries.values()].sort((a, b) => a.id - b.id);
  return { checkpoint: Math.max(0, ...queues.map(({ checkpoint }) => checkpoint)), generation, queues };
}
