import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { loadTarget } from '../../conformance/target/load.js';
import { type GateOptions, runGate } from '../gate/gate.js';
import type { GateResult } from '../gate/result.js';
import { selectFaults } from '../gate/select.js';
import { madeBy, type PowerBackendName } from '../power/by-name.js';
import { newRunId, Registry, stateDirectory } from '../residue/registry.js';
import type { Runtime } from '../runtime/runtime.js';
import type { PlantedBug } from './definition.js';
import { plant } from './plant.js';

/** Whether the gate found a planted bug, and how. */
export interface Hunt {
  id: string;
  requirement: string;
  /** `other`: something turned red, but not the requirement that names the bug. */
  found: 'yes' | 'other' | 'no' | 'needs-power' | 'needs-simulation';
  /** Requirements that turned red. */
  red: string[];
  rounds: number;
  seconds: number;
  seed: number;
  evidence: string | null;
}

type HuntOptions = Pick<GateOptions, 'seed' | 'budgetMs' | 'signal' | 'progress'> & {
  runtime: Runtime;
  power: PowerBackendName;
};

/** Runs the gate on a copy of the reference implementation with the bug in it. */
export async function hunt(bug: PlantedBug, options: HuntOptions): Promise<Hunt> {
  const base = { id: bug.id, requirement: bug.requirement };
  const none = { red: [], rounds: 0, seconds: 0, seed: options.seed, evidence: null };
  if (bug.shownBy === 'interleaving') return { ...base, ...none, found: 'needs-simulation' };
  const result = await gateOn(bug, options);
  if (result === undefined) {
    return { ...base, ...none, found: 'needs-power' };
  }
  const red = result.requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
  const right = [bug.requirement, ...bug.also];
  const found = right.some((id) => red.includes(id)) ? 'yes' : red.length > 0 ? 'other' : 'no';
  return {
    ...base,
    found,
    red,
    rounds: result.rounds,
    seconds: Math.round(result.tookMs / 100) / 10,
    seed: result.seed,
    evidence: result.evidence,
  };
}

/** Undefined when only a power cut shows the bug and none can be made here. */
async function gateOn(bug: PlantedBug, options: HuntOptions): Promise<GateResult | undefined> {
  const registry = new Registry(newRunId());
  const path = join(stateDirectory(), 'planted', registry.runId);
  registry.made({ kind: 'directory', path });
  try {
    const target = loadTarget(plant(bug, path));
    const runtime = await options.runtime.prepare(target, options.progress);
    try {
      const wanted = bug.shownBy === 'power' ? ['power-cut'] : bug.faults;
      const selection = await selectFaults(target, wanted, {
        offers: (fault) => runtime.offers(fault),
        makes: runtime.makes ?? madeBy(options.power),
      });
      if (bug.shownBy === 'power' && selection.faults.length === 0) return undefined;
      return await runGate({
        ...options,
        runtime,
        target,
        selection,
        out: undefined,
        keep: false,
        replay: (seed) => `plugpull planted ${bug.id} --seed ${seed} --budget ${options.budgetMs}ms`,
      });
    } finally {
      await runtime.close?.();
    }
  } finally {
    rmSync(path, { recursive: true, force: true });
    registry.close();
  }
}
