import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { selectAndRunGate } from '../gate/gate.js';
import type { GateOptions } from '../gate/gate-options.js';
import type { GateResult } from '../gate/result.js';
import { commandLine, pathFromHere } from '../host/command-line.js';
import { readLogTail } from '../host/log-tail.js';
import type { PowerBackendName } from '../runtime/power-backends.js';
import type { Runtime } from '../runtime/runtime.js';
import { type ExpectedRun, type ExpectedSystem, SYSTEMS_DIR } from './expected.js';
import { isInstalled, remedy } from './install.js';

/** Result of one gate on a real system, compared with the expected result. */
export interface SystemResult {
  system: string;
  faults: readonly string[];
  expected: { verdict: 'pass' | 'fail'; red: readonly string[] };
  /**
   * `not-measured`: the system or a prerequisite of the fault is missing, or the system does not start; see
   * `why`.
   */
  outcome: 'as-expected' | 'unexpected' | 'not-measured';
  why: string;
  verdict?: GateResult['verdict'];
  red: string[];
  confirmed: number;
  lost: number;
  /** Number of crashes that hit. */
  crashes: number;
  seconds: number;
  seed: number;
  /** Violations, each with the observed details. */
  violations: GateResult['violations'];
  evidence: string | null;
  /** Path of the file for `plugpull replay`; null when nothing failed. */
  bundle: string | null;
  /** Command line that runs the gate again. */
  replay: string;
}

export type MeasureOptions = Pick<GateOptions, 'seed' | 'signal' | 'progress'> & {
  runtime: Runtime;
  power: PowerBackendName;
  /** Budget that replaces the budgets of `expected.json`. */
  budgetMs?: number | undefined;
};

/**
 * Factor for the budget of the second run of a gate that measured nothing: a slow machine injects few faults
 * in a few seconds.
 */
const RETRY_BUDGET_FACTOR = 3;
/** Added to the seed for the second run, so that none of its rounds repeats a round of the first run. */
const RETRY_SEED_STEP = 1_000_000;

/**
 * Runs the gate on a real system as a run of `expected.json` describes it, and compares the results.
 * @throws KitError when the kit fails, or when the target file is invalid.
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
    // A fault may hit too late for a measurement, or a defect may show itself only at some of the injections.
    const isTooShort = result.verdict === 'not-measured' || (result.verdict === 'pass' && verdict === 'fail');
    if (isTooShort && options.budgetMs === undefined && !options.signal.aborted) {
      options.progress(`${result.why}: again, with ${RETRY_BUDGET_FACTOR} times the time`);
      result = await runGateOnSystem(system, run, {
        ...options,
        seed: seed + RETRY_SEED_STEP,
        budgetMs: budgetMs * RETRY_BUDGET_FACTOR,
      });
    }
  } catch (error) {
    // No fault of the run is available here, an image is missing, or the system does not start.
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
 * Compares the result of a gate with the expected one. A failed gate is as expected when every failed
 * requirement is in `red` or `mayFail`. A passed gate is as expected when the expected verdict is `pass`. A
 * gate ends with the first round that violates a requirement, so a requirement of `mayFail` may be the only
 * one that failed.
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
  return commandLine(
    'gate',
    pathFromHere(targetFileOf(system)),
    '--seed',
    `${seed}`,
    '--faults',
    faults.join(','),
  );
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

/**
 * Returns why the system cannot run here; undefined if it can. In containers the image contains the system.
 */
function missingProgram(system: ExpectedSystem, { name }: Runtime): string | undefined {
  if (name !== 'process') {
    const { services } = loadTarget(targetFileOf(system));
    const isInImages = Object.values(services).every(({ image }) => image !== undefined);
    return isInImages ? undefined : `${system.name} has no image: it runs under the runtime process only`;
  }
  if (isInstalled(system)) return undefined;
  return `${system.program} is not installed (${remedy(system)})`;
}

/** Last lines of the log of one service or one command of a target. */
export interface LogTail {
  /** Path of the log, relative to the evidence directory. */
  file: string;
  lines: string[];
}

/**
 * Upper bound of the lines per log. It is small, so that a CI run, which repeats only the head of each
 * failure, shows all of them.
 */
const LOG_TAIL = { maxLines: 5, maxLineChars: 300 };
/** Returns the last lines of all logs of the last round in an evidence directory, without the empty logs. */
export function lastLogLines(evidence: string): LogTail[] {
  const numbers = listDirectory(evidence).flatMap((name) => /^round-(\d+)$/.exec(name)?.[1] ?? []);
  if (numbers.length === 0) return [];
  const logs = join(`round-${Math.max(...numbers.map(Number))}`, 'logs');
  return listDirectory(join(evidence, logs))
    .map((name) => ({ file: join(logs, name), lines: readLogTail(join(evidence, logs, name), LOG_TAIL) }))
    .filter(({ lines }) => lines.length > 0);
}

function listDirectory(dir: string): string[] {
  try {
    return readdirSync(dir).sort();
  } catch {
    // A round that ended before its first log has no such directory.
    return [];
  }
}
