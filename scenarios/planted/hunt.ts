import { join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import {
  findImplementation,
  type Implementation,
  type ImplementationPackage,
  OWN_PACKAGE,
} from '../host/implementations.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import type { PlantedBug } from './definition.js';
import { huntByExploration } from './hunt-by-exploration.js';
import { huntByFlakey, huntByGate } from './hunt-by-gate.js';
import { huntBySimulation } from './hunt-by-simulation.js';
import {
  type HuntOptions,
  type HuntOutcome,
  inconclusiveResult,
  type Mode,
  type ModeName,
  type ModeResult,
  type PlantedCopy,
} from './mode.js';
import { plant } from './plant.js';

/** The results of hunting one planted bug, by mode. */
export interface HuntResult {
  id: string;
  /** Name of the implementation that has the bug. */
  implementation: string;
  /** The requirement that must fail. */
  expected: string;
  modes: Partial<Record<ModeName, ModeResult>>;
}

export interface HuntPlan {
  /** The modes to try, in this order. */
  modes: readonly ModeName[];
  /** Whether the hunt goes on with the other modes after one has found the bug. */
  everyMode: boolean;
}

/** The function of each mode. */
export const MODES: Readonly<Record<ModeName, Mode>> = {
  gate: huntByGate,
  simulate: huntBySimulation,
  explore: huntByExploration,
  flakey: huntByFlakey,
};

/**
 * Plants the bug in a copy of its reference implementation, and hunts it with one mode after the other
 * until a mode has found it. A mode that the implementation does not offer is not measured. Returns failures of the kit
 * as results and does not throw them, so that the other bugs are still hunted.
 */
export async function hunt(
  bug: PlantedBug,
  { modes, everyMode }: HuntPlan,
  options: HuntOptions,
  modeFunctions: Readonly<Record<ModeName, Mode>> = MODES,
  source: ImplementationPackage = OWN_PACKAGE,
): Promise<HuntResult> {
  const registry = new Registry(newRunId());
  const dir = join(stateDirectory(), 'planted', registry.runId);
  registry.made({ kind: 'directory', path: dir });
  const { id, implementation, requirement: expected } = bug;
  const huntResult: HuntResult = { id, implementation, expected, modes: {} };
  try {
    const copy = makeCopy(bug, dir, source);
    for (const mode of modes) {
      if (options.signal.aborted) break;
      huntResult.modes[mode] =
        'why' in copy
          ? inconclusiveResult(options.seed, copy.why, 'error')
          : await runMode(mode, modeFunctions, copy, options);
      if (!everyMode && huntResult.modes[mode]?.outcome === 'yes') break;
    }
  } finally {
    removeTree(dir);
    registry.close();
  }
  return huntResult;
}

/** A planted copy, and why its implementation lacks some modes. */
type HuntedCopy = PlantedCopy & Pick<Implementation, 'missingModes'>;

function makeCopy(bug: PlantedBug, dir: string, source: ImplementationPackage): HuntedCopy | { why: string } {
  try {
    const paths = plant(bug, dir, source);
    const where = `planted bug ${bug.id}: implementation:`;
    const { missingModes } = findImplementation(
      bug.implementation,
      where,
      'bad-target',
      source.implementations,
    );
    return { bug, ...paths, missingModes };
  } catch (error) {
    return { why: messageOf(error) };
  }
}

async function runMode(
  mode: ModeName,
  modeFunctions: Readonly<Record<ModeName, Mode>>,
  { missingModes, ...copy }: HuntedCopy,
  options: HuntOptions,
): Promise<ModeResult> {
  const missing = missingModes[mode];
  if (missing !== undefined) return inconclusiveResult(options.seed, missing);
  try {
    return await modeFunctions[mode](copy, options);
  } catch (error) {
    const why = error instanceof KitError ? messageOf(error) : `${messageOf(error)} (unexpected)`;
    return inconclusiveResult(options.seed, why, 'error');
  }
}

/** Outcomes of a mode by precedence: the first one that occurs is the outcome of the hunt. */
const OUTCOMES_BEST_FIRST: readonly HuntOutcome[] = ['yes', 'error', 'other', 'no', 'not-measured'];

/** Combines the outcomes of all modes into one outcome of the hunt. */
export function overallOutcome({ modes }: Pick<HuntResult, 'modes'>): HuntOutcome {
  const outcomes = Object.values(modes).map((result) => result.outcome);
  return OUTCOMES_BEST_FIRST.find((one) => outcomes.includes(one)) ?? 'not-measured';
}

/** Returns the result of the quickest mode that found the bug, or undefined when no mode found it. */
export function quickestDetection({ modes }: Pick<HuntResult, 'modes'>): ModeResult | undefined {
  return Object.values(modes)
    .filter(({ outcome }) => outcome === 'yes')
    .sort((a, b) => a.seconds - b.seconds)[0];
}
