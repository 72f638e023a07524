import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../../conformance/errors.js';
import { type StateFamily, shuffled } from '../../../faults/crash-states/enumerate.js';
import { Fingerprints } from '../../../faults/crash-states/fingerprint.js';
import { openRecording } from '../../../faults/crash-states/materialise.js';
import { StateDisk } from '../../../faults/crash-states/state-disk.js';
import { BlocklogDisk } from '../../../faults/power/blocklog.js';
import { MountError } from '../../../faults/power/filesystem.js';
import { copySparse } from '../../../faults/power/mounts.js';
import { type CrashState, formatState } from '../../../faults/write-log/state.js';
import { atExit } from '../../host/at-exit.js';
import { seeded } from '../../host/random.js';
import { BootView } from '../../runtime/boot/boot-view.js';
import { DATA_DIR } from '../../runtime/disks/local-disk.js';
import { RUN_VARIABLE } from '../../runtime/runtime.js';
import { restoreTimeoutMs } from '../inspectors/inspection.js';
import { RestoreService } from '../inspectors/restore-service.js';
import { DISK_BYTES } from '../record/record.js';
import type { DiskSlot } from '../states/workspace.js';
import { type Exploration, workerCount } from './exploration.js';
import { runOnMounts } from './run-on-mounts.js';
import { type CrashStateSource, recoverTarget, runOnTarget } from './run-on-target.js';
import { type Broken, logPositionOf, StrategyRun, type TimedOutState } from './strategy-run.js';

/** The results of cutting recoveries: all figures are sums over the recorded recoveries. */
export interface Recoveries {
  /** Number of recoveries that were recorded. */
  recorded: number;
  states: number;
  distinct: number;
  seconds: number;
  broken: Broken[];
  unmountable: StrategyRun['unmountable'];
  timedOut: TimedOutState[];
}

/** The results when no recovery was cut. */
export const NO_RECOVERIES: Recoveries = {
  recorded: 0,
  states: 0,
  distinct: 0,
  seconds: 0,
  broken: [],
  unmountable: [],
  timedOut: [],
};

const MAX_STATES_PER_RECOVERY = 150;
/**
 * Number of states of the family `random` that `drawSample` examines at most. It looks for states whose cut
 * puts a message at risk. If a thousand random states were not enough to find them, the log has hardly any.
 */
const MAX_RANDOM_DRAWS = 1000;
/**
 * Time in milliseconds for the recording of a recovery and the inspection of its first states: with a restore
 * program, and with starts of the target.
 */
const MIN_RECOVERY_BUDGET_MS = { restored: 1000, started: 3000 };

/**
 * Explores crashes during recovery. On a sample of crash states it records the recovery, from the replay of
 * the filesystem's journal on, and then inspects the disks that a power cut during the recovery could have
 * left.
 */
export async function exploreRecoveries(exploration: Exploration): Promise<Recoveries> {
  const total: Recoveries = { ...NO_RECOVERIES, broken: [], unmountable: [], timedOut: [] };
  const { options, recording, run, base, baseAt, workspace, endMs } = exploration;
  if (options.maxStates === 1) return total;
  let slot: DiskSlot | undefined;
  const leftMs = () => endMs - performance.now();
  const minMs =
    exploration.restore === undefined ? MIN_RECOVERY_BUDGET_MS.started : MIN_RECOVERY_BUDGET_MS.restored;
  const sample = drawSample(exploration);
  for (const [number, state] of sample.entries()) {
    if (leftMs() <= minMs || options.signal.aborted || total.broken.length > 0) break;
    slot ??= workspace.makeSlot('recovery', base);
    const disk = new StateDisk({ recording, base, baseAt, ...slot, filesystem: run.filesystem });
    try {
      disk.materialise(state);
    } finally {
      disk.close();
    }
    // Divide the time that is left, so that no recovery takes the time of the others.
    const recoveryEndMs = performance.now() + Math.max(minMs, leftMs() / (sample.length - number));
    await cutRecovery({ ...exploration, endMs: recoveryEndMs }, endMs, state, slot.image, number, total);
  }
  if (total.recorded === 0 && sample.length > 0 && !options.signal.aborted)
    options.progress('no time was left to record a recovery and cut it');
  return total;
}

/**
 * The families from which the sample is drawn. The sample has one state of each family, anywhere in the log,
 * with a message at risk at its cut. More states would show the same, because a recovery does almost the same
 * from every state.
 */
const SAMPLED_FAMILIES: readonly StateFamily[] = ['prefix', 'random', 'torn'];

/** Chooses the crash states whose recovery is recorded and cut: at most one of each sampled family. */
function drawSample({ recording, run, options, atRisk }: Exploration): CrashState[] {
  const random = seeded(options.seed).fork('recoveries');
  const states = new Map<StateFamily, CrashState>();
  let randomDraws = 0;
  for (const { state, family } of shuffled(recording.model, run.from, random, 1)) {
    const { prefix } = state;
    const hasAtRisk = atRisk.required({ prefix, entriesBegun: prefix + 1 }).some((bits) => bits !== 0);
    if (hasAtRisk && !states.has(family)) states.set(family, state);
    if (SAMPLED_FAMILIES.every((sampled) => states.has(sampled))) break;
    if (family === 'random' && ++randomDraws > MAX_RANDOM_DRAWS) break;
  }
  return SAMPLED_FAMILIES.flatMap((family) => states.get(family) ?? []);
}

/**
 * Records the recovery from one crash state, explores its cuts, and adds the results to `total`.
 * @param lastMs end of the whole exploration, in ms of `performance.now()`: a state that was begun in time may use it.
 */
async function cutRecovery(
  exploration: Exploration,
  lastMs: number,
  state: CrashState,
  image: string,
  number: number,
  total: Recoveries,
): Promise<void> {
  const { options, registry, run, workspace, atRisk, recorder, endMs, restore } = exploration;
  const strategy = restore === undefined ? 'target' : 'mount';
  const name = `recovery-${number}`;
  const mountPoint = join(exploration.dir, name);
  mkdirSync(mountPoint, { recursive: true });
  let disk: BlocklogDisk;
  try {
    disk = await BlocklogDisk.create({
      dir: join(workspace.root, name),
      mountPoint,
      sizeBytes: DISK_BYTES,
      filesystem: run.filesystem,
      from: image,
      recorded: true,
      env: envOf(exploration),
      registry,
    });
  } catch (error) {
    if (!(error instanceof MountError)) throw error;
    total.unmountable.push({ state: formatState(state), why: messageOf(error) });
    return;
  }
  const cancelAtExit = atExit(() => disk.remove());
  try {
    const end = await recordRecovery(exploration, disk, mountPoint, name);
    const ended = disk.endRecording();
    const recording = openRecording(ended.log, end);
    try {
      const parent = { address: formatState(state), ...logPositionOf(state) };
      const strategyRun = new StrategyRun({
        strategy,
        model: recording.model,
        from: 0,
        fingerprints: new Fingerprints(recording, ended.image, 0),
        random: seeded(options.seed).fork(name),
        atRisk: atRisk,
        recorder,
        parent,
        maxDistinct: Math.min(MAX_STATES_PER_RECOVERY, options.maxStates ?? MAX_STATES_PER_RECOVERY),
        endMs,
        signal: options.signal,
        progress: options.progress,
      });
      const source: CrashStateSource = {
        name: `${name}-slot`,
        recording,
        base: ended.image,
        baseAt: 0,
        required: () => atRisk.idsOf(atRisk.required(parent)),
      };
      // A missing message may need more time than the share of this recovery.
      if (strategy === 'target') await runOnTarget({ ...exploration, endMs: lastMs }, strategyRun, source);
      else await runOnMounts(exploration, strategyRun, source, ended.log);
      strategyRun.end();
      const figures = strategyRun.figures(workerCount(exploration, strategy));
      total.recorded += 1;
      total.states += figures.states;
      total.distinct += figures.distinct;
      total.seconds += figures.seconds;
      if (strategyRun.broken.length > 0) {
        const log = `${name}.log`;
        copySparse(ended.log, join(exploration.dir, log));
        const { length } = recording.model.entries;
        total.broken.push(
          ...strategyRun.broken.map((broken) => ({ ...broken, recovery: { log, end: length } })),
        );
      }
      total.unmountable.push(...strategyRun.unmountable);
      total.timedOut.push(...strategyRun.timedOut);
      options.progress(
        `recovery ${number + 1} from ${formatState(state).slice(0, 60)}: ${recording.model.entries.length} requests, ${figures.states} states`,
      );
    } finally {
      recording.close();
    }
  } catch (error) {
    options.progress(`recovery ${number + 1}: ${messageOf(error)}`);
    throw error;
  } finally {
    cancelAtExit();
    disk.remove();
  }
}

const envOf = ({ registry }: Exploration) => ({ [RUN_VARIABLE]: registry.runId });

/**
 * Lets the target recover on a recorded disk, by its restore program or by a start.
 * @returns the number of requests to the disk that the recovery made.
 */
async function recordRecovery(
  exploration: Exploration,
  disk: BlocklogDisk,
  mountPoint: string,
  name: string,
): Promise<number> {
  const { options, restore, run, endMs } = exploration;
  const data = join(mountPoint, DATA_DIR);
  let end = 0;
  const cut = () => {
    end = disk.stop();
    // A process that waits for the disk cannot be killed, so let the disk answer again.
    disk.resume();
  };
  if (restore === undefined) {
    await recoverTarget(exploration, data, join(exploration.dir, `${name}-target`), cut);
    return end;
  }
  // The recovery that is cut must see another boot than the recovery from that cut, as on a real machine.
  const boot = new BootView({
    dir: exploration.dir,
    keep: [mountPoint, run.scratch],
    trees: [options.target.dir],
    words: restore,
    registry: exploration.registry,
  });
  const service = new RestoreService(boot.enter(restore), envOf(exploration));
  try {
    const queue = join(data, options.target.crashStates?.queue ?? '.');
    await service.ask({ queue }, Math.min(restoreTimeoutMs(options.target), endMs - performance.now()));
    cut();
    return end;
  } finally {
    service.end();
    boot.remove();
  }
}
