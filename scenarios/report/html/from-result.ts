import { gunzipSync } from 'node:zlib';
import { z } from 'zod';
import { parseBoundedJson } from '../../../conformance/bounded-json.js';
import { KitError, messageOf } from '../../../conformance/errors.js';
import { limit } from '../../../conformance/limits.js';
import { readRegularFile } from '../../../conformance/read-file.js';
import { commandLine, pathFromHere } from '../../host/command-line.js';
import type { ReportSource } from './source.js';

const Verdict = z.enum(['pass', 'fail', 'not-measured']);
const Count = z.number().catch(0);

/** What a report takes from the object that `--json` of a gate, an exploration or a sweep prints. */
const Result = z.object({
  target: z.string(),
  verdict: Verdict,
  why: z.string(),
  requirements: z.array(z.object({ id: z.string(), verdict: Verdict, why: z.string() })),
  unclaimed: z.array(z.string()).default([]),
  faults: z
    .array(
      z.object({
        name: z.string(),
        tried: z.number(),
        hit: z.number(),
        why: z.string().optional(),
        remedy: z.string().optional(),
      }),
    )
    .default([]),
  claimedHits: z.object({ claimed: z.number(), hit: z.number() }).optional(),
  warnings: z.array(z.string()).default([]),
  seed: z.number(),
  tookMs: z.number(),
  replay: z.string(),
  evidence: z.string().nullable(),
  bundle: z.string().nullable(),
  violations: z
    .array(z.object({ requirement: z.string(), id: z.string().optional(), what: z.string() }))
    .default([]),
  causes: z.array(z.string()).default([]),
  smallest: z.object({ story: z.array(z.string()) }).nullish(),
  /** The exploration of a gate. */
  crashStates: z.object({ story: z.array(z.string()).default([]), states: Count, atRisk: Count }).nullish(),
  sweep: z.unknown().optional(),
  ...Object.fromEntries(
    [
      ...['rounds', 'submitted', 'confirmed', 'rejected', 'indefinite', 'delivered', 'lost'],
      ...['duplicates', 'corrupted', 'states', 'atRisk', 'notDelivered'],
    ].map((name) => [name, Count]),
  ),
});

/** Begin of the line of a story that says why a crash state has lost a message. */
const CAUSE = /^cause: /;

/**
 * Reads the object that `--json` prints, from a file that may be packed by gzip. It has no history, so that the report
 * has no timeline.
 * @throws KitError bad-usage (exit code 2) when the file is something else.
 */
export function sourceFromResult(file: string): ReportSource {
  let json: unknown;
  try {
    const bytes = readRegularFile(file, limit('json-bytes'));
    const isPacked = bytes[0] === 0x1f && bytes[1] === 0x8b;
    json = parseBoundedJson(isPacked ? gunzipSync(bytes, { maxOutputLength: limit('json-bytes') }) : bytes);
  } catch (error) {
    throw wrong(file, messageOf(error), error);
  }
  const parsed = Result.safeParse(json);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw wrong(file, `${issue?.path.join('.')}: ${issue?.message}`, parsed.error);
  }
  const result = parsed.data;
  const { target, verdict, why, seed, tookMs, warnings, requirements, unclaimed, smallest } = result;
  const figures = Object.fromEntries(
    Object.entries(result).filter((entry): entry is [string, number] => typeof entry[1] === 'number'),
  );
  const explored = result.crashStates ?? undefined;
  if (explored !== undefined) Object.assign(figures, { states: explored.states, atRisk: explored.atRisk });
  const story = smallest?.story ?? explored?.story ?? [];
  const causes = [
    ...result.causes,
    ...story.filter((line) => CAUSE.test(line)).map((line) => line.replace(CAUSE, '')),
  ];
  return {
    command: smallest !== undefined ? 'explore' : result.sweep !== undefined ? 'sweep' : 'gate',
    ...{ target, verdict, why, seed, tookMs, warnings, requirements, unclaimed },
    protocol: '',
    kitVersion: '',
    startedAt: null,
    path: file,
    notTried: result.faults.flatMap(({ name, why: reason, remedy }) =>
      reason === undefined ? [] : [{ name, why: reason, remedy: remedy ?? '' }],
    ),
    replay:
      verdict === 'pass'
        ? []
        : [
            ...(result.bundle === null ? [] : [commandLine('replay', pathFromHere(result.bundle))]),
            result.replay,
          ],
    power: '',
    runs: [],
    habits: [],
    crashStates: undefined,
    recording: '',
    stated: {
      figures,
      violations: result.violations,
      causes,
      story,
      claimedHits: result.claimedHits,
      faults: result.faults.filter(({ why: reason }) => reason === undefined),
    },
  };
}

function wrong(file: string, what: string, cause: unknown): KitError {
  return new KitError(
    'bad-usage',
    `${file}: expected a directory of evidence, a bundle, a certificate or a result of --json: ${what}`,
    { cause },
  );
}
