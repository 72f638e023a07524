import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { parseBoundedJson } from '../../conformance/bounded-json.js';
import { KitError, messageOf } from '../../conformance/errors.js';
import { limit } from '../../conformance/limits.js';
import { readRegularFile } from '../../conformance/read-file.js';
import { type Target, TargetDefinition } from '../../conformance/target-file/definition.js';
import { kitVersion } from '../host/version.js';

/** Name of the file in a directory of evidence. */
export const RUN_FACTS_FILE = 'run.json';
/** Folder in the evidence of a gate with the evidence of its exploration. */
export const EXPLORATION_FOLDER = 'exploration';
/** Version of the format. Raise it when an older kit would misunderstand the file. */
const RUN_FACTS_VERSION = 1;

const Count = z.int().min(0);

/** What an exploration knows of its log and of its broken states. Lists are bounded by the exploration. */
export const CrashStateFacts = z.object({
  /** Number of requests in the log, and the first position of a cut. */
  entries: Count,
  from: Count,
  /** Positions of the flushes from `from` on. */
  flushes: z.array(Count),
  /** Broken states: the address, the position of the cut, the writes that are missing, and the files of these writes. */
  broken: z.array(
    z.object({
      address: z.string(),
      position: Count,
      missingWrites: z.array(Count),
      files: z.array(z.object({ file: z.string(), what: z.string() })),
    }),
  ),
  /** Why the smallest broken state lost its message; null without one. */
  cause: z
    .object({
      kind: z.enum([
        'not-synced',
        'synced-late',
        'directory-not-synced',
        'not-written',
        'not-recovered',
        'unknown',
      ]),
      sentence: z.string(),
      fix: z.string(),
      file: z.string(),
      service: z.string(),
      message: z.string().nullable(),
      writes: z.array(Count),
      confirmedAt: Count.nullable(),
      flushAt: Count.nullable(),
      files: z.array(z.string()),
      story: z.array(z.string()),
    })
    .nullable(),
});
export type CrashStateFacts = z.output<typeof CrashStateFacts>;

/** Facts of a run that a report needs and that the history does not contain (`run.json`). */
export const RunFacts = z.object({
  format: z.literal('plugpull-run'),
  version: z.literal(RUN_FACTS_VERSION),
  kitVersion: z.string(),
  command: z.enum(['gate', 'explore', 'sweep']),
  /** Definition of the target. The checkers judge the history by its claims. */
  target: TargetDefinition,
  seed: z.number(),
  verdict: z.enum(['pass', 'fail', 'not-measured']),
  why: z.string(),
  tookMs: z.number(),
  /** Command line that runs the target again. */
  replay: z.string(),
  warnings: z.array(z.string()),
  /** Claimed faults that were not tried, with the reason and what to do. */
  notTried: z.array(z.object({ name: z.string(), why: z.string(), remedy: z.string() })),
  /** Backend of power cuts. */
  power: z.string(),
  /** Runtimes and power backend of a gate or a sweep. */
  runtime: z.string().optional(),
  powerRuntime: z.string().optional(),
  profile: z.string().optional(),
  crashStates: CrashStateFacts.optional(),
});
export type RunFacts = z.output<typeof RunFacts>;

/** The facts that the caller provides. */
export type RunFactParts = Omit<RunFacts, 'format' | 'version' | 'kitVersion' | 'target'> & {
  target: Target;
};

/** Writes the facts of a run into its evidence. */
export function writeRunFacts(dir: string, { target, ...parts }: RunFactParts): void {
  const { dir: _dir, ...definition } = target;
  const facts: RunFacts = {
    format: 'plugpull-run',
    version: RUN_FACTS_VERSION,
    kitVersion: kitVersion(),
    target: definition,
    ...parts,
  };
  writeFileSync(join(dir, RUN_FACTS_FILE), `${JSON.stringify(facts, undefined, 1)}\n`);
}

/**
 * Reads the facts of a run; undefined when the evidence has none, as that of an older kit.
 * @throws KitError bad-history (exit code 2) when the file is damaged or has another version.
 */
export function readRunFacts(dir: string): RunFacts | undefined {
  const file = join(dir, RUN_FACTS_FILE);
  let json: unknown;
  try {
    json = parseBoundedJson(readRegularFile(file, limit('json-bytes')));
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new KitError('bad-history', `${file}: expected the facts of a run: ${messageOf(error)}`, {
      cause: error,
    });
  }
  const parsed = RunFacts.safeParse(json);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new KitError(
    'bad-history',
    `${file}: expected the facts of a run: ${issue?.path.join('.')}: ${issue?.message}`,
  );
}
