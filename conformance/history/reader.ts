import { KitError, messageOf } from '../errors.js';
import { readNamedFile } from '../read-file.js';
import type { HistoryEvent } from './events.js';

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
const oneOf =
  (...values: string[]): Check =>
  (value) =>
    text(value) && values.includes(value as string);

/** The compiler asks for a check of every key of every event. */
type Shapes = {
  [E in HistoryEvent as E['kind']]: { [Key in Exclude<keyof E, 'kind' | 'atMs'>]: Check };
};

const SHAPES: Shapes = {
  'run-started': {
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
  },
  healed: { fault: text, injection: number },
  'at-risk': { injection: number, confirmedUndelivered: number, inFlight: number, inDelivery: number },
  recovered: { injection: number, tookMs: number },
  'recovery-failed': { injection: number, waitedMs: number, detail: text },
  inspected: { ok: flag, problems: listOf(text), keptAside: number, live: number },
  drained: { waitedMs: number, complete: flag },
  placed: { id: text, what: oneOf('confirmed', 'taken'), entries: number },
  'state-explored': {
    state: text,
    prefix: number,
    reached: number,
    way: oneOf('image', 'mount', 'target'),
    recovered: flag,
    live: text,
    wrong: number,
    detail: text,
    alike: number,
  },
  'run-ended': { how: oneOf('completed', 'violation', 'interrupted') },
};

const NEWLINE = 0x0a;
/** Far above what a run of hours writes, and the most that is read into one buffer. */
const MOST_BYTES = 2 ** 31 - 1;

/**
 * Reads a history that a Recorder wrote.
 * @throws KitError bad-history (exit code 2) that names the file and the line of the first damage.
 */
export function readHistory(file: string): HistoryEvent[] {
  let bytes: Buffer;
  try {
    bytes = readNamedFile(file, MOST_BYTES);
  } catch (error) {
    throw new KitError('bad-history', `${file}: expected a history: ${messageOf(error)}`, { cause: error });
  }
  return parseHistory(bytes, file);
}

/**
 * The events of a history's bytes; `name` is what errors call it.
 * @throws KitError bad-history, as `readHistory`.
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
  const kind = typeof event.kind === 'string' && Object.hasOwn(SHAPES, event.kind) ? event.kind : undefined;
  if (kind === undefined)
    throw new KitError('bad-history', `${where}: kind: expected one of ${Object.keys(SHAPES).join(', ')}`);
  const checks: Record<string, Check> = { atMs: number, ...SHAPES[kind as HistoryEvent['kind']] };
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
