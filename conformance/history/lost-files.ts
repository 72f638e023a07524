import { isLinkFault } from './cluster-states.js';
import type { FaultInjected, HistoryEvent, LostFile } from './events.js';

/** What is known of the loss of one message: the injection that took it, and the files that it took it from. */
export interface MessageLoss {
  fault: FaultInjected;
  /** Files that held the message. Empty when the message was found in no file, as when it is compressed. */
  files: LostFile[];
}

/**
 * Finds the injection that took a message. It is the last one that took the message out of a file. If no file held
 * the message in a form that the kit can read, it is the first crash after the message was last seen that took
 * anything from a file, or else the first crash.
 * @returns undefined when the message was consumed, when no crash came after it, or when it was not submitted.
 */
export function lossOf(history: readonly HistoryEvent[], id: string): MessageLoss | undefined {
  const lastSeen = history.findLastIndex(
    (event) =>
      (event.kind === 'delivered' && event.id === id) ||
      (event.kind === 'answered' && event.id === id) ||
      (event.kind === 'submitted' && event.id === id),
  );
  if (lastSeen < 0) return undefined;
  // An injection is recorded at its end. If the message came meanwhile, the injection may still have taken it.
  const later = history.slice(lastSeen).filter((event) => event.kind === 'fault' && canLose(event));
  const crashes = later as FaultInjected[];
  for (const fault of [...crashes].reverse()) {
    const files = lostFilesOf(fault).filter(({ messages }) => messages.includes(id));
    if (files.length > 0) return { fault, files };
  }
  if (history.some((event) => event.kind === 'consumed' && event.id === id)) return undefined;
  const fault = crashes.find((crash) => lostFilesOf(crash).length > 0) ?? crashes.find(({ hit }) => hit);
  return fault && { fault, files: [] };
}

/** Returns whether an injection could take a message: it stopped a process, or it acted on the links of a cluster. */
export function canLose({ fault, scope }: FaultInjected): boolean {
  return scope !== 'none' || isLinkFault(fault);
}

/** Returns every file that an injection took something from: by the crash, or because the target removed it. */
export function lostFilesOf({ lostFiles = [], destroyedFiles = [] }: FaultInjected): LostFile[] {
  return [...destroyedFiles, ...lostFiles];
}

/** Describes in a phrase what became of a file: `base-14.log: 0 bytes, was 23512`. */
export function describeLostFile({
  file,
  sizeBytes,
  sizeAfterBytes,
  nameAfter,
  ...counts
}: LostFile): string {
  const lost = counts.cacheBytes + counts.driveBytes;
  if (sizeAfterBytes === null) return `${file}: gone, was ${sizeBytes} bytes`;
  const old = nameAfter === null ? '' : `has its old name ${nameAfter} again, `;
  if (sizeAfterBytes !== sizeBytes || lost === 0)
    return `${file}: ${old}${sizeAfterBytes} bytes, was ${sizeBytes}`;
  return `${file}: ${old}${lost} of its ${sizeBytes} bytes are lost`;
}

/**
 * Describes where the lost bytes of a file were; empty when only its name was lost. A file that the target itself removed
 * or changed has lost nothing by the crash.
 */
export function describeLostBytes(file: LostFile, { destroyedFiles }: FaultInjected): string {
  if (destroyedFiles?.includes(file)) return 'the target removed or changed it itself while calls failed';
  const { cacheBytes, driveBytes } = file;
  const parts = [
    ...(cacheBytes > 0
      ? [`${cacheBytes} bytes were only in the page cache: no sync of them had returned`]
      : []),
    ...(driveBytes > 0
      ? [`${driveBytes} bytes were in the cache of the drive: no flush had covered them`]
      : []),
  ];
  return parts.join(', ');
}
