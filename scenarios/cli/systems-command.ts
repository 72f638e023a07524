import { randomInt } from 'node:crypto';
import { KitError } from '../../conformance/errors.js';
import { otherwiseReport } from '../report/systems-report.js';
import { table } from '../report/table.js';
import { runtimeNamed } from '../runtime/choice/runtimes.js';
import { choosePower } from '../runtime/power-backends.js';
import { expectedSystems } from '../systems/expected.js';
import { lastWords, type Measured, measure } from '../systems/measure.js';
import type { Interrupts } from './interrupt.js';

export interface SystemsFlags {
  runtime: string;
  faults?: string[];
  power?: string;
  seed?: number;
  budget?: number;
  json?: boolean;
}

const LARGEST_RANDOM_SEED = 1_000_000;

/** Measures real systems one after the other; exit code 0 when each that is here does what is expected of it. */
export async function systemsCommand(
  names: string[],
  flags: SystemsFlags,
  interrupts: Interrupts,
): Promise<number> {
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  const systems = expectedSystems(names);
  const runtime = await runtimeNamed(flags.runtime);
  const power = await choosePower(flags.power, undefined, runtime.name);
  const seed = flags.seed ?? randomInt(LARGEST_RANDOM_SEED);
  const all: Measured[] = [];
  for (const system of systems) {
    for (const run of system.runs) {
      if (flags.faults && !run.faults.some((fault) => flags.faults?.includes(fault))) continue;
      say(`${system.name}: ${run.faults.join(', ')}: expected to ${run.verdict}: ${run.reason}`);
      const done = await measure(system, run, {
        runtime,
        power,
        seed,
        budgetMs: flags.budget,
        signal: interrupts.signal,
        progress: (line) => say(`  ${line}`),
      }).catch((error: unknown) => {
        // What fails because everything is being stopped is no news.
        if (interrupts.exitCode() === undefined) throw error;
        return undefined;
      });
      const interrupted = interrupts.exitCode();
      if (done === undefined || interrupted !== undefined) return interrupted ?? 130;
      say(`${system.name}: ${done.outcome}: ${done.why}`);
      if (done.outcome === 'otherwise') {
        const said = done.evidence === null ? [] : lastWords(done.evidence);
        for (const line of otherwiseReport(done, said)) say(`  ${line}`);
      }
      all.push(done);
    }
  }
  if (all.length === 0) {
    const known = new Set(systems.flatMap(({ runs }) => runs.flatMap(({ faults }) => faults)));
    const expected = `expected some of ${[...known].join(', ')}`;
    throw new KitError('bad-usage', `--faults ${flags.faults?.join(',')}: no run has one, ${expected}`);
  }
  for (const line of table([HEAD, ...all.map(row)])) say(line);
  if (flags.json) process.stdout.write(`${JSON.stringify({ seed, systems: all })}\n`);
  if (all.some(({ outcome }) => outcome === 'otherwise')) return 1;
  return all.some(({ outcome }) => outcome === 'as-expected') ? 0 : 3;
}

const HEAD = ['system', 'faults', 'expected', 'found', 'confirmed', 'lost', 'crashes', 's', ''];

function row({ system, faults, expected, outcome, verdict, red, ...done }: Measured): string[] {
  const { confirmed, lost, crashes, seconds } = done;
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
