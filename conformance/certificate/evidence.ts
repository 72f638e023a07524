import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { parseBoundedJson } from '../bounded-json.js';
import { KitError, messageOf } from '../errors.js';
import type { HistoryEvent } from '../history/events.js';
import { chunksOf, packFile } from '../history/lines.js';
import { readPackedHistory } from '../history/reader.js';
import { beyond, limit } from '../limits.js';
import { readRegularFile } from '../read-file.js';
import type { Level } from '../requirements/requirements.js';
import type { Target } from '../target-file/definition.js';
import { loadTarget } from '../target-file/load.js';
import { requireInside, requireRegularFiles } from './evidence-tree.js';
import { FACTS_FORMAT, Facts } from './facts.js';
import type { TargetPart } from './target-files.js';

/** A file of the evidence. Its name is relative to the folder of the certificate. */
export interface EvidenceFile {
  name: string;
  sha256: string;
}

/** Everything that determines a certificate. */
export interface Evidence {
  facts: Facts;
  factsFile: EvidenceFile;
  target: Target;
  targetFiles: EvidenceFile[];
  histories: { level: Level; file: EvidenceFile; events: HistoryEvent[] }[];
}

/** The parts of the evidence that are known before its histories are read. */
export type RunContext = Pick<Evidence, 'facts' | 'target'>;

/**
 * Is called before a history is read. The function that it returns gets every event of the file, also those that a long
 * history only counts in `Evidence`.
 */
export type HistoryObserver = (context: RunContext, file: string) => (event: HistoryEvent) => void;

const FOLDER = 'evidence';
const FACTS = `${FOLDER}/facts.json`;
const TARGET = `${FOLDER}/target`;
/**
 * Error for evidence in a format that this version of the kit does not read. Such evidence is not reported as
 * changed.
 */
export class EvidenceFormatError extends KitError {}

/** Returns the path of the history of a level's run, relative to the certificate. */
export function historyName(level: Level): string {
  return `${FOLDER}/${level}.history.jsonl.gz`;
}

/** Writes the evidence of a certificate into `dir`: the facts, a copy of the target, the histories. */
export function writeEvidence(
  dir: string,
  facts: Facts,
  parts: readonly TargetPart[],
  histories: readonly { level: Level; file: string }[],
): void {
  mkdirSync(join(dir, TARGET), { recursive: true });
  for (const { path, name } of parts) {
    const to = join(dir, TARGET, name);
    mkdirSync(dirname(to), { recursive: true });
    copyFileSync(path, to);
  }
  for (const { level, file } of histories) {
    packFile(file, join(dir, historyName(level)));
  }
  writeFileSync(join(dir, FACTS), `${JSON.stringify(facts, undefined, 2)}\n`);
}

/**
 * Reads what `writeEvidence` wrote.
 * @param dir the folder of the certificate.
 * @param observe gets the events of the histories while they are read.
 * @throws KitError bad-history (exit code 2) that names the file that is missing or damaged;
 * EvidenceFormatError when it has another format.
 */
export function readEvidence(dir: string, observe?: HistoryObserver): Evidence {
  requireRegularFiles(dir, FOLDER);
  const bytes = read(dir, FACTS);
  const json = parseJson(bytes);
  requireCurrentFormat(dir, json);
  const parsed = Facts.safeParse(json);
  if (!parsed.success) throw new KitError('bad-history', `${FACTS}: expected the facts of a certificate`);
  const facts = parsed.data;
  requireInside(TARGET, facts.targetFile);
  const loaded = loadTarget(join(dir, TARGET, facts.targetFile), { checkClaims: false });
  const target = facts.timeMeasured ? loaded : withoutTimeClaims(loaded);
  const readRun = (level: Level) =>
    readHistoryOf(dir, level, observe?.({ facts, target }, historyName(level)));
  return {
    facts,
    factsFile: { name: FACTS, sha256: sha256(bytes) },
    target,
    targetFiles: filesBelow(join(dir, TARGET)).map((path) => ({
      name: relative(dir, path),
      sha256: digestOf(dir, relative(dir, path)),
    })),
    histories: facts.runs.flatMap(({ level, hasHistory }) => (hasHistory ? [readRun(level)] : [])),
  };
}

/**
 * Returns the target without its claims about time. Where the processor is emulated, times do not describe the
 * target.
 */
export function withoutTimeClaims(target: Target): Target {
  const { recoverySeconds: _, ...guarantee } = target.guarantee;
  return { ...target, guarantee };
}

/**
 * Returns every file of the evidence with its current digest, sorted by name; empty if there is none.
 * @throws KitError bad-history (exit code 2) that names the entry that cannot be read as a file.
 */
export function evidenceFiles(dir: string): EvidenceFile[] {
  requireRegularFiles(dir, FOLDER);
  const files = filesBelow(join(dir, FOLDER));
  if (files.length > limit('evidence-files'))
    throw new KitError('bad-history', `${FOLDER}/: has ${beyond('evidence-files', 'files')}`);
  const bytes = files.reduce((sum, path) => sum + (statSync(path, { throwIfNoEntry: false })?.size ?? 0), 0);
  if (bytes > limit('evidence-bytes'))
    throw new KitError('bad-history', `${FOLDER}/: has ${beyond('evidence-bytes', 'bytes')}`);
  return files.map((path) => ({
    name: relative(dir, path),
    sha256: digestOf(dir, relative(dir, path)),
  }));
}

/** Returns the SHA-256 of the bytes, hex. */
export function sha256(bytes: Buffer | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function readHistoryOf(
  dir: string,
  level: Level,
  observe?: (event: HistoryEvent) => void,
): Evidence['histories'][number] {
  const name = historyName(level);
  const file = { name, sha256: digestOf(dir, name) };
  return { level, file, events: readPackedHistory(join(dir, name), name, observe) };
}

function read(dir: string, name: string): Buffer {
  try {
    return readRegularFile(join(dir, name), limit('json-bytes'));
  } catch (error) {
    throw missing(name, error);
  }
}

/** Returns the SHA-256 of a file of the evidence, of any size. */
function digestOf(dir: string, name: string): string {
  const hash = createHash('sha256');
  try {
    for (const chunk of chunksOf(join(dir, name))) hash.update(chunk);
  } catch (error) {
    throw missing(name, error);
  }
  return hash.digest('hex');
}

function missing(name: string, error: unknown): KitError {
  const message = `${name}: expected beside the certificate: ${messageOf(error)}`;
  return new KitError('bad-history', message, { cause: error });
}

function requireCurrentFormat(dir: string, facts: unknown): void {
  if (typeof facts !== 'object' || facts === null) return;
  // Facts of the first format did not name it.
  const { format = 1 } = facts as { format?: unknown };
  if (format === FACTS_FORMAT) return;
  throw new EvidenceFormatError(
    'bad-history',
    `${join(dir, FACTS)}: has version ${format} of the format, expected ${FACTS_FORMAT}: use the kit that made it`,
  );
}

function parseJson(bytes: Buffer): unknown {
  try {
    return parseBoundedJson(bytes);
  } catch (error) {
    throw new KitError('bad-history', `${FACTS}: expected the facts of a certificate: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Returns the files below `dir`, sorted by name so that the same files always give the same list. */
function filesBelow(dir: string): string[] {
  let entries: string[];
  try {
    entries = readdirSync(dir, { recursive: true, withFileTypes: true })
      .filter((entry) => !entry.isDirectory())
      .map((entry) => join(entry.parentPath, entry.name));
  } catch {
    return [];
  }
  return entries.sort();
}
