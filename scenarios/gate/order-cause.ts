import type { Evaluation } from '../../conformance/checkers/evaluate.js';
import { faultOfCrash, nameOfCrash, orderOf } from '../../conformance/checkers/order.js';
import type { HistoryEvent } from '../../conformance/history/events.js';
import type { LossCause } from './loss-causes.js';

/** The cause of a wrong order. */
export interface OrderCause extends Omit<LossCause, 'kind'> {
  kind: 'reordered';
  /** The failed requirement. */
  requirements: string[];
}

/**
 * Names the messages that came after a later message of their producer (PP-20): which two, which crash lay between, and
 * how many there are.
 * @returns one cause, or none.
 */
export function orderCause(events: readonly HistoryEvent[], findings: Evaluation['findings']): OrderCause[] {
  if (!findings.some(({ requirement, verdict }) => requirement === 'PP-20' && verdict === 'fail')) return [];
  const { overtaken } = orderOf(events);
  const [first] = overtaken;
  if (first === undefined) return [];
  const { message, by, crash } = first;
  const crashName = crash === undefined ? undefined : nameOfCrash(events, crash);
  const after = crashName === undefined ? 'without a crash' : `after ${crashName}`;
  const others = overtaken.length - 1;
  const more = others === 0 ? '' : `; ${others} more came after a later message of their producer`;
  const steps: [number, string][] = [
    [message.submitted, `producer ${message.producer} submits message ${message.id}`],
    [message.confirmed, `message ${message.id} is confirmed`],
    [by.submitted, `producer ${by.producer} submits message ${by.id}`],
    [by.delivered, `message ${by.id} is delivered for the first time`],
    [message.delivered, `message ${message.id} is delivered for the first time`],
    ...(crash === undefined ? [] : [[crash, `${crashName}`] satisfies [number, string]]),
  ];
  return [
    {
      kind: 'reordered',
      sentence: `${after} message ${by.id} came before message ${message.id}, which producer ${message.producer} had submitted earlier${more}`,
      facts: steps.sort(([a], [b]) => a - b).map(([at, what]) => `${time(events[at])}  ${what}`),
      fix: 'give each message a number at its arrival, store it with the message, let a recovery sort by it, and put a message whose lease has ended before those that arrived later',
      file: '',
      service: '',
      messages: overtaken.map((one) => one.message.id),
      fault: crash === undefined ? undefined : faultOfCrash(events, crash),
      requirements: ['PP-20'],
    },
  ];
}

function time(event: HistoryEvent | undefined): string {
  return `${((event?.atMs ?? 0) / 1000).toFixed(3)} s`;
}
