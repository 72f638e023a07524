import { basename, relative } from 'node:path';
import { type FileTrace, readTrace } from './file-trace.js';
import { parseStraceLog, quotedPath } from './strace-log.js';

/** What the services of a target do to the files of one kind, as strace logs show it. */
export interface FileHabit {
  /** Path below the data directory in which `#` stands for digits. */
  pattern: string;
  /** Services that write such files. */
  writers: string[];
  /** Services that sync such files at least once. */
  syncers: string[];
  /** Names (with `#`) from which such files are renamed. */
  renamedFrom: string[];
  /** Services that rename files to such names. */
  renamers: string[];
  /** Number of writes to such files, and of syncs of them. Absent in traces of earlier versions. */
  writes?: number;
  syncs?: number;
}

const RENAMES = new Map([
  ['rename', [0, 1]],
  ['renameat', [1, 3]],
  ['renameat2', [1, 3]],
]);

/** Returns a path with `#` in place of each run of digits, so that the files of one kind have one pattern. */
export function patternOf(path: string): string {
  return path.replaceAll(/\d+/g, '#');
}

/**
 * Returns the habits that the strace logs of all services show, one for each kind of file.
 * @param logs log of each service (`strace -f -y`), one byte per character (latin1).
 */
export function fileHabits(logs: ReadonlyMap<string, string>, dataDir: string): FileHabit[] {
  const habits = new Map<string, FileHabit>();
  const habitOf = (pattern: string) => {
    const habit = habits.get(pattern) ?? { pattern, writers: [], syncers: [], renamedFrom: [], renamers: [] };
    habits.set(pattern, habit);
    return habit;
  };
  for (const [service, log] of logs) {
    for (const [path, trace] of readTrace(log).files) {
      const file = relative(dataDir, path);
      if (file.startsWith('..')) continue;
      const habit = habitOf(patternOf(file === '' ? '.' : file));
      habit.writes = (habit.writes ?? 0) + trace.events.filter(({ kind }) => kind === 'write').length;
      habit.syncs = (habit.syncs ?? 0) + trace.events.filter(({ kind }) => kind === 'sync').length;
      if (isWritten(trace)) addOnce(habit.writers, service);
      if (trace.events.some(({ kind }) => kind === 'sync')) addOnce(habit.syncers, service);
    }
    for (const { from, to } of renamesIn(log)) {
      // A path may be relative to a directory that the log does not show, so only the names are compared.
      for (const habit of habits.values()) {
        if (basename(habit.pattern) !== patternOf(basename(to))) continue;
        addOnce(habit.renamedFrom, patternOf(basename(from)));
        addOnce(habit.renamers, service);
      }
    }
  }
  return [...habits.values()];
}

function isWritten({ events, mapped }: FileTrace): boolean {
  return mapped || events.some(({ kind }) => kind === 'write');
}

function renamesIn(log: string): { from: string; to: string }[] {
  return parseStraceLog(log).flatMap(({ name, args, result }) => {
    const [from, to] = (RENAMES.get(name) ?? []).map((at) => quotedPath(args[at]));
    return result === '0' && from !== undefined && to !== undefined ? [{ from, to }] : [];
  });
}

function addOnce(list: string[], item: string): void {
  if (!list.includes(item)) list.push(item);
}

/** Describes what the services do to a file, as a phrase; empty when the logs show no file of this kind. */
export function describeHabit(habits: readonly FileHabit[], file: string): string {
  const habit = habits.find(({ pattern }) => pattern === patternOf(file));
  if (habit === undefined || habit.writers.length === 0) return '';
  const { writers, syncers, renamedFrom, renamers } = habit;
  const synced = syncers.length === 0 ? 'never synced' : `synced by ${syncers.join(' and ')}`;
  const renamed =
    renamedFrom.length === 0
      ? ''
      : `, renamed from ${renamedFrom.slice(0, 2).join(' or ')} by ${renamers.join(' and ')}`;
  return `seen under strace: written by ${writers.join(' and ')}, ${synced}${renamed}`;
}
