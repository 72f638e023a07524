import type { FaultInjected, HistoryEvent } from '../../../conformance/history/events.js';
import { tracesOf } from '../../../conformance/history/traces.js';
import { hungUpOnPurpose } from '../../gate/violation-causes.js';
import type { BuiltRun } from './run-model.js';

/** Requirements whose violation is the deed of a fault only if the fault hit while the message was submitted. */
const AT_SUBMIT = new Set(['PP-5', 'PP-6']);
/** Upper bound of the time between an effect that a producer sees and the moment from which the kit counts it. */
const SLACK_MS = 50;

/** A time at which a fault hit. */
interface Hit {
  index: number;
  event: FaultInjected;
  position: number;
  /** Time at which its effect began: an injection is recorded at its end. */
  beganMs: number;
}

/**
 * Returns a function that names the injection to which a violation of a delivered message belongs, by its index; -1 when
 * no fault explains it. A duplicate or a changed message is the deed of no later fault. An indefinite message that is not
 * whole is the deed of a fault that hit while the message was submitted, unless its producer hung up on purpose.
 */
export function blamedFault(
  events: readonly HistoryEvent[],
  faultEvents: BuiltRun['faultEvents'],
): (requirement: string, id: string) => number {
  const hits = hitsOf(events, faultEvents);
  const { byId } = tracesOf(events);
  return (requirement, id) => {
    const { submitted, answered, deliveries = [] } = byId.get(id) ?? {};
    // A wrong order is that of the first deliveries.
    const position = (requirement === 'PP-20' ? deliveries[0] : deliveries.at(-1))?.position;
    if (position === undefined) return -1;
    const before = hits.filter((hit) => hit.position < position);
    if (!AT_SUBMIT.has(requirement)) return before.at(-1)?.index ?? -1;
    if (submitted === undefined || hungUpOnPurpose(answered)) return -1;
    const answeredMs = answered?.atMs ?? Number.POSITIVE_INFINITY;
    const meanwhile = before.find(
      ({ event, beganMs }) => event.atMs >= submitted.atMs && beganMs - SLACK_MS <= answeredMs,
    );
    return meanwhile?.index ?? -1;
  };
}

function hitsOf(events: readonly HistoryEvent[], faultEvents: BuiltRun['faultEvents']): Hit[] {
  const indexes = new Map(faultEvents.map((event, index) => [event, index]));
  const hits: Hit[] = [];
  // First end of a process by the kit since the last injection.
  let firstExitMs: number | undefined;
  events.forEach((event, position) => {
    if (event.kind === 'service-exited' && event.expected) firstExitMs ??= event.atMs;
    else if (event.kind === 'installed' || event.kind === 'drained' || event.kind === 'recovered')
      firstExitMs = undefined;
    else if (event.kind === 'fault') {
      const index = indexes.get(event);
      const beganMs = Math.min(event.atMs - event.failingMs, firstExitMs ?? event.atMs);
      if (event.hit && index !== undefined) hits.push({ index, event, position, beganMs });
      firstExitMs = undefined;
    }
  });
  return hits;
}
