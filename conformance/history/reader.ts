import { KitError, messageOf } from '../errors.js';
import { readRegularFile } from '../read-file.js';
import { HISTORY_FORMAT, type HistoryEvent } from './events.js';

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
const failedCall = objectOf({ service: text, call: text, path: textOrNull, error: text, count: number });

/** A check for every key of every event. The compiler reports a missing one. */
type EventSchemas = {
  [E in HistoryEvent as E['kind']]: { [Key in Exclude<keyof E, 'kind' | 'atMs'>]-?: Check };
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
  installed: { round: number },
  'service-started': { service: text, incarnation: number },
  'service-exited': {
    service: text,
    incarnation: number,
    code: numberOrNull,
    signal: textOrNull,
    expected: flag,
  },
  submitted: { id: text, producer: number, sizeBytes: number, digest: text, recipients: number, shape: text },
  answered: { id: text, outcome: oneOf('confirmed', 'rejected', 'indefinite'), detail: text },
  delivered: {
    sequence: number,
    id: textOrNull,
    sizeBytes: number,
    digest: text,
    recipients: listOf(number),
    difference: optional(text),
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
    detail: text,
    indexDamaged: flag,
    rotted: listOf(text),
    failingMs: number,
    lostFiles: optional(listOf(lostFile)),
    destroyedFiles: optional(listOf(lostFile)),
    failed: optional(objectOf({ sinceMs: number, calls: listOf(failedCall) })),
  },
  healed: { fault: text, injection: number },
  'at-risk': { injection: number, confirmedUndelivered: number, inFlight: number, inDelivery: number },
  recovered: { injection: number, tookMs: number },
  'recovery-failed': { injection: number, waitedMs: number, detail: text },
  inspected: { ok: flag, problems: listOf(text), keptAside: number, live: optional(number) },
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

const NEWLINE = 0x0a;
/** Upper bound of the size of a history: far more than a run of hours writes, and the limit of one buffer. */
const MAX_HISTORY_BYTES = 2 ** 31 - 1;

/**
 * Reads a history that a Recorder wrote.
 * @throws KitError bad-history (exit code 2) that names the file and the line of the first damage.
 */
export function readHistory(file: string): HistoryEvent[] {
  let bytes: Buffer;
  try {
    bytes = readRegularFile(file, MAX_HISTORY_BYTES);
  } catch (error) {
    throw new KitError('bad-history', `${file}: expected a history: ${messageOf(error)}`, { cause: error });
  }
  return parseHistory(bytes, file);
}

/**
 * Parses the bytes of a history.
 * @param name name of the history in errors.
 * @throws KitError bad-history, like `readHistory`.
 */
export function parseHistory(bytes: Buffer, name: string): HistoryEvent[] {
  const events: HistoryEvent[] = [];
  for (let start = 0; start < bytes.length; ) {
    const where = `${name}:${events.length + 1}`;
    const end = bytes.indexOf(NEWLINE, start);
    if (end < 0)
      throw new KitError('bad-history', `${where}: expected a whole line, the file ends within it`);
    events.push(parseEvent(bytes.toString('utf8', start, end), where));
    start = end + 1;
  }
  return events;
}

function parseEvent(line: string, where: string): HistoryEvent {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (error) {
    throw new KitError('bad-history', `${where}: expected JSON: ${messageOf(error)}`, { cause: error });
  }
  const event = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>;
  const kind =
    typeof event.kind === 'string' && Object.hasOwn(EVENT_SCHEMAS, event.kind) ? event.kind : undefined;
  if (kind === undefined)
    throw new KitError(
      'bad-history',
      `${where}: kind: expected one of ${Object.keys(EVENT_SCHEMAS).join(', ')}`,
    );
  if (kind === 'run-started') checkFormat(event, where);
  const checks: Record<string, Check> = { atMs: number, ...EVENT_SCHEMAS[kind as HistoryEvent['kind']] };
  for (const [key, check] of Object.entries(checks)) {
    if (!check(event[key]))
      throw new KitError('bad-history', `${where}: ${key}: wrong or missing in an event '${kind}'`);
  }
  for (const key of Object.keys(event)) {
    if (key !== 'kind' && !(key in checks))
      throw new KitError('bad-history', `${where}: ${key}: unknown key`);
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
