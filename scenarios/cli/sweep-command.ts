import { randomInt } from 'node:crypto';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { selectFaults } from '../gate/select.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { shellWord } from '../host/shell.js';
import { gateReport } from '../report/gate-report.js';
import { type Style, styleFor } from '../report/style.js';
import { table } from '../report/table.js';
import { runtimeNamed } from '../runtime/choice/runtimes.js';
import type { SweepRow } from '../sweep/plan.js';
import { runSweep, type SweepResult } from '../sweep/sweep.js';
import { emptyDirectory, LARGEST_RANDOM_SEED, unlessInterrupted, VERDICT_EXIT_CODES } from './common.js';
import type { Interrupts } from './interrupt.js';

export interface SweepFlags {
  runtime: string;
  faults?: string[];
  seed?: number;
  budget: number;
  each?: number;
  out?: string;
  json?: boolean;
}

/** What a sweep can do at a system call. */
const SWEPT = ['kill-syscall', 'io-error'];

/** Sweeps and reports; resolves to the exit code. */
export async function sweepCommand(
  file: string | undefined,
  flags: SweepFlags,
  interrupts: Interrupts,
): Promise<number> {
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  const target = loadTarget(file ?? REFERENCE_TARGET);
  const seed = flags.seed ?? randomInt(LARGEST_RANDOM_SEED);
  const style = styleFor(process.stderr);
  const runtime = await (await runtimeNamed(flags.runtime)).prepare(target, say);
  const registry = new Registry(newRunId());
  const dir =
    flags.out === undefined ? join(stateDirectory(), 'runs', registry.runId) : emptyDirectory(flags.out);
  if (flags.out === undefined) registry.made({ kind: 'directory', path: dir });
  try {
    const claimed = SWEPT.filter((name) =>
      target.guarantee.faults.some((family) => name === family || name.startsWith(`${family}-`)),
    );
    const { faults, missing } = await selectFaults(target, flags.faults ?? claimed, runtime);
    if (![...faults, ...missing].some(({ name }) => SWEPT.includes(name))) {
      const given = flags.faults === undefined ? 'sweep' : `--faults ${flags.faults.join(',')}`;
      throw new KitError('bad-usage', `${given}: expected ${SWEPT.join(' or ')}, as far as claimed`);
    }
    const ended = await unlessInterrupted(
      interrupts,
      runSweep({
        target,
        runtime,
        faults: faults.filter(({ name }) => SWEPT.includes(name)),
        seed,
        budgetMs: flags.budget,
        ...(flags.each === undefined ? {} : { each: flags.each }),
        dir,
        keep: flags.out !== undefined,
        registry,
        replay: lineOf(file, flags, seed),
        signal: interrupts.signal,
        progress: (line) => say(style.faint(line)),
      }),
    );
    if ('exitCode' in ended) return ended.exitCode;
    const { result } = ended;
    for (const line of report(result, flags.each, style)) say(line);
    if (flags.json) process.stdout.write(`${JSON.stringify(result)}\n`);
    return VERDICT_EXIT_CODES[result.verdict];
  } finally {
    await runtime.close?.();
    if (interrupts.signal.aborted) rmSync(dir, { recursive: true, force: true });
    registry.close();
  }
}

function report(result: SweepResult, each: number | undefined, style: Style): string[] {
  const done = result.sweep.every(({ places, tried }) => tried >= Math.min(places, each ?? places));
  const why = done ? `more than ${each} of a kind (--each)` : 'there was no time (--budget)';
  const left = result.sweep.reduce((sum, row) => sum + row.places - row.tried, 0);
  return [
    ...gateReport(result, style),
    '',
    style.strong('System calls'),
    ...table(result.sweep.map(rowOf)),
    left === 0 ? 'every place was tried' : `${left} places were left out: ${why}`,
  ];
}

function rowOf({ service, kind, what, places, tried, reached }: SweepRow): string[] {
  const left = places - tried;
  return [
    `  ${service}`,
    kind,
    what,
    `enumerated ${places}`,
    `tried ${tried}`,
    `hit ${reached}`,
    left === 0 ? '' : `left out ${left}`,
  ];
}

function lineOf(file: string | undefined, { faults, budget, each }: SweepFlags, seed: number): string {
  const words = ['plugpull', 'sweep', ...(file === undefined ? [] : [file]), '--seed', `${seed}`];
  if (faults !== undefined) words.push('--faults', faults.join(','));
  if (each !== undefined) words.push('--each', `${each}`);
  return [...words, '--budget', `${budget}ms`].map(shellWord).join(' ');
}
