import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf } from '../../conformance/errors.js';
import { shuffled } from '../../faults/crash-states/enumerate.js';
import { Fingerprints } from '../../faults/crash-states/fingerprint.js';
import { openRecording } from '../../faults/crash-states/materialise.js';
import { type CrashState, formatState } from '../../faults/crash-states/state.js';
import { StateDisk } from '../../faults/crash-states/state-disk.js';
import { BlocklogDisk } from '../../faults/power/blocklog.js';
import { copySparse } from '../../faults/power/sparse.js';
import { atExit } from '../at-exit.js';
import { seeded } from '../random.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';
import { type Exploration, mountWay, workersOf } from './exploration.js';
import { patienceMs, waiting } from './patience.js';
import type { Place } from './places.js';
import { DATA_DIR, DISK_BYTES } from './record.js';
import { RestoreService } from './restore-service.js';
import { type Broken, type LateState, WayRun } from './way.js';

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

/** More would be equal to earlier ones: a recovery does much the same from wherever it begins. */
const MOST_RECOVERIES = 3;
const MOST_STATES_EACH = 150;
const BATCH = 4;
/** A recording takes so long before the first state is seen. */
const LEAST_MS = 2000;

/**
 * A crash during recovery is a crash state too: on a sample of states the recovery is recorded in its turn, from the
 * replay of the filesystem's journal on, and cut at its own requests to the disk.
 */
export async function exploreRecoveries(exploration: Exploration): Promise<Recoveries> {
  const total: Recoveries = { ...NO_RECOVERIES, broken: [], unmountable: [], late: [] };
  const { options, restore, recording, run, base, baseAt, places, endMs } = exploration;
  if (restore === undefined || options.states === 1) return total;
  let place: Place | undefined;
  const left = () => endMs - performance.now();
  const sample = sampleOf(exploration);
  for (let number = 0; number < MOST_RECOVERIES && left() > LEAST_MS; number++) {
    const state = sample[number];
    if (state === undefined || options.signal.aborted || total.broken.length > 0) break;
    place ??= places.place('recovery', base);
    const disk = new StateDisk({ recording, base, baseAt, ...place, filesystem: run.filesystem });
    try {
      disk.make(state);
    } finally {
      disk.close();
    }
    await cutRecovery(exploration, restore, state, place.image, number, total);
  }
  return total;
}

/** States of all parts of the log in which something is at risk. */
function sampleOf({ recording, run, options, stakes }: Exploration): CrashState[] {
  const random = seeded(options.seed).fork('recoveries');
  const states: CrashState[] = [];
  for (const { state, family } of shuffled(recording.model, run.from, random, 1)) {
    const { prefix } = state;
    const atRisk = stakes.required({ prefix, reached: prefix + 1 }).some((bits) => bits !== 0);
    if (atRisk && family !== 'only-one') states.push(state);
    if (states.length === MOST_RECOVERIES || family === 'random') break;
  }
  return states;
}

async function cutRecovery(
  exploration: Exploration,
  restore: readonly string[],
  state: CrashState,
  image: string,
  number: number,
  total: Recoveries,
): Promise<void> {
  const { options, registry, run, places, crew, stakes, recorder, endMs, digests } = exploration;
  const workers = workersOf(exploration, 'mount');
  const env = { [RUN_VARIABLE]: registry.runId };
  const mountPoint = join(exploration.dir, `recovery-${number}`);
  mkdirSync(mountPoint, { recursive: true });
  const disk = await BlocklogDisk.create({
    dir: join(places.root, `recovery-${number}`),
    mountPoint,
    sizeBytes: DISK_BYTES,
    filesystem: run.filesystem,
    from: image,
    recorded: true,
    env,
    residue: registry,
  });
  const forget = atExit(() => disk.remove());
  try {
    const service = new RestoreService(restore, env);
    try {
      const queue = join(mountPoint, DATA_DIR, options.target.crashStates?.queue ?? '.');
      await service.ask({ queue }, Math.min(patienceMs(options.target), endMs - performance.now()));
    } finally {
      service.end();
    }
    const ended = disk.end();
    const recording = openRecording(ended.log);
    try {
      const { prefix } = state;
      const begun = state.kept.at(-1) === prefix || state.torn.has(prefix);
      const way = new WayRun({
        way: 'mount',
        model: recording.model,
        from: 0,
        fingerprints: new Fingerprints(recording, ended.image, 0),
        random: seeded(options.seed).fork(`recovery-${number}`),
        stakes,
        recorder,
        parent: { address: formatState(state), prefix, reached: prefix + (begun ? 1 : 0) },
        most: Math.min(MOST_STATES_EACH, options.states ?? MOST_STATES_EACH),
        endMs,
        signal: options.signal,
        progress: options.progress,
      });
      const plans = Array.from({ length: workers }, (_, worker) => ({
        log: ended.log,
        end: recording.model.entries.length,
        base: ended.image,
        baseAt: 0,
        restore,
        env,
        ...waiting(options.target, endMs),
        digests,
        way: mountWay(exploration, `recovery-${number}-${worker}`, ended.image),
      }));
      await crew.run(plans, way.jobs(), BATCH, () => way.stopped());
      way.end();
      const figures = way.figures(workers);
      total.cut += 1;
      total.states += figures.states;
      total.distinct += figures.distinct;
      total.seconds += figures.seconds;
      if (way.broken.length > 0) {
        const log = `recovery-${number}.log`;
        copySparse(ended.log, join(exploration.dir, log));
        const { length: end } = recording.model.entries;
        total.broken.push(...way.broken.map((broken) => ({ ...broken, recovery: { log, end } })));
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
