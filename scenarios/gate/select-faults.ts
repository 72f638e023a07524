import { KitError } from '../../conformance/errors.js';
import { didYouMean } from '../../conformance/nearest.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { claimedFaults, FAULTS } from '../../faults/catalogue/catalogue.js';
import type { Availability, Fault } from '../../faults/fault.js';
import { killOne, killOneNamed, serviceOfKillOne } from '../../faults/process/kill-one.js';
import { commandLine } from '../host/command-line.js';
import type { PreparedRuntime } from '../runtime/runtime.js';

/** Faults that a gate will inject, and faults that are unavailable here, with the reason. */
export interface Selection {
  faults: Fault[];
  /**
   * Names of faults and families that the user asked for. A run in which one of them never hits is not measured.
   * Absent if the user named none.
   */
  wanted?: readonly string[];
  unavailable: { name: string; availability: Extract<Availability, { available: false }> }[];
}

/** Crash states are not a fault of a running target. Report them only to a user who has asked for them. */
const crashStates = (): Selection['unavailable'][number] => ({
  name: 'crash-states',
  availability: {
    available: false,
    why: 'no fault of a round makes them',
    remedy: `use ${commandLine('explore')}`,
  },
});

/**
 * Selects the faults that the target claims to survive, limited to `wanted` (names of faults or of families).
 * @throws KitError bad-usage when a name is unknown, or is a fault that the target does not claim to survive.
 */
export async function selectFaults(
  target: Target,
  wanted: readonly string[] | undefined,
  runtime: Pick<PreparedRuntime, 'supports' | 'enabledFaults'>,
): Promise<Selection> {
  const claimed = new Set<string>(target.guarantee.faults);
  const survived = claimedFaults(claimed);
  for (const name of wanted ?? []) checkFaultName(target, name, survived);
  const named = (wanted ?? []).flatMap((name) => killOneNamed(name) ?? []);
  const chosen = wanted
    ? survived.filter(({ name, family }) => wanted.includes(name) || wanted.includes(family)).concat(named)
    : survived;
  const selection: Selection = { faults: [], unavailable: [], ...(wanted === undefined ? {} : { wanted }) };
  for (const fault of chosen) {
    const supported = runtime.supports(fault);
    const isEnabled = runtime.enabledFaults?.has(fault.name) === true;
    const availability = supported.available && !isEnabled ? await fault.available() : supported;
    if (availability.available) selection.faults.push(fault);
    else selection.unavailable.push({ name: fault.name, availability });
  }
  for (const family of claimed) {
    if (family === 'crash-states') {
      if (wanted?.includes(family)) selection.unavailable.push(crashStates());
      continue;
    }
    if (FAULTS.some((fault) => fault.family === family) || (wanted && !wanted.includes(family))) continue;
    const why = 'this version of the kit does not make this fault';
    selection.unavailable.push({
      name: family,
      availability: { available: false, why, remedy: 'use a later version' },
    });
  }
  return selection;
}

function checkFaultName(target: Target, name: string, claimed: readonly Fault[]): void {
  // The target claims this family, but no fault of a round makes it: `selectFaults` reports it as
  // unavailable.
  if (target.guarantee.faults.some((family) => family === name) && !FAULTS.some((f) => f.family === name))
    return;
  const service = serviceOfKillOne(name);
  if (service !== undefined && target.services[service] === undefined) {
    const services = Object.keys(target.services).join(', ');
    throw new KitError(
      'bad-usage',
      `--faults ${name}: no such service, expected one of ${services}${didYouMean(service, Object.keys(target.services))}`,
    );
  }
  const faultName = service === undefined ? name : killOne.name;
  const knownFault = FAULTS.find((fault) => fault.name === faultName || fault.family === faultName);
  const format = (faults: readonly Fault[]) => faults.map((fault) => fault.name).join(', ');
  if (knownFault === undefined) {
    const names = [...FAULTS, ...claimed].flatMap((fault) => [fault.name, fault.family]);
    throw new KitError(
      'bad-usage',
      `--faults ${name}: no such fault, expected one of ${format(FAULTS)}${didYouMean(name, names)}`,
    );
  }
  if (claimed.includes(knownFault)) return;
  throw new KitError(
    'bad-usage',
    `--faults ${name}: the target ${target.name} does not claim to survive it, expected one of ${format(claimed)}`,
  );
}

/** Returns the names of the catalogue's faults that the target claims to survive. */
export function claimedFaultNames({ guarantee }: Pick<Target, 'guarantee'>): string[] {
  return claimedFaults(guarantee.faults).map(({ name }) => name);
}

/** Reports whether power cuts, and whether other faults, are among the claimed faults that the user wants. */
export function claimedKinds(
  { guarantee }: Pick<Target, 'guarantee'>,
  wanted: readonly string[] | undefined,
): { power: boolean; others: boolean } {
  const names = (wanted ?? []).map((name) => (serviceOfKillOne(name) === undefined ? name : killOne.name));
  const chosen = claimedFaults(guarantee.faults).filter(
    ({ name, family }) => wanted === undefined || names.includes(name) || names.includes(family),
  );
  const power = chosen.filter(({ needs }) => needs.disk === 'power').length;
  return { power: power > 0, others: chosen.length > power };
}
