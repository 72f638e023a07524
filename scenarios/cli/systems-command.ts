import { randomInt } from 'node:crypto';
import { KitError } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { log } from '../host/console.js';
import { reportResult } from '../report/reporters/registry.js';
import { unexpectedReport } from '../report/systems-report.js';
import { table } from '../report/table.js';
import { chooseRuntime } from '../runtime/choice/runtimes.js';
import { choosePowerBackend } from '../runtime/power-backends.js';
import { type ExpectedRun, type ExpectedSystem, loadExpectedSystems } from '../systems/expected.js';
import { inGroups } from '../systems/groups.js';
import { installSystem } from '../systems/install.js';
import { lastLogLines, measureSystem, type SystemResult } from '../systems/measure.js';
import { MAX_RANDOM_SEED, unlessInterrupted } from './common.js';
import type { Interrupts } from './interrupt.js';

export interface SystemsFlags {
  runtime: string;
  faults?: string[];
  power?: string;
  seed?: number;
  budget?: number;
  jobs?: number;
  json?: boolean;
}

/**
 * Measures real systems. Runs of the same package come one after the other: its processes may share something on this
 * machine, such as the port of RabbitMQ's name server. With `jobs` above 1, that many packages are measured at once.
 * @returns exit code 0 when every result that was measured is as expected, 1 when one is not, 3 when
 *   nothing was measured.
 * @throws KitError bad-usage when no run has a fault of `--faults`.
 */
export async function systemsCommand(
  names: string[],
  flags: SystemsFlags,
  interrupts: Interrupts,
): Promise<number> {
  const { jobs = 1 } = flags;
  const systems = loadExpectedSystems(names);
  const runtime = await chooseRuntime(flags.runtime);
  const power = await choosePowerBackend(flags.power, undefined, runtime.name);
  const seed = flags.seed ?? randomInt(MAX_RANDOM_SEED);
  const planned = systems.flatMap((system) => {
    const runs = system.runs.filter(({ faults }) => {
      return flags.faults === undefined || faults.some((fault) => flags.faults?.includes(fault));
    });
    return runs.map((run) => ({ system, run }));
  });
  if (planned.length === 0) {
    const known = new Set(systems.flatMap(({ runs }) => runs.flatMap(({ faults }) => faults)));
    const expected = `expected some of ${[...known].join(', ')}`;
    throw new KitError('bad-usage', `--faults ${flags.faults?.join(',')}: no run has one, ${expected}`);
  }
  // Install everything first: an installation blocks this process, and a gate beside it would notice that.
  if (runtime.name === 'process') for (const { system } of planned) installSystem(system, log);
  const measure = async ({ system, run }: PlannedRun, signal: AbortSignal): Promise<SystemResult> => {
    log(`${system.name}: ${run.faults.join(', ')}: expected to ${run.verdict}: ${run.reason}`);
    const progress = (line: string) => log(`  ${jobs > 1 ? `${system.name}: ` : ''}${line}`);
    const options = { runtime, power, seed, budgetMs: flags.budget, signal, progress };
    const result = await measureSystem(system, run, options);
    log(`${system.name}: ${result.outcome}: ${result.why}`);
    if (result.outcome === 'unexpected') {
      const logTails = result.evidence === null ? [] : lastLogLines(result.evidence);
      for (const line of unexpectedReport(result, logTails)) progress(line);
    }
    return result;
  };
  const outcome = await unlessInterrupted(
    interrupts,
    inGroups(planned, ({ system }) => system.package, jobs, interrupts.signal, measure),
  );
  if ('exitCode' in outcome) return outcome.exitCode;
  const { result: results } = outcome;
  reportResult(
    () => table([TABLE_HEAD, ...results.map(row)]),
    flags.json ? { seed, systems: results } : undefined,
  );
  if (results.some((one) => one.outcome === 'unexpected')) return EXIT_CODES.violation;
  return results.some((one) => one.outcome === 'as-expected') ? EXIT_CODES.pass : EXIT_CODES.notMeasured;
}

/** One run of `expected.json`. */
interface PlannedRun {
  system: ExpectedSystem;
  run: ExpectedRun;
}

const TABLE_HEAD = ['system', 'faults', 'expected', 'found', 'confirmed', 'lost', 'crashes', 's', ''];

function row({ system, faults, expected, outcome, verdict, red, ...figures }: SystemResult): string[] {
  const { confirmed, lost, crashes, seconds } = figures;
  return [
    system,
    faults.join(','),
    [expected.verdict, ...expected.red].join(' '),
    [verdict ?? 'not-measured', ...red].join(' '),
    `${confirmed}`,
    `${lost}`,
    `${crashes}`,
    `${seconds}`,
    outcome,
  ];
}
