import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Stakes, submittedIds } from '../../conformance/checkers/crash-states.js';
import { CHECKERS } from '../../conformance/checkers/evaluate.js';
import { KitError, messageOf } from '../../conformance/errors.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { Recorder } from '../../conformance/history/recorder.js';
import { markOf } from '../../conformance/protocols/message.js';
import { protocolOf } from '../../conformance/protocols/registry/registry.js';
import { expandCommand } from '../../conformance/target-file/placeholders.js';
import { sectorsOf } from '../../faults/crash-states/file-bytes.js';
import { Fingerprints } from '../../faults/crash-states/fingerprint.js';
import { applyAll, openRecording, type Recording } from '../../faults/crash-states/materialise.js';
import { recordingDirectory } from '../../faults/power/available.js';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { copySparse } from '../../faults/power/mounts.js';
import { eventsRead } from '../../faults/waiting.js';
import { formatState } from '../../faults/write-log/state.js';
import { seeded } from '../host/random.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { kitVersion } from '../host/version.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';
import { waiting } from './inspectors/found.js';
import { Crew } from './inspectors/pool.js';
import type { WorkerPlan } from './inspectors/worker.js';
import { keepRecording } from './record/kept-recording.js';
import { type RecordedRun, recordRun } from './record/record.js';
import { blame } from './result/blame.js';
import { tellState } from './result/missing-writes.js';
import type { ExploreResult, SmallestState } from './result/result.js';
import { bundleOfState } from './result/state-bundle.js';
import { Places } from './states/places.js';
import { type Exploration, type ExploreOptions, mountWay, workersOf } from './strategies/exploration.js';
import { exploreRecoveries, NO_RECOVERIES, type Recoveries } from './strategies/recoveries.js';
import { type Ground, runOnTarget } from './strategies/target-lanes.js';
import { type Broken, type WayName, WayRun } from './strategies/way.js';

/** Of the time that is left after the recording. */
const SHARES: Readonly<Record<WayName | 'recoveries', number>> = {
  image: 0.5,
  mount: 0.3,
  recoveries: 0.2,
  target: 0.7,
};
/** So long the target is loaded, at most and as a part of the budget. */
const LONGEST_LOAD_MS = 4000;
const LOAD_SHARE = 0.15;
const RESERVE_MS = 1500;
const BATCH: Readonly<Record<'image' | 'mount', number>> = { image: 32, mount: 4 };
const MOST_TOLD = 10;
/** A torn superblock is rare: where more than this part of the disks is refused something else is wrong. */
const MOST_REFUSED = 0.2;

/**
 * Records one run of the target under load, and then makes, recovers and judges the disks that a power cut could have
 * left at any moment of it. Its history has an event for each state, which PP-13's checker judges again.
 * @throws KitError target-unavailable when the target does not start, kit-failed when a disk cannot be made.
 */
export async function runExplore(asked: ExploreOptions): Promise<ExploreResult> {
  const { target, seed } = asked;
  const registry = new Registry(newRunId());
  const dir = asked.out ?? join(stateDirectory(), 'runs', registry.runId);
  if (asked.out === undefined) registry.made({ kind: 'directory', path: dir });
  mkdirSync(dir, { recursive: true });
  const recorder = new Recorder(join(dir, 'history.jsonl'));
  const options = { ...asked, signal: AbortSignal.any([asked.signal, recorder.broken]) };
  const startMs = performance.now();
  let keep = true;
  let run: RecordedRun | undefined;
  try {
    run = options.recorded?.run ?? (await record(options, registry, recorder, dir));
    for (const event of options.recorded?.events ?? []) recorder.takeOver(event);
    const result = await explore(options, { registry, recorder, dir, run, startMs });
    keep = options.keep || options.out !== undefined || result.verdict === 'fail';
    if (keep) keepRecording(run, target, seed, dir);
    // The history must be whole in the file that goes into the bundle.
    recorder.close();
    const bundle =
      result.verdict === 'fail' && !options.signal.aborted
        ? await bundleOfState({
            target,
            seed,
            run,
            result,
            evidence: dir,
            events: recorder.events,
          })
        : null;
    return { ...result, evidence: keep ? dir : null, bundle };
  } catch (error) {
    // A Ctrl-C may be what it failed of: then nothing is kept.
    await eventsRead();
    throw error;
  } finally {
    run?.remove();
    if (!keep || options.signal.aborted) rmSync(dir, { recursive: true, force: true });
    registry.close();
    recorder.close();
  }
}

async function record(
  { target, seed, budgetMs, runtime, filesystem, signal }: ExploreOptions,
  registry: Registry,
  recorder: Recorder,
  dir: string,
): Promise<RecordedRun> {
  recorder.record({
    kind: 'run-started',
    target: target.name,
    protocol: target.protocol,
    seed,
    faults: ['crash-states'],
    startedAt: new Date().toISOString(),
    kitVersion: kitVersion(),
  });
  return recordRun({
    target,
    protocol: await protocolOf(target.protocol),
    runtime,
    registry,
    recorder,
    dir,
    signal,
    filesystem: filesystem ?? DEFAULT_FILESYSTEM,
    seed,
    loadMs: Math.min(LONGEST_LOAD_MS, budgetMs * LOAD_SHARE),
  });
}

interface Begun {
  registry: Registry;
  recorder: Recorder;
  dir: string;
  run: RecordedRun;
  startMs: number;
}

async function explore(
  options: ExploreOptions,
  begun: Begun,
): Promise<Omit<ExploreResult, 'evidence' | 'bundle'>> {
  const { registry, recorder, run, startMs } = begun;
  const { target, budgetMs, runtime, progress } = options;
  const recording = openRecording(run.log, run.end);
  const room = recordingDirectory() ?? begun.dir;
  const places = new Places(join(room, `plugpull-${registry.runId}-states`), registry);
  const crew = new Crew(registry.runId);
  try {
    const ids = submittedIds(recorder.events);
    const baseAt = recording.model.floor(run.from);
    const base = makeBase(run, recording, baseAt, join(places.dir, 'base.img'));
    const restore = target.crashStates?.restore;
    const exploration: Exploration = {
      options,
      ...begun,
      recording,
      places,
      crew,
      stakes: new Stakes(recorder.events),
      base,
      baseAt,
      ids,
      digests: ids.map((id) => run.digests.get(id) ?? id),
      restore:
        restore && expandCommand(restore, { ...runtime.placesOf(), data: '', sink: '', ports: new Map() }),
      workers: availableParallelism(),
      endMs: startMs + budgetMs - RESERVE_MS,
    };
    const entries = recording.model.entries.length;
    const what = options.recorded === undefined ? 'recorded' : 'the recording has';
    progress(`${what} ${entries} requests to the disk, ${entries - run.from} of them under load`);
    const ways = await exploreWays(exploration);
    const found = [...ways.values()].some((way) => way.broken.length > 0);
    // Once something is found, recoveries that are cut would only show it in a longer story.
    const recoveries = found ? NO_RECOVERIES : await exploreRecoveries(exploration);
    const compared = compare(exploration, ways);
    const doubt = doubtOf(ways, recoveries, compared);
    recordStake(exploration, doubt);
    recorder.record({ kind: 'run-ended', how: options.signal.aborted ? 'interrupted' : 'completed' });
    const broken = [...[...ways.values()].flatMap((way) => way.broken), ...recoveries.broken];
    return resultOf(exploration, { ways, recoveries, broken, compared, doubt, startMs });
  } finally {
    await crew.end();
    places.remove();
    recording.close();
  }
}

/** In the words of the other faults: the machine crashed, and so much was at stake in the worst of its states. */
function recordStake({ recorder, stakes, recording }: Exploration, doubt: string | undefined): void {
  const end = recording.model.entries.length;
  let most = 0;
  for (let prefix = 0; prefix <= end; prefix++) {
    most = Math.max(most, stakes.idsOf(stakes.required({ prefix, reached: prefix })).length);
  }
  recorder.record({ kind: 'at-risk', injection: 1, confirmedUndelivered: most, inFlight: 0, inDelivery: 0 });
  recorder.record({
    kind: 'fault',
    fault: 'crash-states',
    injection: 1,
    hit: most > 0 && doubt === undefined,
    scope: 'machine',
    services: [],
    detail: doubt ?? `the disks that a cut could have left at any of ${end} requests`,
    indexDamaged: false,
    rotted: [],
    failingMs: 0,
  });
}

function makeBase(run: RecordedRun, { log, model }: Recording, baseAt: number, path: string): string {
  copySparse(run.image, path);
  const fd = openSync(path, 'r+');
  applyAll(log, model.writes(0, baseAt), fd);
  closeSync(fd);
  return path;
}

async function exploreWays(exploration: Exploration): Promise<Map<WayName, WayRun>> {
  const { options, run, restore, endMs } = exploration;
  const names: WayName[] = [];
  if (restore === undefined) names.push('target');
  else {
    if (run.files.size > 0) names.push('image');
    names.push('mount');
  }
  const leftMs = Math.max(0, endMs - performance.now());
  const ways = new Map<WayName, WayRun>();
  for (const way of names) {
    if (options.signal.aborted) break;
    const share = names.length === 1 ? 1 - SHARES.recoveries : SHARES[way];
    const mostEndMs = Math.min(endMs, performance.now() + leftMs * share);
    const wayRun = new WayRun({
      way,
      model: exploration.recording.model,
      from: run.from,
      fingerprints: fingerprintsOf(exploration, way),
      random: seeded(options.seed).fork(`states-${way}`),
      stakes: exploration.stakes,
      recorder: exploration.recorder,
      most: Math.ceil((options.states ?? Number.POSITIVE_INFINITY) * share),
      endMs: mostEndMs,
      signal: options.signal,
      progress: options.progress,
    });
    ways.set(way, wayRun);
    if (way === 'target') await runOnTarget(exploration, wayRun, groundOf(exploration));
    else {
      const plans = plansOf(exploration, way, mostEndMs);
      await exploration.crew.run(plans, wayRun.jobs(), BATCH[way], () => wayRun.stopped());
    }
    wayRun.end();
    const dead = wayRun.neverWorked();
    if (dead !== undefined) throw new KitError('bad-target', `${dead}, on every crash state`);
    if (wayRun.broken.length > 0) break;
  }
  return ways;
}

function groundOf({ recording, base, baseAt, stakes }: Exploration): Ground {
  const required: Ground['required'] = ({ prefix }) =>
    stakes.idsOf(stakes.required({ prefix, reached: prefix + 1 }));
  return { name: 'lane', recording, base, baseAt, required };
}

function fingerprintsOf({ recording, base, baseAt, run }: Exploration, way: WayName): Fingerprints {
  const counts = way === 'image' ? sectorsOf([...run.files.values()]) : undefined;
  return new Fingerprints(recording, base, baseAt, counts);
}

/** What the workers are told, each with a place of its own. */
function plansOf(exploration: Exploration, way: 'image' | 'mount', endMs: number): WorkerPlan[] {
  const { run, places, base, baseAt, restore, registry, digests, recording } = exploration;
  return Array.from({ length: workersOf(exploration, way) }, (_, number) => ({
    log: run.log,
    end: recording.model.entries.length,
    base,
    baseAt,
    restore: restore ?? [],
    env: { [RUN_VARIABLE]: registry.runId },
    ...waiting(exploration.options.target, endMs),
    digests,
    way:
      way === 'image'
        ? {
            name: 'image' as const,
            files: [...run.files].map(([name, file]) => ({
              name,
              ...file,
              // Not where the images are: nothing need ever write these bytes back.
              path: join(places.root, `${number}.${name}`),
            })),
            patches: join(places.root, `${number}.patches`),
          }
        : mountWay(exploration, `mount-${number}`, base),
  }));
}

/** All that an exploration has come to. */
interface Ended {
  ways: Ways;
  recoveries: Recoveries;
  broken: readonly Broken[];
  compared: ExploreResult['compared'];
  doubt: string | undefined;
  startMs: number;
}

function resultOf(
  exploration: Exploration,
  { ways, recoveries, broken, compared, doubt, startMs }: Ended,
): Omit<ExploreResult, 'evidence' | 'bundle'> {
  const { options, recorder, recording, run } = exploration;
  const finding = CHECKERS['PP-13'](recorder.events, options.target.guarantee);
  const late = lateIn(ways, recoveries);
  const { verdict, why } =
    finding.verdict === 'pass' && doubt !== undefined
      ? { verdict: 'not-measured' as const, why: doubt }
      : finding;
  const all = [...ways].map(([name, way]) => [name, way.figures(workersOf(exploration, name))] as const);
  const distinct = all.reduce((sum, [, way]) => sum + way.distinct, recoveries.distinct);
  const seconds = all.reduce((sum, [, way]) => sum + way.seconds, recoveries.seconds);
  const unmountable = unmountableIn(ways, recoveries);
  const count = (test: (event: HistoryEvent) => boolean) => recorder.events.filter(test).length;
  return {
    target: options.target.name,
    verdict,
    why,
    requirements: [{ id: finding.requirement, verdict, why }],
    states: finding.figures.crashStates ?? 0,
    distinct,
    statesPerSecond: seconds === 0 ? 0 : Math.round((distinct / seconds) * 10) / 10,
    lost: finding.figures.lostInStates ?? 0,
    broken: finding.figures.brokenStates ?? 0,
    atRisk: finding.figures.statesAtRisk ?? 0,
    ways: Object.fromEntries(all),
    unanswered: { states: late.length, first: late[0]?.state ?? null },
    unmountable: { states: unmountable.length, first: unmountable[0] ?? null },
    recoveries: { cut: recoveries.cut, states: recoveries.states, distinct: recoveries.distinct },
    compared,
    submitted: count((event) => event.kind === 'submitted'),
    confirmed: count((event) => event.kind === 'answered' && event.outcome === 'confirmed'),
    log: { entries: recording.model.entries.length, from: run.from },
    seed: options.seed,
    tookMs: Math.round(performance.now() - startMs),
    replay: options.replay(options.seed),
    violations: finding.violations
      .slice(0, MOST_TOLD)
      .map((violation) => ({ requirement: finding.requirement, ...violation })),
    smallest: smallestOf(exploration, broken),
  };
}

type Ways = ReadonlyMap<WayName, WayRun>;

const lateIn = (ways: Ways, recoveries: Recoveries) => [
  ...[...ways.values()].flatMap((way) => way.late),
  ...recoveries.late,
];
const unmountableIn = (ways: Ways, recoveries: Recoveries) => [
  ...[...ways.values()].flatMap((way) => way.unmountable),
  ...recoveries.unmountable,
];

/** Why an exploration that found nothing wrong shows nothing all the same; undefined when it does. */
function doubtOf(
  ways: Ways,
  recoveries: Recoveries,
  { differ, first }: ExploreResult['compared'],
): string | undefined {
  const hung = lateIn(ways, recoveries).find((state) => state.hung);
  if (hung !== undefined)
    return `crashStates.restore had no answer in crash state ${hung.state} when the time was up`;
  if (differ > 0)
    return `${differ} crash states hold other messages mounted than straight in the image; the first is ${first}`;
  const refused = unmountableIn(ways, recoveries);
  const looked = [...ways.values()].reduce((sum, way) => sum + way.figures(1).distinct, recoveries.distinct);
  const [one] = refused;
  if (one !== undefined && refused.length > MOST_REFUSED * (looked + refused.length))
    return `${refused.length} of ${looked + refused.length} disks could not be mounted; the first is ${one.state}: ${one.why}`;
  return undefined;
}

/** The states that were looked at in both ways must have been found to hold the same. */
function compare(exploration: Exploration, ways: Ways): ExploreResult['compared'] {
  const [image, mount] = [ways.get('image'), ways.get('mount')];
  const compared: ExploreResult['compared'] = { states: 0, differ: 0, first: null };
  if (image === undefined || mount === undefined) return compared;
  const fingerprints = fingerprintsOf(exploration, 'image');
  for (const { crash, found } of mount.looked) {
    const straight = image.foundIn(fingerprints.of(crash));
    if (straight === undefined || !found.recovered) continue;
    compared.states += 1;
    if (straight.live === found.live) continue;
    compared.differ += 1;
    compared.first ??= formatState(crash);
  }
  return compared;
}

function smallestOf(exploration: Exploration, broken: readonly Broken[]): SmallestState | null {
  const [first] = [...broken].sort(
    (a, b) =>
      Number(a.address.includes('>')) - Number(b.address.includes('>')) ||
      a.size - b.size ||
      a.state.prefix - b.state.prefix,
  );
  if (first === undefined) return null;
  const { recording, stakes, recorder, run, dir } = exploration;
  const [id] = first.missing;
  const submitted = recorder.events.find((event) => event.kind === 'submitted' && event.id === id);
  const confirmedAt = id === undefined ? undefined : stakes.confirmedAt(id);
  const story = [`the power is cut at ${first.address}`];
  if (first.noRecovery !== '') story.push(`the target does not recover: ${first.noRecovery}`);
  const recovery = first.recovery ?? null;
  if (recovery !== null) {
    // What stands in the log of the run was on the disk: the recovery has lost it.
    const [outer, inner] = first.address.split('>');
    story.push(`at ${outer}, and in the recovery from there again, at ${inner} of its own requests`);
    const again = openRecording(join(dir, recovery.log), recovery.end);
    story.push(tellState(again.model, first.state));
    again.close();
    if (id !== undefined) story.push(`message ${id}: gone after the second`);
  } else if (id !== undefined && submitted?.kind === 'submitted' && confirmedAt !== undefined) {
    const mark = markOf(run.id, id);
    try {
      story.push(
        ...blame(recording, mark, submitted.sizeBytes, confirmedAt).map((line) => `message ${id}: ${line}`),
      );
    } catch (error) {
      throw new KitError('kit-failed', `the log cannot be read again: ${messageOf(error)}`, { cause: error });
    }
  }
  return { state: first.address, recovery, missing: first.missing, story };
}
