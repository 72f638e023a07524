import type { Recorder } from '../../../conformance/history/recorder.js';
import type { PhaseClock } from '../../host/phase-clock.js';
import type { Registry } from '../../host/registry.js';
import type { LaunchPlace } from '../../round/launch-place.js';
import type { ExploreOptions } from '../strategies/exploration.js';
import type { RecordedCluster } from './record-cluster.js';

/** Phases of an exploration of a cluster; see `PhaseClock`. */
export type ClusterPhase = 'recording' | 'states' | 'evaluation';

/** Data that all parts of an exploration of a cluster share. */
export interface ClusterExploration {
  options: ExploreOptions;
  registry: Registry;
  recorder: Recorder;
  dir: string;
  run: RecordedCluster;
  place: LaunchPlace;
  clock: PhaseClock<ClusterPhase>;
  /** End of the time, in ms of `performance.now()`. */
  endMs: number;
}
