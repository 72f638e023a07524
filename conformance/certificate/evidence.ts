import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { KitError, messageOf } from '../errors.js';
import type { HistoryEvent } from '../history/events.js';
import { parseHistory } from '../history/reader.js';
import { readRegularFile } from '../read-file.js';
import type { Level } from '../requirements/requirements.js';
import type { Target } from '../target-file/definition.js';
import { loadTarget } from '../target-file/load.js';
import { Facts } from './facts.js';
import type { TargetPart } from './target-files.js';

/** A file of the evidence; the name is relative to the folder of the certificate. */
export interface EvidenceFile {
  name: string;
  sha256: string;
}

/** All from which a certificate is made. */
export interface Evidence {
  facts: Facts;
  factsFile: EvidenceFile;
  target: Target;
  targetFiles: EvidenceFile[];
  histories: { level: Level; file: EvidenceFile; events: HistoryEvent[] }[];
}

const FOLDER = 'evidence';
const FACTS = `${FOLDER}/facts.json`;
const TARGET = `${FOLDER}/target`;
/** Far above what a run of hours writes; a bound, so that a forged file cannot take all memory. */
const MAX_HISTORY_BYTES = 2 ** 31;
/** The same for what is in a file, and the most that is read into one buffer. */
const MAX_FILE_BYTES = 2 ** 31 - 1;

/** Where the history of a level's run lies, relative to the certificate. */
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
    writeFileSync(join(dir, historyName(level)), gzipSync(readFileSync(file)));
  }
  writeFileSync(join(dir, FACTS), `${JSON.stringify(facts, undefined, 2)}\n`);
}

/**
 * Reads what `writeEvidence` wrote.
 * @param dir the folder of the certificate.
 * @throws KitError bad-history (exit code 2) that names the file which is missing or not as it was written.
 */
export function readEvidence(dir: string): Evidence {
  const bytes = read(dir, FACTS);
  const parsed = Facts.safeParse(parseJson(bytes));
  if (!parsed.success) throw new KitError('bad-history', `${FACTS}: expected the facts of a certificate`);
  const facts = parsed.data;
  const target = loadTarget(join(dir, TARGET, facts.targetFile));
  return {
    facts,
    factsFile: { name: FACTS, sha256: sha256(bytes) },
    target: facts.timeMeasured ? target : withoutTimeClaims(target),
    targetFiles: filesBelow(join(dir, TARGET)).map((path) => ({
      name: relative(dir, path),
      sha256: sha256(read(dir, relative(dir, path))),
    })),
    histories: facts.runs.flatMap(({ level, made }) => (made ? [readHistoryOf(dir, level)] : [])),
  };
}

/** The target with those of its claims that can be held against it where processors are made in software. */
export function withoutTimeClaims(target: Target): Target {
  const { recoverySeconds: _, ...guarantee } = target.guarantee;
  return { ...target, guarantee };
}

/**
 * Every file of the evidence as it is now, by name; empty when there is none.
 * @throws KitError bad-history (exit code 2) that names what cannot be read as a file.
 */
export function evidenceFiles(dir: string): EvidenceFile[] {
  return filesBelow(join(dir, FOLDER)).map((path) => ({
    name: relative(dir, path),
    sha256: sha256(read(dir, relative(dir, path))),
  }));
}

export function sha256(bytes: Buffer | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function readHistoryOf(dir: string, level: Level): Evidence['histories'][number] {
  const name = historyName(level);
  const packed = read(dir, name);
  let bytes: Buffer;
  try {
    bytes = gunzipSync(packed, { maxOutputLength: MAX_HISTORY_BYTES });
  } catch (error) {
    throw new KitError('bad-history', `${name}: expected a history packed by gzip: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return { level, file: { name, sha256: sha256(packed) }, events: parseHistory(bytes, name) };
}

function read(dir: string, name: string): Buffer {
  try {
    return readRegularFile(join(dir, name), MAX_FILE_BYTES);
  } catch (error) {
    throw new KitError('bad-history', `${name}: expected beside the certificate: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function parseJson(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
}

/** In the order of their names, so that the same files always give the same list. */
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
