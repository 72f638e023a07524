import { closeSync, existsSync, fstatSync, openSync, readdirSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { type GateOptions, selectAndRunGate } from '../gate/gate.js';
import type { GateResult } from '../gate/result.js';
import type { PowerBackendName } from '../runtime/power-backends.js';
import type { Runtime } from '../runtime/runtime.js';
import { type ExpectedRun, type ExpectedSystem, SYSTEMS_DIR } from './expected.js';

/** One gate run on a real system, held against what was expected of it. */
export interface SystemResult {
  system: string;
  faults: readonly string[];
  expected: { verdict: 'pass' | 'fail'; red: readonly string[] };
  /** `not-measured`: the system, or what makes the fault, is not here or does not start; `why` says which. */
  outcome: 'as-expected' | 'unexpected' | 'not-measured';
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
const RETRY_BUDGET_FACTOR = 3;

/**
 * Runs the gate as one line of `expected.json` says.
 * @throws KitError when the kit or the target file is at fault.
 */
export async function measureSystem(
  system: ExpectedSystem,
  run: ExpectedRun,
  options: MeasureOptions,
): Promise<SystemResult> {
  const { faults, verdict, red } = run;
  const noFigures = {
    confirmed: 0,
    lost: 0,
    crashes: 0,
    seconds: 0,
    violations: [],
    evidence: null,
    bundle: null,
  };
  const { seed } = options;
  const replay = gateCommandLine(system, run, seed);
  const base = { system: system.name, faults, expected: { verdict, red }, seed, replay, red: [] };
  const missing = missingProgram(system, options.runtime);
  if (missing !== undefined) return { ...base, ...noFigures, outcome: 'not-measured', why: missing };
  let result: GateResult;
  try {
    const budgetMs = options.budgetMs ?? run.budgetSeconds * 1000;
    result = await runGateOnSystem(system, run, { ...options, budgetMs });
    if (result.verdict === 'not-measured' && options.budgetMs === undefined && !options.signal.aborted) {
      options.progress(`${result.why}: again, with ${RETRY_BUDGET_FACTOR} times the time`);
      result = await runGateOnSystem(system, run, { ...options, budgetMs: budgetMs * RETRY_BUDGET_FACTOR });
    }
  } catch (error) {
    // No fault of the run can be made here, there is no image, or the system does not even start.
    const unavailable = error instanceof KitError && error.code === 'target-unavailable';
    if (!unavailable || options.signal.aborted) throw error;
    return { ...base, ...noFigures, outcome: 'not-measured', why: error.message };
  }
  return {
    ...base,
    ...compareWithExpected(result, run),
    verdict: result.verdict,
    red: failedRequirements(result),
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
export function compareWithExpected(
  result: Pick<GateResult, 'verdict' | 'why' | 'requirements'>,
  { verdict, red, mayFail }: Pick<ExpectedRun, 'verdict' | 'red' | 'mayFail'>,
): Pick<SystemResult, 'outcome' | 'why'> {
  const { why } = result;
  const failedIds = failedRequirements(result);
  const onlyAllowed =
    failedIds.length > 0 && failedIds.every((id) => [...red, ...mayFail].some((one) => one === id));
  const isExpected =
    result.verdict === 'fail' ? onlyAllowed : result.verdict === 'pass' && verdict === 'pass';
  return { outcome: isExpected ? 'as-expected' : 'unexpected', why };
}

function failedRequirements({ requirements }: Pick<GateResult, 'requirements'>): string[] {
  return requirements.filter((one) => one.verdict === 'fail').map(({ id }) => id);
}

function targetFileOf({ name }: ExpectedSystem): string {
  return join(SYSTEMS_DIR, `${name}.json`);
}

function gateCommandLine(system: ExpectedSystem, { faults }: ExpectedRun, seed: number): string {
  return `plugpull gate ${targetFileOf(system)} --seed ${seed} --faults ${faults.join(',')}`;
}

async function runGateOnSystem(
  system: ExpectedSystem,
  run: ExpectedRun,
  options: MeasureOptions & { budgetMs: number },
): Promise<GateResult> {
  const target = loadTarget(targetFileOf(system));
  const runtime = await options.runtime.prepare(target, options.progress);
  return selectAndRunGate({
    target,
    runtime,
    wanted: run.faults,
    power: options.power,
    seed: options.seed,
    budgetMs: options.budgetMs,
    out: undefined,
    keep: false,
    replay: (seed) => gateCommandLine(system, run, seed),
    signal: options.signal,
    progress: options.progress,
  });
}

/** Why the system cannot run here; containers bring their own. */
function missingProgram(
  { program, package: debianPackage }: ExpectedSystem,
  { name }: Runtime,
): string | undefined {
  if (name !== 'process') return undefined;
  const folders = program.startsWith('/') ? [''] : (process.env.PATH ?? '').split(':');
  if (folders.some((folder) => existsSync(join(folder, program)))) return undefined;
  return `${program} is not installed (as root: apt-get install ${debianPackage})`;
}

/** What one service of a target, or one of its commands, said last. */
export interface LogTail {
  /** The log, in the directory of the evidence. */
  file: string;
  lines: string[];
}

/** Few, so that a CI run that repeats the heads of what failed shows them whole. */
const MAX_TAIL_LINES = 5;
const MAX_LINE_CHARS = 300;
/** So much of the end of a log is read: a target may have said anything, and any amount of it. */
const TAIL_BYTES = 64 * 1024;

/** The ends of all logs of the last round that left evidence there; none of those that are empty. */
export function lastLogLines(evidence: string): LogTail[] {
  const numbers = listDirectory(evidence).flatMap((name) => /^round-(\d+)$/.exec(name)?.[1] ?? []);
  if (numbers.length === 0) return [];
  const logs = join(`round-${Math.max(...numbers.map(Number))}`, 'logs');
  return listDirectory(join(evidence, logs))
    .map((name) => ({ file: join(logs, name), lines: readLogTail(join(evidence, logs, name)) }))
    .filter(({ lines }) => lines.length > 0);
}

function listDirectory(dir: string): string[] {
  try {
    return readdirSync(dir).sort();
  } catch {
    // A round that never came to its logs has none.
    return [];
  }
}

function readLogTail(path: string): string[] {
  const bytes = Buffer.alloc(TAIL_BYTES);
  const log = openSync(path, 'r');
  try {
    const startByte = Math.max(0, fstatSync(log).size - TAIL_BYTES);
    const text = bytes.subarray(0, readSync(log, bytes, 0, TAIL_BYTES, startByte)).toString();
    const lines = text.split('\n').filter((line) => line.trim() !== '');
    return lines.slice(-MAX_TAIL_LINES).map((line) => line.slice(0, MAX_LINE_CHARS));
  } finally {
    closeSync(log);
  }
}
