import { randomInt } from 'node:crypto';
import { KitError } from '../../conformance/errors.js';
import { unexpectedReport } from '../report/systems-report.js';
import { table } from '../report/table.js';
import { chooseRuntime } from '../runtime/choice/runtimes.js';
import { choosePowerBackend } from '../runtime/power-backends.js';
import { loadExpectedSystems } from '../systems/expected.js';
import { lastLogLines, measureSystem, type SystemResult } from '../systems/measure.js';
import type { Interrupts } from './interrupt.js';

export interface SystemsFlags {
  runtime: string;
  faults?: string[];
  power?: string;
  seed?: number;
  budget?: number;
  json?: boolean;
}

const MAX_RANDOM_SEED = 1_000_000;

/** Measures real systems one after the other; exit code 0 when each that is here does what is expected of it. */
export async function systemsCommand(
  names: string[],
  flags: SystemsFlags,
  interrupts: Interrupts,
): Promise<number> {
  const log = (line: string) => void process.stderr.write(`${line}\n`);
  const systems = loadExpectedSystems(names);
  const runtime = await chooseRuntime(flags.runtime);
  const power = await choosePowerBackend(flags.power, undefined, runtime.name);
  const seed = flags.seed ?? randomInt(MAX_RANDOM_SEED);
  const results: SystemResult[] = [];
  for (const system of systems) {
    for (const run of system.runs) {
      if (flags.faults && !run.faults.some((fault) => flags.faults?.includes(fault))) continue;
      log(`${system.name}: ${run.faults.join(', ')}: expected to ${run.verdict}: ${run.reason}`);
      const result = await measureSystem(system, run, {
        runtime,
        power,
        seed,
        budgetMs: flags.budget,
        signal: interrupts.signal,
        progress: (line) => log(`  ${line}`),
      }).catch((error: unknown) => {
        // What fails because everything is being stopped is no news.
        if (interrupts.exitCode() === undefined) throw error;
        return undefined;
      });
      const interrupted = interrupts.exitCode();
      if (result === undefined || interrupted !== undefined) return interrupted ?? 130;
      log(`${system.name}: ${result.outcome}: ${result.why}`);
      if (result.outcome === 'otherwise') {
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
  if (flags.json) process.stdout.write(`${JSON.stringify({ seed, systems: results })}\n`);
  if (results.some(({ outcome }) => outcome === 'otherwise')) return 1;
  return results.some(({ outcome }) => outcome === 'as-expected') ? 0 : 3;
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
