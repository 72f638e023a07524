import type { HistoryEvent } from '../history/events.js';
import { lossOf } from '../history/lost-files.js';

/**
 * Greatest number of fault events for one message. A lost message would otherwise collect all until the run
 * ends.
 */
const MAX_FAULT_EVENTS = 40;

/**
 * Returns the events of one message, and the faults, exits and recoveries since its first event, in order. If a crash
 * took the message, the list ends with that crash.
 */
export function messageEvents(history: readonly HistoryEvent[], id: string): HistoryEvent[] {
  const last = lossOf(history, id)?.fault;

  const sequences = new Set<number>();
  const events: HistoryEvent[] = [];
  let faults = 0;
  let started = false;
  for (const event of history) {
    if ('id' in event && event.id === id) {
      started = true;
      if ('sequence' in event) sequences.add(event.sequence);
      events.push(event);
    } else if (event.kind === 'settled' && event.sequences.some((sequence) => sequences.has(sequence))) {
      events.push({ ...event, sequences: event.sequences.filter((sequence) => sequences.has(sequence)) });
    } else if (started && event === last) {
      events.push(event);
      break;
    } else if (started && isContextEvent(event) && faults < MAX_FAULT_EVENTS) {
      faults += 1;
      events.push(event);
    } else if (event.kind === 'fault' && event.rotted.includes(id)) events.push(event);
  }
  return events;
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
