import type { FaultInjected, LostFile } from '../../../conformance/history/events.js';
import { describeLostBytes, lostFilesOf } from '../../../conformance/history/lost-files.js';
import { describeHabit, type FileHabit } from '../../../faults/tracing/file-habits.js';
import { directoryName } from '../../gate/loss-causes.js';
import type { FileAtCut, FileCut } from './model.js';
import { shorten } from './strings.js';

/** Upper bound of the files that are listed for one injection. */
const MAX_FILES = 40;
/** Upper bound of the injections whose files are listed; those that took messages come first in the history. */
const MAX_CUTS = 2000;
/** Upper bound of the ids that are listed for one file. */
const MAX_EXAMPLES = 5;

/** Lists the files from which injections took something. */
export function fileCuts(faults: readonly FaultInjected[], habits: readonly FileHabit[]): FileCut[] {
  return faults
    .flatMap((fault, injection) => {
      const files = lostFilesOf(fault);
      if (files.length === 0) return [];
      const shown = files.slice(0, MAX_FILES).map((file) => fileAtCut(file, fault, habits));
      return [{ injection, files: shown, more: files.length - shown.length }];
    })
    .slice(0, MAX_CUTS);
}

function fileAtCut(file: LostFile, fault: FaultInjected, habits: readonly FileHabit[]): FileAtCut {
  const { cacheBytes, driveBytes, sizeAfterBytes, nameAfter, messages } = file;
  const isDestroyed = fault.destroyedFiles?.includes(file) === true;
  const hasLostBytes = cacheBytes + driveBytes > 0;
  const hasLostName = nameAfter !== null || sizeAfterBytes === null;
  return {
    file: shorten(file.file),
    sizeBytes: file.sizeBytes,
    sizeAfterBytes,
    nameAfter: nameAfter === null ? null : shorten(nameAfter),
    cacheBytes,
    driveBytes,
    messages: messages.length,
    examples: messages.slice(0, MAX_EXAMPLES),
    content: isDestroyed ? 'unknown' : hasLostBytes && nameAfter === null ? 'not-synced' : 'synced',
    name: isDestroyed ? 'unknown' : hasLostName ? 'not-synced' : 'synced',
    sentence: shorten(sentenceOf(file, fault, isDestroyed)),
    habit: describeHabit(habits, file.file),
  };
}

function sentenceOf(file: LostFile, fault: FaultInjected, isDestroyed: boolean): string {
  if (isDestroyed) return describeLostBytes(file, fault);
  const directory = directoryName(file.file);
  if (file.nameAfter !== null)
    return `the rename from ${file.nameAfter} to ${file.file} is undone: ${directory} was not synced after it`;
  if (file.sizeAfterBytes === null)
    return `the file is gone with its name: neither it nor ${directory} was synced after it was made`;
  return describeLostBytes(file, fault);
}
