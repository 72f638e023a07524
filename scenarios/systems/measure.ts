import { closeSync, existsSync, fstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { type GateOptions, gateOn } from '../gate/gate.js';
import type { GateResult } from '../gate/result.js';
import type { PowerBackendName } from '../runtime/power-backends.js';
import type { Runtime } from '../runtime/runtime.js';
import { type ExpectedRun, type ExpectedSystem, SYSTEMS_DIR } from './expected.js';

/** One gate run on a real system, held against what was expected of it. */
export interface Measured {
  system: string;
  faults: readonly string[];
  expected: { verdict: 'pass' | 'fail'; red: readonly string[] };
  /** `not-measured`: the system, or what makes the fault, is not here or does not start; `why` says which. */
  outcome: 'as-expected' | 'otherwise' | 'not-measured';
  why: string;
  verdict?: GateResult['verdict'];
  red: string[];
  confirmed: number;
  lost: number;
  /** Crashes that hit. */
  crashes: number;
  seconds: number;
  seed: number;
  /** What exactly went wrong, each with what was seen of it. */
  violations: GateResult['violations'];
  evidence: string | null;
  /** The file that `plugpull replay` takes. */
  bundle: string | null;
  /** The line that runs it again. */
  replay: string;
}

export type MeasureOptions = Pick<GateOptions, 'seed' | 'signal' | 'progress'> & {
  runtime: Runtime;
  power: PowerBackendName;
  /** Instead of the budgets of the file. */
  budgetMs?: number | undefined;
};

/** A run that measured nothing in its time gets so much more of it, once: a slow machine makes few faults in a few seconds. */
const MORE_TIME = 3;

/**
 * Runs the gate as one line of `expected.json` says.
 * @throws KitError when the kit or the target file is at fault.
 */
export async function measure(
  system: ExpectedSystem,
  run: ExpectedRun,
  options: MeasureOptions,
): Promise<Measured> {
  const { faults, verdict, red } = run;
  const none = {
    confirmed: 0,
    lost: 0,
    crashes: 0,
    seconds: 0,
    violations: [],
    evidence: null,
    bundle: null,
  };
  const { seed } = options;
  const replay = replayOf(system, run, seed);
  const base = { system: system.name, faults, expected: { verdict, red }, seed, replay, red: [] };
  const missing = missingProgram(system, options.runtime);
  if (missing !== undefined) return { ...base, ...none, outcome: 'not-measured', why: missing };
  let result: GateResult;
  try {
    const budgetMs = options.budgetMs ?? run.budgetSeconds * 1000;
    result = await gate(system, run, { ...options, budgetMs });
    if (result.verdict === 'not-measured' && options.budgetMs === undefined && !options.signal.aborted) {
      options.progress(`${result.why}: again, with ${MORE_TIME} times the time`);
      result = await gate(system, run, { ...options, budgetMs: budgetMs * MORE_TIME });
    }
  } catch (error) {
    // No fault of the run can be made here, there is no image, or the system does not even start.
    const unavailable = error instanceof KitError && error.code === 'target-unavailable';
    if (!unavailable || options.signal.aborted) throw error;
    return { ...base, ...none, outcome: 'not-measured', why: error.message };
  }
  return {
    ...base,
    ...judge(result, run),
    verdict: result.verdict,
    red: redOf(result),
    confirmed: result.confirmed,
    lost: result.lost,
    crashes: result.crashes,
    seconds: Math.round(result.tookMs / 100) / 10,
    seed: result.seed,
    violations: result.violations,
    evidence: result.evidence,
    bundle: result.bundle,
    replay: result.replay,
  };
}

/**
 * Whether a gate found what was expected: a failure at the right requirement, or none; in both cases also at one that is
 * known to fail by chance, and at no other. A gate ends with the first round that violates anything, so what comes by
 * chance may be all that was seen.
 */
export function judge(
  result: Pick<GateResult, 'verdict' | 'why' | 'requirements'>,
  { verdict, red, byChance }: Pick<ExpectedRun, 'verdict' | 'red' | 'byChance'>,
): Pick<Measured, 'outcome' | 'why'> {
  const { why } = result;
  const found = redOf(result);
  const known = found.length > 0 && found.every((id) => [...red, ...byChance].some((one) => one === id));
  const right = result.verdict === 'fail' ? known : result.verdict === 'pass' && verdict === 'pass';
  return { outcome: right ? 'as-expected' : 'otherwise', why };
}

function redOf({ requirements }: Pick<GateResult, 'requirements'>): string[] {
  return requirements.filter((one) => one.verdict === 'fail').map(({ id }) => id);
}

function fileOf({ name }: ExpectedSystem): string {
  return join(SYSTEMS_DIR, `${name}.json`);
}

function replayOf(system: ExpectedSystem, { faults }: ExpectedRun, seed: number): string {
  return `plugpull gate ${fileOf(system)} --seed ${seed} --faults ${faults.join(',')}`;
}

async function gate(
  system: ExpectedSystem,
  run: ExpectedRun,
  options: MeasureOptions & { budgetMs: number },
): Promise<GateResult> {
  const target = loadTarget(fileOf(system));
  const runtime = await options.runtime.prepare(target, options.progress);
  return gateOn({
    target,
    runtime,
    wanted: run.faults,
    power: options.power,
    seed: options.seed,
    budgetMs: options.budgetMs,
    out: undefined,
    keep: false,
    replay: (seed) => replayOf(system, run, seed),
    signal: options.signal,
    progress: options.progress,
  });
}

/** Why the system cannot run here; containers bring their own. */
function missingProgram({ program, package: debian }: ExpectedSystem, { name }: Runtime): string | undefined {
  if (name !== 'process') return undefined;
  const folders = program.startsWith('/') ? [''] : (process.env.PATH ?? '').split(':');
  if (folders.some((folder) => existsSync(join(folder, program)))) return undefined;
  return `${program} is not installed (as root: apt-get install ${debian})`;
}

/** What one service of a target, or one of its commands, said last. */
export interface LastWords {
  /** The log, in the directory of the evidence. */
  file: string;
  lines: string[];
}

/** Few, so that a CI run that repeats the heads of what failed shows them whole. */
const MOST_LINES = 5;
const LONGEST_LINE = 300;
/** So much of the end of a log is read: a target may have said anything, and any amount of it. */
const TAIL_BYTES = 64 * 1024;

/** The ends of all logs of the last round that left evidence there; none of those that are empty. */
export function lastWords(evidence: string): LastWords[] {
  const numbers = namesIn(evidence).flatMap((name) => /^round-(\d+)$/.exec(name)?.[1] ?? []);
  if (numbers.length === 0) return [];
  const logs = join(`round-${Math.max(...numbers.map(Number))}`, 'logs');
  return namesIn(join(evidence, logs))
    .map((name) => ({ file: join(logs, name), lines: endOf(join(evidence, logs, name)) }))
    .filter(({ lines }) => lines.length > 0);
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir).sort();
  } catch {
    // A round that never came to its logs has none.
    return [];
  }
}

function endOf(path: string): string[] {
  const bytes = Buffer.alloc(TAIL_BYTES);
  const log = openSync(path, 'r');
  try {
    const from = Math.max(0, fstatSync(log).size - TAIL_BYTES);
    const text = bytes.subarray(0, readSync(log, bytes, 0, TAIL_BYTES, from)).toString();
    const lines = text.split('\n').filter((line) => line.trim() !== '');
    return lines.slice(-MOST_LINES).map((line) => line.slice(0, LONGEST_LINE));
  } finally {
    closeSync(log);
  }
}
