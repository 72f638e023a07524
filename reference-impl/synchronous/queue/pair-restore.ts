import type { DataMap } from '../../common/platform/data-map.js';
import { syncDirectory } from '../../common/platform/directory.js';
import { QueueError } from '../../common/platform/errors.js';
import type { Kernel } from '../../common/platform/kernel.js';
import { adviseWillNeed, mapShared, PAGE_BYTES } from '../../common/platform/map.js';
import type { ChecksumKey } from '../../common/record/checksum.js';
import type { IndexImage } from '../index/image.js';
import { beginIndexSync, decodeIndexHeader, endIndexSync, salvageEntries } from '../index/index-file.js';
import { FIELD, type Geometry, indexBytes } from '../index/layout.js';
import { markConsumed } from '../index/marks.js';
import { generationPages, putGeneration } from '../record/generation.js';
import { applyPlan } from '../restore/apply.js';
import { keepAside } from '../restore/kept-aside.js';
import { NUMBERS_PER_GENERATION, planRestore, type RestorePlan } from '../restore/plan.js';
import type { Ring } from '../ring/reserve.js';
import { createIndex, readFirstPage } from './install.js';
import { type PairDirectories, pairPaths } from './paths.js';
import type { Platform } from './platform.js';

/** Result of one restore. */
export interface RestoreReport {
  /** Reason why the whole index file was not usable, such as `truncated`; null if it was usable. */
  indexProblem: string | null;
  /** Number of messages in the queue after the restore. */
  restored: number;
  /** Number of whole records that are marked as consumed. */
  consumed: number;
  /**
   * Number of restored messages that the old index does not vouch for. If a message among them was consumed,
   * it is delivered again, because nothing shows the consumption.
   */
  uncertain: number;
  /** Number of messages that were being stored at the crash and are not whole. They were never confirmed. */
  unfinished: number;
  /** Records that can no longer be read and were kept aside: message number, byte offset, damaged part. */
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
  /** Size of the largest record, checksums included. */
  maxRecordBytes: number;
}

/** What a restore does without a usable index. */
export interface RestoreWithoutIndex {
  /** Number of attempts that every message gets; default 0. */
  retryCountWithoutIndex?: number | undefined;
  /** Path of an index that was set aside. It only names the messages that the data file no longer holds. */
  setAside?: string | undefined;
}

/** An open and mapped index file. */
export interface OpenedIndex {
  fd: number;
  image: IndexImage;
}

/**
 * Opens the index of a pair that another process has restored and uses.
 * @throws QueueError `damaged-queue` when the index does not belong to the data file.
 */
export function attachIndex(
  { platform, directories }: PairParts,
  queueId: string,
  dataBytes: number,
): OpenedIndex {
  const { kernel } = platform;
  const path = pairPaths(directories).index;
  const { page, fileBytes } = readFirstPage(kernel, path);
  const head = decodeIndexHeader(page, fileBytes, queueId, dataBytes);
  if (!head.usable) throw new QueueError('damaged-queue', `${path}: ${head.why}, while the queue is in use`);
  const fd = kernel.open(path, 'r+');
  return { fd, image: mapIndex(platform, fd, fileBytes, head.geometry) };
}

function mapIndex(platform: Platform, fd: number, fileBytes: number, geometry: Geometry): IndexImage {
  return platform.createImage(mapShared(platform.kernel, fd, 0, fileBytes), geometry);
}

/**
 * Restores a pair (a data file and its index file) after a crash: rewrites the index so that it lists every
 * message that is whole in the data file and not marked as consumed (patent [0026]). What is left of the old
 * index gives these marks, and the number of delivery attempts of each message. Records that can no longer be
 * read are copied to separate files. The caller must be the only process that has the pair open.
 * @param requested geometry of the new index file if the old one is lost.
 * @throws QueueError `sync-failed` when the data file cannot be written to the disk.
 */
export function restorePair(
  parts: PairParts,
  requested: Geometry,
  queueId: string,
  { retryCountWithoutIndex = 0, setAside }: RestoreWithoutIndex = {},
): OpenedIndex & { report: RestoreReport } {
  const { platform, data, ring, key, maxRecordBytes } = parts;
  const { kernel } = platform;
  const { index: path, keptAside } = pairPaths(parts.directories);
  const startedMs = kernel.monotonicMs();
  const { page, fileBytes } = readFirstPage(kernel, path);
  const head = decodeIndexHeader(page, fileBytes, queueId, requested.dataBytes);
  let old: OpenedIndex | undefined;
  if (head.usable) {
    const fd = kernel.open(path, 'r+');
    const map = mapShared(kernel, fd, 0, fileBytes);
    // Read the whole index ahead: from a cold disk, page by page, it takes as long as reading the messages.
    adviseWillNeed(kernel, map, 0, fileBytes);
    old = { fd, image: platform.createImage(map, head.geometry) };
  }
  const slots = platform.createSlotReader?.(data, key);
  const salvaged = old ? undefined : salvage(kernel, setAside ?? path, queueId, requested);
  const plan = planRestore(data, ring, key, old?.image, {
    nowMs: kernel.wallClockMs(),
    slots,
    salvaged,
    maxRecordBytes,
  });
  if (!head.usable) for (const record of plan.live) record.retryCount = retryCountWithoutIndex;
  for (const damage of plan.damage) keepAside(kernel, keptAside, data, damage);
  // Sync the ring before a message is delivered or marked. A record may have been copied and not synced when
  // the crash came, and a message must be on the disk before it is forwarded (patent [0017]). Also, a new mark
  // replaces the mark of an older message at the same slot. If the older record were still on the disk, a
  // power cut would bring it back unmarked.
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
    indexProblem: head.usable ? null : head.why,
    restored: plan.live.length,
    consumed: plan.consumed,
    uncertain: plan.uncertain,
    unfinished: plan.unfinished,
    damaged: plan.damage.map(({ number, offset, what }) => ({ number, offset, what })),
    tookMs: kernel.monotonicMs() - startedMs,
  };
  return { ...current, report };
}

/** Reads what is left of the entries of an index that is not used; see `salvageEntries`. */
function salvage(kernel: Kernel, path: string, queueId: string, requested: Geometry): IndexImage | undefined {
  const { page, fileBytes } = readFirstPage(kernel, path);
  const head = decodeIndexHeader(page, fileBytes, queueId, requested.dataBytes);
  return salvageEntries(kernel, path, fileBytes, head, head.usable ? head.geometry : requested);
}

/**
 * Returns whether the last msync did not end, because it failed or its process died during it. Pages may then
 * be clean in memory and not on the disk.
 */
function mayHaveUnsyncedPages(image: IndexImage | undefined): boolean {
  return image !== undefined && image.get(FIELD.syncing) !== 0;
}

/**
 * Syncs the ring. It sets the field `syncing` during the msync, as the helper does: if this process is killed
 * during the msync, the next restore has no other sign that pages may be clean and not on the disk.
 */
function syncRing({ data, ring }: PairParts, image: IndexImage | undefined): void {
  const { start, end } = ring;
  if (mayHaveUnsyncedPages(image)) data.redirty(start, end - start);
  image?.put(FIELD.syncing, 1);
  syncOrThrow(data, start, end - start);
  image?.put(FIELD.syncing, 0);
}

/** Syncs a range of the data file. @throws QueueError `sync-failed` */
function syncOrThrow(data: DataMap, offset: number, length: number): void {
  const failure = data.sync(offset, length);
  if (failure === 0) return;
  // Make the pages dirty again. Otherwise the next restore would find clean pages that are not on the disk,
  // and its msync would succeed without writing them.
  data.redirty(offset, length);
  throw new QueueError('sync-failed', `msync of the data file failed: errno ${failure}`);
}

/**
 * Replaces an index file that is lost or too small. An index file is too small if it has fewer entries than
 * there are messages: when marks were lost, consumed messages come back, and they can be more than the
 * entries. The marks of the old file are copied into the new one.
 */
function replaceIndex(
  { platform, directories }: PairParts,
  requested: Geometry,
  queueId: string,
  plan: RestorePlan,
  old: OpenedIndex | undefined,
): OpenedIndex {
  const { kernel } = platform;
  const path = pairPaths(directories).index;
  const entries = Math.max(requested.entries, plan.live.length);
  const geometry = { ...requested, entries };
  const temporaryPath = `${path}.new`;
  createIndex(kernel, temporaryPath, geometry, queueId);
  const fd = kernel.open(temporaryPath, 'r+');
  const image = mapIndex(platform, fd, indexBytes(geometry), geometry);
  if (old) {
    image.words.set(old.image.words.subarray(old.image.firstMarkWord), image.firstMarkWord);
    kernel.close(old.fd);
  }
  kernel.fsync(fd);
  kernel.rename(temporaryPath, path);
  syncDirectory(directories.indexDirectory, kernel);
  return { fd, image };
}
