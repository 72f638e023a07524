import { KitError } from '../../conformance/errors.js';
import type { Availability } from '../../faults/fault.js';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { DEFAULT_FILESYSTEM, type Filesystem } from '../../faults/power/filesystem.js';
import { flakeyAvailability } from '../../faults/power/flakey.js';
import { localHost } from '../../faults/power/host.js';
import type { Runtime } from './runtime.js';

export type PowerBackendName = 'blocklog' | 'flakey';

/** A way of cutting the power of a disk of this machine. */
export interface PowerBackend {
  name: PowerBackendName;
  available(type?: Filesystem['type']): Promise<Availability>;
}

/** The best first: a recorded disk can lose, keep and tear more than a device mapper. */
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
 * The backend for a gate: the one that was asked for, or the best that is there. Where there is none and none was asked
 * for it is the first, and power cuts are not measured.
 * @throws KitError bad-usage when there is no such backend, target-unavailable when it was asked for and is not there.
 */
export async function choosePowerBackend(
  name: string | undefined,
  filesystem: Filesystem | undefined,
  runtime: Runtime['name'],
): Promise<PowerBackendName> {
  const requested = POWER_BACKENDS.find((one) => one.name === name);
  if (name !== undefined && requested === undefined)
    throw new KitError('bad-usage', `--power ${name}: expected blocklog or flakey`);
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

/** What a backend other than the usual one makes possible on this machine. */
export function faultsEnabledBy(power: PowerBackendName): ReadonlySet<string> {
  return new Set(power === 'flakey' ? ['power-cut', 'io-error'] : []);
}
