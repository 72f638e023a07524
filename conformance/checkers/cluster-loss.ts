import type { HistoryEvent } from '../history/events.js';
import type { RequirementId } from '../requirements/requirements.js';
import type { Guarantee } from '../target-file/definition.js';
import { type ClusterHit, clusterHits, firstHitLookup } from './cluster-hits.js';
import { makeFinding, type Violations } from './finding.js';
import { attributeLosses, inFamily, lastMiss } from './hits.js';
import { shapeFigures, shapesOf } from './loss-shape.js';
import type { Finding } from './verdict.js';

const isCutThenElect = inFamily('cut-then-elect');
const isPowerCut = inFamily('power-cut');
const isNodeLoss = inFamily('node-loss');

/**
 * Checks PP-21: a confirmation outlives the power cut of as many nodes as tolerated. The hits are those of cut-then-elect,
 * and power cuts of at least one node and at most as many as the target tolerates.
 */
export function checkPowerCutOfNodes(history: readonly HistoryEvent[], { cluster }: Guarantee): Finding {
  const tolerates = cluster?.tolerates ?? 0;
  return checkClusterLoss(
    'PP-21',
    ['power cut of tolerated nodes', 'power cuts of tolerated nodes'],
    history,
    {
      isName: (fault) => isCutThenElect(fault) || isPowerCut(fault),
      isHit: ({ fault, nodes = [] }) =>
        isCutThenElect(fault) || (isPowerCut(fault) && nodes.length > 0 && nodes.length <= tolerates),
    },
  );
}

/** Checks PP-22: a confirmation outlives the loss of one node's disk. */
export function checkNodeLoss(history: readonly HistoryEvent[]): Finding {
  return checkClusterLoss('PP-22', ['lost disk', 'lost disks'], history, {
    isName: isNodeLoss,
    isHit: ({ fault }) => isNodeLoss(fault),
  });
}

/** Name of a kind of injection in the singular and in the plural. */
export type FaultNames = readonly [one: string, several: string];

/** A kind of injection into a cluster. */
export interface ClusterFaultKind {
  /** Returns whether a fault of this name can be of the kind. */
  isName(fault: string): boolean;
  /** Returns whether an injection that hit is of the kind. */
  isHit(fault: ClusterHit['fault']): boolean;
}

/** The confirmed messages that one kind of injection took. */
export interface ClusterLosses {
  violations: Violations;
  /** Number of messages of which nothing can be concluded. */
  undecided: number;
  /** Reason of the verdict: of a failure, or of the undecided messages. */
  why: string;
  /** Reason why the kind is not measured; undefined when messages were confirmed during or after a hit. */
  unmeasured: string | undefined;
  figures: Record<string, number>;
}

function checkClusterLoss(
  requirement: RequirementId,
  names: FaultNames,
  history: readonly HistoryEvent[],
  kind: ClusterFaultKind,
): Finding {
  const { violations, undecided, why, unmeasured, figures } = clusterLosses(names, history, kind);
  if (violations.count > 0) return makeFinding(requirement, 'fail', why, figures, violations);
  const reason = undecided > 0 ? why : unmeasured;
  if (reason !== undefined) return makeFinding(requirement, 'not-measured', reason, figures);
  const { hits, confirmedSince } = figures;
  const some = `${hits} ${names[hits === 1 ? 0 : 1]}`;
  return makeFinding(
    requirement,
    'pass',
    `nothing was lost at ${some}; ${confirmedSince} messages were confirmed during and after`,
    figures,
  );
}

/**
 * Returns what one kind of injection took. A loss is attributed to the first injection with an effect that ended after the
 * confirmation: a cluster confirms messages during an injection too, and they can be lost by it.
 * @param names name of the kind in the singular and in the plural, for reasons.
 * @param tookLater returns true if a later injection is known to have taken the message from a file.
 */
export function clusterLosses(
  names: FaultNames,
  history: readonly HistoryEvent[],
  { isName, isHit }: ClusterFaultKind,
  tookLater: (id: string, hit: ClusterHit) => boolean = () => false,
): ClusterLosses {
  const all = clusterHits(history);
  const hits = all.filter(({ fault }) => fault.hit && isHit(fault));
  const blamed = firstHitLookup(history, all);
  const ids: string[] = [];
  const lost = attributeLosses(
    history,
    (confirmedAt) => {
      const hit = blamed(confirmedAt);
      const event = history[confirmedAt];
      if (hit === undefined || !isHit(hit.fault) || event?.kind !== 'answered') return undefined;
      return tookLater(event.id, hit) ? undefined : hit;
    },
    (hit, id, confirmedAt) => {
      ids.push(id);
      return `${describeConfirmation(history, hit, confirmedAt)}, and never delivered`;
    },
  );
  const shapes = shapesOf(history, ids);
  return {
    violations: lost.violations,
    undecided: lost.undecided,
    why: lost.describe(`messages confirmed before or during a ${names[0]}`),
    unmeasured: reasonNotMeasured(names, history, hits, isName),
    figures: {
      hits: hits.length,
      atRisk: hits.reduce((sum, { atRisk }) => sum + atRisk, 0),
      confirmedSince: hits.reduce((sum, { confirmed }) => sum + confirmed, 0),
      lostAfterFault: lost.violations.count,
      ...shapeFigures(shapes),
    },
  };
}

function reasonNotMeasured(
  names: FaultNames,
  history: readonly HistoryEvent[],
  hits: readonly ClusterHit[],
  isName: (fault: string) => boolean,
): string | undefined {
  if (hits.length === 0) return `no ${names[0]} hit${lastMiss(history, isName)}`;
  if (hits.some(({ confirmed }) => confirmed > 0)) return undefined;
  return `nothing was confirmed during or after any of ${hits.length} ${names[1]}`;
}

function describeConfirmation(
  history: readonly HistoryEvent[],
  { fault, begin }: ClusterHit,
  confirmedAt: number,
): string {
  const event = history[confirmedAt];
  const by = event?.kind === 'answered' && event.node !== undefined ? ` by ${event.node}` : '';
  return `confirmed${by} ${confirmedAt < begin ? 'before' : 'during'} ${fault.fault} ${fault.injection}`;
}
