import { basename, dirname } from 'node:path';
import { type FileHabit, patternOf } from '../../../faults/tracing/file-habits.js';
import type { CrashStateFacts } from '../../bundle/run-facts.js';
import type { SeenLoss, UndoneRename } from '../record/file-samples.js';
import type { LossExplanation } from './explain-loss.js';

/** The cause of a broken state, as a report shows it. */
export type StateCause = NonNullable<CrashStateFacts['cause']>;

/** What is known of the first message that a broken state has lost. */
export interface LostInState {
  /** Address of the state. */
  address: string;
  /** Position of the cut. */
  prefix: number;
  message: string;
  /** Number of requests that were complete when the message was confirmed. */
  confirmedAt: number;
  explained: LossExplanation;
  /** Files that the state lacks, as a whole or in part. */
  lost: readonly SeenLoss[];
  renames: readonly UndoneRename[];
  /** Names of all files in the state; empty when they could not be read. */
  names: readonly string[];
}

/**
 * Names the cause of a loss in a crash state: the file, and the sync that was missing. A lost name comes first: the bytes
 * of a message may be on the disk where the target does not look for them.
 * @param habits what the services do to their files; empty when there was no traced run.
 */
export function stateCause(
  { address, prefix, message, confirmedAt, explained, lost, renames, names }: LostInState,
  habits: readonly FileHabit[],
): Omit<StateCause, 'story'> {
  const { kind, writes, flushAt, files } = explained;
  const base = { message, writes, confirmedAt, flushAt, files };
  const serviceOf = (file: string) =>
    habits.find(({ pattern }) => pattern === patternOf(file))?.writers.join(' and ') ?? '';
  const subjectOf = (file: string) => serviceOf(file) || 'the target';
  const when = `message ${message} was confirmed when ${confirmedAt} requests were complete`;
  const at = `in the disk of a cut after ${prefix}`;
  const rename = renameOf({ files, kind, renames, names, confirmedAt }, habits);
  if (rename !== undefined) {
    const { file, nameAfter, seenAt, isOwn } = rename;
    const isFlushed = kind === 'flushed';
    const folder = directoryName(nameAfter);
    const service = serviceOf(file) || serviceOf(nameAfter);
    const seen = seenAt === undefined ? '' : ` (seen when ${seenAt} requests were complete)`;
    return {
      ...base,
      kind: 'directory-not-synced',
      file: nameAfter,
      service,
      sentence: `${service || 'the target'} renames ${nameAfter} to ${file}${seen} and does not sync ${folder} before it confirms: ${when}, and ${at} the file still has its old name ${nameAfter}${isFlushed ? '' : '; the bytes of the message were not flushed by then either'}${isOwn ? '' : '; that this lost the message is likely, and not proven'}`,
      fix: `${isFlushed ? '' : `call fsync on ${nameAfter} before the rename, and `}open ${folder} and call fsync on it, after the rename and before the confirmation`,
    };
  }
  const gone = lost.find(
    // A file that the target may have removed itself proves nothing, unless the message was on the disk.
    ({ lost: { file, sizeAfterBytes }, certain }) =>
      sizeAfterBytes === null && files.includes(file) && (certain || kind === 'flushed'),
  );
  if (gone !== undefined && kind !== 'not-written') {
    const { file } = gone.lost;
    const folder = directoryName(file);
    const content = kind === 'flushed' ? 'its content was flushed, and ' : '';
    return {
      ...base,
      kind: 'directory-not-synced',
      file,
      service: serviceOf(file),
      sentence: `${subjectOf(file)} makes ${file} and does not sync ${folder} before it confirms: ${when}, and ${at} ${content}the file has no name${gone.certain ? '' : ' (unless the target had removed it itself)'}`,
      fix: `sync ${file}, then open ${folder} and call fsync on it, before the confirmation`,
    };
  }
  const file = files[0] ?? lost[0]?.lost.file ?? '';
  const named = file === '' ? 'the bytes of the message' : file;
  const common = { ...base, file, service: serviceOf(file) };
  switch (kind) {
    case 'not-written':
      return {
        ...common,
        kind,
        sentence: `${subjectOf(file)} confirms messages that were not sent to the disk: ${when}, and its bytes are in no request, at least in no form that the kit can read${lostText(lost)}`,
        fix:
          file === ''
            ? 'write the message and call fsync or fdatasync on its file, before the confirmation (for a mapping: msync with MS_SYNC)'
            : `call fsync or fdatasync on ${file} after the write and before the confirmation (for a mapping: msync with MS_SYNC; MS_ASYNC waits for nothing)`,
      };
    case 'not-synced':
      return {
        ...common,
        kind,
        sentence: `${subjectOf(file)} writes ${named} and never syncs it: ${when}, and no flush came after its write at ${writes.at(-1)}`,
        fix: `call fsync or fdatasync on ${named} after the write and before the confirmation`,
      };
    case 'synced-late':
      return {
        ...common,
        kind,
        sentence: `${subjectOf(file)} syncs ${named} too late: ${when}, and the first flush after its writes is ${flushAt === null ? 'missing' : `request ${flushAt}`}`,
        fix: `confirm the message only when fsync or fdatasync of ${named} has returned`,
      };
    case 'flushed':
      return {
        ...common,
        kind: 'not-recovered',
        sentence: `the bytes of message ${message} were flushed before it was confirmed, and the target does not find them after the cut at ${address}: what leads to them was not synced (a size, a name, an index), or its start drops them`,
        fix: 'sync what leads to the message before the confirmation: the size of the file, the directory, the index',
      };
  }
}

/**
 * Finds the rename that a state lacks and that explains the loss. The rename of the file that held the message counts
 * first. A rename that was seen only after the cut counts for this file alone: the target makes others later. If the bytes
 * of the message were not flushed, only a rename before the confirmation counts: a later one, as when a log is rotated, is
 * not what lost them.
 */
function renameOf(
  {
    files,
    kind,
    renames,
    names,
    confirmedAt,
  }: Pick<LossExplanation, 'files' | 'kind'> & Pick<LostInState, 'renames' | 'names' | 'confirmedAt'>,
  habits: readonly FileHabit[],
): { file: string; nameAfter: string; seenAt?: number; isOwn: boolean } | undefined {
  const own = renames.find(
    ({ file, nameAfter, seenAt, certain }) =>
      (files.includes(file) || files.includes(nameAfter)) &&
      (kind === 'flushed' || (certain && seenAt <= confirmedAt)),
  );
  const seen = own ?? (kind === 'flushed' ? renames.find(({ certain }) => certain) : undefined);
  if (seen !== undefined) {
    const { file, nameAfter, seenAt, certain } = seen;
    return { file, nameAfter, ...(certain ? { seenAt } : {}), isOwn: seen === own };
  }
  // No sample shows the new name: files that live shorter than a sample takes. A traced run shows what they become.
  const temporary = kind === 'flushed' ? files.find((file) => names.includes(file)) : undefined;
  if (temporary === undefined) return undefined;
  const becomes = habits.find(({ renamedFrom }) => renamedFrom.includes(patternOf(basename(temporary))));
  return becomes && { file: becomes.pattern, nameAfter: temporary, isOwn: true };
}

function lostText(lost: readonly SeenLoss[]): string {
  const [first] = lost;
  if (first === undefined) return '';
  const { file, sizeBytes, sizeAfterBytes } = first.lost;
  return `; ${file} has ${sizeAfterBytes ?? 0} of the ${sizeBytes} bytes that the target saw in it`;
}

function directoryName(file: string): string {
  const folder = dirname(file);
  return folder === '.' ? 'the data directory' : `the directory ${folder}`;
}
