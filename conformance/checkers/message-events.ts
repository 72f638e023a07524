import { type Harm, isSameHarm, NO_HARM } from '../history/cluster-states.js';
import type { HistoryEvent } from '../history/events.js';
import { lossOf } from '../history/lost-files.js';
import { tracesOf } from '../history/traces.js';
import { missingRecipientCount } from './undelivered.js';

/**
 * Greatest number of fault events for one message. A lost message would otherwise collect all until the run
 * ends.
 */
const MAX_FAULT_EVENTS = 40;

/**
 * Returns the events of one message, and the faults, exits and recoveries since its first event, in order. If a crash
 * took the message, the list ends with that crash. If every recipient has the message, it ends with the end of the
 * last delivery: what came later has not caused it.
 */
export function messageEvents(history: readonly HistoryEvent[], id: string): HistoryEvent[] {
  const last = lossOf(history, id)?.fault;

  const sequences = new Set<number>();
  const events: HistoryEvent[] = [];
  let faults = 0;
  let started = false;
  const trace = tracesOf(history).byId.get(id);
  const isComplete = trace?.submitted !== undefined && missingRecipientCount(trace) === 0;
  // Number of events up to the end of the last delivery, and to what the target knew of it.
  let delivered = 0;
  let harm: Harm = NO_HARM;
  for (const event of history) {
    if (event.kind === 'cluster-state') {
      // What was cut when the message was submitted belongs to it, if this injection took the message.
      const isChange = !isSameHarm(harm, event);
      harm = event;
      if (isChange && (started || event.injection === last?.injection) && faults < MAX_FAULT_EVENTS) {
        faults += 1;
        events.push(event);
      }
      continue;
    }
    if ('id' in event && event.id === id) {
      started = true;
      if ('sequence' in event) sequences.add(event.sequence);
      events.push(event);
      delivered = events.length;
    } else if (event.kind === 'settled' && event.sequences.some((sequence) => sequences.has(sequence))) {
      events.push({ ...event, sequences: event.sequences.filter((sequence) => sequences.has(sequence)) });
      delivered = events.length;
    } else if (started && event === last) {
      events.push(event);
      break;
    } else if (started && isContextEvent(event) && faults < MAX_FAULT_EVENTS) {
      faults += 1;
      events.push(event);
    } else if (event.kind === 'fault' && event.rotted.includes(id)) events.push(event);
  }
  return isComplete ? events.slice(0, delivered) : events;
}

function isContextEvent(event: HistoryEvent): boolean {
  switch (event.kind) {
    case 'fault':
    case 'healed':
    case 'recovered':
    case 'recovery-failed':
    case 'service-exited':
    case 'service-started':
    case 'drained':
      return true;
    default:
      return false;
  }
}
