import type { HistoryEvent } from '../history/events.js';
import { type Delivery, type Trace, tracesOf } from '../history/traces.js';
import type { DuplicateBound, Guarantee } from '../target-file/definition.js';
import { type Crash, type Crashes, crashesOf, firstAfter } from './crashes.js';
import { makeFinding, Violations } from './finding.js';
import type { Finding } from './verdict.js';

/**
 * Time after the end of a session in which a target may still record its acceptances, in milliseconds. A
 * redelivery after a crash within this time is not a violation. The time does not apply to targets that claim
 * a number per session: that claim already fixes what is recorded.
 */
const RECORDING_GRACE_MS = 1000;

type DuplicateClass = 'crash' | 'power-cut' | 'index-loss';
type Redelivery =
  | { kind: 'in-delivery' }
  | { kind: 'duplicate'; class: DuplicateClass; position: number; id: string; delivery: Delivery };

/** Checks PP-2: messages whose consumption the target knew of are not redelivered beyond the claimed bound. */
export function checkDuplicates(history: readonly HistoryEvent[], guarantee: Guarantee): Finding {
  const traces = tracesOf(history);
  const crashes = crashesOf(history);
  const bounds = boundsOf(guarantee);
  const duplicates: Extract<Redelivery, { kind: 'duplicate' }>[] = [];
  let inDelivery = 0;
  let consumed = traces.uneventful.confirmed;
  for (const trace of traces.byId.values()) {
    for (const redelivery of redeliveries(trace, crashes, guarantee)) {
      if (redelivery.kind === 'in-delivery') inDelivery += 1;
      else duplicates.push(redelivery);
    }
    if (trace.deliveries.some(({ end }) => end?.event.kind === 'consumed')) consumed += 1;
  }
  duplicates.sort((a, b) => a.position - b.position);

  const violations = new Violations();
  const counted: Record<DuplicateClass, number> = { crash: 0, 'power-cut': 0, 'index-loss': 0 };
  let unbounded = 0;
  for (const duplicate of duplicates) {
    const bound = bounds[duplicate.class];
    if (bound === 'unbounded') {
      unbounded += 1;
      continue;
    }
    counted[duplicate.class] += 1;
    const allowed = allowedPerCrash(bound) * crashesSoFar(crashes, duplicate);
    if (counted[duplicate.class] > allowed) {
      const { sequence } = duplicate.delivery.delivered;
      violations.add(
        `delivered again as delivery ${sequence}, after it was consumed with an answer`,
        duplicate.id,
      );
    }
  }
  const total = counted.crash + counted['power-cut'] + counted['index-loss'];
  const figures = { duplicates: total, inDelivery, afterIndexLoss: unbounded, consumed };
  if (violations.count > 0) {
    return makeFinding(
      'PP-2',
      'fail',
      `${violations.count} messages came again beyond the bound`,
      figures,
      violations,
    );
  }
  if (consumed === 0) return makeFinding('PP-2', 'not-measured', 'nothing was consumed', figures);
  return makeFinding('PP-2', 'pass', `${total} duplicates among ${consumed} consumed messages`, figures);
}

/** Yields the deliveries to a recipient that had accepted the message before. */
function* redeliveries(trace: Trace, crashes: Crashes, guarantee: Guarantee): Generator<Redelivery> {
  if (trace.deliveries.length < 2) return;
  const consumedBy = new Map<number, Delivery>();
  for (const delivery of trace.deliveries) {
    const earlier = delivery.delivered.recipients.map((recipient) => consumedBy.get(recipient));
    // One copy is one redelivery, although it can have several recipients. The worst of them counts.
    const classified = earlier.flatMap((before) =>
      before ? [classifyRedelivery(before, delivery, trace.id, crashes, guarantee)] : [],
    );
    const worst = classified.find(({ kind }) => kind === 'duplicate') ?? classified[0];
    if (worst) yield worst;
    if (delivery.end?.event.kind !== 'consumed') continue;
    for (const recipient of delivery.delivered.recipients) consumedBy.set(recipient, delivery);
  }
}

function classifyRedelivery(
  consumedDelivery: Delivery,
  redelivered: Delivery,
  id: string,
  crashes: Crashes,
  guarantee: Guarantee,
): Redelivery {
  const consumed = consumedDelivery.end;
  if (consumed?.event.kind !== 'consumed' || consumed.position > redelivered.position)
    return { kind: 'in-delivery' };
  const isBeforeRedelivery = (position: number | undefined) =>
    position !== undefined && position < redelivered.position;
  const crash = firstAfter(crashes.all, consumed.position, (item) => item.position);
  const crashed = crash !== undefined && isBeforeRedelivery(crash.position) ? crash : undefined;
  if (wasInDelivery(consumedDelivery, crashed, guarantee)) return { kind: 'in-delivery' };

  const indexWasDamaged = isBeforeRedelivery(
    firstAfter(crashes.indexDamages, consumed.position, (position) => position),
  );
  const cut = crashes.all.find((item) => item.scope === 'machine' && item.position > consumed.position);
  const kind: DuplicateClass = indexWasDamaged
    ? 'index-loss'
    : isBeforeRedelivery(cut?.position)
      ? 'power-cut'
      : 'crash';
  const bound = boundsOf(guarantee)[kind];
  // Blame the power cut, not a kill before it: what a killed process had written stayed in the memory of the
  // machine.
  const blamedCrash = kind === 'power-cut' ? cut : crashed;
  if (
    typeof bound === 'object' &&
    blamedCrash &&
    blamedCrash.lastWriteMs - consumed.event.atMs <= bound.consumedWithinSeconds * 1000
  ) {
    return { kind: 'in-delivery' };
  }
  return { kind: 'duplicate', class: kind, position: redelivered.position, id, delivery: redelivered };
}

/** Returns true if the target may not have known, at the crash, that the delivery was accepted. */
function wasInDelivery(before: Delivery, crash: Crash | undefined, guarantee: Guarantee): boolean {
  const end = before.end?.event;
  if (end?.kind !== 'consumed' || end.how === 'answered') return false;
  if (end.how === 'unanswered' || before.settled?.how === 'broken') return true;
  if (crash === undefined) return false;
  if (before.settled === undefined || before.settled.position > crash.position) return true;
  return (
    guarantee.inDeliveryPerSession === undefined && crash.atMs - before.settled.atMs <= RECORDING_GRACE_MS
  );
}

function boundsOf(guarantee: Guarantee): Record<DuplicateClass, DuplicateBound> {
  return {
    crash: guarantee.duplicatesPerCrash,
    'power-cut': guarantee.duplicatesPerPowerCut ?? guarantee.duplicatesPerCrash,
    'index-loss': guarantee.duplicatesAfterIndexLoss ?? guarantee.duplicatesPerCrash,
  };
}

/**
 * Returns the allowed duplicates per crash. Only a number allows any: messages in delivery are excused one by
 * one.
 */
function allowedPerCrash(bound: Exclude<DuplicateBound, 'unbounded'>): number {
  return typeof bound === 'number' ? bound : 0;
}

function crashesSoFar(crashes: Crashes, duplicate: { class: DuplicateClass; position: number }): number {
  const before = (position: number) => position < duplicate.position;
  switch (duplicate.class) {
    case 'index-loss':
      return crashes.indexDamages.filter(before).length;
    case 'power-cut':
      return crashes.all.filter(({ scope, position }) => scope === 'machine' && before(position)).length;
    case 'crash':
      return crashes.all.filter(({ scope, position }) => scope !== 'exit' && before(position)).length;
  }
}
