import type { FaultName } from '../target-file/definition.js';
import { type Level, REQUIREMENTS, type Requirement } from './requirements.js';

/** Conditions for the grant of a level, besides its requirements. */
export interface LevelRule {
  level: Level;
  /** Conditions under which the requirements hold; completes "the requirements hold when". */
  condition: string;
  /** Levels that must be granted first. */
  requires: readonly Level[];
  /** Families of faults. The target must claim to survive each of them, and each must have hit. */
  faults: readonly FaultName[];
  /** Families of faults that a target may leave unclaimed. Each one that it claims must have hit. */
  optionalFaults: readonly FaultName[];
  /** Method of measurement: rounds of workload and faults, or the crash states of one recorded run. */
  measuredIn: 'rounds' | 'states';
  /** True for a level that only a target with several nodes can get. */
  needsNodes: boolean;
}

/** The rules of all levels, in the order in which the levels are measured. */
export const LEVELS: readonly LevelRule[] = [
  {
    level: 'process',
    condition:
      'processes of the target are killed at any time, also during recovery, or are paused and continued',
    requires: [],
    faults: ['kill'],
    optionalFaults: ['pause'],
    measuredIn: 'rounds',
    needsNodes: false,
  },
  {
    level: 'torn',
    condition: 'bytes that no sync covered are damaged, and the stored index is lost or damaged',
    requires: ['process'],
    faults: ['tear'],
    optionalFaults: ['index-loss'],
    measuredIn: 'rounds',
    needsNodes: false,
  },
  {
    level: 'power',
    condition: 'the whole machine stops, and unflushed data is gone',
    requires: ['process'],
    faults: ['power-cut'],
    optionalFaults: [],
    measuredIn: 'rounds',
    needsNodes: false,
  },
  {
    level: 'crash-states',
    condition:
      'the disk holds any subset of the writes since the last flush, and writes can be torn between sectors',
    requires: ['process', 'power'],
    faults: ['crash-states'],
    optionalFaults: [],
    measuredIn: 'states',
    needsNodes: false,
  },
  {
    level: 'errors',
    condition:
      'the queue or its disk is full, the disk returns errors, stored bytes are corrupted, or the clock jumps',
    requires: ['process'],
    faults: ['full', 'io-error', 'clock'],
    optionalFaults: ['data-rot'],
    measuredIn: 'rounds',
    needsNodes: false,
  },
  {
    level: 'cluster',
    condition:
      'links between nodes are cut or stale, as many nodes as tolerated lose their power, or one node loses its disk',
    requires: ['process'],
    faults: ['partition'],
    optionalFaults: ['cut-then-elect', 'node-loss', 'stale-link', 'link-delay', 'link-loss', 'power-cut'],
    measuredIn: 'rounds',
    needsNodes: true,
  },
];

/**
 * Returns the rule of a level.
 * @throws Error when there is no rule for the level.
 */
export function ruleOf(level: Level): LevelRule {
  const rule = LEVELS.find((one) => one.level === level);
  if (rule === undefined) throw new Error(`no level is named ${level}`);
  return rule;
}

/** Returns the families of faults that the run of a level tries: the required ones, then the optional ones. */
export function familiesOf({ faults, optionalFaults: also }: LevelRule): FaultName[] {
  return [...faults, ...also];
}

/** Returns the requirements of a level, without those of the levels that it requires. */
export function requirementsOf(level: Level): Requirement[] {
  return REQUIREMENTS.filter((requirement) => requirement.level === level);
}
