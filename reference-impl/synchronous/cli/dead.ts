import { once } from 'node:events';
import { type Command, Option } from 'commander';
import { printErrorLine, printLine } from '../../common/cli/output.js';
import { QueueError } from '../../common/platform/errors.js';
import { type Letter, type LetterFilter, listLetters, readLetter } from '../queue/dead-list.js';
import { DEAD_REASONS, escapeText, withoutNote } from '../queue/dead-note.js';
import { inspectQueue } from '../queue/inspect.js';
import { type OpenQueue, openQueueForCommand } from '../queue/open.js';
import type { LockedMessage } from '../queue/types.js';
import type { QueueSettings } from '../settings/settings.js';

/** What the commands need from the program. */
export interface DeadCommandHost {
  /** Adds `--queue`, `--config` and the flags of the settings. */
  addSettingOptions: (command: Command) => Command;
  load: (command: Command) => QueueSettings;
  setExitCode: (code: number) => void;
}

interface Selection {
  all?: boolean;
  reason?: string;
  sender?: string;
  recipient?: string;
}

/** Number of letters that are locked together. */
const BATCH_SIZE = 32;
/** Longest wait for a letter that another process has locked, in milliseconds. */
const LOCK_TIMEOUT_MS = 5000;
const LOCK_POLL_INTERVAL_MS = 50;
/** Largest length of an address or reply in the table of `list`. */
const MAX_CELL_LENGTH = 80;

/** Adds the command `dead` with its subcommands `list`, `show`, `requeue` and `delete`. */
export function addDeadCommands(program: Command, host: DeadCommandHost): void {
  const dead = program.command('dead').description('reads and changes the dead-letter queue');
  const command = (name: string, description: string) =>
    host.addSettingOptions(dead.command(name)).description(description);
  const withFilters = (to: Command) =>
    to
      .addOption(new Option('--reason <reason>', 'only letters with this reason').choices(DEAD_REASONS))
      .option('--sender <text>', 'only letters whose sender contains this text')
      .option('--recipient <text>', 'only letters with a recipient that contains this text')
      .option('--json', 'prints one JSON object per line');
  withFilters(command('list', 'prints the dead letters')).action(
    async ({ json = false, ...filter }: Selection & { json?: boolean }, self: Command) => {
      await list(host.load(self), filter, json);
    },
  );
  command('show', 'prints a dead letter with its message')
    .argument('<id>', 'id of the letter, as list prints it', parseId)
    .option('--json', 'prints one JSON object, with the message in base64')
    .option('--raw', 'prints only the message, byte for byte')
    .action(async (id: number, options: { json?: boolean; raw?: boolean }, self: Command) => {
      await show(host.load(self), id, options);
    });
  const changes = [
    ['requeue', 'moves dead letters back to the main queue, which tries them again', requeue],
    ['delete', 'deletes dead letters', remove],
  ] as const;
  for (const [name, description, change] of changes) {
    withFilters(command(name, description))
      .argument('[id...]', 'ids of letters, as list prints them', collectIds)
      .option('--all', 'all letters, or all that the other options select')
      .action(
        async (
          ids: number[] = [],
          { json = false, all = false, ...filter }: Selection & { json?: boolean },
          self: Command,
        ) => {
          const isFiltered = Object.keys(pickFilter(filter)).length > 0;
          if (ids.length === 0 && !all && !isFiltered)
            self.error(
              'error: no letter is selected, expected ids, --all, --reason, --sender or --recipient',
            );
          if (ids.length > 0 && all) self.error('error: --all: expected ids or --all, not both');
          const wanted = { ...pickFilter(filter), ...(ids.length > 0 && { ids: new Set(ids) }) };
          host.setExitCode(await changeLetters(host.load(self), wanted, json, change));
        },
      );
  }
}

/** Returns only the fields of the filter that were given: options contain the flags of the settings too. */
const pickFilter = ({ reason, sender, recipient }: Selection): LetterFilter => ({
  ...(reason !== undefined && { reason }),
  ...(sender !== undefined && { sender }),
  ...(recipient !== undefined && { recipient }),
});

function parseId(text: string): number {
  const id = Number(text);
  if (/^\d{1,16}$/.test(text) && Number.isSafeInteger(id)) return id;
  throw new QueueError(
    'bad-setting',
    `${escapeText(text, MAX_CELL_LENGTH)}: expected the id of a dead letter, a number`,
  );
}

const collectIds = (text: string, before: number[] | undefined): number[] => [
  ...(before ?? []),
  parseId(text),
];

async function list(settings: QueueSettings, filter: Selection, json: boolean): Promise<void> {
  const letters = listLetters(settings, pickFilter(filter));
  for (const letter of letters) await (json ? printLine(jsonOf(letter)) : printText(lineOf(letter)));
  if (!json) await printText(await summary(settings, letters.length));
}

/** A line of `inspect --summary`. */
interface PairSummary {
  pair: string;
  messages: number;
  entries: number;
  freeBytes: number;
  parked: number;
  keptAside: string[];
}

/** Returns a line with the number of letters, the room that is left, and the messages that could not become letters. */
async function summary(settings: QueueSettings, shown: number): Promise<string> {
  let parked = 0;
  let unreadable = 0;
  const parts: string[] = [];
  for await (const found of inspectQueue(settings, true)) {
    const { pair, messages, entries, freeBytes, keptAside, ...more } = found as PairSummary;
    unreadable += keptAside.length;
    if (pair !== 'dead') parked += more.parked;
    else
      parts.push(
        `${shown} shown of ${messages} dead letters`,
        `room for ${entries - messages} more, ${freeBytes} bytes free`,
      );
  }
  if (parked > 0)
    parts.push(`${parked} more messages are parked in the main queue, because this one was full`);
  if (unreadable > 0) parts.push(`${unreadable} unreadable records are in kept-aside/`);
  return parts.join('; ');
}

const timeOf = (ms: number): string | null => (ms > 0 && ms <= 8.64e15 ? new Date(ms).toISOString() : null);

function jsonOf({ note, deadSinceMs, noticeMs, ...letter }: Letter): object {
  return {
    ...letter,
    reason: note.reason,
    replies: note.replies,
    attempts: note.attempts,
    queuedAt: timeOf(note.queuedAtMs),
    firstAttempt: timeOf(note.firstAttemptMs),
    lastAttempt: timeOf(note.lastAttemptMs),
    deadSince: timeOf(deadSinceMs),
    noticeAt: timeOf(noticeMs),
  };
}

function lineOf(letter: Letter): string {
  const { id, note, notice, sender, recipients } = letter;
  const cell = (text: string) => escapeText(text, MAX_CELL_LENGTH);
  const more = recipients.length > 1 ? ` and ${recipients.length - 1} more` : '';
  return [
    id,
    timeOf(note.lastAttemptMs || letter.deadSinceMs) ?? 'no time',
    note.reason,
    `attempts ${note.attempts}`,
    `notice ${notice}`,
    `<${cell(sender)}> to <${cell(recipients[0] ?? '')}>${more}`,
    cell(note.replies[0] ?? ''),
  ].join('  ');
}

async function show(
  settings: QueueSettings,
  id: number,
  { json = false, raw = false }: { json?: boolean; raw?: boolean },
): Promise<void> {
  const found = readLetter(settings, id);
  if (found === undefined) throw noSuchLetter(id);
  const { letter, body } = found;
  if (raw) await write(body.data);
  else if (json) await printLine({ ...jsonOf(letter), message: body.data.toString('base64') });
  else {
    for (const [name, value] of Object.entries(jsonOf(letter))) {
      for (const one of Array.isArray(value) ? value : [value]) {
        if (one !== null && one !== undefined) await printText(`${name}: ${escapeText(String(one))}`);
      }
    }
    await printText('');
    for (const line of body.data.toString('latin1').split('\r\n')) await printText(escapeText(line));
  }
}

const noSuchLetter = (id: number): QueueError =>
  new QueueError(
    'bad-setting',
    `${id}: there is no such dead letter, expected an id that "dead list" prints`,
  );

/** Result for one letter. */
type Change = { id: string; result: 'requeued'; as: string } | { id: string; result: 'deleted' } | Kept;
interface Kept {
  id: string;
  result: 'kept';
  why: string;
}

/**
 * Changes the selected letters as a worker of the queue, so that it works beside a running gateway.
 * @returns the exit code: 1 when a letter was kept
 */
async function changeLetters(
  settings: QueueSettings,
  filter: LetterFilter,
  json: boolean,
  change: (queue: OpenQueue, letters: LockedMessage[]) => Promise<Change[]>,
): Promise<number> {
  const letters = listLetters(settings, filter);
  const remaining = new Set(letters.map(({ id }) => id));
  const unreadable = new Set(letters.filter(({ note }) => note.reason === 'unreadable').map(({ id }) => id));
  for (const id of filter.ids ?? []) if (!remaining.has(id)) throw noSuchLetter(id);
  if (remaining.size === 0) {
    if (!json) await printText('no letter matches');
    return 0;
  }
  const queue = openQueueForCommand(settings);
  let kept = 0;
  const report = async (results: Change[]) => {
    for (const result of results) {
      if (result.result === 'kept') kept += 1;
      await (json ? printLine(result) : printText(textOf(result)));
    }
  };
  try {
    let waitedMs = 0;
    while (remaining.size > 0 && waitedMs < LOCK_TIMEOUT_MS) {
      const taken = queue.takeDead((number) => remaining.has(number), BATCH_SIZE);
      for (const { number } of taken) remaining.delete(Number(number));
      if (taken.length > 0) await report(await change(queue, taken));
      else if ([...remaining].every((id) => unreadable.has(id))) break;
      else {
        // A worker locks a letter for a moment while it sends a notice.
        await new Promise((resolve) => setTimeout(resolve, LOCK_POLL_INTERVAL_MS));
        waitedMs += LOCK_POLL_INTERVAL_MS;
      }
    }
    const whyKept = (id: number) =>
      unreadable.has(id)
        ? 'it is unreadable, and goes to kept-aside/'
        : 'another process uses or has changed it';
    await report([...remaining].map((id) => keptBecause(id, whyKept(id))));
    await queue.syncDead();
  } finally {
    await queue.close();
  }
  if (kept > 0) printErrorLine(`${kept} dead letters were kept`);
  return kept > 0 ? 1 : 0;
}

const keptBecause = (id: number | bigint, why: string): Kept => ({ id: `${id}`, result: 'kept', why });

function textOf(change: Change): string {
  if (change.result === 'kept') return `${change.id} kept: ${change.why}`;
  return change.result === 'deleted' ? `${change.id} deleted` : `${change.id} requeued as ${change.as}`;
}

/**
 * Stores letters in the main queue, and removes each one when it is on the disk there. A crash in between leaves it
 * in both queues: it is then delivered once and is still a dead letter. It is never lost.
 */
async function requeue(queue: OpenQueue, letters: LockedMessage[]): Promise<Change[]> {
  return Promise.all(
    letters.map(async (letter): Promise<Change> => {
      const outcome = await queue.enqueue([withoutNote(letter.body)], 'inbound');
      if (outcome.outcome === 'confirmed') {
        queue.removeDead([letter]);
        return { id: `${letter.number}`, result: 'requeued', as: `${outcome.numbers[0]}` };
      }
      queue.noticed([letter], 'due');
      const where = outcome.outcome === 'indefinite' ? 'it may be in the main queue too' : 'the main queue';
      return keptBecause(letter.number, `${where}: ${outcome.detail}`);
    }),
  );
}

async function remove(queue: OpenQueue, letters: LockedMessage[]): Promise<Change[]> {
  queue.removeDead(letters);
  return letters.map(({ number }) => ({ id: `${number}`, result: 'deleted' }));
}

const printText = (line: string): Promise<void> => write(`${line}\n`);

async function write(content: string | Buffer): Promise<void> {
  if (!process.stdout.write(content)) await once(process.stdout, 'drain');
}
