import type { Evaluation } from '../../conformance/checkers/evaluate.js';
import type { FaultInjected, HistoryEvent, LostFile } from '../../conformance/history/events.js';
import {
  describeLostBytes,
  describeLostFile,
  lossOf,
  lostFilesOf,
} from '../../conformance/history/lost-files.js';
import { describeHabit, type FileHabit } from '../../faults/tracing/file-habits.js';

/** Upper bound of the messages whose loss is looked up: more of them would name the same injections. */
const MAX_MESSAGES = 300;
/** Upper bound of the injections that are explained; those that took most come first. */
const MAX_INJECTIONS = 3;
/** Upper bound of the files that are named for one injection. */
const MAX_FILES = 4;

/**
 * Explains the losses of a run by the files that the crashes took: one line for each injection, and below it one
 * indented line for each file.
 * @param habits what the services do to their files, from a traced run; empty when there was none.
 */
export function explainLosses(
  events: readonly HistoryEvent[],
  { findings }: Evaluation,
  habits: readonly FileHabit[],
): string[] {
  const ids = new Set(
    findings
      .filter(({ verdict }) => verdict === 'fail')
      .flatMap(({ violations }) => violations.flatMap(({ id }) => (id === undefined ? [] : [id]))),
  );
  const byFault = new Map<FaultInjected, Set<string>>();
  for (const id of [...ids].slice(0, MAX_MESSAGES)) {
    const loss = lossOf(events, id);
    if (loss === undefined || lostFilesOf(loss.fault).length === 0) continue;
    byFault.set(loss.fault, (byFault.get(loss.fault) ?? new Set()).add(id));
  }
  const worstFirst = [...byFault].sort(([, one], [, other]) => other.size - one.size);
  return worstFirst
    .slice(0, MAX_INJECTIONS)
    .flatMap(([fault, lostIds]) => explainInjection(fault, lostIds, habits));
}

function explainInjection(
  fault: FaultInjected,
  lostIds: ReadonlySet<string>,
  habits: readonly FileHabit[],
): string[] {
  const all = lostFilesOf(fault);
  const holders = all.filter(({ messages }) => messages.some((id) => lostIds.has(id)));
  const what = `${fault.fault} ${fault.injection} took ${lostIds.size} message${lostIds.size === 1 ? '' : 's'}`;
  const head =
    holders.length > 0
      ? `${what}:`
      : `${what}; the kit found ${lostIds.size === 1 ? 'it' : 'them'} in no file, and these files changed:`;
  const files = holders.length > 0 ? holders : all;
  return [head, ...files.slice(0, MAX_FILES).map((file) => `  ${explainFile(file, fault, lostIds, habits)}`)];
}

/** Describes one file in a line: what is left of it, which service wrote it, where its bytes were, and what it held. */
function explainFile(
  file: LostFile,
  fault: FaultInjected,
  lostIds: ReadonlySet<string>,
  habits: readonly FileHabit[],
): string {
  const count = file.messages.filter((id) => lostIds.has(id)).length;
  const habit = describeHabit(habits, file.file);
  return [
    describeLostFile(file),
    habit,
    describeLostBytes(file, fault),
    ...(count > 0 ? [`${count} of the lost messages ${count === 1 ? 'was' : 'were'} in it`] : []),
  ]
    .filter((part) => part !== '')
    .join('; ');
}
