import type { HistoryEvent } from '../../../conformance/history/events.js';
import { markOf } from '../../../conformance/protocols/message.js';
import type { Recording } from '../../../faults/crash-states/materialise.js';
import { explainLoss } from '../result/explain-loss.js';
import { describeState } from '../result/missing-writes.js';
import type { BrokenCluster } from './cluster-run.js';

/** The data from which the kit writes the story of a broken state of a cluster. */
export interface ClusterStorySource {
  /** Id of the run, which every message contains. */
  run: string;
  nodes: readonly { name: string; recording: Recording }[];
  events: readonly HistoryEvent[];
  /** Number of the instant by which a message was confirmed. */
  confirmedAt: number | undefined;
  /** Lengths of the logs of the nodes at that instant; undefined when they are not known, as in a replay. */
  lengthsThen: readonly number[] | undefined;
  /** Returns the files to which writes of a node belong, by entry. */
  ownersOf(node: string, entries: readonly number[]): ReadonlyMap<number, string>;
}

/** Tells in lines what happened to each node, and which node's disk did not have the first missing message. */
export function clusterStory(broken: BrokenCluster, source: ClusterStorySource): string[] {
  const { state, missing, recoveryFailure, address } = broken;
  const [id] = missing;
  const lines = [`crash state ${address}`];
  const submitted = source.events.find((event) => event.kind === 'submitted' && event.id === id);
  if (source.confirmedAt !== undefined && id !== undefined)
    lines.push(`message ${id}: confirmed by instant ${source.confirmedAt} of the recording`);
  for (const [index, { name, recording }] of source.nodes.entries()) {
    const disk = state.nodes.get(name) ?? 'live';
    if (name === state.away) {
      lines.push(`node ${name} does not come back: its machine stays off`);
      continue;
    }
    if (disk === 'live') {
      lines.push(`node ${name}: only its processes are killed, and its files stay`);
      continue;
    }
    lines.push(`node ${name} loses its power: ${describeState(recording.model, disk)}`);
    const then = source.lengthsThen?.[index];
    if (id === undefined || submitted?.kind !== 'submitted' || then === undefined) continue;
    const explained = explainLoss(recording, markOf(source.run, id), submitted.sizeBytes, then, (entries) =>
      source.ownersOf(name, entries),
    );
    lines.push(...explained.lines.map((line) => `message ${id} on node ${name}: ${line}`));
  }
  if (recoveryFailure !== '') lines.push(`the target does not recover: ${recoveryFailure}`);
  else if (id !== undefined) lines.push(`message ${id}: gone from the cluster`);
  return lines;
}
