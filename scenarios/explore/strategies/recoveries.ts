import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../../conformance/errors.js';
import { type Family, shuffled } from '../../../faults/crash-states/enumerate.js';
import { Fingerprints } from '../../../faults/crash-states/fingerprint.js';
import { openRecording } from '../../../faults/crash-states/materialise.js';
import { StateDisk } from '../../../faults/crash-states/state-disk.js';
import { BlocklogDisk } from '../../../faults/power/blocklog.js';
import { MountError } from '../../../faults/power/filesystem.js';
import { copySparse } from '../../../faults/power/mounts.js';
import { type CrashState, formatState } from '../../../faults/write-log/state.js';
import { atExit } from '../../host/at-exit.js';
import { seeded } from '../../host/random.js';
import { DATA_DIR } from '../../runtime/disks/local-disk.js';
import { RUN_VARIABLE } from '../../runtime/runtime.js';
import { patienceMs, waiting } from '../inspectors/found.js';
import { RestoreService } from '../inspectors/restore-service.js';
import { DISK_BYTES } from '../record/record.js';
import type { Place } from '../states/places.js';
import { type Exploration, mountWay, workersOf } from './exploration.js';
import { type Ground, recoverOnly, runOnTarget } from './target-lanes.js';
import { type Broken, type LateState, placeIn, WayRun } from './way.js';

/** What became of crash states whose recovery was cut as well. */
export interface Recoveries {
  /** Recoveries that were recorded. */
  cut: number;
  states: number;
  distinct: number;
  seconds: number;
  broken: Broken[];
  unmountable: WayRun['unmountable'];
  late: LateState[];
}

export const NO_RECOVERIES: Recoveries = {
  cut: 0,
  states: 0,
  distinct: 0,
  seconds: 0,
  broken: [],
  unmountable: [],
  late: [],
};

const MOST_STATES_EACH = 150;
/** A log of which so many cuts put nothing at risk has next to none that do. */
const MOST_DRAWN = 1000;
const BATCH = 4;
/** A recording, and the first states of it, take so long: by a program that restores, and by starts of the target. */
const LEAST_MS = { restored: 1000, started: 3000 };

/**
 * A crash during recovery is a crash state too: on a sample of states the recovery is recorded in its turn, from the
 * replay of the filesystem's journal on, and cut at its own requests to the disk.
 */
export async function exploreRecoveries(exploration: Exploration): Promise<Recoveries> {
  const total: Recoveries = { ...NO_RECOVERIES, broken: [], unmountable: [], late: [] };
  const { options, recording, run, base, baseAt, places, endMs } = exploration;
  if (options.states === 1) return total;
  let place: Place | undefined;
  const left = () => endMs - performance.now();
  const leastMs = exploration.restore === undefined ? LEAST_MS.started : LEAST_MS.restored;
  const sample = sampleOf(exploration);
  for (const [number, state] of sample.entries()) {
    if (left() <= leastMs || options.signal.aborted || total.broken.length > 0) break;
    place ??= places.place('recovery', base);
    const disk = new StateDisk({ recording, base, baseAt, ...place, filesystem: run.filesystem });
    try {
      disk.make(state);
    } finally {
      disk.close();
    }
    // None may take the time of the others.
    const untilMs = performance.now() + Math.max(leastMs, left() / (sample.length - number));
    await cutRecovery({ ...exploration, endMs: untilMs }, state, place.image, number, total);
  }
  if (total.cut === 0 && sample.length > 0 && !options.signal.aborted)
    options.progress('no time was left to record a recovery and cut it');
  return total;
}

/**
 * Of each of these families one state, somewhere in the log, in which something is at risk. More would be equal to these: a
 * recovery does much the same from wherever it begins.
 */
const SAMPLED: readonly Family[] = ['prefix', 'random', 'torn'];

function sampleOf({ recording, run, options, stakes }: Exploration): CrashState[] {
  const random = seeded(options.seed).fork('recoveries');
  const states = new Map<Family, CrashState>();
  let randomly = 0;
  for (const { state, family } of shuffled(recording.model, run.from, random, 1)) {
    const { prefix } = state;
    const atRisk = stakes.required({ prefix, reached: prefix + 1 }).some((bits) => bits !== 0);
    if (atRisk && !states.has(family)) states.set(family, state);
    if (family === 'random' && (states.has(family) || ++randomly > MOST_DRAWN)) break;
  }
  return SAMPLED.flatMap((family) => states.get(family) ?? []);
}

async function cutRecovery(
  exploration: Exploration,
  state: CrashState,
  image: string,
  number: number,
  total: Recoveries,
): Promise<void> {
  const { options, registry, run, places, stakes, recorder, endMs, restore } = exploration;
  const name = `recovery-${number}`;
  const mountPoint = join(exploration.dir, name);
  mkdirSync(mountPoint, { recursive: true });
  let disk: BlocklogDisk;
  try {
    disk = await BlocklogDisk.create({
      dir: join(places.root, name),
      mountPoint,
      sizeBytes: DISK_BYTES,
      filesystem: run.filesystem,
      from: image,
      recorded: true,
      env: envOf(exploration),
      residue: registry,
    });
  } catch (error) {
    if (!(error instanceof MountError)) throw error;
    total.unmountable.push({ state: formatState(state), why: messageOf(error) });
    return;
  }
  const forget = atExit(() => disk.remove());
  try {
    const end = await recover(exploration, disk, mountPoint, name);
    const ended = disk.end();
    const recording = openRecording(ended.log, end);
    try {
      const parent = { address: formatState(state), ...placeIn(state) };
      const way = new WayRun({
        way: restore === undefined ? 'target' : 'mount',
        model: recording.model,
        from: 0,
        fingerprints: new Fingerprints(recording, ended.image, 0),
        random: seeded(options.seed).fork(name),
        stakes,
        recorder,
        parent,
        most: Math.min(MOST_STATES_EACH, options.states ?? MOST_STATES_EACH),
        endMs,
        signal: options.signal,
        progress: options.progress,
      });
      const workers = await exploreCuts(
        exploration,
        way,
        {
          name: `${name}-lane`,
          recording,
          base: ended.image,
          baseAt: 0,
          required: () => stakes.idsOf(stakes.required(parent)),
        },
        ended.log,
      );
      way.end();
      const figures = way.figures(workers);
      total.cut += 1;
      total.states += figures.states;
      total.distinct += figures.distinct;
      total.seconds += figures.seconds;
      if (way.broken.length > 0) {
        const log = `${name}.log`;
        copySparse(ended.log, join(exploration.dir, log));
        const { length } = recording.model.entries;
        total.broken.push(...way.broken.map((broken) => ({ ...broken, recovery: { log, end: length } })));
      }
      total.unmountable.push(...way.unmountable);
      total.late.push(...way.late);
      options.progress(
        `recovery ${number + 1} from ${formatState(state).slice(0, 60)}: ${recording.model.entries.length} requests, ${figures.states} states of its own`,
      );
    } finally {
      recording.close();
    }
  } catch (error) {
    options.progress(`recovery ${number + 1}: ${messageOf(error)}`);
    throw error;
  } finally {
    forget();
    disk.remove();
  }
}

const envOf = ({ registry }: Exploration) => ({ [RUN_VARIABLE]: registry.runId });

/**
 * Lets the target recover on a recorded disk: by its program that restores, or by being started.
 * @returns so many requests to the disk its recovery has made.
 */
async function recover(
  exploration: Exploration,
  disk: BlocklogDisk,
  mountPoint: string,
  name: string,
): Promise<number> {
  const { options, restore, endMs } = exploration;
  const data = join(mountPoint, DATA_DIR);
  let end = 0;
  const cut = () => {
    end = disk.stop();
    // What waits for its disk could not be killed.
    disk.resume();
  };
  if (restore === undefined) {
    await recoverOnly(exploration, data, join(exploration.dir, `${name}-target`), cut);
    return end;
  }
  const service = new RestoreService(restore, envOf(exploration));
  try {
    const queue = join(data, options.target.crashStates?.queue ?? '.');
    await service.ask({ queue }, Math.min(patienceMs(options.target), endMs - performance.now()));
    cut();
    return end;
  } finally {
    service.end();
  }
}

/** Looks at the states of one recovery's log. @returns how many did so at a time. */
async function exploreCuts(
  exploration: Exploration,
  way: WayRun,
  ground: Ground,
  log: string,
): Promise<number> {
  const { options, crew, digests, endMs, restore } = exploration;
  if (restore === undefined) {
    await runOnTarget(exploration, way, ground);
    return workersOf(exploration, 'target');
  }
  const { name, recording, base, baseAt } = ground;
  const workers = workersOf(exploration, 'mount');
  const plans = Array.from({ length: workers }, (_, worker) => ({
    log,
    end: recording.model.entries.length,
    base,
    baseAt,
    restore,
    env: envOf(exploration),
    ...waiting(options.target, endMs),
    digests,
    way: mountWay(exploration, `${name}-${worker}`, base),
  }));
  await crew.run(plans, way.jobs(), BATCH, () => way.stopped());
  return workers;
}
