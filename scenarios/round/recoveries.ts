import type { Inspected, Untimed } from '../../conformance/history/events.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import type { Injection } from '../../faults/fault.js';
import { sleep } from '../../faults/waiting.js';
import type { Deployment } from '../runtime/runtime.js';
import type { StartResult, TargetSupervisor } from './target-supervisor.js';

export interface RecoveriesOptions {
  deployment: Deployment;
  supervisor: TargetSupervisor;
  recorder: Recorder;
  /** The target's own command that inspects its stored state; undefined when it has none. */
  verify: readonly string[] | undefined;
  /** A recovery that takes longer has failed. */
  limitMs: number;
  /** Where processors are made in software: how long a command may take; such a machine has no time for more inspections. */
  slowStartMs: number | undefined;
  signal: AbortSignal;
}

const INITIAL_RECOVERY_MS = 500;
/** An inspection takes as long as all the rest of a power cut: one in so many is followed by one. */
const CUTS_PER_INSPECTION = 3;

/** Starts of a target: the first one, those behind a crash, and what is looked at behind them. */
export class Recoveries {
  readonly #options: RecoveriesOptions;
  readonly #endedMs: number[] = [];
  #usualMs = INITIAL_RECOVERY_MS;
  #machineCrashes = 0;
  /** One that runs beside the workload. */
  #inspection: Promise<void> = Promise.resolve();

  constructor(options: RecoveriesOptions) {
    this.#options = options;
  }

  /** How long the last start took until the target was ready. */
  get usualMs(): number {
    return this.#usualMs;
  }

  /** When the last recovery but `before` of them ended (`performance.now()`); undefined when there were not so many. */
  recoveryEndedMs(before: number): number | undefined {
    return this.#endedMs.at(-1 - before);
  }

  /** The start of a target that has had no message yet. */
  async firstStart(timeoutMs: number): Promise<StartResult> {
    const start = await this.#options.supervisor.bringUp(timeoutMs);
    if (start.ready) this.#usualMs = start.tookMs;
    return start;
  }

  /** Starts everything and leaves it in the middle of its recovery. */
  async startIntoRecovery(fraction: number): Promise<void> {
    for (const service of this.#options.deployment.services) await service.start();
    await sleep(fraction * this.#usualMs, this.#options.signal);
  }

  /** Brings the target up again behind an injection. @returns whether it recovered, or was interrupted in it. */
  async recoverAfter(number: number, injection: Injection): Promise<'recovered' | 'failed' | 'interrupted'> {
    const { supervisor: life, recorder, limitMs, signal } = this.#options;
    const start = await life.bringUp(limitMs);
    if (signal.aborted) return 'interrupted';
    if (!start.ready) {
      const { waitedMs, detail } = start;
      recorder.record({ kind: 'recovery-failed', injection: number, waitedMs, detail });
      return 'failed';
    }
    this.#endedMs.push(performance.now());
    if (injection.scope !== 'none') {
      this.#usualMs = start.tookMs;
      recorder.record({ kind: 'recovered', injection: number, tookMs: start.tookMs });
    }
    if (injection.indexDamaged) await this.inspect();
    else if (injection.scope === 'machine') this.#inspectConcurrently();
    return 'recovered';
  }

  /** Beside the workload: a cut costs no more time than it must. */
  #inspectConcurrently(): void {
    if (this.#options.slowStartMs !== undefined || ++this.#machineCrashes % CUTS_PER_INSPECTION !== 0) return;
    this.#inspection = this.inspect();
    // It is awaited later; until then its failure is nobody's.
    this.#inspection.catch(() => {});
  }

  /** The end of the inspection that runs beside the workload; no fault is done before it. */
  async waitForInspection(): Promise<void> {
    await this.#inspection;
  }

  async inspect(): Promise<void> {
    const { deployment, verify, recorder, slowStartMs } = this.#options;
    if (verify !== undefined) recorder.record(await inspect(deployment, verify, slowStartMs));
  }
}

const VERIFY_TIMEOUT_MS = 20_000;

/** Asks the target's own `verify` command about its stored state. What it cannot say counts as a problem. */
async function inspect(
  deployment: Deployment,
  command: readonly string[],
  timeoutMs = VERIFY_TIMEOUT_MS,
): Promise<Untimed<Inspected>> {
  const result = await deployment.runCommand('verify', command, timeoutMs);
  const report = parseReport(result.stdout);
  if (report !== undefined) return { kind: 'inspected', ...report };
  const how = result.timedOut
    ? `took longer than ${timeoutMs} ms`
    : `ended with ${result.signal ?? `code ${result.code}`}`;
  const lastLine = result.stderr.trim().split('\n').at(-1) ?? '';
  return {
    kind: 'inspected',
    ok: false,
    problems: [`the verify command ${how} and printed no { ok, problems, keptAside, live }: ${lastLine}`],
    keptAside: 0,
    live: 0,
  };
}

function parseReport(text: string): Omit<Inspected, 'kind' | 'atMs'> | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { ok, problems, keptAside, live } = value as Record<string, unknown>;
  if (typeof ok !== 'boolean' || !Array.isArray(problems)) return undefined;
  return { ok, problems: problems.map(String), keptAside: Number(keptAside ?? 0), live: Number(live ?? 0) };
}
