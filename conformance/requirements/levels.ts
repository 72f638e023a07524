import type { FaultName } from '../target-file/definition.js';
import { type Level, REQUIREMENTS, type Requirement } from './requirements.js';

/** What it takes to be given a level, besides its requirements. */
export interface LevelRule {
  level: Level;
  /** What happens to a target of this level; completes "the requirements hold when". */
  condition: string;
  /** Levels that must be granted before. */
  requires: readonly Level[];
  /** Families of faults that the target must claim to survive, and each of which must have hit. */
  faults: readonly FaultName[];
  /** Families that belong here, and must have hit when the target claims them. */
  optionalFaults: readonly FaultName[];
  /** How it is measured: in rounds of workload and faults, or from the states of one recorded run. */
  measuredIn: 'rounds' | 'states';
}

/** In the order in which they are measured. */
export const LEVELS: readonly LevelRule[] = [
  {
    level: 'process',
    condition:
      'processes of the target are killed at any time, during recovery too, and are stopped and started again',
    requires: [],
    faults: ['kill'],
    optionalFaults: ['pause'],
    measuredIn: 'rounds',
  },
  {
    level: 'torn',
    condition: 'bytes that no sync covered are damaged, and the stored index is lost or damaged',
    requires: ['process'],
    faults: ['tear'],
    optionalFaults: ['index-loss'],
    measuredIn: 'rounds',
  },
  {
    level: 'power',
    condition: 'the whole machine stops, and what was not flushed is gone',
    requires: ['process'],
    faults: ['power-cut'],
    optionalFaults: [],
    measuredIn: 'rounds',
  },
  {
    level: 'crash-states',
    condition: 'any subset of the writes since the last flush is on the disk, sectors torn',
    requires: ['process', 'power'],
    faults: ['crash-states'],
    optionalFaults: [],
    measuredIn: 'states',
  },
  {
    level: 'errors',
    condition:
      'the queue or its disk is full, the disk answers with errors, stored bytes rot, the clock jumps',
    requires: ['process'],
    faults: ['full', 'io-error', 'clock'],
    optionalFaults: ['data-rot'],
    measuredIn: 'rounds',
  },
];

/** The rule of a level. */
export function ruleOf(level: Level): LevelRule {
  const rule = LEVELS.find((one) => one.level === level);
  if (rule === undefined) throw new Error(`no level is named ${level}`);
  return rule;
}

/** Families of faults that are tried in the run of a level. */
export function familiesOf({ faults, optionalFaults: also }: LevelRule): FaultName[] {
  return [...faults, ...also];
}

/** The requirements of a level, without those of the levels below it. */
export function requirementsOf(level: Level): Requirement[] {
  return REQUIREMENTS.filter((requirement) => requirement.level === level);
}
