import { KitError } from '../../../conformance/errors.js';
import { didYouMean } from '../../../conformance/nearest.js';
import type { Availability } from '../../../faults/fault.js';
import type { Filesystem } from '../../../faults/power/filesystem.js';
import { dockerRuntime } from '../docker/container-deployment.js';
import { choosePowerBackend, POWER_BACKENDS, type PowerBackendName } from '../power-backends.js';
import type { Runtime } from '../runtime.js';
import { buildAvailability } from '../vm/lab/image.js';
import { vmRuntime } from '../vm/vm-runtime.js';

/** Names of the profiles. A profile is a whole set-up: it chooses the runtimes and the power backend. */
export const PROFILES = ['containers'] as const;

/** What this machine has for the profile `containers`. */
export interface ContainerParts {
  /** A container engine on this machine. */
  engine: Availability;
  /** dm-flakey in the kernel of this machine. */
  flakey: Availability;
  /** The lab VM, built or not. */
  lab: Availability;
}

/** Where the rounds of a gate run. */
export interface ProfileChoice {
  runtime: 'docker' | 'vm';
  /** Backend of power cuts; undefined: the best one of this machine. */
  power: PowerBackendName | undefined;
  /** Runtime of the rounds of power cuts, if they have one of their own. */
  powerRuntime?: 'vm';
  /** What is missing here, one line each. */
  notes: string[];
}

/**
 * Chooses the runtimes of the profile `containers`: containers on this machine, with the dm-flakey of this kernel
 * below, or, if it has none, with power cuts in the lab VM.
 * @param requested the backend of `--power`.
 * @throws KitError target-unavailable when there is neither an engine nor a lab VM, or not the requested backend.
 */
export function chooseContainers(parts: ContainerParts, requested: string | undefined): ProfileChoice {
  const { engine, flakey, lab } = parts;
  const notes = engine.available ? [] : [`no containers on this machine: ${reason(engine)}`];
  if (engine.available && requested === 'blocklog') return { runtime: 'docker', power: 'blocklog', notes };
  if (engine.available && flakey.available) return { runtime: 'docker', power: 'flakey', notes };
  if (lab.available && requested !== 'blocklog')
    return engine.available
      ? { runtime: 'docker', power: 'flakey', powerRuntime: 'vm', notes }
      : { runtime: 'vm', power: 'flakey', notes };
  const why = `neither dm-flakey in this kernel (${reason(flakey)}) nor the lab VM (${reason(lab)})`;
  if (engine.available && requested === undefined)
    return { runtime: 'docker', power: undefined, notes: [`power cuts without dm-flakey: ${why}`] };
  const missing = engine.available ? `--power ${requested}: ${why}` : (notes[0] ?? '');
  throw new KitError('target-unavailable', `--profile containers: ${missing}`);
}

function reason(availability: Availability): string {
  return availability.available ? 'available' : `${availability.why}; ${availability.remedy}`;
}

/** The runtimes and the power backend of a gate. */
export interface ChosenRuntimes {
  runtime: Runtime;
  powerRuntime?: Runtime;
  power: PowerBackendName;
  notes: string[];
}

/**
 * Chooses the runtimes of a profile on this machine.
 * @throws KitError bad-usage when no profile or backend has this name, target-unavailable when the profile does not work
 *   on this machine.
 */
export async function chooseProfile(
  name: string,
  requested: string | undefined,
  filesystem: Filesystem | undefined,
): Promise<ChosenRuntimes> {
  if (!PROFILES.some((one) => one === name))
    throw new KitError('bad-usage', `--profile ${name}: expected containers`);
  const names = POWER_BACKENDS.map((backend) => backend.name);
  if (requested !== undefined && !names.some((one) => one === requested))
    throw new KitError(
      'bad-usage',
      `--power ${requested}: expected blocklog or flakey${didYouMean(requested, names)}`,
    );
  const flakey = POWER_BACKENDS.find((backend) => backend.name === 'flakey');
  const parts: ContainerParts = {
    engine: await dockerRuntime.available(),
    flakey: (await flakey?.available(filesystem?.type)) ?? { available: false, why: 'unknown', remedy: '' },
    lab: buildAvailability(),
  };
  const { power, powerRuntime, runtime, notes } = chooseContainers(parts, requested);
  return {
    runtime: runtime === 'docker' ? dockerRuntime : vmRuntime,
    ...(powerRuntime === undefined ? {} : { powerRuntime: vmRuntime }),
    power: powerRuntime === 'vm' ? 'flakey' : await choosePowerBackend(power, filesystem, runtime),
    notes,
  };
}

/**
 * Leaves out the runtime of a kind of faults that will not be tried: the lab VM need not start for kills, and no image
 * of this machine's engine is needed for power cuts in the lab VM.
 */
export function onlyNeeded(
  { powerRuntime, ...chosen }: ChosenRuntimes,
  kinds: { power: boolean; others: boolean },
): ChosenRuntimes {
  if (powerRuntime === undefined) return chosen;
  if (!kinds.power) return { ...chosen, power: 'blocklog' };
  return kinds.others ? { ...chosen, powerRuntime } : { ...chosen, runtime: powerRuntime };
}
