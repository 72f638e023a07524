import { ownPartOf } from './message.js';

/** Number of bytes of each version that a description shows. */
const SHOWN_BYTES = 24;

/**
 * Describes the first difference between a message as it was submitted and as it was delivered, in one line. Header
 * lines that a relay added in front are left out.
 * @returns undefined when there is no difference.
 */
export function describeDifference(submitted: Buffer, delivered: Buffer): string | undefined {
  const arrived = ownPartOf(delivered);
  let at = 0;
  while (at < submitted.length && at < arrived.length && submitted[at] === arrived[at]) at += 1;
  if (at === submitted.length && at === arrived.length) return undefined;
  const before = submitted.subarray(0, at).toString('latin1').split('\n');
  const column = (before.at(-1)?.length ?? 0) + 1;
  return `first difference at byte ${at} (line ${before.length}, column ${column}): submitted ${show(submitted, at)}, delivered ${show(arrived, at)}`;
}

function show(bytes: Buffer, at: number): string {
  if (at >= bytes.length) return 'nothing more';
  return JSON.stringify(bytes.toString('latin1', at, at + SHOWN_BYTES)).replace(
    /[\x7f-\xff]/g,
    (char) => `\\x${char.charCodeAt(0).toString(16)}`,
  );
}
