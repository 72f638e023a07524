import { setMaxListeners } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import type { Address } from '../../conformance/protocols/address.js';
import type { Protocol, Receipts, Receiver } from '../../conformance/protocols/protocol.js';
import type { Target } from '../../conformance/target-file/definition.js';
import type { Fault, Injection, SyncMemory } from '../../faults/fault.js';
import type { Filesystem } from '../../faults/power/filesystem.js';
import { removeFaketimeFiles } from '../../faults/process/clock.js';
import { atExit } from '../host/at-exit.js';
import { PhaseClock } from '../host/phase-clock.js';
import { seeded } from '../host/random.js';
import type { Registry } from '../host/registry.js';
import { removeOrReport } from '../host/removal.js';
import type { Disk, DiskKind } from '../runtime/disk.js';
import type { PowerBackendName } from '../runtime/power-backends.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
import { AtRiskTracker } from './at-risk.js';
import { saveChangedMessages } from './changed-messages.js';
import { drain, watchFreeSpace, watchOpenFiles } from './drain.js';
import { Injector } from './injector.js';
import { hintOfClosedDirectory, INSTALL_TIMEOUT_MS, type LaunchedTarget, launch } from './launch.js';
import { NodeDisks } from './node-disks.js';
import type { Pace } from './pace.js';
import type { RoundPhase } from './phases.js';
import { Recoveries } from './recoveries.js';
import { nodeForFaults, RoundCluster, rebootAfterCut, rebootNode } from './round-cluster.js';
import { LAST_FAULT, type PlannedInjection, type Schedule } from './schedule.js';
import type { TargetSupervisor } from './target-supervisor.js';
import { Ledger } from './workload/ledger.js';
import { chooseReception } from './workload/messages.js';
import { Producers } from './workload/producers.js';
import { WriteWitness } from './write-witness.js';

/** Description of one round. */
export interface RoundOptions {
  target: Target;
  protocol: Protocol;
  runtime: PreparedRuntime;
  schedule: Schedule;
  faults: ReadonlyMap<string, Fault>;
  /** Backend that cuts the power of this machine's disks. */
  power: PowerBackendName;
  /** Filesystem on the disk whose power is cut. */
  filesystem: Filesystem;
  /** Directory of the round's evidence: schedule, logs, and the target's data while the round lasts. */
  dir: string;
  /** Number of the round in its run, from 1. It is part of every message's id. */
  number: number;
  /** History of the whole run: all rounds write to it. */
  recorder: Recorder;
  receipts: Receipts;
  /** Number of injections in earlier rounds. */
  injectionsBefore: number;
  /** Syncs that the injections of the rounds before have seen; see `FaultContext`. */
  syncSites?: SyncMemory | undefined;
  registry: Registry;
  signal: AbortSignal;
  /** Timeout of the target's first start, in milliseconds. */
  startTimeoutMs: number;
  /**
   * Moment (`performance.now()`) by which every fault must be recovered from. No fault is tried that would end
   * later, except the first one of the round.
   */
  lastFaultMs: number;
  /** Measures where the time goes. Default: a clock whose report is not used. */
  clock?: PhaseClock<RoundPhase>;
  /** Gets the durations of the injections, and plans the last one. Default: nothing is planned. */
  pace?: Pace;
  /** Number (in the run) of the injection after which no further fault is injected. Default: no limit. */
  lastInjection?: number;
  /** Clock by which messages become overdue. Default: `performance.now`. */
  nowMs?(): number;
  progress(line: string): void;
  /** Gets what the drain waits for, again and again, and undefined when it no longer waits. */
  waiting?: ((state: string | undefined) => void) | undefined;
}

/** Result of a round besides its history: the disk with the data, which the caller must save or remove. */
export interface RoundOutcome {
  /** Number of the last injection in the run. */
  injections: number;
  /** Files outside `{data}` that the target was seen to write. No fault of the disk reaches them. */
  writtenOutside: readonly string[];
  /** Command lines of processes that had escaped from their service at the end, and were killed. */
  escaped: readonly string[];
  disk: Disk;
  /** Moment (`performance.now()`) at which no further injection was to come. */
  faultsEndedMs: number;
}

const STOP_GRACE_MS = 3000;
const DEFAULT_RECOVERY_S = 30;
/** Number of confirmations for which the target works undisturbed between the last fault and the drain. */
const CONFIRMS_AFTER_LAST_FAULT = 20;
/** Upper bound of the time for which the target works undisturbed between the last fault and the drain. */
const CONFIRMS_AFTER_LAST_FAULT_TIMEOUT_MS = 1000;
/** Number of deliveries after which the receivers are held back. */
const DELIVERIES_BEFORE_HOLD = 60;
/** Time after which the receivers are held back even if there were fewer deliveries. */
const DELIVERIES_BEFORE_HOLD_TIMEOUT_MS = 600;
/**
 * Number of recoveries after which a confirmed message that is not consumed is overdue, if it is also older
 * than OVERDUE_MS.
 */
const OVERDUE_RECOVERIES = 6;
/** Age after which a confirmed message that is not consumed is overdue; see OVERDUE_RECOVERIES. */
const OVERDUE_MS = 5000;
/**
 * Number of overdue messages that ends the power cuts: a single one may be deferred by its receiver, and then
 * by each cut.
 */
const OVERDUE_MESSAGES = 3;
/** Number of times that a round repeats a fault that has never hit. */
const MAX_REPEATS = 2;
/** Longest time that a power cut waits until a message is at risk, so that the cut can lose something. */
const AT_RISK_TIMEOUT_MS = 300;
/**
 * Longest time that a power cut waits until a message is at risk, where processors are emulated in software.
 */
const SLOW_AT_RISK_TIMEOUT_MS = 20_000;

/**
 * Runs one round: install, start, workload with faults beside it, drain, verify, stop. Everything that was
 * observed is in the history.
 * @throws KitError target-unavailable when the target cannot be started or fills the disk.
 */
export async function runRound(requested: RoundOptions): Promise<RoundOutcome> {
  mkdirSync(requested.dir, { recursive: true });
  const clock = requested.clock ?? new PhaseClock<RoundPhase>('set-up');
  const options = { ...requested, clock };
  const { dir, schedule, filesystem, registry, runtime } = options;
  const kind = runtime.makeDisk === undefined ? diskKindFor(options) : schedule.disk;
  const disks = await clock.during('set-up', () =>
    NodeDisks.make({
      ...{ dir, kind, filesystem, registry, runtime },
      nodes: options.target.nodes,
      power: options.power,
    }),
  );
  const full = new AbortController();
  const signal = AbortSignal.any([options.signal, full.signal]);
  // Each producer listens while it waits.
  setMaxListeners(0, signal);
  const round = new Round({ ...options, signal }, disks);
  const freeSpace = watchFreeSpace(dir, (usage) => full.abort(diskFullError(dir, usage)));
  const openFiles = watchOpenFiles((error) => full.abort(noOpenFilesError(error)));
  // Without its disk the target seems to lose everything: this must not become a verdict.
  disks.onLost = (why) => full.abort(new KitError('kit-failed', why));
  try {
    await round.run();
    full.signal.throwIfAborted();
  } catch (error) {
    await round.end('interrupted');
    await removeOrReport(() => disks.remove(), options.progress);
    throw full.signal.aborted ? full.signal.reason : error;
  } finally {
    freeSpace.stop();
    openFiles.stop();
  }
  const { injections, writtenOutside, escaped, faultsEndedMs } = round;
  return { injections, writtenOutside, escaped, disk: disks.joined(), faultsEndedMs };
}

/** Chooses the kind of disk: dm-flakey also injects write errors, for the faults that prefer it. */
function diskKindFor({ schedule, faults, power }: RoundOptions): DiskKind {
  const better = schedule.injections.some(({ fault }) => faults.get(fault)?.preferredDisk === 'power');
  return power === 'flakey' && schedule.disk === 'any' && better ? 'power' : schedule.disk;
}

function diskFullError(dir: string, usage: string): KitError {
  return new KitError(
    'target-unavailable',
    `the disk of ${dir} is almost full (${usage}); the target was stopped, expected one that leaves room`,
  );
}

function noOpenFilesError(cause: Error): KitError {
  return new KitError(
    'kit-failed',
    `the kit can open no more files (${messageOf(cause)}), so its verdict would be void: ulimit -n 1024`,
    { cause },
  );
}

/** The parts of a round that exist once the target is set up. */
interface RoundSetup {
  supervisor: TargetSupervisor;
  receiver: Receiver;
  recoveries: Recoveries;
  injector: Injector;
  /** The addresses to which messages are submitted. */
  addresses: readonly Address[];
}

/** One round while it runs. */
class Round {
  readonly #options: RoundOptions & { clock: PhaseClock<RoundPhase> };
  readonly #disks: NodeDisks;
  readonly #ledger: Ledger;
  readonly #random;
  readonly #atRisk: AtRiskTracker;
  readonly #removeHandlers: () => void;
  // Each of these is set as soon as it exists, so that `end` stops whatever has been made by then.
  #launched: LaunchedTarget | undefined;
  #recoveries: Recoveries | undefined;
  #injector: Injector | undefined;
  /** A witness for each node. */
  #witnesses: ReadonlyMap<string, WriteWitness> = new Map();
  #cluster: RoundCluster | undefined;
  #producers: Producers | undefined;
  readonly #pids: number[] = [];
  /** Command lines of processes that had escaped from their service; see `RoundOutcome`. */
  readonly escaped: string[] = [];
  #stopped = false;
  #refusesSome = false;
  /** Moment at which no further injection was to come; see `RoundOutcome`. */
  #faultsEndedMs = performance.now();
  #draining = false;
  #ended = false;

  constructor(options: RoundOptions & { clock: PhaseClock<RoundPhase> }, disks: NodeDisks) {
    this.#options = options;
    this.#disks = disks;
    this.#ledger = new Ledger(options.registry.runId, options.recorder);
    this.#ledger.onChanged = saveChangedMessages(options.dir);
    this.#random = seeded(options.schedule.seed);
    this.#atRisk = new AtRiskTracker({
      ledger: this.#ledger,
      recorder: options.recorder,
      currentInjection: () => this.injections,
      inDelivery: () => this.#launched?.receiver.inDelivery() ?? 0,
    });
    const now = () => this.#launched?.deployment.destroyNow();
    // Kill the target at once: every wait for one of its answers then ends.
    const interrupted = () => {
      this.#launched?.supervisor.expectExits();
      now();
    };
    const forget = atExit(() => {
      now();
      disks.remove();
    });
    options.signal.addEventListener('abort', interrupted);
    this.#removeHandlers = () => {
      forget();
      options.signal.removeEventListener('abort', interrupted);
    };
  }

  /** Number of the last injection in the run. */
  get injections(): number {
    return this.#injector?.number ?? this.#options.injectionsBefore;
  }

  /** Moment (`performance.now()`) at which no further injection was to come. */
  get faultsEndedMs(): number {
    return this.#faultsEndedMs;
  }

  /** Files outside `{data}` that the target was seen to write. */
  get writtenOutside(): readonly string[] {
    return [...new Set([...this.#witnesses.values()].flatMap((witness) => witness.writtenOutside))];
  }

  async run(): Promise<void> {
    const { schedule, recorder, signal, dir, clock } = this.#options;
    writeFileSync(join(dir, 'schedule.json'), `${JSON.stringify(schedule, undefined, 2)}\n`);
    const setup = await clock.during('set-up', () => this.#setUp());
    const [first, ...rest] = schedule.injections;
    if (first?.beforeStart) await this.#recover(setup, await this.#inject(setup, first));
    else await clock.during('set-up', () => this.#startFirst(setup));
    if (!this.#isOver()) {
      const names = new Set(schedule.injections.map(({ fault }) => fault));
      await clock.during('set-up', () => setup.injector.prepare(names));
      await clock.during('workload', () =>
        this.#work(setup, first?.beforeStart ? rest : schedule.injections),
      );
    }
    this.#draining = true;
    await clock.during('drain', () => this.#producers?.stop());
    this.#judgeCrashLoop(setup);
    if (this.#stopped || signal.aborted) {
      // Record that the round did not wait for the messages that are outstanding now.
      recorder.record({ kind: 'drained', waitedMs: 0, complete: false });
    } else {
      await clock.during('inspections', () => setup.recoveries.waitForInspection());
      if (!setup.supervisor.isUp)
        throw new KitError('assertion', 'invariant broken: the drain begins while the target is down');
      await clock.during('drain', () => this.#drain(setup));
      await clock.during('inspections', () => setup.recoveries.inspectAtEnd());
    }
    await this.end(signal.aborted ? 'interrupted' : this.#stopped ? 'violation' : 'completed');
  }

  async #drain({ recoveries }: RoundSetup): Promise<void> {
    const { target, recorder, signal, progress, waiting } = this.#options;
    const { redeliverySeconds } = target.guarantee;
    const nudge = target.nudge && this.#launched?.expand(target.nudge);
    await drain({
      ...{ view: this.#ledger, recorder, redeliverySeconds, signal, progress, waiting },
      nudge: nudge && (() => recoveries.nudge(nudge, progress)),
    });
  }

  /** Stops the target and everything around it; may be called twice. */
  async end(how: 'completed' | 'violation' | 'interrupted'): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    await this.#options.clock.during('stop', () => this.#end(how));
  }

  async #end(how: 'completed' | 'violation' | 'interrupted'): Promise<void> {
    try {
      await this.#producers?.stop();
      this.#launched?.supervisor.expectExits();
      if (how === 'completed') await this.#launched?.supervisor.stop(STOP_GRACE_MS);
    } finally {
      try {
        await this.#launched?.destroy();
      } finally {
        for (const pid of this.#pids) removeFaketimeFiles(pid);
        await this.#recoveries?.waitForInspection().catch(() => {});
        this.#removeHandlers();
      }
    }
    const executed = this.#injector?.executed ?? [];
    writeFileSync(join(this.#options.dir, 'injections.json'), `${JSON.stringify(executed, undefined, 2)}\n`);
  }

  /** Sets up ports, receiver and services, and runs the install command. It does not start the services. */
  async #setUp(): Promise<RoundSetup> {
    const { target, runtime, recorder, signal, number } = this.#options;
    const launched = await this.#launch();
    const { deployment, supervisor, receiver } = launched;
    this.#launched = launched;
    const nodes = target.nodes === undefined ? {} : { nodes: [...target.nodes] };
    recorder.record({ kind: 'installed', round: number, ...nodes });
    const { slowStartMs } = runtime;
    const timeoutMs = Math.min(slowStartMs ?? INSTALL_TIMEOUT_MS, this.#options.startTimeoutMs);
    await launched.install(target.install, timeoutMs);
    const recoveries = new Recoveries({
      ...{ deployment, supervisor, recorder, slowStartMs, signal, clock: this.#options.clock },
      nodes: launched.nodes.map((node) => ({
        ...node,
        verify: target.verify && node.expand(target.verify),
      })),
      limitMs: slowStartMs ?? (target.guarantee.recoverySeconds ?? DEFAULT_RECOVERY_S) * 1000,
    });
    this.#recoveries = recoveries;
    const injector = this.#makeInjector(launched, recoveries);
    this.#injector = injector;
    return { supervisor, receiver, recoveries, injector, addresses: launched.addresses };
  }

  #launch(): Promise<LaunchedTarget> {
    const { target, protocol, runtime, registry, recorder, receipts, dir, signal, progress } = this.#options;
    const reception = this.#random.fork('reception');
    return launch({
      ...{ target, protocol, runtime, registry, recorder, dir, signal },
      dataDir: this.#disks.joined().dataDir,
      nodeDataDirs: new Map((target.nodes ?? []).map((node) => [node, this.#disks.of(node).dataDir])),
      receipts: this.#ledger.trackReceipts(receipts),
      wasSubmitted: (id) => this.#ledger.has(id),
      replyFor: (id, delivery) =>
        this.#draining
          ? { answer: 'accept', delayMs: 0 }
          : chooseReception(reception, id, delivery, this.#refusesSome),
      logDirLabel: join(basename(dir), 'logs'),
      onFailedStart: progress,
      onCrash: () => this.#atRisk.recordCrash(),
      onProcess: (pid) => void this.#pids.push(pid),
      onEscaped: (command) => void this.escaped.push(command),
    });
  }

  #makeInjector(launched: LaunchedTarget, recoveries: Recoveries): Injector {
    const { faults, recorder, target, signal, dir, injectionsBefore, progress, syncSites } = this.#options;
    const { receiver } = launched;
    const scratchDir = join(dir, 'scratch');
    const ignored = [join(dir, 'logs')];
    this.#witnesses = new Map(
      launched.nodes.map(({ name }) => {
        const { dataDir } = this.#disks.of(name);
        // A cluster has the files of all nodes below one directory: those of another node are not outside.
        const others = target.nodes === undefined ? [] : [join(dir, 'nodes')];
        const options = { tally: this.#ledger.tally, dataDir, scratchDir, ignored: [...ignored, ...others] };
        return [name, new WriteWitness(options)];
      }),
    );
    const nodes = launched.nodes.map(({ name, services }) =>
      nodeForFaults(name, services, {
        disks: this.#disks,
        watchDisk: (disk) => {
          const watched = this.#atRisk.watchDisk(disk);
          return target.nodes === undefined
            ? watched
            : rebootAfterCut(watched, () => rebootNode(launched, name));
        },
        messagesIn: (bytes) => this.#ledger.outstandingIn(bytes),
      }),
    );
    this.#cluster =
      launched.network &&
      new RoundCluster({
        ...{ target, launched, recorder, signal, nodes, injection: () => this.injections },
        disks: this.#disks,
        ledger: this.#ledger,
        network: launched.network,
        installTimeoutMs: this.#options.runtime.slowStartMs ?? INSTALL_TIMEOUT_MS,
      });
    return new Injector({
      ...{ faults, recorder, progress, ledger: this.#ledger, atRisk: this.#atRisk, random: this.#random },
      nodes,
      cluster: this.#cluster,
      witnesses: this.#witnesses,
      usualRecoveryMs: () => recoveries.usualMs,
      reboot: (node) => rebootNode(launched, node),
      onBegin: () => this.#cluster?.noteBegin(),
      earlierInjections: injectionsBefore,
      faultContext: {
        scratchDir,
        indexFiles: target.files?.index ?? [],
        messageFiles: target.files?.messages ?? [],
        scratchFiles: target.files?.scratch ?? [],
        syncSites,
        flood: (on, deliveries = 'held') => {
          this.#refusesSome = on && deliveries === 'some-refused';
          this.#producers?.flood(on);
          if (on) receiver.hold();
          else receiver.release();
        },
        signal,
      },
    });
  }

  async #startFirst({ recoveries }: RoundSetup): Promise<void> {
    const { startTimeoutMs, signal, dir } = this.#options;
    const start = await recoveries.firstStart(startTimeoutMs);
    if (start.ready) {
      await this.#noteReady();
      return;
    }
    if (signal.aborted) throw new KitError('target-unavailable', 'interrupted');
    const hint = hintOfClosedDirectory(this.#disks.joined().dataDir, start.detail);
    throw new KitError(
      'target-unavailable',
      `the target did not get ready in ${start.waitedMs} ms: ${start.detail}${hint}; its logs are in ${join(dir, 'logs')}`,
    );
  }

  async #noteReady(): Promise<void> {
    const { signal } = this.#options;
    await Promise.all([...this.#witnesses.values()].map((witness) => witness.noteReady(signal)));
  }

  /**
   * Judges a service that dies after each start. Such a service may have no port, so that the target counts
   * as ready when the other services are: that is not a recovery either.
   * @throws KitError target-unavailable when it died like that before any fault.
   */
  #judgeCrashLoop({ supervisor, injector }: RoundSetup): void {
    const { recorder, injectionsBefore, dir, signal } = this.#options;
    if (supervisor.crashLoop === undefined || signal.aborted) return;
    const { detail, beforeFirstFault: fromTheStart } = supervisor.crashLoop;
    if (fromTheStart || injector.number === injectionsBefore) {
      throw new KitError(
        'target-unavailable',
        `the target does not stay up: ${detail}; its logs are in ${join(dir, 'logs')}`,
      );
    }
    if (this.#stopped) return;
    recorder.record({ kind: 'recovery-failed', injection: injector.number, waitedMs: 0, detail });
    this.#stopped = true;
  }

  /** Runs the workload, and beside it the faults, one after another. */
  async #work(setup: RoundSetup, injections: readonly PlannedInjection[]): Promise<void> {
    const { schedule, signal, runtime, lastFaultMs, lastInjection, clock, pace } = this.#options;
    const { supervisor, receiver, recoveries, injector } = setup;
    await supervisor.waitUntilSettled(signal);
    if (this.#isOver()) return;
    this.#producers = this.#startProducers(setup.addresses);
    const cutsPower = schedule.disk === 'power';
    const atRiskTimeoutMs = runtime.slowStartMs === undefined ? AT_RISK_TIMEOUT_MS : SLOW_AT_RISK_TIMEOUT_MS;
    let recovering = false;
    // The loop below adds repeats of missed faults to this list.
    const queue = [...injections];
    for (const [index, planned] of queue.entries()) {
      this.#faultsEndedMs = performance.now();
      const isLast =
        this.#faultsEndedMs + (pace?.injectionMs(planned.fault) ?? 0) > lastFaultMs ||
        injector.number >= (lastInjection ?? Number.POSITIVE_INFINITY);
      if (index > 0 && !recovering && isLast) break;
      if (planned.holdReceivers) await this.#holdBack(receiver);
      if (recovering) await recoveries.startIntoRecovery(planned.inRecovery ?? 0);
      else await this.#ledger.waitForMore('confirmed', planned.afterConfirms, planned.maxWaitMs, signal);
      if (cutsPower) await this.#atRisk.waitUntilAtRisk(atRiskTimeoutMs, signal);
      await clock.during('inspections', () => recoveries.waitForInspection());
      if (this.#isOver()) return;
      const injection = await this.#inject(setup, planned);
      if (!injection.hit) this.#repeatLater(queue, index);
      recovering = queue[index + 1]?.inRecovery !== undefined;
      if (!recovering) await this.#recover(setup, injection);
      receiver.release();
      pace?.noteInjection(planned.fault, performance.now() - this.#faultsEndedMs);
      this.#faultsEndedMs = performance.now();
      if (this.#isOver()) return;
      // Do not check while the target is down for the next cut: a target that is down delivers nothing.
      if (cutsPower && !recovering && this.#isSomethingOverdue(recoveries)) return;
    }
    await this.#ledger.waitForMore(
      'confirmed',
      CONFIRMS_AFTER_LAST_FAULT,
      CONFIRMS_AFTER_LAST_FAULT_TIMEOUT_MS,
      signal,
    );
  }

  /**
   * Adds a fault that has never hit in this run to the round once more, unless the round will try it anyway: whether a fault
   * hits is partly chance. The last kills stay last. A replay follows its schedule instead.
   */
  #repeatLater(queue: PlannedInjection[], index: number): void {
    const { recorder, schedule } = this.#options;
    const planned = queue[index];
    if (planned === undefined || planned.number !== undefined || schedule.disk === 'power') return;
    const { fault } = planned;
    if (queue.slice(index + 1).some((next) => next.fault === fault)) return;
    if (queue.slice(0, index).filter((earlier) => earlier.fault === fault).length >= MAX_REPEATS) return;
    if (recorder.events.some((event) => event.kind === 'fault' && event.fault === fault && event.hit)) return;
    const firstLast = queue.findIndex((next, at) => at > index && next.fault === LAST_FAULT);
    queue.splice(firstLast === -1 ? queue.length : firstLast, 0, { ...planned });
  }

  #startProducers(addresses: readonly Address[]): Producers {
    const { registry, number, protocol, schedule, signal, target } = this.#options;
    return new Producers({
      run: registry.runId,
      round: number,
      protocol,
      addresses,
      ledger: this.#ledger,
      random: this.#random.fork('workload'),
      count: schedule.producers,
      depth: schedule.depth,
      inOrder: target.guarantee.order !== undefined,
      signal,
    });
  }

  #inject({ injector, supervisor }: RoundSetup, planned: PlannedInjection): Promise<Injection> {
    return this.#options.clock.during('faults', () => injector.inject(supervisor, planned));
  }

  async #recover({ recoveries, injector }: RoundSetup, injection: Injection): Promise<void> {
    const { clock } = this.#options;
    const outcome = await clock.during('recoveries', () =>
      recoveries.recoverAfter(injector.number, injection),
    );
    if (outcome === 'recovered') {
      this.#cluster?.noteWhole();
      await this.#noteReady();
    }
    if (outcome === 'failed') this.#stopped = true;
  }

  /**
   * Reports whether messages are so overdue that the drain should find out if they come: more cuts would show
   * nothing new.
   */
  #isSomethingOverdue(recoveries: Recoveries): boolean {
    const { nowMs } = this.#options;
    const recoveredMs = recoveries.recoveryEndedMs(OVERDUE_RECOVERIES - 1);
    const limitMs = (nowMs?.() ?? performance.now()) - OVERDUE_MS;
    return (
      recoveredMs !== undefined &&
      this.#ledger.outstandingSinceMs(OVERDUE_MESSAGES) < Math.min(recoveredMs, limitMs)
    );
  }

  /**
   * Holds back the receiver after some deliveries. Consumed messages are at risk too: without these
   * deliveries, one hold after another would let none be consumed.
   */
  async #holdBack(receiver: Receiver): Promise<void> {
    await this.#ledger.waitForMore(
      'delivered',
      DELIVERIES_BEFORE_HOLD,
      DELIVERIES_BEFORE_HOLD_TIMEOUT_MS,
      this.#options.signal,
    );
    receiver.hold();
  }

  /** Reports whether no further fault should be injected. */
  #isOver(): boolean {
    if (this.#ledger.wrongDelivery) this.#stopped = true;
    return (
      this.#stopped ||
      this.#launched?.supervisor.crashLoop !== undefined ||
      this.#producers?.hasFailed === true ||
      this.#options.signal.aborted
    );
  }
}
