import { copyFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Target } from '../../../conformance/target-file/definition.js';
import { copySparse } from '../../../faults/power/mounts.js';
import { writeBundle } from '../../bundle/bundle.js';
import { describeTarget } from '../../bundle/target.js';
import type { LaunchPlace } from '../../round/launch-place.js';
import type { ExploreResult } from '../result/result.js';
import { parseClusterState } from './address.js';
import { copyPath } from './live-copies.js';
import type { RecordedCluster } from './record-cluster.js';

/** Returns the names of the files of a node in the evidence and in a bundle: its image, and its log. */
export function nodeFiles(node: string): { image: string; log: string } {
  return { image: `node-${node}.disk.img`, log: `node-${node}.writes.log` };
}

/** Saves what a replay of one state needs: the disk and the log of each node, and the copies of the files that it uses. */
export function saveClusterRecording(
  run: Pick<RecordedCluster, 'nodes' | 'copies'>,
  state: string | undefined,
  dir: string,
): void {
  for (const { name, image, log } of run.nodes) {
    const files = nodeFiles(name);
    copySparse(image, join(dir, files.image));
    copySparse(log, join(dir, files.log));
  }
  if (state === undefined) return;
  const { instant } = parseClusterState(state);
  for (const { name } of run.nodes) {
    const copy = copyPath(run.copies, name, instant);
    if (existsSync(copy)) copyFileSync(copy, copyPath(dir, name, instant));
  }
}

/** A failed exploration of a cluster. */
export interface FailedCluster {
  target: Target;
  seed: number;
  run: Pick<RecordedCluster, 'id' | 'nodes' | 'filesystem'>;
  place: LaunchPlace;
  result: Pick<ExploreResult, 'why' | 'smallest' | 'requirements'>;
  /** Directory with the history, the images and the logs. */
  evidence: string;
}

/** Writes the bundle of the smallest broken state into the evidence; null when there is no such state. */
export async function writeClusterBundle(failed: FailedCluster): Promise<string | null> {
  const { target, seed, run, place, result, evidence } = failed;
  if (result.smallest === null) return null;
  const file = join(evidence, 'bundle.tar.gz');
  await writeBundle(file, evidence, {
    target: describeTarget(target),
    seed,
    requirements: result.requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id),
    why: result.why,
    summary: result.smallest.story,
    case: {
      kind: 'cluster-state',
      state: result.smallest.state,
      ends: Object.fromEntries(run.nodes.map(({ name, end }) => [name, end])),
      filesystem: run.filesystem,
      run: run.id,
      addresses: Object.fromEntries(place.network?.addresses ?? []),
      ports: Object.fromEntries(place.ports),
    },
  });
  return file;
}
