import type { FaultName } from '../target-file/definition.js';
import { type Level, REQUIREMENTS, type Requirement } from './requirements.js';

/** What it takes to be given a level, besides its requirements. */
export interface LevelRule {
  level: Level;
  /** What happens to a target of this level; completes "the requirements hold when". */
  what: string;
  /** Levels that must be granted before. */
  upon: readonly Level[];
  /** Families of faults that the target must claim to survive, and each of which must have hit. */
  faults: readonly FaultName[];
  /** Families that belong here, and must have hit when the target claims them. */
  also: readonly FaultName[];
  /** How it is measured: in rounds of workload and faults, or from the states of one recorded run. */
  by: 'rounds' | 'states';
}

/** In the order in which they are measured. */
export const LEVELS: readonly LevelRule[] = [
  {
    level: 'process',
    what: 'processes of the target are killed at any time, during recovery too, and are stopped and started again',
    upon: [],
    faults: ['kill'],
    also: ['pause'],
    by: 'rounds',
  },
  {
    level: 'torn',
    what: 'bytes that no sync covered are damaged, and the stored index is lost or damaged',
    upon: ['process'],
    faults: ['tear'],
    also: ['index-loss'],
    by: 'rounds',
  },
  {
    level: 'power',
    what: 'the whole machine stops, and what was not flushed is gone',
    upon: ['process'],
    faults: ['power-cut'],
    also: [],
    by: 'rounds',
  },
  {
    level: 'crash-states',
    what: 'any subset of the writes since the last flush is on the disk, sectors torn',
    upon: ['process', 'power'],
    faults: ['crash-states'],
    also: [],
    by: 'states',
  },
  {
    level: 'errors',
    what: 'the queue or its disk is full, the disk answers with errors, stored bytes rot, the clock jumps',
    upon: ['process'],
    faults: ['full', 'io-error', 'clock'],
    also: ['data-rot'],
    by: 'rounds',
  },
];

/** The rule of a level. */
export function ruleOf(level: Level): LevelRule {
  const rule = LEVELS.find((one) => one.level === level);
  if (rule === undefined) throw new Error(`no level is named ${level}`);
  return rule;
}

/** Families of faults that are tried in the run of a level. */
export function familiesOf({ faults, also }: LevelRule): FaultName[] {
  return [...faults, ...also];
}

/** The requirements of a level, without those of the levels below it. */
export function requirementsOf(level: Level): Requirement[] {
  return REQUIREMENTS.filter((requirement) => requirement.level === level);
}
