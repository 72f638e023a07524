import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { AtRiskMessages, submittedIds } from '../../conformance/checkers/crash-states.js';
import { KitError, messageOf } from '../../conformance/errors.js';
import { readHistory } from '../../conformance/history/reader.js';
import { openRecording } from '../../faults/crash-states/materialise.js';
import { LogWritesError } from '../../faults/write-log/reader.js';
import type { Bundle } from '../bundle/bundle.js';
import type { ClusterStateCase } from '../bundle/manifest.js';
import { type ClusterState, parseClusterState } from '../explore/cluster/address.js';
import { ClusterInspector, type OpenNode } from '../explore/cluster/cluster-inspector.js';
import { positionOf } from '../explore/cluster/cluster-run.js';
import { clusterStory } from '../explore/cluster/cluster-story.js';
import { nodeFiles } from '../explore/cluster/evidence.js';
import { copyPath } from '../explore/cluster/live-copies.js';
import { StateWorkspace } from '../explore/states/workspace.js';
import { attempt } from '../host/attempt.js';
import { scratchDirOf } from '../round/launch.js';
import { makePlace } from '../round/launch-place.js';
import { processRuntime } from '../runtime/process/process-runtime.js';
import { checkWithinDisk, requireRoot } from './mounted-disk.js';
import type { ReplayResult } from './replay.js';
import { describeInspection, isFailing, type StateReplayOptions } from './replay-state.js';

/** The image of a bundle may be a stranger's; see `createReplayInspector`. */
const BUNDLE_LIMITS = { noexec: true } as const;

/**
 * Makes the disks of a bundle's crash state of a cluster, starts all its nodes on them, and judges the result. The nodes get
 * the addresses and ports of the recorded run, if they are free.
 * @throws KitError bad-bundle when a disk, a log or a copy is missing, or when the state is impossible; bad-usage when the
 *   target has other nodes than the bundle.
 */
export async function replayCluster(
  bundle: Bundle,
  stateCase: ClusterStateCase,
  options: StateReplayOptions,
): Promise<ReplayResult> {
  const { target, registry, dir, signal, progress } = options;
  if (options.shrink)
    throw new KitError('bad-usage', '--shrink: the crash state of a cluster cannot be made smaller yet');
  requireRoot();
  const state = parseState(bundle, stateCase);
  checkNodes(bundle, state, target.nodes);
  const nodes: OpenNode[] = [];
  const undo: (() => void)[] = [];
  try {
    for (const name of state.nodes.keys()) {
      const node = openNode(bundle, stateCase, name);
      nodes.push(node);
      undo.push(() => node.recording.close());
    }
    checkPossible(bundle, state, nodes);
    const events = readHistory(join(bundle.dir, 'history.jsonl'));
    const atRisk = new AtRiskMessages(events);
    const runtime = await processRuntime.prepare(target, progress);
    const place = await makePlace(target, runtime, registry, {
      addresses: new Map(Object.entries(stateCase.addresses)),
      ports: new Map(Object.entries(stateCase.ports)),
    });
    undo.push(() => place.remove());
    for (const [name, address] of place.network?.addresses ?? [])
      if (stateCase.addresses[name] !== address)
        progress(
          `node ${name} has the address ${address}, and had ${stateCase.addresses[name]}: it is in use now`,
        );
    const workspace = new StateWorkspace(join(dir, 'images'), registry);
    undo.push(() => workspace.remove());
    const inspector = new ClusterInspector({
      ...{ target, runtime, registry, nodes, workspace, place, events, dir, signal, progress },
      ...{ filesystem: stateCase.filesystem, limits: BUNDLE_LIMITS, run: stateCase.run },
      ids: submittedIds(events),
      copyOf: (node, instant) => copyPath(bundle.dir, node, instant),
    });
    undo.push(() => inspector.close());
    const position = positionOf(state);
    const inspection = await inspector.inspect(
      state,
      atRisk.idsOf(atRisk.required(position)),
      Number.POSITIVE_INFINITY,
    );
    if ('hung' in inspection) throw new Error('an inspection without an end has timed out');
    const lost = atRisk.missing({ ...position, heldBits: inspection.heldBits });
    const what = describeInspection(inspection, lost);
    progress(`${stateCase.state}: ${what}`);
    const hasFailed = isFailing(inspection, lost);
    const [id] = lost;
    const broken = {
      ...{ address: stateCase.state, state, missing: lost, namedWrites: 0 },
      recoveryFailure: inspection.recovered ? '' : inspection.detail,
    };
    return {
      bundle: bundle.file,
      target: target.name,
      kind: 'crash-state',
      requirements: bundle.manifest.requirements,
      verdict: inspection.unmountable ? 'not-measured' : hasFailed ? 'fail' : 'pass',
      why: `${what} in crash state ${stateCase.state}; only the recovery of ${target.name} was tested, on the disks that the recorded run had written`,
      meaning: null,
      runs: 1,
      reproduced: hasFailed ? 1 : 0,
      reproducer: stateCase.state,
      story: clusterStory(broken, {
        ...{ run: stateCase.run, nodes, events, lengthsThen: undefined, ownersOf: () => new Map() },
        confirmedAt: id === undefined ? undefined : atRisk.confirmedAtEntry(id),
      }),
      judged: 'recovery',
      recordAnew: options.recordAnew,
      shrunkBundle: null,
    };
  } finally {
    // What one step leaves behind does not keep the others from removing the rest.
    for (const step of undo.reverse()) await attempt('a replay has left something behind', step);
  }
}

function parseState({ file }: Bundle, stateCase: ClusterStateCase): ClusterState {
  try {
    return parseClusterState(stateCase.state);
  } catch (error) {
    throw new KitError('bad-bundle', `${file}: ${messageOf(error)}`, { cause: error });
  }
}

/** Checks that the state, the bundle and the target have the same nodes. */
function checkNodes({ file }: Bundle, { nodes }: ClusterState, ofTarget: readonly string[] = []): void {
  const names = [...nodes.keys()];
  if (names.join() === ofTarget.join()) return;
  throw new KitError(
    'bad-usage',
    `${file}: is of the nodes ${names.join(', ')}, expected a target with these nodes (it has ${ofTarget.join(', ') || 'none'})`,
  );
}

/** Opens the disk of a node. */
function openNode({ file, dir }: Bundle, { ends }: ClusterStateCase, name: string): OpenNode {
  const { image, log } = nodeFiles(name);
  const missing = [image, log].find((path) => !existsSync(join(dir, path)));
  if (missing !== undefined) throw new KitError('bad-bundle', `${file}: expected ${missing} in it`);
  const end = ends[name];
  if (end === undefined)
    throw new KitError('bad-bundle', `${file}: ends: expected the length of the log of node ${name}`);
  const base = join(dir, image);
  try {
    const recording = openRecording(join(dir, log), end);
    checkWithinDisk(recording, statSync(base).size);
    return { name, recording, base, baseAt: 0, scratch: scratchDirOf(dir, name) };
  } catch (error) {
    if (error instanceof LogWritesError) throw new KitError('bad-bundle', messageOf(error), { cause: error });
    throw error;
  }
}

/** Checks that a failure can leave each disk, and that the files of each node that was only killed are there. */
function checkPossible({ file, dir }: Bundle, state: ClusterState, nodes: readonly OpenNode[]): void {
  for (const { name, recording } of nodes) {
    const disk = state.nodes.get(name) ?? 'live';
    if (disk === 'live') {
      const copy = copyPath('', name, state.instant);
      if (existsSync(join(dir, copy))) continue;
      throw new KitError('bad-bundle', `${file}: expected ${copy} in it`);
    }
    const problem = recording.model.whyImpossible(disk);
    if (problem !== undefined) throw new KitError('bad-bundle', `${file}: node ${name}: ${problem}`);
  }
}
