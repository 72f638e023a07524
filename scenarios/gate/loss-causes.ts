import { dirname } from 'node:path';
import { type Loss, lossesOf } from '../../conformance/checkers/losses.js';
import type { FaultInjected, HistoryEvent, LostFile } from '../../conformance/history/events.js';
import { lostFilesOf } from '../../conformance/history/lost-files.js';
import { type FileHabit, patternOf } from '../../faults/tracing/file-habits.js';

/** Kinds of causes for the loss of messages. */
export type LossCauseKind =
  | 'not-synced'
  | 'synced-late'
  | 'directory-not-synced'
  | 'target-removed-it'
  | 'not-recovered'
  | 'unknown';

/** One cause by which an injection took messages. */
export interface LossCause {
  kind: LossCauseKind;
  /** One sentence that names the file, the missing call and a message. */
  sentence: string;
  /** Facts that lead to it, one line each, in the order in which they happened. */
  facts: string[];
  /** What to change; empty when nothing is known. */
  fix: string;
  /** Path of the file below the data directory; empty when none is known. */
  file: string;
  /** Services that write the file, from a traced run; empty when they are not known. */
  service: string;
  /** Ids of the lost messages that it explains. */
  messages: string[];
  fault: FaultInjected | undefined;
}

/** Number of writes for each sync above which the report says that a file is hardly ever synced. */
const MANY_WRITES_PER_SYNC = 10;
/** Maximum number of causes in a report. The causes with the most messages come first. */
const MAX_CAUSES = 10;

/**
 * Names the causes by which confirmed messages were lost: which file lost what, and which sync was missing. What a cut
 * took is proven. Which service writes the file comes from a traced run.
 * @param habits what the services do to their files; empty when there was no traced run.
 */
export function lossCauses(
  events: readonly HistoryEvent[],
  habits: readonly FileHabit[],
  losses: ReadonlyMap<string, Loss> = lossesOf(events),
): LossCause[] {
  const groups = new Map<string, Evidence>();
  for (const [id, { fault, files }] of losses) {
    const { kind, file } = causeOf(fault, files);
    // The same file at several cuts is one cause. Numbers in names are counters, as in a file per message.
    const key = `${kind} ${patternOf(file?.file ?? '')}`;
    const group = groups.get(key) ?? { kind, byInjection: new Map() };
    const injection = fault?.injection ?? 0;
    const taken = group.byInjection.get(injection) ?? { file, fault, messages: [] };
    taken.messages.push(id);
    group.byInjection.set(injection, taken);
    groups.set(key, group);
  }
  const confirmedAt = new Map<string, number>();
  for (const event of events)
    if (event.kind === 'answered' && event.outcome === 'confirmed') confirmedAt.set(event.id, event.atMs);
  return [...groups.values()]
    .map(({ kind, byInjection }) => {
      const [worst, ...others] = [...byInjection.values()].sort(
        (one, other) => other.messages.length - one.messages.length,
      );
      return worst && describe({ kind, ...worst }, others, confirmedAt, habits);
    })
    .filter((cause) => cause !== undefined)
    .sort((one, other) => other.messages.length - one.messages.length)
    .slice(0, MAX_CAUSES);
}

/** The messages that one injection took by a cause, and the first file that it took them from. */
interface Taken {
  file: LostFile | undefined;
  fault: FaultInjected | undefined;
  messages: string[];
}

interface Evidence {
  kind: LossCauseKind;
  byInjection: Map<number, Taken>;
}

function causeOf(
  fault: FaultInjected | undefined,
  files: readonly LostFile[],
): { kind: LossCauseKind; file: LostFile | undefined } {
  if (fault === undefined) return { kind: 'not-recovered', file: undefined };
  const [holder] = files;
  if (holder !== undefined) return { kind: kindOf(holder, fault), file: holder };
  // The bytes of a message may still be on the disk, under the old name of their file.
  const all = lostFilesOf(fault);
  const renamed = all.find(({ nameAfter }) => nameAfter !== null);
  // If no message can be read in any file, lost bytes of another file may be those of the message.
  const isAmbiguous = all.every(({ messages }) => messages.length === 0) && all.some(hasOnlyLostBytes);
  if (renamed !== undefined && !isAmbiguous) return { kind: 'directory-not-synced', file: renamed };
  if (all.length === 0 && fault.lostFiles !== undefined) return { kind: 'not-recovered', file: undefined };
  return { kind: 'unknown', file: all[0] };
}

function hasOnlyLostBytes({ nameAfter, sizeAfterBytes, cacheBytes, driveBytes }: LostFile): boolean {
  return nameAfter === null && sizeAfterBytes !== null && cacheBytes + driveBytes > 0;
}

function kindOf(file: LostFile, fault: FaultInjected): LossCauseKind {
  if (fault.destroyedFiles?.includes(file)) return 'target-removed-it';
  if (file.nameAfter !== null || file.sizeAfterBytes === null) return 'directory-not-synced';
  return 'not-synced';
}

/**
 * Describes a cause by the injection that took most messages.
 * @param others what other injections took by the same cause.
 */
function describe(
  { kind, file, fault, messages }: Taken & { kind: LossCauseKind },
  others: readonly Taken[],
  confirmedAt: ReadonlyMap<string, number>,
  habits: readonly FileHabit[],
): LossCause {
  const name = file?.file ?? '';
  const habit = habits.find(({ pattern }) => pattern === patternOf(name));
  const service = habit?.writers.join(' and ') ?? '';
  const subject = service === '' ? 'the target' : service;
  const example = messages[0] ?? '';
  const count = `${messages.length} confirmed message${messages.length === 1 ? '' : 's'}`;
  const where = fault === undefined ? 'no crash' : `${fault.fault} ${fault.injection}`;
  const folder = directoryName(name);
  const at = confirmedAt.get(example);
  const sinceConfirmed =
    at === undefined || fault === undefined || fault.atMs < at
      ? ''
      : `${messages.length === 1 ? ':' : ', such as'} ${example}, confirmed ${formatMs(fault.atMs - at)} before`;
  const facts: string[] = [];
  if (at !== undefined) facts.push(`${formatTime(at)}  message ${example} is confirmed`);
  if (fault !== undefined) facts.push(`${formatTime(fault.atMs)}  ${where}: ${fault.detail}`);
  if (file !== undefined) facts.push(`after it: ${stateAfter(file)}`);
  if (habit !== undefined) facts.push(`seen under strace: ${describeCalls(habit, habits, name, kind)}`);
  const all = [...messages, ...others.flatMap((other) => other.messages)];
  if (others.length > 0)
    facts.push(
      `${others.length} more injections took ${all.length - messages.length} messages in the same way`,
    );
  const inAll =
    others.length === 0 ? '' : `; ${others.length + 1} injections took ${all.length} messages in this way`;
  const base = { kind, facts, file: name, service, messages: all, fault };
  switch (kind) {
    case 'directory-not-synced': {
      const old = file?.nameAfter ?? null;
      const deed = old === null ? `makes ${name}` : `renames ${old} to ${name}`;
      // Messages that are still in the file under its old name are not listed: those that are listed were not synced.
      const isContentLost = old !== null && (file?.messages.length ?? 0) > 0;
      const unsynced = isContentLost ? `syncs neither the file nor ${folder}` : `does not sync ${folder}`;
      const undone =
        old === null
          ? 'took the file with its name'
          : `undid the rename${isContentLost ? ' and took bytes that no sync had covered' : ''}: the file is ${old} again`;
      const sync = `open ${folder} and call fsync on it`;
      return {
        ...base,
        sentence: `${subject} ${deed} and ${unsynced} before it confirms: ${where} ${undone}, and ${count} ${messages.length === 1 ? 'is' : 'are'} lost${sinceConfirmed}${inAll}`,
        fix:
          old === null
            ? `call fsync on ${name}, then ${sync}, before the next confirmation`
            : isContentLost
              ? `call fsync on ${old} before the rename, and ${sync} after it, before the next confirmation`
              : `${sync}, after the rename and before the next confirmation`,
      };
    }
    case 'not-synced':
    case 'synced-late': {
      const { cacheBytes = 0, driveBytes = 0 } = file ?? {};
      const isNeverSynced = habit !== undefined && habit.syncers.length === 0;
      const inDrive = driveBytes > cacheBytes;
      const { writes = 0, syncs = 0 } = habit ?? {};
      const deed = isNeverSynced
        ? `writes ${name} and never syncs it`
        : writes > syncs * MANY_WRITES_PER_SYNC
          ? `syncs ${name} ${countOf(syncs)} in ${writes} writes, and confirms messages before a sync covers them`
          : inDrive
            ? `confirms messages before a flush of the drive covers ${name}`
            : `confirms messages before a sync covers their bytes in ${name}`;
      const took = inDrive
        ? `${formatCount(driveBytes)} bytes in the cache of the drive`
        : `${formatCount(cacheBytes)} bytes that no sync had covered`;
      return {
        ...base,
        sentence: `${subject} ${deed}: ${where} took ${took}, and with them ${count}${sinceConfirmed}${inAll}`,
        fix: `call fsync or fdatasync on ${name} after the write and before the confirmation`,
      };
    }
    case 'target-removed-it':
      return {
        ...base,
        sentence: `${subject} removed or changed ${name} itself while calls failed at ${where}, and with it ${count}${sinceConfirmed}${inAll}`,
        fix: `after a failed call, keep ${name} as it is and exit; remove it only when its messages are safe elsewhere`,
      };
    case 'not-recovered':
      return {
        ...base,
        sentence:
          fault === undefined
            ? `the target does not deliver ${count}, such as ${example}, although no crash came after the confirmation`
            : `${where} took nothing from any file that the kit compared: the target does not find ${count} again at its start${sinceConfirmed}${inAll}`,
        fix:
          fault === undefined
            ? 'no crash explains it: look at what the running target does with a message after its confirmation, such as a lease that does not end or a full buffer'
            : 'look at what the target drops at its start: a record that it considers torn, an index, or a file that it creates anew',
      };
    case 'unknown':
      return {
        ...base,
        sentence: `${where} came after ${count} ${messages.length === 1 ? 'was' : 'were'} confirmed and before ${messages.length === 1 ? 'it was' : 'they were'} delivered; the evidence does not show in which file ${messages.length === 1 ? 'it was' : 'they were'}${sinceConfirmed}${inAll}`,
        fix: '',
      };
  }
}

function stateAfter({ file, sizeBytes, sizeAfterBytes, nameAfter }: LostFile): string {
  if (sizeAfterBytes === null) return `${file} is gone; it had ${formatCount(sizeBytes)} bytes`;
  if (nameAfter !== null)
    return `the file has its old name ${nameAfter} again, with ${formatCount(sizeAfterBytes)} bytes`;
  return `${file} has ${formatCount(sizeAfterBytes)} bytes; it had ${formatCount(sizeBytes)}`;
}

/** Describes which calls a traced run showed for a file and its directory. */
function describeCalls(
  habit: FileHabit,
  habits: readonly FileHabit[],
  file: string,
  kind: LossCauseKind,
): string {
  const { pattern, writers, syncers, renamedFrom, renamers } = habit;
  // The counts are those of all files of a pattern.
  const isOfMany = pattern !== file;
  const subject = isOfMany ? `the files ${pattern}` : file;
  const verb = isOfMany ? 'are' : 'is';
  const folder = patternOf(dirname(file));
  const folderSyncers = habits.find(({ pattern }) => pattern === folder)?.syncers ?? [];
  return [
    writers.length === 0
      ? `${subject} ${verb} not written under this name`
      : `${subject} ${verb} written by ${writers.join(' and ')}${times(habit.writes, isOfMany)}`,
    syncers.length === 0
      ? 'never synced'
      : `synced by ${syncers.join(' and ')}${times(habit.syncs, isOfMany)}`,
    ...(renamedFrom.length === 0
      ? []
      : [`renamed from ${renamedFrom.slice(0, 2).join(' or ')} by ${renamers.join(' and ')}`]),
    `${directoryName(file)} is ${folderSyncers.length === 0 ? 'never synced' : `synced by ${folderSyncers.join(' and ')}`}${
      // The lost name proves that no sync came in time, although the directory is synced elsewhere.
      kind === 'directory-not-synced' && folderSyncers.length > 0
        ? `, but not between ${renamedFrom.length === 0 ? 'the creation of the file' : 'the rename'} and the confirmation`
        : ''
    }`,
  ].join(', ');
}

/** Formats a count for a sentence; empty when a trace of an older kit has none. */
function times(count: number | undefined, isOfMany: boolean): string {
  return count === undefined ? '' : ` ${countOf(count)}${isOfMany ? ' in all' : ''}`;
}

function countOf(count: number): string {
  return count === 1 ? 'once' : `${count} times`;
}

/** Names the directory of a file in a sentence. */
export function directoryName(file: string): string {
  const folder = dirname(file);
  return folder === '.' ? 'the data directory' : `the directory ${folder}`;
}

/** Formats a number with commas between its thousands. */
function formatCount(count: number): string {
  return count.toLocaleString('en-US');
}

function formatTime(ms: number): string {
  return `${(ms / 1000).toFixed(3)} s`;
}

function formatMs(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
