import { randomInt } from 'node:crypto';
import { KitError } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { log, printJson } from '../host/console.js';
import { unexpectedReport } from '../report/systems-report.js';
import { table } from '../report/table.js';
import { chooseRuntime } from '../runtime/choice/runtimes.js';
import { choosePowerBackend } from '../runtime/power-backends.js';
import { loadExpectedSystems } from '../systems/expected.js';
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
  json?: boolean;
}

/**
 * Measures real systems one after the other.
 * @returns exit code 0 when every result that was measured is as expected, 1 when one is not, 3 when
 *   nothing was measured.
 * @throws KitError bad-usage when no run has a fault of `--faults`.
 */
export async function systemsCommand(
  names: string[],
  flags: SystemsFlags,
  interrupts: Interrupts,
): Promise<number> {
  const systems = loadExpectedSystems(names);
  const runtime = await chooseRuntime(flags.runtime);
  const power = await choosePowerBackend(flags.power, undefined, runtime.name);
  const seed = flags.seed ?? randomInt(MAX_RANDOM_SEED);
  const results: SystemResult[] = [];
  for (const system of systems) {
    for (const run of system.runs) {
      if (flags.faults && !run.faults.some((fault) => flags.faults?.includes(fault))) continue;
      if (runtime.name === 'process') installSystem(system, log);
      log(`${system.name}: ${run.faults.join(', ')}: expected to ${run.verdict}: ${run.reason}`);
      const outcome = await unlessInterrupted(
        interrupts,
        measureSystem(system, run, {
          runtime,
          power,
          seed,
          budgetMs: flags.budget,
          signal: interrupts.signal,
          progress: (line) => log(`  ${line}`),
        }),
      );
      if ('exitCode' in outcome) return outcome.exitCode;
      const { result } = outcome;
      log(`${system.name}: ${result.outcome}: ${result.why}`);
      if (result.outcome === 'unexpected') {
        const logTails = result.evidence === null ? [] : lastLogLines(result.evidence);
        for (const line of unexpectedReport(result, logTails)) log(`  ${line}`);
      }
      results.push(result);
    }
  }
  if (results.length === 0) {
    const known = new Set(systems.flatMap(({ runs }) => runs.flatMap(({ faults }) => faults)));
    const expected = `expected some of ${[...known].join(', ')}`;
    throw new KitError('bad-usage', `--faults ${flags.faults?.join(',')}: no run has one, ${expected}`);
  }
  for (const line of table([TABLE_HEAD, ...results.map(row)])) log(line);
  if (flags.json) printJson({ seed, systems: results });
  if (results.some(({ outcome }) => outcome === 'unexpected')) return EXIT_CODES.violation;
  return results.some(({ outcome }) => outcome === 'as-expected') ? EXIT_CODES.pass : EXIT_CODES.notMeasured;
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
