import { createHash } from 'node:crypto';
import type { RandomInts } from './random-ints.js';
import { bodyOf, type MessageShape } from './shapes.js';

/** A message of the workload, as bytes and envelope. */
export interface Message {
  /** Unique in the run. */
  id: string;
  shape: MessageShape;
  sender: string;
  recipients: string[];
  /** A whole RFC 5322 message; ends with CRLF, has no bare CR or LF and no line above 998 bytes. */
  bytes: Buffer;
  /** The SHA-256 that the message carries of itself, hex. */
  digest: string;
}

export interface MessageSpec {
  /** Id of the run: letters, digits, dashes. */
  run: string;
  /** Letters, digits, dots, dashes. */
  id: string;
  shape: MessageShape;
  /** About so many bytes of body; each shape has its own default. */
  sizeBytes?: number;
  /** 1 to 100; default 1, for `many-recipients` 100. */
  recipients?: number;
}

const HEADER = 'X-PlugPull: ';
const HEADER_LINE = /^run=([\w-]+) id=([\w.-]+) sha256=([0-9a-f]{64})$/;
/** Longer than any header line of ours, so that garbage without line ends is not searched to its end. */
const MAX_HEADER_LINE_BYTES = 400;
const DOMAIN = 'plugpull.test';
/** The same seed makes the same bytes, so the date is not today's. */
const DATE = 'Thu, 01 Jan 2026 00:00:00 +0000';
const MAX_RECIPIENTS = 100;
const CRLF = Buffer.from('\r\n');

/** Makes the message that `spec` describes; equal specs and random numbers make equal bytes. */
export function compose(spec: MessageSpec, random: RandomInts): Message {
  const count = spec.recipients ?? (spec.shape === 'many-recipients' ? MAX_RECIPIENTS : 1);
  const recipients = Array.from({ length: count }, (_, n) => `r${n}.${spec.id}@${DOMAIN}`);
  const headers = ['From: producer@plugpull.test', `Date: ${DATE}`];
  if (spec.shape !== 'tiny') {
    headers.push(
      `To: ${recipients[0]}`,
      `Message-ID: <${spec.id}.${spec.run}@${DOMAIN}>`,
      `Subject: ${spec.shape}`,
      'MIME-Version: 1.0',
      'Content-Type: application/octet-stream',
      'Content-Transfer-Encoding: 8bit',
    );
  }
  const forgery = (text: string) => seal(spec.run, `forged-${spec.id}`, Buffer.from(text)).bytes;
  const body = bodyOf(spec.shape, spec.sizeBytes, random, forgery);
  const rest = Buffer.concat([Buffer.from(`${headers.join('\r\n')}\r\n\r\n`), body]);
  const sealed = seal(spec.run, spec.id, rest);
  return { id: spec.id, shape: spec.shape, sender: `producer@${DOMAIN}`, recipients, ...sealed };
}

/** The number of a recipient of ours, from 0; null for an address that is none. */
export function recipientNumber(address: string): number | null {
  const match = /^r(\d{1,3})\./i.exec(address);
  return match ? Number(match[1]) : null;
}

/** Bytes that stand in every stored copy of this message and in no other message. */
export function markOf(run: string, id: string): Buffer {
  return Buffer.from(`run=${run} id=${id} sha256=`);
}

export interface Identity {
  /** Null when the bytes carry no number of this run. */
  id: string | null;
  /** The bytes are a message of this run, whole and unchanged. */
  intact: boolean;
  /** The carried digest when intact, otherwise a digest of what came, which then differs from it; hex. */
  digest: string;
}

/**
 * Reads number and digest out of what was delivered. Header lines that a relay put in front are ignored; anything
 * else before, between or behind makes the message not intact. Takes any bytes whatever and never throws.
 */
export function identify(bytes: Buffer, run: string): Identity {
  const found = findHeader(bytes);
  if (!found) return { id: null, intact: false, digest: sha256(bytes) };
  const [, foundRun, id = '', carried = ''] = found.match;
  const isOurs = foundRun === run;
  const intact =
    isOurs && found.onlyHeadersBefore && selfDigest(run, id, bytes.subarray(found.bodyStart)) === carried;
  // A digest of all bytes never equals one of the rest, so what is not intact always compares as different.
  return { id: isOurs ? id : null, intact, digest: intact ? carried : sha256(bytes) };
}

function seal(run: string, id: string, rest: Buffer): { bytes: Buffer; digest: string } {
  const digest = selfDigest(run, id, rest);
  return {
    digest,
    bytes: Buffer.concat([Buffer.from(`${HEADER}run=${run} id=${id} sha256=${digest}\r\n`), rest]),
  };
}

/** Over run and id too, so that a changed number is noticed. */
function selfDigest(run: string, id: string, rest: Buffer): string {
  return createHash('sha256').update(`run=${run} id=${id}\r\n`).update(rest).digest('hex');
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The first line that is a header line of ours; `relayed` when only header lines stand before it. */
function findHeader(bytes: Buffer) {
  for (let at = bytes.indexOf(HEADER); at >= 0; at = bytes.indexOf(HEADER, at + 1)) {
    if (at > 0 && bytes[at - 1] !== 0x0a) continue;
    const end = bytes.subarray(at, at + MAX_HEADER_LINE_BYTES).indexOf(CRLF);
    if (end < 0) continue;
    const match = HEADER_LINE.exec(bytes.toString('latin1', at + HEADER.length, at + end));
    if (!match) continue;
    return {
      match,
      bodyStart: at + end + CRLF.length,
      onlyHeadersBefore: isHeaderBlock(bytes.subarray(0, at)),
    };
  }
  return undefined;
}

/** Nothing, or header lines and their continuations, each ended by CRLF. */
function isHeaderBlock(front: Buffer): boolean {
  if (front.length === 0) return true;
  const text = front.toString('latin1');
  return text.endsWith('\r\n') && text.slice(0, -2).split('\r\n').every(isHeaderLine);
}

function isHeaderLine(line: string, index: number): boolean {
  return /^[!-9;-~]+:/.test(line) || (index > 0 && /^[ \t]+\S/.test(line));
}
