import { rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
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

/** Who found a planted bug, and how. */
export interface HuntResult {
  id: string;
  /** What must turn red. */
  expected: string;
  modes: Partial<Record<ModeName, ModeResult>>;
}

export interface HuntPlan {
  modes: readonly ModeName[];
  /** Goes on with the other modes when one has found the bug. */
  everyMode: boolean;
}

export const MODES: Readonly<Record<ModeName, Mode>> = {
  gate: huntByGate,
  simulate: huntBySimulation,
  explore: huntByExploration,
  flakey: huntByFlakey,
};

/**
 * Makes a copy of the reference implementation with the bug in it and looks for it, mode by mode, until one has found it.
 * What goes wrong in the kit is told in the result: it is no reason not to hunt the other bugs.
 */
export async function hunt(
  bug: PlantedBug,
  { modes, everyMode }: HuntPlan,
  options: HuntOptions,
  modeFunctions: Readonly<Record<ModeName, Mode>> = MODES,
): Promise<HuntResult> {
  const registry = new Registry(newRunId());
  const dir = join(stateDirectory(), 'planted', registry.runId);
  registry.made({ kind: 'directory', path: dir });
  const huntResult: HuntResult = { id: bug.id, expected: bug.requirement, modes: {} };
  try {
    const copy = makeCopy(bug, dir);
    for (const mode of modes) {
      if (options.signal.aborted) break;
      huntResult.modes[mode] =
        'why' in copy
          ? inconclusiveResult(options.seed, copy.why, 'error')
          : await runMode(modeFunctions[mode], copy, options);
      if (!everyMode && huntResult.modes[mode]?.outcome === 'yes') break;
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
    registry.close();
  }
  return huntResult;
}

function makeCopy(bug: PlantedBug, dir: string): PlantedCopy | { why: string } {
  try {
    const target = plant(bug, dir);
    return { bug, target, program: join(dirname(target), '../../dist/reference-impl/synchronous/main.js') };
  } catch (error) {
    return { why: messageOf(error) };
  }
}

async function runMode(mode: Mode, copy: PlantedCopy, options: HuntOptions): Promise<ModeResult> {
  try {
    return await mode(copy, options);
  } catch (error) {
    const why = error instanceof KitError ? messageOf(error) : `${messageOf(error)} (unexpected)`;
    return inconclusiveResult(options.seed, why, 'error');
  }
}

const OUTCOMES_BEST_FIRST: readonly HuntOutcome[] = ['yes', 'error', 'other', 'no', 'not-measured'];

/** What became of the bug over all modes. */
export function overallOutcome({ modes }: Pick<HuntResult, 'modes'>): HuntOutcome {
  const outcomes = Object.values(modes).map((result) => result.outcome);
  return OUTCOMES_BEST_FIRST.find((one) => outcomes.includes(one)) ?? 'not-measured';
}

/** Of the modes that found it, the one that was quickest. */
export function quickestDetection({ modes }: Pick<HuntResult, 'modes'>): ModeResult | undefined {
  return Object.values(modes)
    .filter(({ outcome }) => outcome === 'yes')
    .sort((a, b) => a.seconds - b.seconds)[0];
}
