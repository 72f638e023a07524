import { KitError } from '../../conformance/errors.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import type { Fault, Ground, Injection } from '../../faults/fault.js';
import { killServices } from '../../faults/injection.js';
import type { PlannedInjection } from './schedule.js';
import type { Stakes } from './stakes.js';
import type { TargetLife } from './target-life.js';
import type { Ledger } from './workload/ledger.js';

/** What stays the same of the ground on which a round's faults work. */
export type RoundGround = Omit<
  Ground,
  'services' | 'usualRecoveryMs' | 'afterConfirms' | 'afterRejections' | 'storedMarks' | 'random'
>;

export interface InjectorOptions {
  faults: ReadonlyMap<string, Fault>;
  ledger: Ledger;
  recorder: Recorder;
  stakes: Stakes;
  ground: RoundGround;
  random: Ground['random'];
  usualRecoveryMs(): number;
  /** Injections of earlier rounds. */
  before: number;
  progress(line: string): void;
}

/** An injection as it really came about: the schedule that a replay follows. */
export type Happened = PlannedInjection & { atMs: number; hit: boolean; detail: string };

const MARKS = 400;

/** Does the faults of a round, one at a time, and notes what came of each. */
export class Injector {
  readonly #options: InjectorOptions;
  readonly happened: Happened[] = [];
  #number: number;

  constructor(options: InjectorOptions) {
    this.#options = options;
    this.#number = options.before;
  }

  /** Number of the last injection in its run. */
  get number(): number {
    return this.#number;
  }

  /** What has to be done once before the first message. */
  async prepare(life: TargetLife, names: Iterable<string>): Promise<void> {
    for (const name of names) await this.#options.faults.get(name)?.prepare?.(this.#ground(life, name));
  }

  /** @throws KitError kit-failed when no such fault is known. */
  async inject(life: TargetLife, planned: PlannedInjection): Promise<Injection> {
    const { faults, ledger, recorder, stakes, progress } = this.#options;
    const fault = faults.get(planned.fault);
    if (fault === undefined) throw new KitError('kit-failed', `no fault is named ${planned.fault}`);
    const number = ++this.#number;
    const draws = planned.number ?? number;
    const ground = this.#ground(life, `${fault.name}-${draws}`);
    life.handToFault();
    const atMs = recorder.nowMs();
    let injection: Injection;
    try {
      const killed = fault.needs.target === 'down' ? await killServices(life.services) : [];
      injection = stakes.judged(withCrash(await fault.inject(ground), killed));
    } finally {
      await fault.heal(ground);
    }
    ledger.excuse(injection.rotted);
    recorder.record({ kind: 'fault', fault: fault.name, injection: number, ...injection });
    const { hit, detail } = injection;
    this.happened.push({ ...planned, number: draws, atMs, hit, detail });
    progress(`${fault.name}${hit ? '' : ' (miss)'}: ${detail}`);
    recorder.record({ kind: 'healed', fault: fault.name, injection: number });
    return injection;
  }

  #ground(life: TargetLife, name: string): Ground {
    const { ground, ledger, random, usualRecoveryMs } = this.#options;
    return {
      ...ground,
      services: life.services,
      random: random.fork(`fault-${name}`),
      usualRecoveryMs: usualRecoveryMs(),
      afterConfirms: (count, timeoutMs) => ledger.more('confirmed', count, timeoutMs, ground.signal),
      afterRejections: (count, timeoutMs) => ledger.more('rejected', count, timeoutMs, ground.signal),
      storedMarks: () => ledger.storedMarks(MARKS),
    };
  }
}

/** A fault that works on a target that is down came with a crash of all its processes. */
function withCrash(injection: Injection, killed: readonly string[]): Injection {
  if (killed.length === 0) return injection;
  const services = [...new Set([...killed, ...injection.services])];
  return { ...injection, scope: 'all-processes', services, detail: `SIGKILL to all; ${injection.detail}` };
}
