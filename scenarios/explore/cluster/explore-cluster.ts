import { join } from 'node:path';
import { AtRiskMessages, submittedIds } from '../../../conformance/checkers/crash-states.js';
import { protocolOf } from '../../../conformance/protocols/registry/registry.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import { Fingerprints } from '../../../faults/crash-states/fingerprint.js';
import { openRecording } from '../../../faults/crash-states/materialise.js';
import { recordingDirectory } from '../../../faults/power/blocklog-availability.js';
import { DEFAULT_FILESYSTEM } from '../../../faults/power/filesystem.js';
import { writeRunFacts } from '../../bundle/run-facts.js';
import { attempt } from '../../host/attempt.js';
import { PhaseClock } from '../../host/phase-clock.js';
import { seeded } from '../../host/random.js';
import { type LaunchPlace, makePlace } from '../../round/launch-place.js';
import { type ExplorationFrame, recordStart, runInFrame } from '../exploration-frame.js';
import type { ExploreResult } from '../result/result.js';
import { makeBase } from '../states/base-image.js';
import { StateWorkspace } from '../states/workspace.js';
import type { ExploreOptions } from '../strategies/exploration.js';
import { chooseStates } from './choose-states.js';
import type { ClusterExploration, ClusterPhase } from './cluster-exploration.js';
import { ClusterInspector, type OpenNode } from './cluster-inspector.js';
import { clusterResult } from './cluster-result.js';
import { ClusterRun, positionOf } from './cluster-run.js';
import { saveClusterRecording, writeClusterBundle } from './evidence.js';
import { copyPath } from './live-copies.js';
import { type RecordedCluster, recordCluster } from './record-cluster.js';

/** Upper bound of the load phase, in milliseconds, and as a share of the budget. */
const MAX_LOAD_MS = 5000;
const LOAD_TIME_SHARE = 0.15;
/** Time at the end of the budget for the verdict, the evidence and the clean-up, in milliseconds. */
const RESERVE_MS = 4000;
/** Broken states after which no more are looked for: each takes as long as the target may keep messages back. */
const MAX_BROKEN_STATES = 3;
/** Time after the first broken state, in milliseconds, after which no more are looked for. */
const MAX_SEARCH_AFTER_BROKEN_MS = 20_000;
/** Number of states in a row that need no inspection, after which the recording has hardly any others. */
const MAX_KNOWN_IN_A_ROW = 2000;
const PROGRESS_MS = 5000;

/**
 * Explores the crash states of a target with `nodes`, as `runExplore` does for one of a single node: records one run with a
 * disk for each node, makes states of all nodes at common moments, starts the cluster on each, and judges what it holds.
 * @throws KitError target-unavailable when the target does not start, kit-failed when a disk cannot be made.
 */
export async function exploreCluster(requested: ExploreOptions): Promise<ExploreResult> {
  const { target, seed, runtime, budgetMs } = requested;
  const clock = new PhaseClock<ClusterPhase>('evaluation', budgetMs);
  const endMs = performance.now() + budgetMs - RESERVE_MS;
  let run: RecordedCluster | undefined;
  let place: LaunchPlace | undefined;
  return runInFrame(requested, () => clock.report(), {
    async explore(frame) {
      const madePlace = await makePlace(target, runtime, frame.registry);
      place = madePlace;
      const recorded = await clock.during('recording', () => record(frame, madePlace));
      run = recorded;
      const exploration = { ...frame, run: recorded, place: madePlace, clock, endMs };
      return { result: await exploreStates(exploration), run: recorded, place: madePlace };
    },
    async save({ result, run: recorded }, dir) {
      await attempt('the recording is not kept', () =>
        saveClusterRecording(recorded, result.smallest?.state, dir),
      );
      await attempt('the facts of the run are not kept', () => keepFacts(dir, target, result, clock));
    },
    bundle: (outcome, { dir }) => writeClusterBundle({ ...outcome, target, seed, evidence: dir }),
    release() {
      run?.remove();
      place?.remove();
    },
  });
}

/** Starts the history and records the run under load. */
async function record(frame: ExplorationFrame, place: LaunchPlace): Promise<RecordedCluster> {
  const { options, registry, recorder, dir } = frame;
  const { target, seed, budgetMs, runtime, filesystem, signal, progress } = options;
  recordStart(frame);
  return recordCluster({
    ...{ registry, recorder, dir, place },
    ...{ target, runtime, seed, signal, progress },
    nodes: target.nodes ?? [],
    protocol: await protocolOf(target.protocol),
    filesystem: filesystem ?? DEFAULT_FILESYSTEM,
    loadMs: Math.min(MAX_LOAD_MS, budgetMs * LOAD_TIME_SHARE),
  });
}

async function exploreStates(exploration: ClusterExploration) {
  const { options, registry, recorder, dir, run, place, clock } = exploration;
  const { target, runtime, signal, progress } = options;
  const recordings = run.nodes.map(({ log, end }) => openRecording(log, end));
  const imagesParentDir = recordingDirectory() ?? dir;
  const workspace = new StateWorkspace(join(imagesParentDir, `plugpull-${registry.runId}-states`), registry);
  let inspector: ClusterInspector | undefined;
  try {
    const ids = submittedIds(recorder.events);
    const atRisk = new AtRiskMessages(recorder.events);
    const nodes = run.nodes.flatMap((node, index): OpenNode[] => {
      const recording = recordings[index];
      if (recording === undefined) return [];
      const baseAt = recording.model.durablePrefix(run.instants[0]?.lengths[index] ?? 0);
      const base = makeBase(node.image, recording, baseAt, join(workspace.dir, `base-${node.name}.img`));
      return [{ name: node.name, scratch: node.scratch, recording, base, baseAt }];
    });
    const fingerprints = new Map(
      nodes.map(({ name, recording, base, baseAt }) => [name, new Fingerprints(recording, base, baseAt)]),
    );
    const clusterRun = new ClusterRun({ atRisk, recorder, fingerprints });
    const entries = recordings.reduce((sum, { model }) => sum + model.entries.length, 0);
    progress(
      `recorded ${entries} requests to the disks of ${nodes.length} nodes, and ${run.instants.length} instants`,
    );
    const opened = new ClusterInspector({
      ...{ target, runtime, registry, nodes, workspace, place, ids, dir, signal, progress },
      ...{ filesystem: run.filesystem, run: run.id, events: recorder.events },
      copyOf: (node, instant) => copyPath(run.copies, node, instant),
    });
    inspector = opened;
    const beginMs = performance.now();
    if (run.unwritten?.writesElsewhere !== true)
      await clock.during('states', () => inspectStates(exploration, clusterRun, opened, nodes, atRisk));
    const seconds = (performance.now() - beginMs) / 1000;
    return clusterResult(exploration, { clusterRun, nodes, workspace, atRisk, seconds });
  } finally {
    inspector?.close();
    workspace.remove();
    for (const recording of recordings) recording.close();
  }
}

/** Chooses and inspects states until the time is up, enough is broken, or hardly any other is left. */
async function inspectStates(
  { options, run, endMs }: ClusterExploration,
  clusterRun: ClusterRun,
  inspector: ClusterInspector,
  nodes: readonly OpenNode[],
  atRisk: AtRiskMessages,
): Promise<void> {
  const { target, seed, signal, progress, maxStates = Number.POSITIVE_INFINITY } = options;
  const requiredAt = (instant: number) =>
    atRisk.idsOf(atRisk.required({ prefix: instant, entriesBegun: instant }));
  const from = run.instants.findIndex((_, instant) => requiredAt(instant).length > 0);
  if (from === -1) return;
  const space = {
    nodes: nodes.map(({ name, recording }) => ({ name, model: recording.model })),
    ...{ instants: run.instants, from },
    mayLackOne: (target.guarantee.cluster?.tolerates ?? 0) > 0,
  };
  let knownInARow = 0;
  let firstBrokenMs = Number.POSITIVE_INFINITY;
  let lastProgressMs = performance.now();
  for (const chosen of chooseStates(space, seeded(seed).fork('cluster-states'))) {
    const nowMs = performance.now();
    const isEnough =
      clusterRun.broken.length >= MAX_BROKEN_STATES || nowMs > firstBrokenMs + MAX_SEARCH_AFTER_BROKEN_MS;
    if (nowMs > endMs || signal.aborted || isEnough || clusterRun.inspected >= maxStates) return;
    if (!clusterRun.needsInspection(chosen)) {
      if (++knownInARow > MAX_KNOWN_IN_A_ROW) return;
      continue;
    }
    knownInARow = 0;
    const expected = atRisk.idsOf(atRisk.required(positionOf(chosen.state)));
    const inspection = await inspector.inspect(chosen.state, expected, endMs);
    if (signal.aborted) return;
    clusterRun.noteOutcome(chosen, inspection);
    if (clusterRun.broken.length > 0) firstBrokenMs = Math.min(firstBrokenMs, performance.now());
    if (performance.now() - lastProgressMs > PROGRESS_MS) {
      lastProgressMs = performance.now();
      const leftS = Math.max(0, Math.round((endMs - lastProgressMs) / 1000));
      const bad = clusterRun.broken.length > 0 ? `, ${clusterRun.broken.length} broken` : '';
      progress(`${clusterRun.states} states, ${clusterRun.inspected} started${bad}, ${leftS} s left at most`);
    }
  }
}

/** Writes what a report needs to know, and what the history does not say, into the evidence. */
function keepFacts(
  dir: string,
  target: Target,
  result: Pick<ExploreResult, 'seed' | 'verdict' | 'why' | 'replay' | 'warnings'>,
  clock: PhaseClock<ClusterPhase>,
): void {
  const { seed, verdict, why, replay, warnings } = result;
  writeRunFacts(dir, {
    ...{ command: 'explore', target, seed, verdict, replay, warnings },
    why: `PP-13: ${why}`,
    tookMs: clock.report().tookMs,
    notTried: [],
    power: '',
  });
}
