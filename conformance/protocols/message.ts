import { createHash } from 'node:crypto';
import type { BodyContent } from './forged-record.js';
import type { RandomInts } from './random-ints.js';
import { bodyOf, type MessageShape } from './shapes.js';

/** A message of the workload: bytes and envelope. */
export interface Message {
  /** Id of the message, unique in the run. */
  id: string;
  shape: MessageShape;
  sender: string;
  recipients: string[];
  /** Complete RFC 5322 message. It ends with CRLF and has no bare CR or LF and no line longer than 998 bytes. */
  bytes: Buffer;
  /** SHA-256 that the message carries in its first header line, hex. */
  digest: string;
}

/** Description of a message for `compose`. */
export interface MessageSpec {
  /** Id of the run: letters, digits, dashes. */
  run: string;
  /** Id of the message: letters, digits, dots, dashes. */
  id: string;
  shape: MessageShape;
  /** Approximate size of the body. Each shape has its own default. */
  sizeBytes?: number;
  /** Number of recipients, 1 to 100. Default: 1, or 100 for `many-recipients`. */
  recipients?: number;
  /** What the protocol can carry. Default: `binary`. */
  content?: BodyContent;
}

const HEADER = 'X-PlugPull: ';
const HEADER_LINE = /^run=([\w-]+) id=([\w.-]+) sha256=([0-9a-f]{64})$/;
/** Upper bound of the kit's header line. It bounds the search in garbage without line ends. */
const MAX_HEADER_LINE_BYTES = 400;
const DOMAIN = 'plugpull.test';
/** Fixed date of all messages, so that the same seed makes the same bytes. */
const DATE = 'Thu, 01 Jan 2026 00:00:00 +0000';
const MAX_RECIPIENTS = 100;
const CRLF = Buffer.from('\r\n');

/** Makes the message that `spec` describes. Equal specs and random numbers make equal bytes. */
export function compose(spec: MessageSpec, random: RandomInts): Message {
  const count = spec.recipients ?? (spec.shape === 'many-recipients' ? MAX_RECIPIENTS : 1);
  const recipients = Array.from({ length: count }, (_, n) => `r${n}.${spec.id}@${DOMAIN}`);
  const { content = 'binary' } = spec;
  const headers = ['From: producer@plugpull.test', `Date: ${DATE}`];
  if (spec.shape !== 'tiny') {
    headers.push(
      `To: ${recipients[0]}`,
      `Message-ID: <${spec.id}.${spec.run}@${DOMAIN}>`,
      `Subject: ${spec.shape}`,
      'MIME-Version: 1.0',
      'Content-Type: application/octet-stream',
      `Content-Transfer-Encoding: ${spec.shape === 'forged-record' ? content : '8bit'}`,
    );
  }
  const forgery = (text: string) => seal(spec.run, `forged-${spec.id}`, Buffer.from(text)).bytes;
  const body = bodyOf(spec.shape, spec.sizeBytes, random, content, forgery);
  const rest = Buffer.concat([Buffer.from(`${headers.join('\r\n')}\r\n\r\n`), body]);
  const sealed = seal(spec.run, spec.id, rest);
  return { id: spec.id, shape: spec.shape, sender: `producer@${DOMAIN}`, recipients, ...sealed };
}

/**
 * Returns the number of a recipient, from 0, out of its address; null for an address that the kit did not make.
 */
export function recipientNumber(address: string): number | null {
  const match = /^r(\d{1,3})\./i.exec(address);
  return match ? Number(match[1]) : null;
}

/** Returns the id of the message that an address of a recipient names; null for an address that the kit did not make. */
export function recipientMessageId(address: string): string | null {
  return /^r\d{1,3}\.([\w.-]+)@/i.exec(address)?.[1] ?? null;
}

/** Returns bytes that every stored copy of this message contains and no other message contains. */
export function markOf(run: string, id: string): Buffer {
  return Buffer.from(`run=${run} id=${id} sha256=`);
}

/** Result of `identify`. */
export interface Identity {
  /** Id of the message; null if the bytes carry no readable message id, or one of another run. */
  id: string | null;
  /** True if the bytes are a whole and unchanged message of this run. */
  intact: boolean;
  /**
   * Hex digest: the digest that the message carries if the message is intact, otherwise the digest of all
   * bytes, which differs from the carried one.
   */
  digest: string;
}

/**
 * Reads id and digest from delivered bytes. Header lines that a relay added in front are ignored. Any other
 * change makes the message not intact. Accepts arbitrary bytes and never throws.
 * @param undo returns the messages that the target may have changed into the delivered one, behind the kit's header
 * line. Default: none.
 */
export function identify(
  bytes: Buffer,
  run: string,
  undo: (rest: Buffer) => Iterable<Buffer> = () => [],
): Identity {
  const found = findHeader(bytes);
  if (!found) return { id: null, intact: false, digest: sha256(bytes) };
  const [, foundRun, id = '', carried = ''] = found.match;
  const isOurs = foundRun === run;
  const isSubmitted = (rest: Buffer) => selfDigest(run, id, rest) === carried;
  const intact =
    isOurs && found.onlyHeadersBefore && isAny(bytes.subarray(found.bodyStart), undo, isSubmitted);
  // If not intact, use the digest of all bytes: it never equals a carried digest, so the comparison always fails.
  return { id: isOurs ? id : null, intact, digest: intact ? carried : sha256(bytes) };
}

function isAny(
  rest: Buffer,
  undo: (rest: Buffer) => Iterable<Buffer>,
  isSubmitted: (rest: Buffer) => boolean,
): boolean {
  if (isSubmitted(rest)) return true;
  for (const original of undo(rest)) if (isSubmitted(original)) return true;
  return false;
}

/** Returns the bytes from the kit's header line on; all bytes if there is no such line. */
export function ownPartOf(bytes: Buffer): Buffer {
  return bytes.subarray(findHeader(bytes)?.start ?? 0);
}

function seal(run: string, id: string, rest: Buffer): { bytes: Buffer; digest: string } {
  const digest = selfDigest(run, id, rest);
  return {
    digest,
    bytes: Buffer.concat([Buffer.from(`${HEADER}run=${run} id=${id} sha256=${digest}\r\n`), rest]),
  };
}

/** Returns the digest of a message. It covers run and id too, so that a changed id is detected. */
function selfDigest(run: string, id: string, rest: Buffer): string {
  return createHash('sha256').update(`run=${run} id=${id}\r\n`).update(rest).digest('hex');
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Finds the first header line of the kit. `onlyHeadersBefore` is true if only header lines stand before it. */
function findHeader(bytes: Buffer) {
  for (let at = bytes.indexOf(HEADER); at >= 0; at = bytes.indexOf(HEADER, at + 1)) {
    if (at > 0 && bytes[at - 1] !== 0x0a) continue;
    const end = bytes.subarray(at, at + MAX_HEADER_LINE_BYTES).indexOf(CRLF);
    if (end < 0) continue;
    const match = HEADER_LINE.exec(bytes.toString('latin1', at + HEADER.length, at + end));
    if (!match) continue;
    return {
      match,
      start: at,
      bodyStart: at + end + CRLF.length,
      onlyHeadersBefore: isHeaderBlock(bytes.subarray(0, at)),
    };
  }
  return undefined;
}

/** Returns true if the bytes are empty, or are header lines and their continuations that each end with CRLF. */
function isHeaderBlock(front: Buffer): boolean {
  if (front.length === 0) return true;
  const text = front.toString('latin1');
  return text.endsWith('\r\n') && text.slice(0, -2).split('\r\n').every(isHeaderLine);
}

function isHeaderLine(line: string, index: number): boolean {
  return /^[!-9;-~]+:/.test(line) || (index > 0 && /^[ \t]+\S/.test(line));
}
