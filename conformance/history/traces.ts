import type { Answered, Consumed, Delivered, HistoryEvent, Refused, Submitted } from './events.js';

/** One delivery and what became of it. Positions are places in the history, so that order needs no clock. */
export interface Delivery {
  delivered: Delivered;
  position: number;
  end: { event: Consumed | Refused; position: number } | undefined;
  /** Push: known or broken; undefined while the session went on. */
  settled: { how: 'known' | 'broken'; position: number; atMs: number } | undefined;
}

/** All that a run has about one message. */
export interface Trace {
  id: string;
  submitted: Submitted | undefined;
  answered: Answered | undefined;
  deliveries: Delivery[];
}

export interface Traces {
  /** Submitted messages, and ids that were only delivered, in order of first appearance. */
  byId: ReadonlyMap<string, Trace>;
  /** Deliveries of which no id could be read. */
  unidentified: Delivery[];
  deliveries: number;
}

const tracesByHistory = new WeakMap<readonly HistoryEvent[], { length: number; traces: Traces }>();

/** The history by message, in one pass; made once for a history, however many checkers ask. */
export function tracesOf(history: readonly HistoryEvent[]): Traces {
  const cached = tracesByHistory.get(history);
  if (cached?.length === history.length) return cached.traces;
  const traces = makeTraces(history);
  tracesByHistory.set(history, { length: history.length, traces });
  return traces;
}

function makeTraces(history: readonly HistoryEvent[]): Traces {
  const byId = new Map<string, Trace>();
  const bySequence = new Map<number, Delivery>();
  const unidentified: Delivery[] = [];
  const trace = (id: string): Trace => {
    const found = byId.get(id);
    if (found) return found;
    const made: Trace = { id, submitted: undefined, answered: undefined, deliveries: [] };
    byId.set(id, made);
    return made;
  };
  history.forEach((event, position) => {
    switch (event.kind) {
      case 'submitted':
        trace(event.id).submitted = event;
        break;
      case 'answered':
        trace(event.id).answered = event;
        break;
      case 'delivered': {
        const delivery: Delivery = { delivered: event, position, end: undefined, settled: undefined };
        bySequence.set(event.sequence, delivery);
        if (event.id === null) unidentified.push(delivery);
        else trace(event.id).deliveries.push(delivery);
        break;
      }
      case 'consumed':
      case 'refused': {
        const delivery = bySequence.get(event.sequence);
        if (delivery) delivery.end = { event, position };
        break;
      }
      case 'settled':
        for (const sequence of event.sequences) {
          const delivery = bySequence.get(sequence);
          if (delivery) delivery.settled = { how: event.how, position, atMs: event.atMs };
        }
        break;
      default:
        break;
    }
  });
  return { byId, unidentified, deliveries: bySequence.size };
}
