import type { FaultInjected, HistoryEvent } from '../history/events.js';
import { tracesOf } from '../history/traces.js';
import { type Crash, crashesOf, firstAfter, lastBefore } from './crashes.js';
import { makeFinding, Violations } from './finding.js';
import type { Finding } from './verdict.js';

/**
 * Least number of messages that must have waited at a crash together with an earlier message of their producer. With fewer,
 * the check would miss a recovery that changes the order of a few messages.
 */
const MIN_WAITING_MESSAGES = 10;

/** A confirmed message of a producer. Positions are indexes in the history. */
interface OrderedMessage {
  id: string;
  producer: number;
  submitted: number;
  /** Position of the confirmation; undefined when the message is not confirmed. */
  confirmed: number | undefined;
  /** Position of the first delivery; undefined when there is none. */
  delivered: number | undefined;
}

/** A confirmed message whose first delivery came after that of a later message of the same producer. */
export interface Overtaken {
  message: OrderedMessage & { confirmed: number; delivered: number };
  /** The message that came first although it was submitted after the confirmation of `message`. */
  by: OrderedMessage & { delivered: number };
  /**
   * Position of the crash that may be the cause: the last one before the first of the two deliveries, otherwise one
   * between the deliveries. Undefined when no crash came between the confirmation and the delivery of `message`.
   */
  crash: number | undefined;
}

/** What a history says about the order of the messages of each producer. */
export interface OrderReport {
  overtaken: Overtaken[];
  /** Number of confirmed messages that were delivered. */
  compared: number;
  /**
   * Number of messages that waited at a crash, while an earlier message of the same producer waited too, and that were
   * both delivered later.
   */
  waiting: number;
}

/**
 * Checks PP-20: first deliveries of one producer's confirmed messages come in the order of submission. One message was
 * submitted before another only if it was confirmed before the other's submit began: the order of two submits
 * that were in progress at the same time is unknown.
 */
export function checkOrder(history: readonly HistoryEvent[]): Finding {
  const { overtaken, compared, waiting } = orderOf(history);
  const violations = new Violations();
  for (const one of overtaken) violations.add(describeOvertaken(history, one), one.message.id);
  const figures = { outOfOrder: overtaken.length, compared, waiting };
  if (overtaken.length > 0) {
    const why = `${overtaken.length} of ${compared} messages came after a later message of their producer`;
    return makeFinding('PP-20', 'fail', why, figures, violations);
  }
  if (waiting < MIN_WAITING_MESSAGES) {
    const why = `${waiting} messages waited at a crash behind another of their producer, expected at least ${MIN_WAITING_MESSAGES}`;
    return makeFinding('PP-20', 'not-measured', why, figures);
  }
  const why = `${compared} messages came in the order of their producers; ${waiting} of them waited at a crash behind another`;
  return makeFinding('PP-20', 'pass', why, figures);
}

/** Compares the first deliveries of the confirmed messages of each producer. Messages that were damaged on purpose are left out. */
export function orderOf(history: readonly HistoryEvent[]): OrderReport {
  const crashes = crashesOf(history).all;
  // Messages of a long history that are only counted came in order; see `condense.ts`.
  const counted = tracesOf(history).uneventful.confirmed;
  const report: OrderReport = { overtaken: [], compared: counted, waiting: 0 };
  for (const messages of messagesByProducer(history)) {
    report.compared += messages.length;
    report.waiting += countWaiting(messages, crashes);
    report.overtaken.push(...overtakenAmong(messages, crashes));
  }
  report.overtaken.sort((a, b) => a.message.delivered - b.message.delivered);
  return report;
}

/** Says in one line which message came before which, and which crash lay between. */
function describeOvertaken(history: readonly HistoryEvent[], { message, by, crash }: Overtaken): string {
  const first = `message ${by.id}, which producer ${by.producer} submitted after the confirmation`;
  const deliveries = `delivery ${sequenceAt(history, message.delivered)} was its first, after delivery ${sequenceAt(history, by.delivered)} of ${first}`;
  if (crash === undefined) return `${deliveries}; no crash came since the confirmation`;
  const place = crash < by.delivered ? 'before both deliveries' : 'between the two deliveries';
  return `${deliveries}; ${nameOfCrash(history, crash)} came ${place}`;
}

/** Returns the name of the crash at a position: of the fault and its injection, or of the service that exited by itself. */
export function nameOfCrash(history: readonly HistoryEvent[], position: number): string {
  const event = history[position];
  const fault = faultOfCrash(history, position);
  if (fault !== undefined) return `${fault.fault} ${fault.injection}`;
  return event?.kind === 'service-exited' ? `the exit of ${event.service}` : 'a crash';
}

/** Returns the fault that made the crash at a position; undefined when a service exited by itself. */
export function faultOfCrash(history: readonly HistoryEvent[], position: number): FaultInjected | undefined {
  const event = history[position];
  if (event?.kind === 'service-exited' && !event.expected) return undefined;
  // A fault is recorded after the exits that it has caused.
  for (let at = position; at < history.length; at++) {
    const cause = history[at];
    if (cause?.kind === 'fault') return cause;
  }
  return undefined;
}

function sequenceAt(history: readonly HistoryEvent[], position: number): number {
  const event = history[position];
  return event?.kind === 'delivered' ? event.sequence : 0;
}

type Comparable = Overtaken['message'];

/** Returns the confirmed and delivered messages of each producer of each round, in the order of their submits. */
function messagesByProducer(history: readonly HistoryEvent[]): Comparable[][] {
  const byId = new Map<string, OrderedMessage>();
  const byProducer = new Map<string, OrderedMessage[]>();
  const rotted = new Set<string>();
  let round = 0;
  history.forEach((event, position) => {
    switch (event.kind) {
      case 'installed':
        round = event.round;
        break;
      case 'submitted': {
        const { id, producer } = event;
        const message = { id, producer, submitted: position, confirmed: undefined, delivered: undefined };
        byId.set(id, message);
        const key = `${round}-${producer}`;
        const others = byProducer.get(key);
        if (others === undefined) byProducer.set(key, [message]);
        else others.push(message);
        break;
      }
      case 'answered': {
        const message = byId.get(event.id);
        if (message !== undefined && event.outcome === 'confirmed') message.confirmed = position;
        break;
      }
      case 'delivered': {
        const message = event.id === null ? undefined : byId.get(event.id);
        if (message !== undefined) message.delivered ??= position;
        break;
      }
      case 'fault':
        if (event.hit) for (const id of event.rotted) rotted.add(id);
        break;
      default:
        break;
    }
  });
  const isComparable = (message: OrderedMessage): message is Comparable =>
    message.confirmed !== undefined && message.delivered !== undefined && !rotted.has(message.id);
  return [...byProducer.values()].map((messages) => messages.filter(isComparable));
}

/** @param messages those of one producer, in the order of their submits. */
function countWaiting(messages: readonly Comparable[], crashes: readonly Crash[]): number {
  let waiting = 0;
  let latestDelivery = -1;
  for (const { confirmed, delivered } of messages) {
    const crash = firstAfter(crashes, confirmed, ({ position }) => position)?.position;
    if (crash !== undefined && crash < delivered && crash < latestDelivery) waiting += 1;
    latestDelivery = Math.max(latestDelivery, delivered);
  }
  return waiting;
}

/**
 * Returns the messages that another one has overtaken, each with the first that did.
 * @param messages those of one producer.
 */
function overtakenAmong(messages: readonly Comparable[], crashes: readonly Crash[]): Overtaken[] {
  const overtaken: Overtaken[] = [];
  /** The delivered messages that were submitted later than all that were delivered before them. */
  const leaders: Comparable[] = [];
  for (const message of [...messages].sort((a, b) => a.delivered - b.delivered)) {
    const by = firstAfter(leaders, message.confirmed, ({ submitted }) => submitted);
    if (by !== undefined) overtaken.push({ message, by, crash: crashFor(message, by, crashes) });
    const last = leaders.at(-1);
    if (last === undefined || message.submitted > last.submitted) leaders.push(message);
  }
  return overtaken;
}

function crashFor(message: Comparable, by: Comparable, crashes: readonly Crash[]): number | undefined {
  const positionOf = ({ position }: Crash) => position;
  const last = lastBefore(crashes, by.delivered, positionOf)?.position;
  if (last !== undefined && last > message.confirmed) return last;
  const next = firstAfter(crashes, by.delivered, positionOf)?.position;
  return next !== undefined && next < message.delivered ? next : undefined;
}
