import { createHash, randomBytes } from 'node:crypto';
import { isIPv4, isIPv6 } from 'node:net';

/** What a session knows about the message that it is about to receive. */
export interface TraceInfo {
  /** Argument of EHLO or HELO. */
  heloName: string;
  /** Address of the client, as the socket gives it. */
  clientAddress: string | undefined;
  /** Name of this host. */
  hostname: string;
  /** Protocol of RFC 3848: `ESMTPS` under TLS. */
  protocol: 'SMTP' | 'ESMTP' | 'ESMTPS';
  /** Id of the message, from `TraceIds`. */
  id: string;
  receivedAt: Date;
}

/** Makes the ids of the trace headers of one worker. */
export interface TraceIds {
  /** Start of all ids of this queue, which no other queue uses. */
  readonly tag: string;
  /** Returns an id that no other message of this queue gets. */
  next(): string;
}

/** The trace headers in front of a message. */
export interface Hops {
  /** Number of Received headers. */
  total: number;
  /** Number of those that this queue added. */
  own: number;
}

/** Longest name of a host (RFC 5321 4.5.3.1.2). */
const MAX_NAME_LENGTH = 255;
/**
 * Number of bytes in which trace headers are searched. A relay adds its header in front of the others, so those of a
 * loop come first. Without a bound, a message with millions of header lines would hold up the worker.
 */
const MAX_SCAN_BYTES = 256 * 1024;
const HEADER_NAME = /^received[ \t]*:/i;
const COLON = 0x3a;

/**
 * Returns the source of ids for one worker of a queue. The tag is a digest: the id of the queue itself stays private.
 * @param queueId text that identifies the queue, equal for all its workers and kept over restarts
 */
export function traceIds(queueId: string): TraceIds {
  const tag = createHash('sha256').update(`plugpull trace ${queueId}`).digest('hex').slice(0, 12);
  const worker = randomBytes(6).toString('hex');
  let count = 0;
  return {
    tag,
    next: () => {
      count += 1;
      return `${tag}-${worker}-${count.toString(36)}`;
    },
  };
}

/** Formats the trace header of an accepted message (RFC 5321 4.4). Each line ends with CRLF. */
export function receivedHeader(info: TraceInfo): Buffer {
  const { heloName, clientAddress, hostname, protocol, id, receivedAt } = info;
  const date = receivedAt.toUTCString().replace(/GMT$/, '+0000');
  return Buffer.from(
    `Received: from ${nameForTrace(heloName)} (${addressLiteral(clientAddress)})\r\n` +
      `\tby ${hostname} with ${protocol} id ${id};\r\n` +
      `\t${date}\r\n`,
    'latin1',
  );
}

/** Longest trace header, in bytes: two names of hosts, an address, an id and a date. */
const MAX_HEADER_BYTES = 1024;
/** Matches a header of `receivedHeader`. */
const TRACE_HEADER =
  /^Received: from \S+ \(\S+\)\r\n\tby \S+ with E?SMTPS? id [0-9a-f]{12}-[0-9a-f]{12}-[0-9a-z]+;\r\n\t[^\r\n]+\r\n/;

/** Returns a stored message as the client sent it: without the trace header that the inbound session put in front. */
export function withoutTrace(message: Buffer): Buffer {
  const header = TRACE_HEADER.exec(message.toString('latin1', 0, MAX_HEADER_BYTES))?.[0] ?? '';
  return message.subarray(header.length);
}

/** Returns the name as the client gave it, or `unknown` if it is no domain and no address literal. */
function nameForTrace(name: string): string {
  const isName = /^(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Za-z:.-]+\])$/.test(name);
  return isName && name.length <= MAX_NAME_LENGTH ? name : 'unknown';
}

/** Formats an address as RFC 5321 4.1.3 wants it. */
function addressLiteral(address: string | undefined): string {
  const plain = address?.replace(/^::ffff:(?=\d+\.)/i, '').replace(/%.*$/, '') ?? '';
  if (isIPv4(plain)) return `[${plain}]`;
  return isIPv6(plain) ? `[IPv6:${plain}]` : 'unknown';
}

/**
 * Counts the Received headers of a message, up to `limit`. Only the first 256 KiB of the header section are read. The
 * section ends at the first line that is no header line.
 */
export function countHops(message: Buffer, tag: string, limit: number): Hops {
  const hops: Hops = { total: 0, own: 0 };
  const bytes = message.subarray(0, MAX_SCAN_BYTES);
  let isReceived = false;
  let hasTag = false;
  const finishField = () => {
    if (!isReceived) return;
    hops.total += 1;
    if (hasTag) hops.own += 1;
  };
  for (let from = 0, end = 0; from < bytes.length && hops.total < limit; from = end + 1) {
    end = bytes.indexOf(0x0a, from);
    if (end < 0) end = bytes.length;
    const first = bytes[from];
    if (first === 0x20 || first === 0x09) {
      if (isReceived && !hasTag) hasTag = isOwn(bytes.toString('latin1', from, end), tag);
      continue;
    }
    finishField();
    isReceived = false;
    const colon = bytes.indexOf(COLON, from);
    if (colon <= from || colon >= end) return hops;
    // The first byte shows of most header lines that they are no Received header: the byte is neither R nor r.
    if (first !== 0x52 && first !== 0x72) continue;
    const line = bytes.toString('latin1', from, end);
    isReceived = HEADER_NAME.test(line);
    hasTag = isReceived && isOwn(line, tag);
  }
  if (hops.total < limit) finishField();
  return hops;
}

function isOwn(line: string, tag: string): boolean {
  return line.includes(` id ${tag}-`);
}
