import type { Answered, Consumed, Delivered, HistoryEvent, Outcome, Refused, Submitted } from './events.js';

/** One delivery and its end. Positions are indexes in the history, so that order does not depend on a clock. */
export interface Delivery {
  delivered: Delivered;
  position: number;
  end: { event: Consumed | Refused; position: number } | undefined;
  /**
   * Only for protocols in which the target sends the messages: whether the target knows that the delivery was
   * accepted (`Settled`). Undefined while the session continued.
   */
  settled: { how: 'known' | 'broken'; position: number; atMs: number } | undefined;
}

/** All events of a run about one message. */
export interface Trace {
  id: string;
  submitted: Submitted | undefined;
  answered: Answered | undefined;
  deliveries: Delivery[];
}

/** Traces of all messages of a history. */
export interface Traces {
  /** Traces of submitted messages, and of ids that were only delivered, in order of first appearance. */
  byId: ReadonlyMap<string, Trace>;
  /** Deliveries of messages that carry no readable message id, or a message id of another run. */
  unidentified: Delivery[];
  /** Number of deliveries of all messages. */
  deliveries: number;
  /** Messages of a long history that need no judgement and have no trace. See `Uneventful`. */
  uneventful: { confirmed: number; rejected: number };
}

const tracesByHistory = new WeakMap<readonly HistoryEvent[], { length: number; traces: Traces }>();

/** Groups a history by message in one pass. The result is cached, so that all checkers share it. */
export function tracesOf(history: readonly HistoryEvent[]): Traces {
  const cached = tracesByHistory.get(history);
  if (cached?.length === history.length) return cached.traces;
  const traces = makeTraces(history);
  tracesByHistory.set(history, { length: history.length, traces });
  return traces;
}

/** Returns the number of answers of each outcome that an event stands for. */
export function answersOf(event: HistoryEvent): Record<Outcome, number> {
  const none = { confirmed: 0, rejected: 0, indefinite: 0 };
  if (event.kind === 'answered') return { ...none, [event.outcome]: 1 };
  if (event.kind !== 'uneventful') return none;
  const { confirmed, rejected, indefinite } = event;
  return { confirmed, rejected, indefinite };
}

function makeTraces(history: readonly HistoryEvent[]): Traces {
  const byId = new Map<string, Trace>();
  const bySequence = new Map<number, Delivery>();
  const unidentified: Delivery[] = [];
  const uneventful = { confirmed: 0, rejected: 0 };
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
      case 'uneventful':
        uneventful.confirmed += event.confirmed;
        uneventful.rejected += event.rejected;
        break;
      default:
        break;
    }
  });
  // Each confirmed message without a trace was delivered once.
  const deliveries = bySequence.size + uneventful.confirmed;
  return { byId, unidentified, deliveries, uneventful };
}
