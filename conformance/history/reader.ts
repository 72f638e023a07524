import { parseBoundedJson } from '../bounded-json.js';
import { KitError, messageOf } from '../errors.js';
import { beyond, LimitError, limit } from '../limits.js';
import { Condenser } from './condense.js';
import { HISTORY_FORMAT, type HistoryEvent, type WrittenEvent } from './events.js';
import { chunksOf, LineError, linesOf, unpackedChunksOf } from './lines.js';

type Check = (value: unknown) => boolean;
const text: Check = (value) => typeof value === 'string';
const textOrNull: Check = (value) => value === null || text(value);
const number: Check = (value) => typeof value === 'number' && Number.isFinite(value);
const numberOrNull: Check = (value) => value === null || number(value);
const flag: Check = (value) => typeof value === 'boolean';
const listOf =
  (check: Check): Check =>
  (value) =>
    Array.isArray(value) && value.every(check);
const optional =
  (check: Check): Check =>
  (value) =>
    value === undefined || check(value);
/** A check of an object with exactly these keys. */
const objectOf =
  (checks: Record<string, Check>): Check =>
  (value) =>
    typeof value === 'object' &&
    value !== null &&
    Object.keys(value).every((key) => Object.hasOwn(checks, key)) &&
    Object.entries(checks).every(([key, check]) => check((value as Record<string, unknown>)[key]));
const oneOf =
  (...values: string[]): Check =>
  (value) =>
    text(value) && values.includes(value as string);

const lostFile = objectOf({
  file: text,
  sizeBytes: number,
  sizeAfterBytes: numberOrNull,
  nameAfter: textOrNull,
  cacheBytes: number,
  driveBytes: number,
  messages: listOf(text),
});
/** A link in one direction: the names of two nodes. */
const link: Check = (value) => Array.isArray(value) && value.length === 2 && value.every(text);
const failedCall = objectOf({ service: text, call: text, path: textOrNull, error: text, count: number });

/** A check for every key of every event. The compiler reports a missing one. */
type EventSchemas = {
  [E in WrittenEvent as E['kind']]: { [Key in Exclude<keyof E, 'kind' | 'atMs'>]-?: Check };
};

const EVENT_SCHEMAS: EventSchemas = {
  'run-started': {
    format: number,
    target: text,
    protocol: text,
    seed: number,
    faults: listOf(text),
    startedAt: text,
    kitVersion: text,
  },
  installed: { round: number, nodes: optional(listOf(text)) },
  'service-started': { service: text, incarnation: number },
  'service-exited': {
    service: text,
    incarnation: number,
    code: numberOrNull,
    signal: textOrNull,
    expected: flag,
  },
  submitted: { id: text, producer: number, sizeBytes: number, digest: text, recipients: number, shape: text },
  answered: {
    id: text,
    outcome: oneOf('confirmed', 'rejected', 'indefinite'),
    detail: text,
    node: optional(text),
  },
  delivered: {
    sequence: number,
    id: textOrNull,
    sizeBytes: number,
    digest: text,
    recipients: listOf(number),
    difference: optional(text),
    node: optional(text),
  },
  consumed: { sequence: number, id: textOrNull, how: oneOf('answered', 'unanswered', 'accepted') },
  refused: { sequence: number, id: textOrNull, permanent: flag, detail: text },
  settled: { sequences: listOf(number), how: oneOf('known', 'broken') },
  fault: {
    fault: text,
    injection: number,
    hit: flag,
    scope: oneOf('none', 'some-processes', 'all-processes', 'machine'),
    services: listOf(text),
    nodes: optional(listOf(text)),
    detail: text,
    indexDamaged: flag,
    rotted: listOf(text),
    failingMs: number,
    lostFiles: optional(listOf(lostFile)),
    destroyedFiles: optional(listOf(lostFile)),
    failed: optional(objectOf({ sinceMs: number, calls: listOf(failedCall) })),
  },
  healed: { fault: text, injection: number },
  'cluster-state': {
    injection: number,
    down: listOf(text),
    cut: listOf(link),
    promoted: optional(listOf(text)),
  },
  'at-risk': { injection: number, confirmedUndelivered: number, inFlight: number, inDelivery: number },
  recovered: { injection: number, tookMs: number },
  'recovery-failed': { injection: number, waitedMs: number, detail: text },
  inspected: {
    ok: flag,
    problems: listOf(text),
    keptAside: number,
    live: optional(number),
    node: optional(text),
  },
  drained: {
    waitedMs: number,
    complete: flag,
    allowedMs: optional(number),
    allowedBy: optional(oneOf('claim', 'shown', 'default')),
  },
  'log-position': { id: text, what: oneOf('confirmed', 'offered'), entries: number },
  'state-explored': {
    state: text,
    prefix: number,
    entriesBegun: number,
    strategy: oneOf('mount', 'target'),
    recovered: flag,
    heldBits: text,
    wrongCount: number,
    detail: text,
    equivalentStates: number,
  },
  'run-ended': { how: oneOf('completed', 'violation', 'interrupted') },
};

/** The keys of each kind of event, with their checks. */
const CHECKS = new Map(
  Object.entries(EVENT_SCHEMAS).map(([kind, checks]) => {
    const entries: [string, Check][] = [['atMs', number], ...Object.entries(checks)];
    return [kind, { entries, known: new Set(['kind', ...entries.map(([key]) => key)]) }];
  }),
);
/** Length of a line from which its structure is checked before it is parsed: a shorter one makes few objects. */
const LONG_LINE_BYTES = 64 * 1024;

/**
 * Reads a history that a Recorder wrote. Of one with more than `history-events` events, messages that need no
 * judgement are only counted; see `condense.ts`.
 * @throws KitError bad-history (exit code 2) that names the file and the line of the first damage.
 */
export function readHistory(file: string): HistoryEvent[] {
  return readEvents(() => linesOf(chunksOf(file)), file, 'a history');
}

/**
 * Reads a history that `packFile` packed, like `readHistory`.
 * @param name name of the history in errors.
 * @param observe is called with every event of the file in its order, also with those that are only counted in the
 *   result. What it throws ends the reading; a KitError is passed on as it is.
 */
export function readPackedHistory(
  file: string,
  name: string,
  observe?: (event: HistoryEvent) => void,
): HistoryEvent[] {
  return readEvents(() => linesOf(unpackedChunksOf(file)), name, 'a history packed by gzip', observe);
}

/** @param openLines reads the lines from the first one. A long history is read twice. */
function readEvents(
  openLines: () => Iterable<Buffer>,
  name: string,
  expected: string,
  observe?: (event: HistoryEvent) => void,
): HistoryEvent[] {
  const maxEvents = limit('history-events');
  let events: HistoryEvent[] = [];
  let condenser: Condenser | undefined;
  let count = 0;
  const eachLine = (take: (line: Buffer) => void) => {
    count = 0;
    try {
      for (const line of openLines()) {
        take(line);
        count += 1;
      }
    } catch (error) {
      if (error instanceof KitError) throw error;
      const isLine = error instanceof LineError;
      const where = isLine
        ? `${name}:${count + 1}: expected a whole line,`
        : `${name}: expected ${expected}:`;
      throw new KitError('bad-history', `${where} ${messageOf(error)}`, { cause: error });
    }
  };
  eachLine((line) => {
    const event = parseEvent(line, `${name}:${count + 1}`);
    observe?.(event);
    if (condenser === undefined && events.length >= maxEvents) {
      condenser = new Condenser(maxEvents);
      for (const earlier of events) condenser.note(earlier);
      events = [];
    }
    if (condenser === undefined) events.push(event);
    else condenser.note(event);
    if (condenser !== undefined && condenser.othersCount > maxEvents) throw tooManyEvents(name);
  });
  const second = condenser;
  if (second === undefined) return events;
  eachLine((line) => {
    // The line was checked in the first pass.
    events.push(...second.keep(count, () => JSON.parse(line.toString('utf8')) as HistoryEvent));
    if (events.length > maxEvents) throw tooManyEvents(name);
  });
  return [...events, ...second.takeCount()];
}

function tooManyEvents(name: string): KitError {
  const what = 'events that are not those of messages that were simply delivered once';
  const text = `${name}: has ${beyond('history-events', what)}`;
  return new KitError('bad-history', text, { cause: new LimitError(text) });
}

function parseEvent(line: Buffer, where: string): HistoryEvent {
  let value: unknown;
  try {
    value = line.length > LONG_LINE_BYTES ? parseBoundedJson(line) : JSON.parse(line.toString('utf8'));
  } catch (error) {
    throw new KitError('bad-history', `${where}: expected JSON: ${messageOf(error)}`, { cause: error });
  }
  const event = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const checks = typeof event.kind === 'string' ? CHECKS.get(event.kind) : undefined;
  if (checks === undefined)
    throw new KitError('bad-history', `${where}: kind: expected one of ${[...CHECKS.keys()].join(', ')}`);
  if (event.kind === 'run-started') checkFormat(event, where);
  for (const [key, check] of checks.entries) {
    if (!check(event[key]))
      throw new KitError('bad-history', `${where}: ${key}: wrong or missing in an event '${event.kind}'`);
  }
  for (const key of Object.keys(event)) {
    if (!checks.known.has(key)) throw new KitError('bad-history', `${where}: ${key}: unknown key`);
  }
  // Every key was checked against the shape of its kind.
  return event as unknown as HistoryEvent;
}

/** Rejects histories of other formats. Version 0.1.0 wrote no `format` key; its histories count as format 1. */
function checkFormat({ format = 1, kitVersion }: Record<string, unknown>, where: string): void {
  if (format === HISTORY_FORMAT) return;
  throw new KitError(
    'bad-history',
    `${where}: format ${format}, written by PlugPull ${kitVersion}; expected format ${HISTORY_FORMAT}: run it again with this version`,
  );
}
