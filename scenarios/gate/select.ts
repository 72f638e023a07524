import { KitError } from '../../conformance/errors.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { FAULTS } from '../../faults/catalogue/catalogue.js';
import type { Availability, Fault } from '../../faults/fault.js';
import { killNamed, killOne, serviceNamedBy } from '../../faults/process/kill-one.js';
import type { PreparedRuntime } from '../runtime/runtime.js';

/** What a gate sets out to do: the faults that it can do, and those that it cannot, with the reason. */
export interface Selection {
  faults: Fault[];
  missing: { name: string; availability: Extract<Availability, { available: false }> }[];
}

/**
 * The faults that the target claims to survive, narrowed to `wanted` (names of faults or of families).
 * @throws KitError bad-usage when a name is unknown or is nothing that the target claims.
 */
export async function selectFaults(
  target: Target,
  wanted: readonly string[] | undefined,
  runtime: Pick<PreparedRuntime, 'offers' | 'makes'>,
): Promise<Selection> {
  const claimed = new Set<string>(target.guarantee.faults);
  const claimedFaults = FAULTS.filter(({ family }) => claimed.has(family));
  for (const name of wanted ?? []) checkName(target, name, claimedFaults);
  const named = (wanted ?? []).flatMap((name) => killNamed(name) ?? []);
  const chosen = wanted
    ? claimedFaults
        .filter(({ name, family }) => wanted.includes(name) || wanted.includes(family))
        .concat(named)
    : claimedFaults;
  const selection: Selection = { faults: [], missing: [] };
  for (const fault of chosen) {
    const offered = runtime.offers(fault);
    const made = runtime.makes?.has(fault.name) === true;
    const availability = offered.available && !made ? await fault.available() : offered;
    if (availability.available) selection.faults.push(fault);
    else selection.missing.push({ name: fault.name, availability });
  }
  for (const family of claimed) {
    // Not done to a running target: its crash states are explored afterwards, by a command of its own.
    if (family === 'crash-states') continue;
    if (FAULTS.some((fault) => fault.family === family) || (wanted && !wanted.includes(family))) continue;
    const why = 'this version of the kit does not make this fault';
    selection.missing.push({
      name: family,
      availability: { available: false, why, remedy: 'use a later version' },
    });
  }
  return selection;
}

function checkName(target: Target, name: string, claimed: readonly Fault[]): void {
  // Claimed, and made by no fault of a round: said among what is missing.
  if (target.guarantee.faults.some((family) => family === name) && !FAULTS.some((f) => f.family === name))
    return;
  const service = serviceNamedBy(name);
  if (service !== undefined && target.services[service] === undefined) {
    const services = Object.keys(target.services).join(', ');
    throw new KitError('bad-usage', `--faults ${name}: no such service, expected one of ${services}`);
  }
  const plain = service === undefined ? name : killOne.name;
  const known = FAULTS.find((fault) => fault.name === plain || fault.family === plain);
  const list = (faults: readonly Fault[]) => faults.map((fault) => fault.name).join(', ');
  if (known === undefined) {
    throw new KitError('bad-usage', `--faults ${name}: no such fault, expected one of ${list(FAULTS)}`);
  }
  if (claimed.includes(known)) return;
  throw new KitError(
    'bad-usage',
    `--faults ${name}: the target ${target.name} does not claim to survive it, expected one of ${list(claimed)}`,
  );
}
