import { syncDirectory } from '../../common/platform/directory.js';
import type { Kernel } from '../../common/platform/kernel.js';
import { type ControlEntry, type ControlRecord, readControl } from '../checkpoint/control.js';
import { claimOfSlot, parseSlotName, type ReadSlot, readSlot, slotPath } from '../checkpoint/slot.js';
import { hex16, readWhole, writeWhole } from '../files.js';
import { scanLog } from '../log/scan.js';
import { listSegments } from '../log/segment-ring.js';
import { defaultQueues } from '../memory/default-queues.js';
import type { QueueDefinition } from '../memory/memory-queue.js';
import { type InstalledSettings, pathsOf } from '../settings.js';
import type { AsidePart } from './aside.js';
import { RestoredQueue, redo } from './redo.js';

/** The state of a stored queue, as a recovery reads it from the files. */
export interface StoredState {
  /** The control record in force, or the one that was made from the slots. */
  control: ControlRecord;
  /** Whether no copy of the control record could be read. */
  isControlLost: boolean;
  /** Whether the control record was made from the slots, because the stored one is lost or older than they are. */
  isFromSlots: boolean;
  queues: RestoredQueue[];
  damaged: AsidePart[];
  /** Highest generation in the control record or in the log. */
  generation: number;
  /** Lowest segment that was never used. */
  nextSequence: number;
}

/**
 * Reads a stored queue: the newest control record, the slots that it names, and the transactions of the log behind them. It
 * changes nothing.
 *
 * The control record may be lost, damaged or old. Then the newest whole slot of each queue counts: each slot states from where the
 * log is redone. A newer slot alone does not show that the control record is old. A server may have been killed before its
 * checkpoint was complete, and its slots may not be on the disk.
 */
export function readState(directory: string, settings: InstalledSettings, kernel: Kernel): StoredState {
  const paths = pathsOf(directory);
  const stored = readControl(kernel, paths.control);
  const isControlLost = stored === undefined;
  const logStart = (listSegments(paths.log, kernel)[0] ?? 0) * settings.segmentBytes;
  if (stored !== undefined) {
    const from = lowestRedo(stored.queues);
    const state = stateOf(directory, stored, { generation: stored.generation, from }, settings, kernel);
    const isOld =
      state.generation > stored.generation ||
      from < logStart ||
      namesOverwrittenSlot(paths.queues, state.unreadable, settings, kernel);
    if (!isOld) return { ...state, isControlLost, isFromSlots: false };
  }
  const { control, redo, unreadable } = controlOfSlots(paths.queues, stored, logStart, settings, kernel);
  const from = Math.max(redo, logStart);
  const state = stateOf(directory, control, { generation: undefined, from }, settings, kernel);
  const damaged = [...unreadable, ...state.damaged];
  return { ...state, damaged, isControlLost, isFromSlots: true };
}

const lowestRedo = (entries: readonly ControlEntry[]): number =>
  entries.length === 0 ? 0 : Math.min(...entries.map(({ redo }) => redo));

/** @param log from where the log is read, and the generation that counts; undefined: the newest one. */
function stateOf(
  directory: string,
  control: ControlRecord,
  { generation, from }: { generation: number | undefined; from: number },
  settings: InstalledSettings,
  kernel: Kernel,
): Omit<StoredState, 'isControlLost' | 'isFromSlots'> & { unreadable: ControlEntry[] } {
  const paths = pathsOf(directory);
  const slots = control.queues.map((entry) => ({
    entry,
    slot: readEntry(paths.queues, entry, settings, kernel),
  }));
  const queues = slots.map(({ entry, slot }) => new RestoredQueue(entry, slot));
  const { segmentBytes, key } = settings;
  const log = scanLog({ directory: paths.log, segmentBytes, key, from, generation }, kernel);
  const restored = redo(queues, log.records);
  // A queue that the log deletes needs no slot, so its slot may be missing.
  const damaged = slots
    .filter(({ entry }) => restored.some(({ id }) => id === entry.id))
    .flatMap(({ entry, slot }) => partsOfSlot(entry, slot));
  for (const { position, record, bytes, isConfirmed } of log.damaged) {
    const what =
      record === undefined
        ? `${bytes.length} bytes`
        : `message ${JSON.stringify(record.id)} of queue ${record.queue}`;
    const state = isConfirmed ? 'damaged' : 'damaged or torn';
    const named = { name: `log-${hex16(position)}`, what: `log position ${position}: ${what}, ${state}` };
    damaged.push({ ...named, bytes, isConfirmed });
  }
  const afterRedo = Math.ceil(Math.max(0, ...queues.map((queue) => queue.redo)) / segmentBytes);
  return {
    control,
    unreadable: slots.filter(({ slot }) => slot.header === undefined).map(({ entry }) => entry),
    queues: restored,
    damaged,
    generation: Math.max(control.generation, log.generation ?? 0),
    nextSequence: Math.max(log.nextSequence, afterRedo),
  };
}

/**
 * Syncs slots that no control record names, because a server may have been killed before it synced them. The next checkpoint
 * overwrites the other slots of these queues. After a power cut, a queue would then have no whole slot.
 */
export function syncSlots(directory: string, entries: readonly ControlEntry[], kernel: Kernel): void {
  for (const { id, slot } of entries) {
    const path = slotPath(directory, id, slot);
    if (!kernel.exists(path)) continue;
    const bytes = readWhole(kernel, path);
    const fd = kernel.open(path, 'r+');
    try {
      // Write the same bytes again. After a failed sync the kernel treats the pages as clean, although they are not on the disk.
      writeWhole(kernel, fd, bytes, 0);
      kernel.fsync(fd);
    } finally {
      kernel.close(fd);
    }
  }
  syncDirectory(directory, kernel);
}

/**
 * Reports whether a slot that the control record names is unreadable while the other slot of its queue is newer. The control record
 * is then old: a checkpoint overwrites a slot only after a later control record names the other one.
 */
function namesOverwrittenSlot(
  directory: string,
  unreadable: readonly ControlEntry[],
  settings: InstalledSettings,
  kernel: Kernel,
): boolean {
  return unreadable.some(({ id, slot, checkpoint }) => {
    const other = slot === 0 ? 1 : 0;
    if (!kernel.exists(slotPath(directory, id, other))) return false;
    const newer = slotAt(directory, { queue: id, slot: other }, settings, kernel);
    return newer?.isWhole === true && newer.entry.checkpoint > checkpoint;
  });
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

function partsOfSlot(
  { id, slot, checkpoint, definition }: ControlEntry,
  { header, damaged }: ReadSlot,
): AsidePart[] {
  const parts = damaged.map(({ at, message, bytes }) => {
    const what = message === undefined ? `${bytes.length} bytes` : `message ${JSON.stringify(message.id)}`;
    return {
      // Name a message by its number, so that later recoveries do not count it again. Name other bytes by checkpoint and place,
      // because a later slot may be damaged at the same place.
      name: `slot-${hex16(id)}-${message === undefined ? `${checkpoint}-at-${at}` : hex16(message.number)}`,
      what: `queue ${definition.name}, slot ${slot}, byte ${at}: ${what}, damaged`,
      bytes,
      isConfirmed: true,
    };
  });
  if (header !== undefined) return parts;
  const what = `queue ${definition.name}, slot ${slot}: the header is damaged`;
  return [
    ...parts,
    { name: `slot-${hex16(id)}-${checkpoint}-header`, what, bytes: Buffer.alloc(0), isConfirmed: true },
  ];
}

/** A slot file with an intact header. */
interface SlotCandidate {
  entry: ControlEntry;
  generation: number;
  /** Whether all its messages are intact. */
  isWhole: boolean;
  /** Whether all its messages are there, some of them damaged. */
  isComplete: boolean;
}

/** Reads a slot file; undefined when its header is damaged. */
function slotAt(
  directory: string,
  { queue, slot }: { queue: number; slot: 0 | 1 },
  { key }: InstalledSettings,
  kernel: Kernel,
): SlotCandidate | undefined {
  const bytes = readWhole(kernel, slotPath(directory, queue, slot));
  const claim = claimOfSlot(bytes);
  if (claim === undefined) return undefined;
  const { header, damaged, isCut } = readSlot(bytes, { key, queue, checkpoint: claim.checkpoint });
  if (header === undefined) return undefined;
  const { checkpoint, redo, definition, generation } = header;
  return {
    entry: { id: queue, slot, checkpoint, redo, definition },
    generation,
    isWhole: damaged.length === 0,
    // A writer that was killed leaves a file that is cut: the log still has what it lacks.
    isComplete: !isCut && damaged.every(({ message }) => message !== undefined),
  };
}

/**
 * Makes a control record from the slots, when the stored one is lost or older than they are.
 * @param stored the stored control record, which may be old; undefined when it is lost.
 * @returns the record, and the position from which the log is read: the lowest one of any slot. An incomplete checkpoint may
 *   have written no slot of a queue that was created before it. The log must then contain the creation.
 */
function controlOfSlots(
  directory: string,
  stored: ControlRecord | undefined,
  logStart: number,
  settings: InstalledSettings,
  kernel: Kernel,
): { control: ControlRecord; redo: number; unreadable: AsidePart[] } {
  const ofQueue = new Map<number, SlotCandidate[]>();
  const places = kernel.list(directory).flatMap((name) => parseSlotName(name) ?? []);
  for (const place of places) {
    const found = slotAt(directory, place, settings, kernel);
    if (found !== undefined) ofQueue.set(found.entry.id, [...(ofQueue.get(found.entry.id) ?? []), found]);
  }
  const chosen = [...ofQueue].map(([id, candidates]) => {
    candidates.sort((a, b) => b.entry.checkpoint - a.entry.checkpoint);
    return chooseSlot(
      candidates,
      stored?.queues.find((entry) => entry.id === id),
      logStart,
    );
  });
  const all = [...ofQueue.values()].flat();
  const entries = chosen.flatMap((one) => one?.entry ?? []);
  for (const [at, definition] of defaultQueues(settings.queues).entries())
    if (!ofQueue.has(at + 1)) entries.push(withoutHeader(directory, at + 1, definition, kernel));
  const control = {
    checkpoint: Math.max(stored?.checkpoint ?? 0, ...all.map(({ entry }) => entry.checkpoint)),
    generation: Math.max(0, ...all.map((one) => one.generation)),
    queues: entries.sort((a, b) => a.id - b.id),
  };
  // If the log contains the creation of a queue, it contains all of the queue, so its slots are not needed.
  const unreadable = places.filter(({ queue }) => !ofQueue.has(queue) && queue < logStart);
  return {
    control,
    redo: lowestRedo([...all.map(({ entry }) => entry), ...entries]),
    unreadable: unreadable.map((place) => unreadableSlot(directory, place, kernel)),
  };
}

/** Makes the entry of a default queue whose slots have no intact header. The messages in its newest slot may be intact. */
function withoutHeader(
  directory: string,
  id: number,
  definition: QueueDefinition,
  kernel: Kernel,
): ControlEntry {
  const [newest] = ([0, 1] as const)
    .flatMap((slot) => {
      const path = slotPath(directory, id, slot);
      const claim = kernel.exists(path) ? claimOfSlot(readWhole(kernel, path)) : undefined;
      return claim === undefined ? [] : { slot, checkpoint: claim.checkpoint };
    })
    .sort((a, b) => b.checkpoint - a.checkpoint);
  return { id, slot: 0, checkpoint: 0, ...newest, redo: 0, definition };
}

/** Returns a whole slot file as a damaged part, because its header cannot be read. */
function unreadableSlot(
  directory: string,
  { queue, slot }: { queue: number; slot: 0 | 1 },
  kernel: Kernel,
): AsidePart {
  const what = `slot ${slot} of the queue with number ${hex16(queue)}: no slot of the queue has an intact header`;
  const bytes = readWhole(kernel, slotPath(directory, queue, slot));
  return { name: `slot-${hex16(queue)}.${slot}`, what, bytes, isConfirmed: true };
}

/**
 * Chooses the slot of a queue that counts: the newest whole one. A slot with damaged messages counts when the control record
 * names it, or when the log no longer has what the whole one lacks.
 * @param candidates newest first.
 */
function chooseSlot(
  candidates: readonly SlotCandidate[],
  named: ControlEntry | undefined,
  logStart: number,
): SlotCandidate | undefined {
  const whole = candidates.find(({ isWhole }) => isWhole);
  const inForce = candidates.find(
    ({ entry }) => entry.slot === named?.slot && entry.checkpoint === named.checkpoint,
  );
  if (inForce !== undefined)
    return whole !== undefined && whole.entry.checkpoint > inForce.entry.checkpoint ? whole : inForce;
  const complete = candidates.find(({ isComplete }) => isComplete);
  const isCovered = whole !== undefined && (whole.entry.redo >= logStart || whole === complete);
  return isCovered ? whole : (complete ?? whole ?? candidates[0]);
}
