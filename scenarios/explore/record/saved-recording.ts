import { createHash } from 'node:crypto';
import { closeSync, openSync, readSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { submittedIds } from '../../../conformance/checkers/crash-states.js';
import { KitError, messageOf } from '../../../conformance/errors.js';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import { readHistory } from '../../../conformance/history/reader.js';
import { readRegularFile } from '../../../conformance/read-file.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import { copySparse } from '../../../faults/power/mounts.js';
import { SECTOR_BYTES } from '../../../faults/sector.js';
import { LogWritesError, WriteLog } from '../../../faults/write-log/reader.js';
import { kitVersion } from '../../host/version.js';
import type { RecordedRun } from './record.js';

/**
 * A recording that outlives its run, as `--out DIR` keeps it: the device before it (`disk.img`), all that was done to it
 * (`writes.log`), what the target had said by then (`history.jsonl`), and what the kit knows of it (`recording.json`).
 */
const FILE_NAMES = {
  image: 'disk.img',
  log: 'writes.log',
  history: 'history.jsonl',
  notes: 'recording.json',
} as const;
/** Raised when what a recording holds is not understood by an older kit any more. */
const RECORDING_VERSION = 2;
/** Far above what is noted of a run. */
const MAX_MANIFEST_BYTES = 256 * 2 ** 20;

const NonNegativeInt = z.int().min(0);
const RecordingManifest = z.object({
  format: z.literal('plugpull-recording'),
  version: z.literal(RECORDING_VERSION),
  kitVersion: z.string(),
  target: z.string(),
  protocol: z.string(),
  /** Marks every message of the run. */
  run: z.string(),
  seed: z.int(),
  from: NonNegativeInt,
  end: NonNegativeInt,
  imageBytes: NonNegativeInt,
  filesystem: z.object({ type: z.enum(['ext4', 'xfs']), mountOptions: z.string() }),
  /** SHA-256 of every message's bytes, by id. */
  digests: z.record(z.string(), z.string()),
  /** Of what is not zero in each of the two files. */
  sha256: z.object({ image: z.string(), log: z.string() }),
});
type RecordingManifest = z.output<typeof RecordingManifest>;

/** What `--recording DIR` gives back. */
export interface SavedRecording {
  run: RecordedRun;
  /** Up to the moment when the disk stopped; what an exploration has added since is left out. */
  events: HistoryEvent[];
  seed: number;
}

/** What an exploration adds to the history of a run. */
const EXPLORATION_EVENTS: ReadonlySet<HistoryEvent['kind']> = new Set([
  'state-explored',
  'at-risk',
  'fault',
  'run-ended',
]);

/** Keeps a recording in `dir`, beside its history. The names are those under which a crash state is made again. */
export function saveRecording(run: RecordedRun, target: Target, seed: number, dir: string): void {
  const [image, log] = [join(dir, FILE_NAMES.image), join(dir, FILE_NAMES.log)];
  copySparse(run.image, image);
  copySparse(run.log, log);
  const { id, from, end, filesystem } = run;
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
    digests: Object.fromEntries(run.digests),
    sha256: { image: digestOf(image), log: digestOf(log) },
  };
  writeFileSync(join(dir, FILE_NAMES.notes), `${JSON.stringify(manifest, undefined, 1)}\n`);
}

/**
 * Opens a recording that was kept.
 * @throws KitError bad-recording (exit code 2) that names the file that is missing, foreign, cut off or changed, and what
 * was expected of it; bad-history for its history; bad-usage when it is of another target.
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
      from: manifest.from,
      end: manifest.end,
      filesystem: manifest.filesystem,
      digests: new Map(Object.entries(manifest.digests)),
      // It is the user's.
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
    json = JSON.parse(readRegularFile(path, MAX_MANIFEST_BYTES).toString('utf8'));
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

/** No digest covers them, and what is made of a recording is made by them. */
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

/** Said before its digest is looked at: what kind of file it is says more than that it was changed. */
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

/** SHA-256 of the pieces of a file that are not zero, each with its place: a copy with other holes is the same. */
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
