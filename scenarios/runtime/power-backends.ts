import { KitError } from '../../conformance/errors.js';
import { didYouMean } from '../../conformance/nearest.js';
import type { Availability } from '../../faults/fault.js';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { DEFAULT_FILESYSTEM, type Filesystem } from '../../faults/power/filesystem.js';
import { flakeyAvailability } from '../../faults/power/flakey.js';
import { localHost } from '../../faults/power/host.js';
import type { Runtime } from './runtime.js';

/** Name of a power backend, as in `--power`. */
export type PowerBackendName = 'blocklog' | 'flakey';

/** A method of cutting the power of a disk of this machine. */
export interface PowerBackend {
  name: PowerBackendName;
  /** Reports whether the backend works on this machine; `type` is the filesystem of the disk. */
  available(type?: Filesystem['type']): Promise<Availability>;
}

/** The backends, best first: a recorded disk can lose, keep and tear more writes than the device mapper. */
export const POWER_BACKENDS: readonly PowerBackend[] = [
  { name: 'blocklog', available: async (type) => blocklogAvailability(type) },
  { name: 'flakey', available: async () => localFlakeyAvailability() },
];

async function localFlakeyAvailability(): Promise<Availability> {
  if (process.platform === 'linux' && process.getuid?.() === 0) return flakeyAvailability(localHost);
  return {
    available: false,
    why: 'on this machine it needs Linux and root',
    remedy: 'run as root (sudo), or use --runtime vm',
  };
}

/**
 * Chooses the backend for a gate: the requested one, or the best available one. If none is available and
 * neither a backend nor a filesystem was requested, the function returns the first backend, and power cuts
 * are not measured.
 * @throws KitError bad-usage when no backend of the runtime has this name, target-unavailable when the
 * requested backend or filesystem is not available.
 */
export async function choosePowerBackend(
  name: string | undefined,
  filesystem: Filesystem | undefined,
  runtime: Runtime['name'],
): Promise<PowerBackendName> {
  const requested = POWER_BACKENDS.find((one) => one.name === name);
  if (name !== undefined && requested === undefined)
    throw new KitError(
      'bad-usage',
      `--power ${name}: expected blocklog or flakey${didYouMean(name, ['blocklog', 'flakey'])}`,
    );
  if (runtime === 'vm') {
    if (requested === undefined || requested.name === 'flakey') return 'flakey';
    throw new KitError('bad-usage', `--power ${name}: under --runtime vm it is flakey`);
  }
  const { type } = filesystem ?? DEFAULT_FILESYSTEM;
  const candidates = requested === undefined ? POWER_BACKENDS : [requested];
  const reasons: string[] = [];
  for (const backend of candidates) {
    const availability = await backend.available(type);
    if (availability.available) return backend.name;
    reasons.push(`${availability.why}; ${availability.remedy}`);
  }
  if (name === undefined && filesystem === undefined) return 'blocklog';
  const flag = name === undefined ? `--fs ${type}` : `--power ${name}`;
  throw new KitError('target-unavailable', `${flag}: ${reasons[0]}`);
}

/**
 * Returns the names of the faults that a backend other than the default one makes possible on this machine.
 */
export function faultsEnabledBy(power: PowerBackendName): ReadonlySet<string> {
  return new Set(
    power === 'flakey' ? ['power-cut', 'io-error', 'cut-then-elect', 'disk-stall', 'node-loss-power'] : [],
  );
}
