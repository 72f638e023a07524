import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import type { Protocol, Receipts, Receiver } from '../../conformance/protocols/protocol.js';
import type { Target } from '../../conformance/target/definition.js';
import {
  expandCommand,
  type PlaceholderValues,
  portNames,
  submitPorts,
} from '../../conformance/target/placeholders.js';
import { forgetClockOf } from '../../faults/clock.js';
import type { Fault, Ground, Injection, PowerDisk } from '../../faults/fault.js';
import { killServices } from '../../faults/injections.js';
import type { Filesystem } from '../../faults/power/filesystem.js';
import { pauseFor } from '../../faults/waiting.js';
import type { PowerBackendName } from '../power/by-name.js';
import { seeded } from '../random.js';
import type { Registry } from '../residue/registry.js';
import { freePort } from '../runtime/ports.js';
import { processEntry } from '../runtime/processes.js';
import type { Deployment, PreparedRuntime } from '../runtime/runtime.js';
import type { PlannedInjection, Schedule } from '../schedule.js';
import { Ledger } from '../workload/ledger.js';
import { receptionOf } from '../workload/messages.js';
import { Producers } from '../workload/producers.js';
import { makeDisk } from './disk.js';
import { drain } from './drain.js';
import { inspect } from './inspect.js';
import { watchRoom } from './room.js';
import type { Disk } from './round-disk.js';
import { TargetLife } from './target-life.js';

export interface RoundOptions {
  target: Target;
  protocol: Protocol;
  runtime: PreparedRuntime;
  schedule: Schedule;
  faults: ReadonlyMap<string, Fault>;
  /** How the power of this machine's disks is cut. */
  power: PowerBackendName;
  /** On the disk whose power is cut. */
  filesystem: Filesystem;
  /** Evidence of this round: schedule, logs, and the target's data while it lasts. */
  dir: string;
  /** Number of the round in its run, from 1; part of every message's id. */
  number: number;
  /** The history of the whole run, which goes on from round to round. */
  recorder: Recorder;
  receipts: Receipts;
  /** Injections of earlier rounds. */
  injectionsBefore: number;
  registry: Registry;
  signal: AbortSignal;
  /** The first start of the target may take so long. */
  startTimeoutMs: number;
  /** After this moment (`performance.now()`) no further fault is tried, except the first of the round. */
  lastFaultMs: number;
  progress(line: string): void;
}

/** What a round leaves beside its history: the data, until somebody drops it. */
export interface RoundOutcome {
  injections: number;
  disk: Disk;
}

const INSTALL_TIMEOUT_MS = 60_000;
const STOP_GRACE_MS = 3000;
const DEFAULT_RECOVERY_S = 30;
/** Between the last fault and the drain the target works undisturbed, at least for so many confirmations. */
const LAST_CONFIRMS = 20;
const LAST_WAIT_MS = 1000;
/** Before receivers are held back so many are delivered, or so long passes. */
const FLOW_DELIVERIES = 60;
const FLOW_MS = 600;
const MARKS = 400;
const SAME_CRASH_MS = 5;
/** What was confirmed before so many recoveries, and so long ago, and has not come, is missed. */
const PATIENCE_RECOVERIES = 6;
const PATIENCE_MS = 5000;
/** A single one may have been put off by its receiver, and then by each cut. */
const PATIENCE_MESSAGES = 3;
const STAKE_MS = 300;
const SLOW_STAKE_MS = 20_000;
/** An inspection takes as long as all the rest of a power cut: one in so many is followed by one. */
const INSPECT_EVERY = 3;

/** One round: install, start, workload ‖ faults, drain, verify, stop. What was seen is in the history. */
export async function runRound(options: RoundOptions): Promise<RoundOutcome> {
  mkdirSync(options.dir, { recursive: true });
  const { dir, schedule, filesystem, registry, runtime } = options;
  const disk = await (runtime.makeDisk
    ? runtime.makeDisk(dir, schedule.disk, filesystem, registry)
    : makeDisk(dir, schedule.disk, options.power, filesystem, registry));
  const full = new AbortController();
  const round = new Round({ ...options, signal: AbortSignal.any([options.signal, full.signal]) }, disk);
  const room = watchRoom(dir, (words) => full.abort(fullDisk(dir, words)));
  try {
    await round.run();
    full.signal.throwIfAborted();
  } catch (error) {
    await round.end('interrupted');
    disk.remove();
    throw full.signal.aborted ? full.signal.reason : error;
  } finally {
    room.stop();
  }
  return { injections: round.injections, disk };
}

function fullDisk(dir: string, words: string): KitError {
  return new KitError(
    'target-unavailable',
    `the disk of ${dir} is almost full (${words}); the target was stopped, expected one that leaves room`,
  );
}

class Round {
  readonly #options: RoundOptions;
  readonly #recorder: Recorder;
  readonly #disk: Disk;
  readonly #ledger: Ledger;
  readonly #random;
  readonly #happened: (PlannedInjection & { atMs: number; hit: boolean; detail: string })[] = [];
  readonly #unfollow: () => void;
  #deployment: Deployment | undefined;
  #life: TargetLife | undefined;
  #receiver: Receiver | undefined;
  #producers: Producers | undefined;
  #verify: string[] | undefined;
  #submitPorts: number[] = [];
  #injection: number;
  #usualRecoveryMs = 500;
  #lastRiskMs = Number.NEGATIVE_INFINITY;
  #lastStake = 0;
  #machineCrashes = 0;
  readonly #pids: number[] = [];
  readonly #recoveredMs: number[] = [];
  /** One that runs beside the workload; no fault is done before it is over. */
  #inspection: Promise<void> = Promise.resolve();
  #stopped = false;
  #draining = false;
  #ended = false;

  constructor(options: RoundOptions, disk: Disk) {
    this.#options = options;
    this.#recorder = options.recorder;
    this.#disk = disk;
    this.#injection = options.injectionsBefore;
    this.#ledger = new Ledger(options.registry.runId, options.recorder);
    this.#random = seeded(options.schedule.seed);
    const now = () => this.#deployment?.destroyNow();
    // An answer that is waited for comes at once when the target is gone.
    const interrupted = () => {
      this.#life?.end();
      now();
    };
    const exiting = () => {
      now();
      disk.remove();
    };
    process.once('exit', exiting);
    options.signal.addEventListener('abort', interrupted);
    this.#unfollow = () => {
      process.removeListener('exit', exiting);
      options.signal.removeEventListener('abort', interrupted);
    };
  }

  get injections(): number {
    return this.#injection;
  }

  async run(): Promise<void> {
    const { schedule, signal, dir } = this.#options;
    writeFileSync(join(dir, 'schedule.json'), `${JSON.stringify(schedule, undefined, 2)}\n`);
    const life = await this.#setUp();
    const [first, ...rest] = schedule.injections;
    if (first?.beforeStart) {
      const injection = await this.#inject(life, first);
      await this.#recover(life, this.#injection, injection);
    } else await this.#startFirst(life);
    if (!this.#over()) {
      await this.#prepare(life);
      await this.#work(life, first?.beforeStart ? rest : schedule.injections);
    }
    this.#draining = true;
    await this.#producers?.stop();
    if (this.#stopped || signal.aborted) {
      // Says that nobody has waited for what is outstanding now.
      this.#recorder.record({ kind: 'drained', waitedMs: 0, complete: false });
    } else {
      await this.#inspection;
      await drain(this.#ledger, this.#recorder, signal);
      await this.#inspect();
    }
    await this.end(signal.aborted ? 'interrupted' : this.#stopped ? 'violation' : 'completed');
  }

  async #startFirst(life: TargetLife): Promise<void> {
    const start = await life.bringUp(this.#options.startTimeoutMs);
    if (!start.ready) throw this.#neverReady(start);
    this.#usualRecoveryMs = start.tookMs;
  }

  /** Stops the target and everything around it; may be called twice. */
  async end(how: 'completed' | 'violation' | 'interrupted'): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    try {
      await this.#producers?.stop();
      this.#life?.end();
      if (how === 'completed') await this.#life?.stop(STOP_GRACE_MS);
      await this.#deployment?.destroy();
      for (const pid of this.#pids) forgetClockOf(pid);
    } finally {
      // Also when the engine has gone and nothing of it can be removed: a receiver that goes on keeps the kit alive.
      this.#life?.end();
      await this.#inspection.catch(() => {});
      await this.#receiver?.close();
      this.#unfollow();
    }
    writeFileSync(
      join(this.#options.dir, 'happened.json'),
      `${JSON.stringify(this.#happened, undefined, 2)}\n`,
    );
  }

  /** Ports, receiver, install, services (not started yet), producers' side. */
  async #setUp(): Promise<TargetLife> {
    const { target, protocol, dir, signal } = this.#options;
    const ports = new Map<string, number>();
    for (const name of portNames(target)) ports.set(name, await freePort(new Set(ports.values())));
    const submit = submitPorts(target).map((name) => ports.get(name) ?? 0);
    const reception = this.#random.fork('reception');
    const perSession = target.guarantee.inDeliveryPerSession;
    this.#receiver = await protocol.receive(submit, {
      run: this.#options.registry.runId,
      receipts: this.#ledger.follow(this.#options.receipts),
      reception: (id, delivery) =>
        this.#draining ? { answer: 'accept', delayMs: 0 } : receptionOf(reception, id, delivery),
      ...(perSession === undefined ? {} : { inDeliveryPerSession: perSession }),
    });
    const { sink } = this.#receiver;
    const { runtime } = this.#options;
    const values = (service?: string): PlaceholderValues => ({
      ...runtime.placesOf(service),
      data: this.#disk.dataDir,
      sink: runtime.sinkFor?.(sink) ?? sink,
      ports,
    });
    for (const folder of ['logs', 'scratch']) mkdirSync(join(dir, folder), { recursive: true });
    const deployment = this.#deploy(values, [...ports.values()]);
    this.#recorder.record({ kind: 'installed', round: this.#options.number });
    await this.#install(deployment, values());
    this.#verify = target.verify && expandCommand(target.verify, values());
    this.#life = new TargetLife(deployment, {
      protocol,
      ports: submit,
      recorder: this.#recorder,
      signal,
      onCrash: () => this.#noteRisk(),
    });
    this.#submitPorts = submit;
    return this.#life;
  }

  #deploy(valuesOf: (service: string) => PlaceholderValues, ports: readonly number[]): Deployment {
    const { target, runtime, dir, registry } = this.#options;
    this.#deployment = runtime.deploy({
      runId: registry.runId,
      services: Object.entries(target.services).map(([name, { command }]) => ({
        name,
        command: expandCommand(command, valuesOf(name)),
      })),
      workingDir: join(dir, 'scratch'),
      logDir: join(dir, 'logs'),
      dataDir: this.#disk.dataDir,
      ports,
      registry,
      onStarted: (service, incarnation, pid) => {
        // Found by its environment too; this is for one that has changed it.
        registry.made({ kind: 'process', pid, startTicks: processEntry(pid)?.startTicks ?? 0 });
        this.#pids.push(pid);
        this.#life?.started(service, incarnation);
      },
      onExited: (...exit) => this.#life?.exited(...exit),
    });
    return this.#deployment;
  }

  async #install(deployment: Deployment, values: PlaceholderValues): Promise<void> {
    const { install } = this.#options.target;
    if (install === undefined) return;
    const timeoutMs = Math.min(
      this.#options.runtime.slowStartMs ?? INSTALL_TIMEOUT_MS,
      this.#options.startTimeoutMs,
    );
    const result = await deployment
      .runCommand('install', expandCommand(install, values), timeoutMs)
      .catch((error: unknown) => {
        throw new KitError('bad-target', `install: cannot be run: ${messageOf(error)}`, { cause: error });
      });
    if (result.code === 0) return;
    const how = result.timedOut
      ? `took longer than ${timeoutMs} ms`
      : `ended with ${result.signal ?? `code ${result.code}`}`;
    const words = `${result.stderr}${result.stdout}`.trim().split('\n').slice(-3).join(' | ');
    throw new KitError('target-unavailable', `the target's install command ${how}: ${words}`);
  }

  #neverReady({ waitedMs, detail }: { waitedMs: number; detail: string }): KitError {
    if (this.#options.signal.aborted) return new KitError('target-unavailable', 'interrupted');
    return new KitError(
      'target-unavailable',
      `the target did not get ready in ${waitedMs} ms: ${detail}; its logs are in ${join(this.#options.dir, 'logs')}`,
    );
  }

  async #prepare(life: TargetLife): Promise<void> {
    const { schedule, faults } = this.#options;
    for (const name of new Set(schedule.injections.map(({ fault }) => fault))) {
      await faults.get(name)?.prepare?.(this.#ground(life, name));
    }
  }

  /** The workload, and beside it the faults one after the other. */
  async #work(life: TargetLife, injections: readonly PlannedInjection[]): Promise<void> {
    const { registry, number, protocol, schedule, signal } = this.#options;
    this.#producers = new Producers({
      run: registry.runId,
      round: number,
      protocol,
      ports: this.#submitPorts,
      ledger: this.#ledger,
      random: this.#random.fork('workload'),
      count: schedule.producers,
      depth: schedule.depth,
      signal,
    });
    let recovering = false;
    for (const [index, planned] of injections.entries()) {
      if (index > 0 && !recovering && performance.now() > this.#options.lastFaultMs) break;
      if (planned.held) await this.#holdBack();
      if (recovering) await this.#startUnder(planned.inRecovery ?? 0);
      else await this.#afterConfirms(planned.afterConfirms, planned.atMostMs);
      if (schedule.disk === 'power') await this.#stake();
      await this.#inspection;
      if (this.#over()) return;
      const injection = await this.#inject(life, planned);
      recovering = injections[index + 1]?.inRecovery !== undefined;
      if (!recovering) await this.#recover(life, this.#injection, injection);
      this.#receiver?.release();
      if (this.#over()) return;
      if (schedule.disk === 'power' && this.#somethingIsMissing()) return;
    }
    await this.#afterConfirms(LAST_CONFIRMS, LAST_WAIT_MS);
  }

  /** Messages are so late that the drain should say whether they come at all: more cuts would tell no more. */
  #somethingIsMissing(): boolean {
    const recoveredMs = this.#recoveredMs.at(-PATIENCE_RECOVERIES);
    const limitMs = performance.now() - PATIENCE_MS;
    return (
      recoveredMs !== undefined &&
      this.#ledger.waitingSinceMs(PATIENCE_MESSAGES) < Math.min(recoveredMs, limitMs)
    );
  }

  /** A cut of power is tried when there is something to lose, or a moment later all the same. */
  async #stake(): Promise<void> {
    const { tally } = this.#ledger;
    const limitMs = this.#options.runtime.slowStartMs === undefined ? STAKE_MS : SLOW_STAKE_MS;
    await this.#ledger.when(() => tally.outstanding > 0, limitMs, this.#options.signal);
  }

  /** Some are taken before, for what was consumed is at stake too; with one hold after the other none ever would be. */
  async #holdBack(): Promise<void> {
    const { tally } = this.#ledger;
    const goal = tally.delivered + FLOW_DELIVERIES;
    await this.#ledger.when(() => tally.delivered >= goal, FLOW_MS, this.#options.signal);
    this.#receiver?.hold();
  }

  #over(): boolean {
    if (this.#ledger.wrongDelivery) this.#stopped = true;
    return this.#stopped || this.#producers?.failed === true || this.#options.signal.aborted;
  }

  async #inject(life: TargetLife, planned: PlannedInjection): Promise<Injection> {
    const fault = this.#options.faults.get(planned.fault);
    if (fault === undefined) throw new KitError('kit-failed', `no fault is named ${planned.fault}`);
    const number = ++this.#injection;
    const draws = planned.number ?? number;
    const ground = this.#ground(life, `${fault.name}-${draws}`);
    life.handToFault();
    const startMs = this.#recorder.nowMs();
    let injection: Injection;
    try {
      const killed = fault.needs.target === 'down' ? await killServices(life.services) : [];
      injection = this.#withStake(withCrash(await fault.inject(ground), killed));
    } finally {
      await fault.heal(ground);
    }
    this.#ledger.excuse(injection.rotted);
    this.#recorder.record({ kind: 'fault', fault: fault.name, injection: number, ...injection });
    const { hit, detail } = injection;
    this.#happened.push({ ...planned, number: draws, atMs: startMs, hit, detail });
    this.#options.progress(`${fault.name}${injection.hit ? '' : ' (miss)'}: ${injection.detail}`);
    this.#recorder.record({ kind: 'healed', fault: fault.name, injection: number });
    return injection;
  }

  /** Starts everything and leaves it in the middle of its recovery. */
  async #startUnder(fraction: number): Promise<void> {
    for (const service of this.#deployment?.services ?? []) await service.start();
    await pauseFor(fraction * this.#usualRecoveryMs, this.#options.signal);
  }

  /** A crash of the whole machine proves something only when there was something to lose. */
  #withStake(injection: Injection): Injection {
    if (injection.scope !== 'machine' || this.#lastStake > 0) return injection;
    return { ...injection, hit: false, detail: `${injection.detail}; nothing was at risk` };
  }

  async #recover(life: TargetLife, number: number, injection: Injection): Promise<void> {
    const { target, runtime } = this.#options;
    const limitMs = runtime.slowStartMs ?? (target.guarantee.recoverySeconds ?? DEFAULT_RECOVERY_S) * 1000;
    const start = await life.bringUp(limitMs);
    if (this.#options.signal.aborted) return;
    if (!start.ready) {
      const { waitedMs, detail } = start;
      this.#recorder.record({ kind: 'recovery-failed', injection: number, waitedMs, detail });
      this.#stopped = true;
      return;
    }
    this.#recoveredMs.push(performance.now());
    if (injection.scope !== 'none') {
      this.#usualRecoveryMs = start.tookMs;
      this.#recorder.record({ kind: 'recovered', injection: number, tookMs: start.tookMs });
    }
    if (injection.indexDamaged) await this.#inspect();
    // Beside the workload: a cut costs no more time than it must.
    if (injection.scope !== 'machine' || runtime.slowStartMs !== undefined) return;
    if (++this.#machineCrashes % INSPECT_EVERY === 0) {
      this.#inspection = this.#inspect();
      // It is awaited later; until then its failure is nobody's.
      this.#inspection.catch(() => {});
    }
  }

  async #inspect(): Promise<void> {
    if (this.#verify === undefined || this.#deployment === undefined) return;
    this.#recorder.record(await inspect(this.#deployment, this.#verify, this.#options.runtime.slowStartMs));
  }

  #noteRisk(): void {
    // Several services that are killed at once are one crash.
    const nowMs = this.#recorder.nowMs();
    if (nowMs - this.#lastRiskMs < SAME_CRASH_MS) return;
    this.#lastRiskMs = nowMs;
    this.#lastStake = this.#ledger.tally.outstanding;
    this.#recorder.record({
      kind: 'at-risk',
      injection: this.#injection,
      confirmedUndelivered: this.#lastStake,
      inFlight: this.#ledger.tally.inFlight,
      inDelivery: this.#receiver?.inDelivery() ?? 0,
    });
  }

  /** The disk as a fault gets it: the moment of a cut is that of a crash, whether or not a process still lived. */
  #watched(disk: PowerDisk | undefined): PowerDisk | undefined {
    return (
      disk && {
        backend: disk.backend,
        endsTarget: disk.endsTarget,
        stop: () => {
          this.#noteRisk();
          return disk.stop();
        },
        resume: () => disk.resume(),
        cut: (moment, loss, random) => disk.cut(moment, loss, random),
      }
    );
  }

  async #afterConfirms(count: number, timeoutMs: number): Promise<'reached' | 'timeout'> {
    const { tally } = this.#ledger;
    const goal = tally.confirmed + count;
    const reached = () => tally.confirmed >= goal || this.#ledger.wrongDelivery;
    return this.#ledger.when(reached, timeoutMs, this.#options.signal);
  }

  #ground(life: TargetLife, name: string): Ground {
    const { tally } = this.#ledger;
    const { target, signal, dir } = this.#options;
    return {
      services: life.services,
      dataDir: this.#disk.dataDir,
      powerDisk: this.#watched(this.#disk.power),
      scratchDir: join(dir, 'scratch'),
      random: this.#random.fork(`fault-${name}`),
      indexFiles: target.files?.index ?? [],
      messageFiles: target.files?.messages ?? [],
      usualRecoveryMs: this.#usualRecoveryMs,
      afterConfirms: (count, timeoutMs) => this.#afterConfirms(count, timeoutMs),
      afterRejections: (count, timeoutMs) => {
        const goal = tally.rejected + count;
        return this.#ledger.when(() => tally.rejected >= goal, timeoutMs, signal);
      },
      flood: (on) => {
        this.#producers?.flood(on);
        if (on) this.#receiver?.hold();
        else this.#receiver?.release();
      },
      storedMarks: () => this.#ledger.storedMarks(MARKS),
      signal,
    };
  }
}

/** A fault that works on a target that is down came with a crash of all its processes. */
function withCrash(injection: Injection, killed: readonly string[]): Injection {
  if (killed.length === 0) return injection;
  const services = [...new Set([...killed, ...injection.services])];
  return { ...injection, scope: 'all-processes', services, detail: `SIGKILL to all; ${injection.detail}` };
}
