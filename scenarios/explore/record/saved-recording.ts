import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { parseBoundedJson } from '../../../conformance/bounded-json.js';
import { submittedIds } from '../../../conformance/checkers/crash-states.js';
import { KitError, messageOf } from '../../../conformance/errors.js';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import { readHistory } from '../../../conformance/history/reader.js';
import { limit } from '../../../conformance/limits.js';
import { readRegularFile } from '../../../conformance/read-file.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import { whyNotAllowed } from '../../../faults/power/mount-options.js';
import { copySparse } from '../../../faults/power/mounts.js';
import { SECTOR_BYTES } from '../../../faults/sector.js';
import { LogWritesError, WriteLog } from '../../../faults/write-log/reader.js';
import { kitVersion } from '../../host/version.js';
import { copyScratch, scratchDirOf } from '../../round/launch.js';
import { readSamples, saveSamples } from './file-samples.js';
import type { RecordedRun } from './record.js';

/**
 * The files of a recording that outlives its run, as `--out DIR` saves it: the device before the run
 * (`disk.img`), the log of all writes and flushes (`writes.log`), the history of the run (`history.jsonl`),
 * and the manifest (`recording.json`).
 */
const FILE_NAMES = {
  image: 'disk.img',
  log: 'writes.log',
  history: 'history.jsonl',
  notes: 'recording.json',
} as const;
/**
 * Version of the format. Raise it when older kits would misunderstand the files. Other versions are refused.
 */
const RECORDING_VERSION = 2;

const NonNegativeInt = z.int().min(0);
/** The content of `recording.json`. */
const RecordingManifest = z.object({
  format: z.literal('plugpull-recording'),
  version: z.literal(RECORDING_VERSION),
  kitVersion: z.string(),
  target: z.string(),
  protocol: z.string(),
  /** Id of the recorded run. Every message contains it. */
  run: z.string(),
  seed: z.int(),
  from: NonNegativeInt,
  end: NonNegativeInt,
  imageBytes: NonNegativeInt,
  filesystem: z
    .object({ type: z.enum(['ext4', 'xfs']), mountOptions: z.string() })
    .refine(({ type, mountOptions }) => whyNotAllowed(type, mountOptions) === undefined, {
      error: 'expected mount options that are allowed',
    }),
  /** Reason why the disk shows nothing about the messages; absent when the target wrote to it. */
  unwritten: z.object({ why: z.string(), writesElsewhere: z.boolean() }).optional(),
  /** SHA-256 of every message's bytes, by id. */
  digests: z.record(z.string(), z.string()),
  /** SHA-256 of the parts of each file that are not zero; see `digestOf`. */
  sha256: z.object({ image: z.string(), log: z.string() }),
});
type RecordingManifest = z.output<typeof RecordingManifest>;

/** A recording that was opened again with `--recording DIR`. */
export interface SavedRecording {
  run: RecordedRun;
  /** History up to the moment when the disk stopped. Events that an exploration added later are left out. */
  events: HistoryEvent[];
  seed: number;
}

/** The kinds of events that an exploration adds to the history of a run. */
const EXPLORATION_EVENTS: ReadonlySet<HistoryEvent['kind']> = new Set([
  'state-explored',
  'at-risk',
  'fault',
  'run-ended',
]);

/**
 * Saves a recording in `dir`, which already has its history. A bundle uses the same file names, so that
 * `replay` can make a crash state from it.
 */
export function saveRecording(run: RecordedRun, target: Target, seed: number, dir: string): void {
  const [image, log] = [join(dir, FILE_NAMES.image), join(dir, FILE_NAMES.log)];
  copySparse(run.image, image);
  copySparse(run.log, log);
  copyScratch(run.scratch, scratchDirOf(dir));
  const { id, from, end, filesystem, unwritten } = run;
  const manifest: RecordingManifest = {
    format: 'plugpull-recording',
    version: RECORDING_VERSION,
    kitVersion: kitVersion(),
    target: target.name,
    protocol: target.protocol,
    run: id,
    seed,
    from,
    end,
    imageBytes: statSync(image).size,
    filesystem,
    ...(unwritten === undefined ? {} : { unwritten }),
    digests: Object.fromEntries(run.digests),
    sha256: { image: digestOf(image), log: digestOf(log) },
  };
  saveSamples(run.samples, dir);
  writeFileSync(join(dir, FILE_NAMES.notes), `${JSON.stringify(manifest, undefined, 1)}\n`);
}

/**
 * Opens a saved recording.
 * @throws KitError bad-recording (exit code 2) when a file is missing, foreign, cut off or changed: the
 *   message names the file and what was expected. bad-history for a wrong history; bad-usage when the
 *   recording is of another target.
 */
export function openSavedRecording(dir: string, target: Target): SavedRecording {
  const path = (name: keyof typeof FILE_NAMES) => join(dir, FILE_NAMES[name]);
  const manifest = readManifest(path('notes'));
  if (manifest.target !== target.name || manifest.protocol !== target.protocol) {
    throw new KitError(
      'bad-usage',
      `--recording ${dir}: is of the target ${manifest.target} (${manifest.protocol}), expected one of ${target.name} (${target.protocol})`,
    );
  }
  checkPositions(path('notes'), manifest);
  checkSize(path('image'), manifest.imageBytes);
  checkLog(path('log'), manifest);
  checkDigest(path('image'), manifest.sha256.image);
  checkDigest(path('log'), manifest.sha256.log);
  const events = readHistory(path('history')).filter(({ kind }) => !EXPLORATION_EVENTS.has(kind));
  const ids = submittedIds(events);
  const unknownId = ids.find((id) => manifest.digests[id] === undefined);
  if (ids.length === 0 || unknownId !== undefined || ids.length !== Object.keys(manifest.digests).length) {
    throw new KitError(
      'bad-recording',
      `${path('history')}: has ${ids.length} messages, expected the ${Object.keys(manifest.digests).length} of the run that was recorded`,
    );
  }
  return {
    run: {
      id: manifest.run,
      image: path('image'),
      log: path('log'),
      scratch: scratchDirOf(dir),
      from: manifest.from,
      end: manifest.end,
      filesystem: manifest.filesystem,
      unwritten: manifest.unwritten,
      digests: new Map(Object.entries(manifest.digests)),
      samples: readSamples(dir),
      // The files belong to the user, so nothing is removed.
      remove: () => {},
    },
    events,
    seed: manifest.seed,
  };
}

function readManifest(path: string): RecordingManifest {
  const expectation = 'expected what `explore --out` keeps of a recording';
  let json: unknown;
  try {
    json = parseBoundedJson(readRegularFile(path, limit('json-bytes')));
  } catch (error) {
    throw new KitError('bad-recording', `${path}: ${expectation}: ${messageOf(error)}`, { cause: error });
  }
  const { version } = (json ?? {}) as { version?: unknown };
  if (typeof version === 'number' && version !== RECORDING_VERSION) {
    throw new KitError(
      'bad-recording',
      `${path}: has version ${version} of the format, expected ${RECORDING_VERSION}: use the kit that made it`,
    );
  }
  const parsed = RecordingManifest.safeParse(json);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new KitError('bad-recording', `${path}: ${expectation}: ${issue?.path.join('.')}: ${issue?.message}`);
}

/**
 * Checks the positions in the log. No digest covers the positions, and a wrong one would give wrong crash
 * states.
 */
function checkPositions(path: string, { from, end }: RecordingManifest): void {
  if (from <= end) return;
  throw new KitError('bad-recording', `${path}: from: expected at most ${end}, the end of the recording`);
}

function checkSize(path: string, sizeBytes: number): void {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats?.isFile() && stats.size === sizeBytes) return;
  const what = stats?.isFile() ? `has ${stats.size} bytes` : 'there is no such file';
  throw new KitError(
    'bad-recording',
    `${path}: ${what}, expected the image of a disk of ${sizeBytes} bytes, as it was before the recording`,
  );
}

/**
 * Checks the format of the log. It must run before the check of the digest: for the user, the message that
 * the file is not a log is more useful than the message that it was changed.
 */
function checkLog(path: string, { end, imageBytes }: RecordingManifest): void {
  let log: WriteLog | undefined;
  if (statSync(path, { throwIfNoEntry: false })?.isFile() === false)
    throw new KitError('bad-recording', `${path}: expected the log of a recorded disk, it is no file`);
  try {
    log = new WriteLog(path);
    const complete = log.completeEntries();
    if (complete < end)
      throw new KitError('bad-recording', `${path}: has ${complete} entries, expected at least ${end}`);
    for (const { index, offset, lengthBytes } of log.entries(end)) {
      if (offset + lengthBytes <= imageBytes && offset % SECTOR_BYTES === 0) continue;
      throw new KitError(
        'bad-recording',
        `${path}: entry ${index} writes to byte ${offset + lengthBytes}, expected a disk of ${imageBytes} bytes`,
      );
    }
  } catch (error) {
    if (error instanceof KitError) throw error;
    const message = error instanceof LogWritesError ? error.message : `${path}: ${messageOf(error)}`;
    throw new KitError('bad-recording', message, { cause: error });
  } finally {
    log?.close();
  }
}

function checkDigest(path: string, expected: string): void {
  const actual = digestOf(path);
  if (actual === expected) return;
  throw new KitError(
    'bad-recording',
    `${path}: is not the one that was recorded, or was changed: expected SHA-256 ${expected} of its bytes, found ${actual}`,
  );
}

const CHUNK_BYTES = 1 << 20;
const ZEROS = Buffer.alloc(CHUNK_BYTES);

/**
 * Computes the SHA-256 of the chunks (1 MiB) of a file that are not zero, each with its offset and length. A
 * copy with other holes has the same digest.
 */
function digestOf(path: string): string {
  const hash = createHash('sha256');
  const chunk = Buffer.alloc(CHUNK_BYTES);
  const fd = openSync(path, 'r');
  try {
    for (let at = 0; ; at += CHUNK_BYTES) {
      const length = readSync(fd, chunk, 0, CHUNK_BYTES, at);
      if (length === 0) break;
      const piece = chunk.subarray(0, length);
      if (!piece.equals(ZEROS.subarray(0, length))) hash.update(`${at} ${length} `).update(piece);
    }
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}
