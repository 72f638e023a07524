import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import type { ClusterContext, Fault, FaultContext, FaultNode, Injection } from '../../faults/fault.js';
import { killServices } from '../../faults/injection.js';
import type { AtRiskTracker } from './at-risk.js';
import { withOldBoot } from './round-cluster.js';
import type { PlannedInjection } from './schedule.js';
import { chooseScope, runWithout, withNodes } from './scope.js';
import type { TargetSupervisor } from './target-supervisor.js';
import type { Ledger } from './workload/ledger.js';
import { judgeWritten, type Unwritten, type WriteWitness } from './write-witness.js';

/** The part of the fault context that stays the same for a whole round. */
export type RoundFaultContext = Pick<
  FaultContext,
  'scratchDir' | 'indexFiles' | 'messageFiles' | 'scratchFiles' | 'syncSites' | 'flood' | 'signal'
>;

/** Parts of a round that the injector uses. */
export interface InjectorOptions {
  faults: ReadonlyMap<string, Fault>;
  ledger: Ledger;
  recorder: Recorder;
  atRisk: AtRiskTracker;
  /** The nodes as faults see them, in the order of the target file. A target without `nodes` has one. */
  nodes: readonly FaultNode[];
  /** The cluster as faults see it; undefined for a target without `nodes`. */
  cluster: ClusterContext | undefined;
  /** Observes, for each node, whether the target writes to the disk that the faults act on. */
  witnesses: ReadonlyMap<string, WriteWitness>;
  faultContext: RoundFaultContext;
  random: FaultContext['random'];
  usualRecoveryMs(): number;
  /**
   * Called after the crash of the machine of a node, when every process of it is dead. Resolves to the reason when the
   * target will not see another boot. Not called after power cuts and lost disks of a cluster: those reboot by themselves.
   */
  reboot(node: string): Promise<string | undefined>;
  /** Called when an injection begins, with its number in place, before the fault does anything. */
  onBegin?(): void;
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
  /** Names of the faults that have acted on one node of the cluster in this round. */
  readonly #actedOnOneNode = new Set<string>();
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
  async prepare(names: Iterable<string>): Promise<void> {
    for (const name of names)
      for (const node of this.#options.nodes)
        await this.#options.faults.get(name)?.prepare?.(this.#faultContext(name, [node]));
  }

  /**
   * Executes one injection, heals the fault, and records both.
   * @throws KitError kit-failed when the fault is unknown.
   */
  async inject(supervisor: TargetSupervisor, planned: PlannedInjection): Promise<Injection> {
    const { faults, ledger, recorder, atRisk, progress, nodes, cluster } = this.#options;
    const fault = faults.get(planned.fault);
    if (fault === undefined) throw new KitError('kit-failed', `no fault is named ${planned.fault}`);
    const number = ++this.#number;
    const drawNumber = planned.number ?? number;
    const drawName = `${fault.name}-${drawNumber}`;
    const scope =
      cluster === undefined
        ? nodes
        : chooseScope(
            fault,
            planned,
            cluster,
            this.#options.random.fork(`scope-${drawName}`),
            !this.#actedOnOneNode.has(fault.name),
          );
    if (scope.length === 1) this.#actedOnOneNode.add(fault.name);
    const context = { ...this.#faultContext(drawName, scope), aim: planned.aim };
    const witnesses = scope.flatMap(({ name }) => this.#options.witnesses.get(name) ?? []);
    const unwritten = fault.actsOnStoredData ? await this.#unwritten(scope) : undefined;
    supervisor.suspendRestarts();
    this.#options.onBegin?.();
    const atMs = recorder.nowMs();
    let injection: Injection;
    try {
      const killed = fault.needs.target === 'down' ? await killServices(context.services) : [];
      const injected = withNodes(withCrash(await fault.inject(context), killed), scope, cluster);
      injection = judgeWritten(fault, atRisk.judgeHit(injected), unwritten);
      const [node] = scope;
      if (injection.scope === 'machine' && node !== undefined && !rebootsItself(fault, cluster))
        injection = {
          ...injection,
          detail: withOldBoot(injection.detail, await this.#options.reboot(node.name)),
        };
    } finally {
      await fault.heal(context);
    }
    if (fault.actsOnStoredData && (injection.hit || injection.scope === 'machine'))
      for (const witness of witnesses) witness.noteHit();
    ledger.stopExpecting(injection.rotted);
    const { aim, ...recorded } = injection;
    recorder.record({ kind: 'fault', fault: fault.name, injection: number, ...recorded });
    const { hit, detail } = injection;
    const names = cluster === undefined ? undefined : scope.map(({ name }) => name);
    this.executed.push({ ...planned, number: drawNumber, nodes: names, aim, atMs, hit, detail });
    progress(`${fault.name}${hit ? '' : ' (miss)'}: ${detail}`);
    recorder.record({ kind: 'healed', fault: fault.name, injection: number });
    if (cluster !== undefined)
      await runWithout(injection, cluster, this.#options.random.fork(`without-${drawName}`));
    return injection;
  }

  /**
   * Returns why a fault proves nothing about what the target has stored; undefined when it may prove something. One node that
   * stores its messages is enough.
   */
  async #unwritten(scope: readonly FaultNode[]): Promise<Unwritten | undefined> {
    const { ledger, witnesses } = this.#options;
    const messagesIn = (bytes: Buffer) => ledger.outstandingIn(bytes);
    let last: Unwritten | undefined;
    for (const { name, services } of scope) {
      last = await witnesses.get(name)?.inspect(services, messagesIn);
      if (last === undefined) return undefined;
    }
    return last;
  }

  #faultContext(name: string, scope: readonly FaultNode[]): FaultContext {
    const { faultContext, ledger, random, usualRecoveryMs, cluster } = this.#options;
    const [first] = scope;
    if (first === undefined) throw new KitError('assertion', 'invariant broken: a fault has no node');
    return {
      ...faultContext,
      ...{ nodes: scope, cluster },
      // What a fault remembers of one node must not be taken for that of another one.
      scratchDir: join(faultContext.scratchDir, first.name),
      services: scope.flatMap(({ services }) => services),
      dataDir: first.dataDir,
      powerDisk: first.powerDisk,
      losses: first.losses,
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

/**
 * Returns whether the nodes of a fault have booted again when it returns. In a cluster those do whose power it cuts or whose
 * disk it replaces: it may have started them since, and others may never have been down.
 */
function rebootsItself({ needs }: Fault, cluster: ClusterContext | undefined): boolean {
  return cluster !== undefined && (needs.disk === 'power' || (needs.nodes ?? 'one') !== 'one');
}

/** Adds the crash of all processes to an injection whose fault needed a target that is down. */
function withCrash(injection: Injection, killed: readonly string[]): Injection {
  if (killed.length === 0) return injection;
  const services = [...new Set([...killed, ...injection.services])];
  return { ...injection, scope: 'all-processes', services, detail: `SIGKILL to all; ${injection.detail}` };
}
