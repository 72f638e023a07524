import { join } from 'node:path';
import { messageOf } from '../../conformance/errors.js';
import type { Target } from '../../conformance/target/definition.js';
import { expandCommand } from '../../conformance/target/placeholders.js';
import { type CrashState, formatState } from '../../faults/crash-states/state.js';
import { StateDisk } from '../../faults/crash-states/state-disk.js';
import type { StateCase } from '../bundle/manifest.js';
import { type Found, foundOf, notRecovered } from '../explore/found.js';
import { Places } from '../explore/places.js';
import { DATA_DIR } from '../explore/record.js';
import { RestoreService } from '../explore/restore-service.js';
import type { Registry } from '../residue/registry.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';
import type { RecordedDisk } from './mounted-disk.js';

/** Looks at crash states one by one: makes the disk, mounts it, lets the target's own program restore, and unmounts. */
export interface StateLooker {
  look(state: CrashState): Promise<Found>;
  close(): void;
}

/**
 * @param dir for the images; made.
 * @param restore the target's `crashStates.restore`.
 */
export function stateLooker(
  target: Target,
  restore: readonly string[],
  { filesystem, digests }: StateCase,
  { image, recording }: RecordedDisk,
  dir: string,
  registry: Registry,
): StateLooker {
  const places = new Places(dir, registry);
  const place = places.place('state', image);
  const disk = new StateDisk({ recording, base: image, baseAt: 0, filesystem, ...place });
  const nowhere = { dir: target.dir, node: process.execPath, data: '', sink: '', ports: new Map() };
  const service = new RestoreService(expandCommand(restore, nowhere), { [RUN_VARIABLE]: registry.runId });
  const bits = new Map(digests.map((digest, bit) => [digest, bit]));
  const queue = join(place.mountPoint, DATA_DIR, target.crashStates?.queue ?? '.');
  const known = new Map<string, Found>();
  return {
    async look(state) {
      const address = formatState(state);
      const before = known.get(address);
      if (before !== undefined) return before;
      const found = await once(disk, state, async () => {
        const { live, problems, error } = await service.ask({ queue });
        return error === undefined ? foundOf(bits, digests.length, live, problems) : notRecovered(error);
      });
      known.set(address, found);
      return found;
    },
    close() {
      service.end();
      disk.close();
      places.remove();
    },
  };
}

async function once(disk: StateDisk, state: CrashState, ask: () => Promise<Found>): Promise<Found> {
  try {
    disk.mount(state);
  } catch (error) {
    return notRecovered(messageOf(error));
  }
  try {
    return await ask();
  } finally {
    disk.unmount();
  }
}
