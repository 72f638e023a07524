import { messageOf } from '../../conformance/errors.js';
import type { Inspected, Untimed } from '../../conformance/history/events.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import type { Injection } from '../../faults/fault.js';
import { sleep, until } from '../../faults/waiting.js';
import type { PhaseClock } from '../host/phase-clock.js';
import type { Deployment } from '../runtime/runtime.js';
import { ONLY_NODE } from './node-disks.js';
import type { RoundPhase } from './phases.js';
import type { StartResult, TargetSupervisor } from './target-supervisor.js';

/** Parts of a round that its recoveries use. */
export interface RecoveriesOptions {
  deployment: Deployment;
  supervisor: TargetSupervisor;
  recorder: Recorder;
  /** The nodes, each with the target's own command that inspects its stored state; undefined when it has none. */
  nodes: readonly { name: string; deployment: Deployment; verify: readonly string[] | undefined }[];
  /** Time limit of a recovery, in milliseconds. A recovery that takes longer has failed. */
  limitMs: number;
  /**
   * Timeout of a command, in milliseconds, where processors are emulated in software; otherwise undefined.
   * Such a machine has no time for additional inspections.
   */
  slowStartMs: number | undefined;
  signal: AbortSignal;
  clock: PhaseClock<RoundPhase>;
}

/** Duration that a start is assumed to take until one was measured. */
const INITIAL_RECOVERY_MS = 500;
/**
 * Number of machine crashes per inspection: an inspection takes as long as all other parts of a power cut
 * together.
 */
const CUTS_PER_INSPECTION = 3;
/** Longest time for which the nodes of a cluster may hold different numbers of messages at the end of a round. */
const EQUAL_NODES_TIMEOUT_MS = 15_000;
const EQUAL_NODES_INTERVAL_MS = 250;

/** The starts of a target: the first one, the recoveries after crashes, and the inspections after those. */
export class Recoveries {
  readonly #options: RecoveriesOptions;
  readonly #endedMs: number[] = [];
  #usualMs = INITIAL_RECOVERY_MS;
  #machineCrashes = 0;
  #nudgeFailed = false;
  /** The inspection that runs beside the workload. */
  #inspection: Promise<void> = Promise.resolve();

  constructor(options: RecoveriesOptions) {
    this.#options = options;
  }

  /** Duration of the last start until the target was ready, in milliseconds. */
  get usualMs(): number {
    return this.#usualMs;
  }

  /**
   * Returns when a recovery ended, in ms of `performance.now()`: the last one for `before` = 0, the one
   * before it for 1. Returns undefined when there were fewer recoveries.
   */
  recoveryEndedMs(before: number): number | undefined {
    return this.#endedMs.at(-1 - before);
  }

  /** Starts a target that has had no message yet. */
  async firstStart(timeoutMs: number): Promise<StartResult> {
    const start = await this.#options.supervisor.bringUp(timeoutMs, 'first');
    if (start.ready) this.#usualMs = start.tookMs;
    return start;
  }

  /** Starts every service and returns in the middle of the recovery, after `fraction` of the usual time. */
  async startIntoRecovery(fraction: number): Promise<void> {
    for (const service of this.#options.deployment.services) await service.start();
    await sleep(fraction * this.#usualMs, this.#options.signal);
  }

  /**
   * Brings the target up again after an injection.
   * @returns whether it recovered, failed, or was interrupted.
   */
  async recoverAfter(number: number, injection: Injection): Promise<'recovered' | 'failed' | 'interrupted'> {
    const { supervisor, recorder, limitMs, signal } = this.#options;
    const start = await supervisor.bringUp(limitMs);
    if (signal.aborted) return 'interrupted';
    if (!start.ready) {
      // `Round` reports a service that has never stayed up. That is no failed recovery.
      if (supervisor.crashLoop?.beforeFirstFault) return 'failed';
      const { waitedMs, detail } = start;
      recorder.record({ kind: 'recovery-failed', injection: number, waitedMs, detail });
      return 'failed';
    }
    this.#endedMs.push(performance.now());
    if (injection.scope !== 'none') {
      this.#usualMs = start.tookMs;
      recorder.record({ kind: 'recovered', injection: number, tookMs: start.tookMs });
    }
    if (injection.indexDamaged)
      await this.#options.clock.during('inspections', async () => void (await this.inspect()));
    else if (injection.scope === 'machine') this.#inspectConcurrently();
    return 'recovered';
  }

  /**
   * Starts an inspection that runs beside the workload, so that a power cut costs no more time than
   * necessary.
   */
  #inspectConcurrently(): void {
    if (this.#options.slowStartMs !== undefined || ++this.#machineCrashes % CUTS_PER_INSPECTION !== 0) return;
    this.#inspection = this.inspect().then(() => {});
    // Prevent an unhandled rejection: `waitForInspection` awaits this promise later and throws its error.
    this.#inspection.catch(() => {});
  }

  /** Waits for the inspection that runs beside the workload. No fault may be injected before its end. */
  async waitForInspection(): Promise<void> {
    await this.#inspection;
  }

  /**
   * Runs the target's `nudge` command, which makes it offer its undelivered messages at once. A command that fails is
   * reported once and does no harm: the kit then waits until the messages come by themselves.
   */
  async nudge(command: readonly string[], progress: (line: string) => void): Promise<void> {
    const { deployment, slowStartMs } = this.#options;
    const failure = await runNudge(deployment, command, slowStartMs);
    if (failure === undefined || this.#nudgeFailed) return;
    this.#nudgeFailed = true;
    progress(failure);
  }

  /**
   * Inspects the target's stored state with its `verify` command, if it has one, and records the result.
   * @returns the number of live messages that each node reports, if it does.
   */
  async inspect(): Promise<number[]> {
    const { nodes, recorder, slowStartMs } = this.#options;
    const live: number[] = [];
    for (const { name, deployment, verify } of nodes) {
      if (verify === undefined) continue;
      const inspected = await inspect(deployment, verify, slowStartMs);
      recorder.record(name === ONLY_NODE ? inspected : { ...inspected, node: name });
      if (inspected.live !== undefined) live.push(inspected.live);
    }
    return live;
  }

  /**
   * Inspects at the end of a round, when every message was waited for. While nodes hold different numbers of messages, it
   * inspects again: a node may learn later than the others that the last messages were consumed.
   */
  async inspectAtEnd(timeoutMs = EQUAL_NODES_TIMEOUT_MS): Promise<void> {
    const { signal } = this.#options;
    const isEqual = async () => new Set(await this.inspect()).size < 2;
    await until(isEqual, timeoutMs, signal, EQUAL_NODES_INTERVAL_MS);
  }
}

const VERIFY_TIMEOUT_MS = 20_000;
const NUDGE_TIMEOUT_MS = 10_000;

/**
 * Runs the target's `nudge` command once. Never rejects.
 * @returns how the command failed, as one line for people; undefined when it succeeded.
 */
export async function runNudge(
  deployment: Pick<Deployment, 'runCommand'>,
  command: readonly string[],
  timeoutMs = NUDGE_TIMEOUT_MS,
): Promise<string | undefined> {
  const failure = await deployment
    .runCommand('nudge', command, timeoutMs)
    .then(({ code, timedOut, stderr }) => {
      if (code === 0) return undefined;
      const how = timedOut ? 'took too long' : `ended with code ${code}`;
      return `${how}: ${stderr.trim().split('\n').at(-1) ?? ''}`;
    }, messageOf);
  return failure === undefined ? undefined : `nudge: the command ${failure}`;
}

/**
 * Runs the target's own `verify` command on its stored state. A command without a report counts as a problem.
 */
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
  return {
    ok,
    problems: problems.map(String),
    keptAside: Number(keptAside ?? 0),
    ...(typeof live === 'number' ? { live } : {}),
  };
}
