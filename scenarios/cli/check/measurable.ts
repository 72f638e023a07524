import { REQUIREMENTS, type Requirement } from '../../../conformance/requirements/requirements.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import { FAULTS } from '../../../faults/catalogue/catalogue.js';
import type { Availability, Fault } from '../../../faults/fault.js';
import { blocklogAvailability } from '../../../faults/power/blocklog-availability.js';
import { leastBudgetMs } from '../../gate/least-budget.js';
import { selectFaults } from '../../gate/select-faults.js';
import { choosePowerBackend, faultsEnabledBy } from '../../runtime/power-backends.js';
import type { PreparedRuntime } from '../../runtime/runtime.js';

/** Whether a requirement is claimed by the target, and whether this machine can measure it. */
export interface RequirementOutlook {
  id: string;
  title: string;
  /** `by-chance`: every target claims it, and no claimed fault forces the situation that it is about. */
  state: 'measurable' | 'by-chance' | 'not-measurable' | 'not-claimed';
  /** How it is measured, why it cannot be measured, or what would claim it. */
  why: string;
  /** What the user can do to measure it here. */
  remedy?: string;
}

/** Whether a claimed fault can be injected here. */
export interface FaultOutlook {
  name: string;
  available: boolean;
  why?: string;
  remedy?: string;
}

/** What a run on this machine can and cannot show about a target. */
export interface Outlook {
  requirements: RequirementOutlook[];
  faults: FaultOutlook[];
  /** Budget with which a gate can try each available fault once, in seconds; null when it can try none. */
  gateSeconds: number | null;
}

type Unavailable = Extract<Availability, { available: false }>;

/** Finds out what this machine can measure of a target, without starting anything. */
export async function lookAhead(target: Target, runtime: PreparedRuntime): Promise<Outlook> {
  const power = await choosePowerBackend(undefined, undefined, runtime.name);
  const selection = await selectFaults(target, undefined, {
    supports: (fault) => runtime.supports(fault),
    enabledFaults: runtime.enabledFaults ?? faultsEnabledBy(power),
  });
  const unavailable = new Map(selection.unavailable.map(({ name, availability }) => [name, availability]));
  const faults: FaultOutlook[] = FAULTS.filter(({ family }) =>
    (target.guarantee.faults as readonly string[]).includes(family),
  ).map(({ name }) => faultOutlook(name, unavailable.get(name)));
  const explore = target.guarantee.faults.includes('crash-states')
    ? exploreAvailability(runtime.name)
    : undefined;
  if (explore !== undefined)
    faults.push(faultOutlook('crash-states', explore.available ? undefined : explore));
  return {
    requirements: REQUIREMENTS.map((requirement) =>
      requirementOutlook(requirement, target, selection.faults, unavailable, explore),
    ),
    faults,
    gateSeconds:
      selection.faults.length === 0
        ? null
        : leastBudgetMs(target, selection.faults, runtime, explore?.available === true) / 1000,
  };
}

function faultOutlook(name: string, unavailable: Unavailable | undefined): FaultOutlook {
  if (unavailable === undefined) return { name, available: true };
  return { name, available: false, why: unavailable.why, remedy: unavailable.remedy };
}

/** Crash states are made by `explore`, which works under one runtime only. */
function exploreAvailability(runtime: string): Availability {
  if (runtime === 'process') return blocklogAvailability();
  return {
    available: false,
    why: `crash states are not explored under --runtime ${runtime}`,
    remedy: 'use --runtime process',
  };
}

function requirementOutlook(
  { id, title, needs, isClaimedBy }: Requirement,
  target: Target,
  available: readonly Fault[],
  unavailable: ReadonlyMap<string, Unavailable>,
  explore: Availability | undefined,
): RequirementOutlook {
  const head = { id, title };
  if (needs !== 'any' && needs.includes('crash-states') && needs.length === 1) {
    if (explore === undefined) return { ...head, state: 'not-claimed', why: claimedBy(needs) };
    return explore.available
      ? { ...head, state: 'measurable', why: 'by an exploration of crash states' }
      : { ...head, state: 'not-measurable', why: explore.why, remedy: explore.remedy };
  }
  if (!isClaimedBy(target)) return { ...head, state: 'not-claimed', why: CLAIMED_BY[id] ?? claimedBy(needs) };
  const isNeeded = ({ name, family }: Pick<Fault, 'name' | 'family'>) =>
    needs === 'any' || needs.includes(name) || needs.includes(family);
  const usable = available.filter(isNeeded).map(({ name }) => name);
  if (usable.length > 0)
    return {
      ...head,
      state: 'measurable',
      why: needs === 'any' ? 'under every fault' : `under ${usable.join(', ')}`,
    };
  const missing = FAULTS.filter(isNeeded).flatMap(({ name }) => unavailable.get(name) ?? []);
  const [first] = missing;
  if (first === undefined)
    return {
      ...head,
      state: 'by-chance',
      why: `only by chance: ${families(needs)} in guarantee.faults would force it`,
    };
  return { ...head, state: 'not-measurable', why: first.why, remedy: first.remedy };
}

/** What claims a requirement that does not follow from a fault. */
const CLAIMED_BY: Readonly<Record<string, string>> = {
  'PP-2': 'guarantee.duplicatesPerCrash is "unbounded"',
  'PP-9': 'a verify command would claim it',
  'PP-11': 'guarantee.recoverySeconds would claim it',
  'PP-20': 'guarantee.order would claim it',
  'PP-21': 'guarantee.cluster with cut-then-elect or power-cut would claim it',
  'PP-22': 'guarantee.cluster with node-loss would claim it',
  'PP-23': 'guarantee.cluster with partition or stale-link would claim it',
  'PP-24': 'guarantee.cluster with partition, cut-then-elect or node-loss would claim it',
};

function claimedBy(needs: Requirement['needs']): string {
  return `${families(needs)} in guarantee.faults would claim it`;
}

function families(needs: Requirement['needs']): string {
  return (needs === 'any' ? ['a fault'] : [...new Set(needs.map(familyOf))]).join(' or ');
}

function familyOf(name: string): string {
  return FAULTS.find((fault) => fault.name === name)?.family ?? name;
}
