import { KitError } from '../../conformance/errors.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import type { Fault, FaultContext, Injection } from '../../faults/fault.js';
import { killServices } from '../../faults/injection.js';
import type { AtRiskTracker } from './at-risk.js';
import type { PlannedInjection } from './schedule.js';
import type { TargetSupervisor } from './target-supervisor.js';
import type { Ledger } from './workload/ledger.js';
import { judgeWritten, type WriteWitness } from './write-witness.js';

/** The part of the fault context that stays the same for a whole round. */
export type RoundFaultContext = Omit<
  FaultContext,
  'services' | 'usualRecoveryMs' | 'waitForConfirms' | 'waitForRejections' | 'storedMarks' | 'random'
>;

/** Parts of a round that the injector uses. */
export interface InjectorOptions {
  faults: ReadonlyMap<string, Fault>;
  ledger: Ledger;
  recorder: Recorder;
  atRisk: AtRiskTracker;
  /** Observes whether the target writes to the disk that the faults act on. */
  witness: WriteWitness;
  faultContext: RoundFaultContext;
  random: FaultContext['random'];
  usualRecoveryMs(): number;
  /**
   * Called after a crash of the machine, when every process is dead. Resolves to the reason when the target
   * will not see another boot.
   */
  reboot(): Promise<string | undefined>;
  /** Number of injections in earlier rounds. */
  earlierInjections: number;
  progress(line: string): void;
}

/** An injection as it was executed. A list of these is the schedule that a replay follows. */
export type ExecutedInjection = PlannedInjection & { atMs: number; hit: boolean; detail: string };

/** Upper bound of the message marks that a fault gets. */
const MAX_MARKS = 400;

/** Executes the faults of a round, one at a time, and records the result of each. */
export class Injector {
  readonly #options: InjectorOptions;
  readonly executed: ExecutedInjection[] = [];
  #number: number;

  constructor(options: InjectorOptions) {
    this.#options = options;
    this.#number = options.earlierInjections;
  }

  /** Number of the last injection in its run. */
  get number(): number {
    return this.#number;
  }

  /** Prepares faults. Must be called once, before the first message. */
  async prepare(supervisor: TargetSupervisor, names: Iterable<string>): Promise<void> {
    for (const name of names)
      await this.#options.faults.get(name)?.prepare?.(this.#faultContext(supervisor, name));
  }

  /**
   * Executes one injection, heals the fault, and records both.
   * @throws KitError kit-failed when the fault is unknown.
   */
  async inject(supervisor: TargetSupervisor, planned: PlannedInjection): Promise<Injection> {
    const { faults, ledger, recorder, atRisk, witness, progress } = this.#options;
    const fault = faults.get(planned.fault);
    if (fault === undefined) throw new KitError('kit-failed', `no fault is named ${planned.fault}`);
    const number = ++this.#number;
    const drawNumber = planned.number ?? number;
    const context = {
      ...this.#faultContext(supervisor, `${fault.name}-${drawNumber}`),
      aim: planned.aim,
    };
    const messagesIn = (bytes: Buffer) => ledger.outstandingIn(bytes);
    const unwritten = fault.actsOnStoredData
      ? await witness.inspect(supervisor.services, messagesIn)
      : undefined;
    supervisor.suspendRestarts();
    const atMs = recorder.nowMs();
    let injection: Injection;
    try {
      const killed = fault.needs.target === 'down' ? await killServices(supervisor.services) : [];
      const injected = withCrash(await fault.inject(context), killed);
      injection = judgeWritten(fault, atRisk.judgeHit(injected), unwritten);
      if (injection.scope === 'machine') injection = withReboot(injection, await this.#options.reboot());
    } finally {
      await fault.heal(context);
    }
    if (fault.actsOnStoredData && (injection.hit || injection.scope === 'machine')) witness.noteHit();
    ledger.stopExpecting(injection.rotted);
    const { aim, ...recorded } = injection;
    recorder.record({ kind: 'fault', fault: fault.name, injection: number, ...recorded });
    const { hit, detail } = injection;
    this.executed.push({ ...planned, number: drawNumber, aim, atMs, hit, detail });
    progress(`${fault.name}${hit ? '' : ' (miss)'}: ${detail}`);
    recorder.record({ kind: 'healed', fault: fault.name, injection: number });
    return injection;
  }

  #faultContext(supervisor: TargetSupervisor, name: string): FaultContext {
    const { faultContext, ledger, random, usualRecoveryMs } = this.#options;
    return {
      ...faultContext,
      services: supervisor.services,
      random: random.fork(`fault-${name}`),
      usualRecoveryMs: usualRecoveryMs(),
      waitForConfirms: (count, timeoutMs) =>
        ledger.waitForMore('confirmed', count, timeoutMs, faultContext.signal),
      waitForRejections: (count, timeoutMs) =>
        ledger.waitForMore('rejected', count, timeoutMs, faultContext.signal),
      storedMarks: () => ledger.storedMarks(MAX_MARKS),
    };
  }
}

/** Says so when a target sees the boot id from before the crash: it may trust what a real crash would destroy. */
function withReboot(injection: Injection, problem: string | undefined): Injection {
  if (problem === undefined) return injection;
  return { ...injection, detail: `${injection.detail}; the target sees the old boot id (${problem})` };
}

/** Adds the crash of all processes to an injection whose fault needed a target that is down. */
function withCrash(injection: Injection, killed: readonly string[]): Injection {
  if (killed.length === 0) return injection;
  const services = [...new Set([...killed, ...injection.services])];
  return { ...injection, scope: 'all-processes', services, detail: `SIGKILL to all; ${injection.detail}` };
}
