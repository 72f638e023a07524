import { createHash } from 'node:crypto';
import { type DeadNote, escapeText, replyFor } from '../../queue/dead-note.js';
import type { SmtpBody } from '../../record/body.js';

/** A message that was not delivered, with the reason. */
export interface Undelivered {
  body: SmtpBody;
  note: DeadNote;
  /** The next hop as `host:port`; undefined when there is none. */
  destination: string | undefined;
}

/** Options of a notice. */
export interface NoticeOptions {
  /** Host name of this gateway. */
  hostname: string;
  /** Largest message that the notice returns whole, in bytes. Of a larger one it returns the headers. */
  returnBytes: number;
  nowMs: number;
}

/** Largest part of the headers that a notice returns, in bytes. */
const MAX_HEADER_BYTES = 16 * 1024;
/** Largest length of a line of mail without its CRLF (RFC 5321 4.5.3.1.6). */
const MAX_LINE_LENGTH = 998;
/** Largest length of an address in a notice. A longer one is no address (RFC 5321 4.5.3.1.3). */
const MAX_ADDRESS_LENGTH = 900;
/** Latest time that a JavaScript Date can hold, in milliseconds since the epoch. */
const MAX_DATE_MS = 8.64e15;

/**
 * Builds the delivery status notification for a message: a multipart/report (RFC 3462) with a text, the status of
 * each recipient (RFC 3464), and the message or its headers. It has a null sender, so that no notice is ever sent
 * for it, and is 7-bit text. The same message always gets the same Message-ID, so that a receiver can drop a
 * second copy.
 */
export function buildNotice(undelivered: Undelivered, options: NoticeOptions): SmtpBody {
  const { body, note } = undelivered;
  const { hostname } = options;
  const id = createHash('sha256').update(`${note.origin} ${note.queuedAtMs} ${body.sender}`).digest('hex');
  const returned = returnedPart(body.data, options.returnBytes);
  const boundary = boundaryFor(id, returned.text);
  const lines = [
    `From: Mail Delivery System <MAILER-DAEMON@${hostname}>`,
    `To: <${addressText(body.sender)}>`,
    'Subject: Undelivered Mail Returned to Sender',
    `Date: ${dateText(options.nowMs)}`,
    `Message-ID: <dsn.${id.slice(0, 32)}@${hostname}>`,
    'Auto-Submitted: auto-replied',
    'MIME-Version: 1.0',
    `Content-Type: multipart/report; report-type=delivery-status;`,
    ` boundary="${boundary}"`,
    'Content-Transfer-Encoding: 7bit',
    '',
    `--${boundary}`,
    'Content-Type: text/plain; charset=us-ascii',
    '',
    ...explanation(undelivered, options, returned.what),
    '',
    `--${boundary}`,
    'Content-Type: message/delivery-status',
    '',
    ...deliveryStatus(undelivered, hostname),
    '',
    `--${boundary}`,
    `Content-Type: ${returned.type}`,
    '',
    returned.text,
    `--${boundary}--`,
    '',
  ];
  return {
    type: 'smtp',
    sender: '',
    recipients: [body.sender],
    data: Buffer.from(lines.join('\r\n'), 'latin1'),
  };
}

function explanation(
  { body, note }: Undelivered,
  { hostname }: NoticeOptions,
  returned: 'message' | 'headers',
): string[] {
  const why = {
    refused: 'The next mail server refused it.',
    loop: 'It passed too many mail servers.',
    'retries-used-up': 'The next mail server did not accept it after many attempts.',
    'too-old': 'It could not be delivered in time.',
    unknown: 'The reason is not known.',
    unreadable: 'It can no longer be read.',
  }[note.reason];
  return [
    `This is the mail system at ${hostname}.`,
    '',
    `Your message of ${dateText(note.queuedAtMs)} could not be delivered.`,
    `${why} It will not be tried again.`,
    '',
    ...body.recipients.flatMap((recipient, position) => [
      `<${addressText(recipient)}>:`,
      `    ${replyFor(note, position) || 'no answer'}`,
    ]),
    '',
    `The ${returned === 'message' ? 'message' : 'beginning of its headers'} follows.`,
  ];
}

/** Returns the lines of the message/delivery-status part (RFC 3464 2.2 and 2.3). */
function deliveryStatus({ body, note, destination }: Undelivered, hostname: string): string[] {
  const lines = [`Reporting-MTA: dns; ${hostname}`, `Arrival-Date: ${dateText(note.queuedAtMs)}`];
  body.recipients.forEach((recipient, position) => {
    const reply = replyFor(note, position);
    const isReply = /^[245]\d\d\b/.test(reply);
    lines.push(
      '',
      `Final-Recipient: rfc822; ${addressText(recipient)}`,
      'Action: failed',
      `Status: ${statusOf(note.reason, reply)}`,
    );
    if (isReply && destination !== undefined) lines.push(`Remote-MTA: dns; ${hostOf(destination)}`);
    if (reply !== '') lines.push(`Diagnostic-Code: ${isReply ? 'smtp' : 'x-plugpull'}; ${reply}`);
    lines.push(`Last-Attempt-Date: ${dateText(note.lastAttemptMs)}`);
  });
  return lines;
}

/** Returns the enhanced status code (RFC 3463) of the reply, or one that fits the reason. */
export function statusOf(reason: DeadNote['reason'], reply: string): string {
  if (reason === 'too-old') return '4.4.7';
  const given = /^([45])\d\d[ -]([45]\.\d{1,3}\.\d{1,3})\b/.exec(reply);
  if (given?.[2] !== undefined && given[1] === given[2][0]) return given[2];
  if (reason === 'loop') return '5.4.6';
  return reply.startsWith('4') ? '4.0.0' : '5.0.0';
}

function hostOf(destination: string): string {
  const host = destination.slice(0, destination.lastIndexOf(':'));
  return /^[\d.]+$/.test(host) ? `[${host}]` : host;
}

/** Returns the message, or its headers if it is too large, not 7-bit text, or has too long lines. */
function returnedPart(
  data: Buffer,
  returnBytes: number,
): { type: string; text: string; what: 'message' | 'headers' } {
  if (data.length <= returnBytes && isSevenBit(data)) {
    return { type: 'message/rfc822', text: data.toString('latin1'), what: 'message' };
  }
  const end = data.indexOf('\r\n\r\n');
  const headers = data.toString('latin1', 0, Math.min(end < 0 ? data.length : end, MAX_HEADER_BYTES));
  const lines = headers.split('\r\n').map((line) => line.replace(/[^\t -~]/g, '?').slice(0, MAX_LINE_LENGTH));
  return { type: 'text/rfc822-headers', text: `${lines.join('\r\n')}\r\n`, what: 'headers' };
}

function isSevenBit(data: Buffer): boolean {
  let lineLength = 0;
  for (const byte of data) {
    if (byte >= 0x80 || byte === 0) return false;
    lineLength = byte === 0x0a ? 0 : lineLength + 1;
    if (lineLength > MAX_LINE_LENGTH + 1) return false;
  }
  return true;
}

/** Returns a boundary that does not occur in the returned part. */
function boundaryFor(id: string, text: string): string {
  for (let number = 0; ; number += 1) {
    const boundary = `=_${id.slice(0, 24)}_${number}`;
    if (!text.includes(boundary)) return boundary;
  }
}

/** Makes an address printable. It is cut where the line would become too long. */
const addressText = (address: string): string => escapeText(address, MAX_ADDRESS_LENGTH);

/** Formats a time as in RFC 5322. A time that is not known, or not a date, is the epoch. */
function dateText(ms: number): string {
  return new Date(ms >= 0 && ms <= MAX_DATE_MS ? ms : 0).toUTCString().replace('GMT', '+0000');
}
