import type { IndexImage } from '../index/image.js';
import { beginIndexSync, decodeIndexHeader, endIndexSync } from '../index/index-file.js';
import { FIELD, type Geometry, indexBytes } from '../index/layout.js';
import { markConsumed } from '../index/marks.js';
import type { DataMap } from '../platform/data-map.js';
import { syncDirectory } from '../platform/directory.js';
import { QueueError } from '../platform/errors.js';
import { adviseWillNeed, mapShared, PAGE_BYTES } from '../platform/map.js';
import type { ChecksumKey } from '../record/checksum.js';
import { generationPages, putGeneration } from '../record/generation.js';
import { applyPlan } from '../restore/apply.js';
import { keepAside } from '../restore/kept-aside.js';
import { NUMBERS_PER_GENERATION, planRestore, type RestorePlan } from '../restore/plan.js';
import type { Ring } from '../ring/reserve.js';
import { createIndex, readFirstPage } from './install.js';
import { type PairDirectories, pairPaths } from './paths.js';
import type { Platform } from './platform.js';

/** What a restore found and did. */
export interface RestoreReport {
  /** What was wrong with the index file as a whole; null when it belongs to the data file. */
  indexWas: string | null;
  restored: number;
  consumed: number;
  /** Delivered again if they had been consumed: nothing is left that tells. */
  uncertain: number;
  unfinished: number;
  /** Names of records that were kept aside. */
  damaged: { number: number; offset: number; what: string }[];
  tookMs: number;
}

/** The parts of a pair that exist before its index file is open. */
export interface PairParts {
  platform: Platform;
  directories: PairDirectories;
  data: DataMap;
  ring: Ring;
  key: ChecksumKey;
}

/** An index file that is open and mapped. */
export interface OpenedIndex {
  fd: number;
  image: IndexImage;
}

/**
 * Opens the index of a pair that another process has restored and uses.
 * @throws QueueError damaged-queue when the index does not belong to the data file.
 */
export function attachIndex(
  { platform: ground, directories }: PairParts,
  queueId: string,
  dataBytes: number,
): OpenedIndex {
  const { kernel } = ground;
  const path = pairPaths(directories).index;
  const { page, fileBytes } = readFirstPage(kernel, path);
  const head = decodeIndexHeader(page, fileBytes, queueId, dataBytes);
  if (!head.usable) throw new QueueError('damaged-queue', `${path}: ${head.why}, while the queue is in use`);
  const fd = kernel.open(path, 'r+');
  return { fd, image: mapIndex(ground, fd, fileBytes, head.geometry) };
}

function mapIndex(platform: Platform, fd: number, fileBytes: number, geometry: Geometry): IndexImage {
  return platform.createImage(mapShared(platform.kernel, fd, 0, fileBytes), geometry);
}

/**
 * Restores a pair from its data file and what is left of its index [0026]. The caller is the only process that has the
 * pair open.
 * @param requested geometry of a new index file, for when the old one is lost.
 * @throws QueueError sync-failed when a restored message cannot be written to the disk.
 */
export function restorePair(
  parts: PairParts,
  requested: Geometry,
  queueId: string,
): OpenedIndex & { report: RestoreReport } {
  const { platform: ground, data, ring, key } = parts;
  const { kernel } = ground;
  const { index: path, keptAside } = pairPaths(parts.directories);
  const startedMs = kernel.monotonicMs();
  const { page, fileBytes } = readFirstPage(kernel, path);
  const head = decodeIndexHeader(page, fileBytes, queueId, requested.dataBytes);
  let old: OpenedIndex | undefined;
  if (head.usable) {
    const fd = kernel.open(path, 'r+');
    const map = mapShared(kernel, fd, 0, fileBytes);
    // All of it is read now: page by page from a cold disk that takes as long as reading the messages.
    adviseWillNeed(kernel, map, 0, fileBytes);
    old = { fd, image: ground.createImage(map, head.geometry) };
  }
  const slots = ground.createSlotReader?.(data, key);
  const plan = planRestore(data, ring, key, old?.image, kernel.wallClockMs(), slots);
  for (const damage of plan.damage) keepAside(kernel, keptAside, data, damage);
  // What was copied but perhaps not synced when the crash came may be delivered now, so it must be on the disk:
  // stored before it is forwarded, always [0017]. And no mark takes the place of an older one before the older one's
  // record is off the disk.
  if (mayHaveUnsyncedPages(old?.image) || plan.live.length + plan.toMarkConsumed.length > 0)
    syncRing(parts, old?.image);
  for (const page of generationPages(data)) {
    putGeneration(data, page, Math.floor(plan.nextNumber / NUMBERS_PER_GENERATION));
    syncOrThrow(data, page, PAGE_BYTES);
  }
  const current =
    old && old.image.geometry.entries >= plan.live.length
      ? old
      : replaceIndex(parts, requested, queueId, plan, old);
  for (const { offset, number } of plan.toMarkConsumed) markConsumed(current.image, key, offset, number);
  applyPlan(current.image, ring, plan);
  beginIndexSync(current.image, kernel);
  kernel.fsync(current.fd);
  endIndexSync(current.image);
  const report = {
    indexWas: head.usable ? null : head.why,
    restored: plan.live.length,
    consumed: plan.consumed,
    uncertain: plan.uncertain,
    unfinished: plan.unfinished,
    damaged: plan.damage.map(({ number, offset, what }) => ({ number, offset, what })),
    tookMs: kernel.monotonicMs() - startedMs,
  };
  return { ...current, report };
}

/** Did the last msync not end, because it failed or its process died in it? Then pages may be clean and not on the disk. */
function mayHaveUnsyncedPages(image: IndexImage | undefined): boolean {
  return image !== undefined && image.get(FIELD.syncing) !== 0;
}

/** Notes meanwhile, as the helper does, that an msync is under way: the next restore may find no other sign of it. */
function syncRing({ data, ring }: PairParts, image: IndexImage | undefined): void {
  const { start, end } = ring;
  if (mayHaveUnsyncedPages(image)) data.redirty(start, end - start);
  image?.put(FIELD.syncing, 1);
  syncOrThrow(data, start, end - start);
  image?.put(FIELD.syncing, 0);
}

function syncOrThrow(data: DataMap, offset: number, length: number): void {
  const failure = data.sync(offset, length);
  if (failure === 0) return;
  // The next restore must not find clean pages that are not on the disk.
  data.redirty(offset, length);
  throw new QueueError('sync-failed', `msync of the data file failed: errno ${failure}`);
}

/**
 * Puts a new index file in the place of one that is lost, or that has fewer entries than there are messages alive
 * (when marks were lost, consumed messages come back, and there can be more of them than entries). What the old
 * one knew to be consumed is carried over.
 */
function replaceIndex(
  { platform: ground, directories }: PairParts,
  requested: Geometry,
  queueId: string,
  plan: RestorePlan,
  old: OpenedIndex | undefined,
): OpenedIndex {
  const { kernel } = ground;
  const path = pairPaths(directories).index;
  const entries = Math.max(requested.entries, plan.live.length);
  const geometry = { ...requested, entries };
  const temporaryPath = `${path}.new`;
  createIndex(kernel, temporaryPath, geometry, queueId);
  const fd = kernel.open(temporaryPath, 'r+');
  const image = mapIndex(ground, fd, indexBytes(geometry), geometry);
  if (old) {
    image.words.set(old.image.words.subarray(old.image.firstMarkWord), image.firstMarkWord);
    kernel.close(old.fd);
  }
  kernel.fsync(fd);
  kernel.rename(temporaryPath, path);
  syncDirectory(directories.indexDirectory, kernel);
  return { fd, image };
}
