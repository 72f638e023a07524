import { randomInt } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { VERDICT_EXIT_CODES } from '../../conformance/exit-codes.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { selectFaults } from '../gate/select-faults.js';
import { commandLine } from '../host/command-line.js';
import { log } from '../host/console.js';
import { withFixIt } from '../host/fix-it.js';
import { OUT_MARKER } from '../host/out-directory.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { gateReport } from '../report/gate-report.js';
import { reportResult } from '../report/reporters/registry.js';
import { type Style, styleFor } from '../report/style.js';
import { table } from '../report/table.js';
import { chooseRuntime } from '../runtime/choice/runtimes.js';
import type { SweepRow } from '../sweep/plan.js';
import { runSweep, type SweepResult } from '../sweep/sweep.js';
import { requirePrograms } from './check/certain.js';
import { formatBudget, MAX_RANDOM_SEED, makeEmptyDirectory, unlessInterrupted } from './common.js';
import { requireNoHungDisk } from './hung-disks.js';
import type { Interrupts } from './interrupt.js';
import { offerReport } from './offer-report.js';
import { enterUserNamespace } from './user-namespace.js';

export interface SweepFlags {
  runtime: string;
  faults?: string[];
  seed?: number;
  budget: number;
  each?: number;
  calls?: number;
  out?: string;
  json?: boolean;
}

/** Names of the faults that a sweep can inject at a system call. */
const SWEPT_FAULTS = ['kill-syscall', 'io-error'];

/** Runs a sweep and reports the result. Resolves to the exit code. */
export async function sweepCommand(
  file: string | undefined,
  flags: SweepFlags,
  interrupts: Interrupts,
): Promise<number> {
  await requireNoHungDisk();
  const target = loadTarget(file ?? REFERENCE_TARGET);
  const seed = flags.seed ?? randomInt(MAX_RANDOM_SEED);
  const style = styleFor(process.stderr);
  const chosen = await chooseRuntime(flags.runtime);
  enterUserNamespace(target, chosen.name);
  requirePrograms(target, file ?? REFERENCE_TARGET, chosen.name);
  const runtime = await chosen.prepare(target, log);
  // Before the registry, which marks the directory as that of this run.
  const out = flags.out === undefined ? undefined : makeEmptyDirectory(flags.out);
  const registry = new Registry(newRunId(), stateDirectory(), out);
  const dir = out ?? join(stateDirectory(), 'runs', registry.runId);
  if (flags.out === undefined) registry.made({ kind: 'directory', path: dir });
  try {
    const claimed = SWEPT_FAULTS.filter((name) =>
      target.guarantee.faults.some((family) => name === family || name.startsWith(`${family}-`)),
    );
    const { faults, unavailable: missing } = await selectFaults(target, flags.faults ?? claimed, runtime);
    if (![...faults, ...missing].some(({ name }) => SWEPT_FAULTS.includes(name))) {
      const given = flags.faults === undefined ? 'sweep' : `--faults ${flags.faults.join(',')}`;
      throw new KitError('bad-usage', `${given}: expected ${SWEPT_FAULTS.join(' or ')}, as far as claimed`);
    }
    const outcome = await unlessInterrupted(
      interrupts,
      runSweep({
        target,
        runtime,
        faults: faults.filter(({ name }) => SWEPT_FAULTS.includes(name)),
        seed,
        budgetMs: flags.budget,
        ...(flags.each === undefined ? {} : { maxPerRow: flags.each }),
        ...(flags.calls === undefined ? {} : { maxCalls: flags.calls }),
        dir,
        keep: flags.out !== undefined,
        registry,
        replay: sweepCommandLine(file, flags, seed),
        signal: interrupts.signal,
        progress: (line) => log(style.faint(line)),
      }),
    );
    if ('exitCode' in outcome) return outcome.exitCode;
    const { result } = outcome;
    const data = { ...result, requirements: withFixIt(result.requirements) };
    reportResult(() => formatReport(result, flags, style), flags.json ? data : undefined);
    await offerReport(result.verdict, result.evidence);
    return VERDICT_EXIT_CODES[result.verdict];
  } finally {
    await runtime.close?.();
    if (interrupts.signal.aborted || isEmpty(dir)) removeTree(dir);
    registry.close();
  }
}

function formatReport(result: SweepResult, flags: SweepFlags, style: Style): string[] {
  const untried = result.sweep.reduce((sum, { calls, tried }) => sum + calls - tried, 0);
  return [
    style.strong('System calls'),
    ...table(result.sweep.map(rowOf)),
    untried === 0
      ? 'every system call was tried'
      : `${untried} system calls were not tried: ${limitReached(result.sweep, flags)}`,
    '',
    // The verdict comes last, as in every report.
    ...gateReport(result, style),
  ];
}

/** Names the limit that ended the sweep before every system call was tried. */
function limitReached(rows: readonly SweepRow[], { each, calls }: SweepFlags): string {
  const tried = rows.reduce((sum, row) => sum + row.tried, 0);
  if (calls !== undefined && tried >= calls) return `more than ${calls} in total (--calls)`;
  const allOfEach = rows.every((row) => row.tried >= Math.min(row.calls, each ?? row.calls));
  return allOfEach ? `more than ${each} of a kind (--each)` : 'there was no time (--budget)';
}

function rowOf({ service, kind, what, calls, tried, hit }: SweepRow): string[] {
  const untried = calls - tried;
  return [
    `  ${service}`,
    kind,
    what,
    `enumerated ${calls}`,
    `tried ${tried}`,
    `hit ${hit}`,
    untried === 0 ? '' : `not tried ${untried}`,
  ];
}

function sweepCommandLine(
  file: string | undefined,
  { faults, budget, each, calls }: SweepFlags,
  seed: number,
): string {
  const args = ['sweep', ...(file === undefined ? [] : [file]), '--seed', `${seed}`];
  if (faults !== undefined) args.push('--faults', faults.join(','));
  if (each !== undefined) args.push('--each', `${each}`);
  if (calls !== undefined) args.push('--calls', `${calls}`);
  return commandLine(...args, '--budget', formatBudget(budget));
}

/** Reports whether a directory has no file, as after a sweep that failed before the target started. */
function isEmpty(dir: string): boolean {
  try {
    return readdirSync(dir).every((name) => name === OUT_MARKER);
  } catch {
    return true;
  }
}
