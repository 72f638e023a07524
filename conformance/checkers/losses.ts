import type { FaultInjected, HistoryEvent, LostFile } from '../history/events.js';
import { canLose, lostFilesOf } from '../history/lost-files.js';
import { undeliveredMessages } from './undelivered.js';

/** The loss of one message. */
export interface Loss {
  /** Injection that took it; undefined when no crash came after its confirmation. */
  fault: FaultInjected | undefined;
  /** Files that held it and lost it. Empty when no file that the kit compared held it. */
  files: readonly LostFile[];
}

/**
 * Returns the confirmed messages that were not delivered in time, each with the injection that took it. It follows the
 * rules of `lossOf`, for all messages in one pass: a history may have lost thousands.
 */
export function lossesOf(events: readonly HistoryEvent[]): Map<string, Loss> {
  const lostIds = undeliveredMessages(events).flatMap(({ fate, trace }) =>
    fate === 'undecided' ? [] : [trace.id],
  );
  if (lostIds.length === 0) return new Map();
  const wanted = new Set(lostIds);
  const lastSeen = new Map<string, number>();
  const crashes: { fault: FaultInjected; position: number }[] = [];
  const held = new Map<string, { position: number; fault: FaultInjected; files: LostFile[] }>();
  events.forEach((event, position) => {
    const { kind } = event;
    if (kind === 'submitted' || kind === 'answered' || kind === 'delivered') {
      if (event.id !== null && wanted.has(event.id)) lastSeen.set(event.id, position);
    } else if (kind === 'fault' && canLose(event)) {
      crashes.push({ fault: event, position });
      for (const file of lostFilesOf(event))
        for (const id of file.messages) {
          if (!wanted.has(id)) continue;
          const known = held.get(id);
          // The last injection that took the message out of a file is the one that counts.
          if (known?.fault === event) known.files.push(file);
          else held.set(id, { position, fault: event, files: [file] });
        }
    }
  });
  return new Map(
    lostIds.map((id): [string, Loss] => {
      const seen = lastSeen.get(id) ?? -1;
      const inFiles = held.get(id);
      if (inFiles !== undefined && inFiles.position > seen) return [id, inFiles];
      const later = crashes.filter(({ position }) => position > seen);
      const fault =
        later.find((crash) => lostFilesOf(crash.fault).length > 0)?.fault ??
        later.find((crash) => crash.fault.hit)?.fault;
      return [id, { fault, files: [] }];
    }),
  );
}
