import { QueueError } from '../../common/platform/errors.js';
import type { Body, MessageType, SmsBody, SmtpBody } from './body.js';

/** Type bytes in records and index entries. */
export const TYPE_BYTE: Record<MessageType, number> = { smtp: 1, sms: 2 };

const SEPARATOR = '\n';
const MSISDN_BYTES = 8;
const MAX_SMS_RECIPIENTS = 255;

const badRecord = (what: string): QueueError => new QueueError('bad-record', what);

/**
 * Joins the recipients, one a line. The first case avoids a `join`, because almost every message has one
 * recipient.
 */
const joinRecipients = ({ recipients }: SmtpBody): string =>
  recipients.length === 1 ? (recipients[0] as string) : recipients.join(SEPARATOR);

const isOneLine = (recipient: string): boolean => recipient !== '' && !recipient.includes(SEPARATOR);

const isMsisdn = (number: bigint): boolean => BigInt.asUintN(8 * MSISDN_BYTES, number) === number;

/** Returns the size of the optional parts behind the message. A note needs a destination in front of it. */
function trailingBytes({ destination, note }: Body): number {
  if (note !== undefined) return 4 + Buffer.byteLength(destination ?? '') + 4 + Buffer.byteLength(note);
  return destination === undefined ? 0 : 4 + Buffer.byteLength(destination);
}

/**
 * Returns the number of bytes that `encodeBody` writes.
 *
 * @throws QueueError `bad-record` for a body without encoding.
 */
export function bodyBytes(body: Body): number {
  // Check here, before space is reserved: an error while copying would leave a reserved entry in the index.
  if (body.type === 'sms') {
    if (body.recipients.length > MAX_SMS_RECIPIENTS)
      throw badRecord('an SMS record holds at most 255 recipients');
    if (![body.sender, ...body.recipients].every(isMsisdn))
      throw badRecord('an MSISDN is a number of 64 bits');
    const fixed = MSISDN_BYTES + 1 + body.recipients.length * MSISDN_BYTES + 4;
    return fixed + body.data.length + trailingBytes(body);
  }
  if (!body.recipients.every(isOneLine)) throw badRecord('a recipient is one line, and not empty');
  const envelope = 4 + Buffer.byteLength(body.sender) + 4 + Buffer.byteLength(joinRecipients(body));
  return envelope + 4 + body.data.length + trailingBytes(body);
}

function putText(to: Buffer, at: number, text: string): number {
  const length = to.write(text, at + 4);
  to.writeUInt32LE(length, at);
  return at + 4 + length;
}

function putData(to: Buffer, at: number, data: Buffer): number {
  to.writeUInt32LE(data.length, at);
  to.set(data, at + 4);
  return at + 4 + data.length;
}

function putSms(to: Buffer, start: number, body: SmsBody): number {
  let at = to.writeBigUInt64LE(body.sender, start);
  at = to.writeUInt8(body.recipients.length, at);
  for (const recipient of body.recipients) at = to.writeBigUInt64LE(recipient, at);
  return putData(to, at, body.data);
}

function putSmtp(to: Buffer, start: number, body: SmtpBody): number {
  const at = putText(to, putText(to, start, body.sender), joinRecipients(body));
  return putData(to, at, body.data);
}

/**
 * Writes a body in the layout of the patent [0027]. SMTP: sender length, sender, length of the recipients,
 * recipients (one a line), message length, message. SMS: sender MSISDN, number of recipients (8 bits), their
 * MSISDNs, message length, message. Lengths have 32 bits. MSISDNs have up to 15 digits and take 64 bits.
 * Numbers are little-endian. An optional delivery instruction follows as length and text. A dead letter has a note
 * behind it, also as length and text; its delivery instruction is then empty when there is none.
 *
 * @returns the position behind the last byte written.
 */
export function encodeBody(to: Buffer, at: number, body: Body): number {
  const end = body.type === 'sms' ? putSms(to, at, body) : putSmtp(to, at, body);
  if (body.note !== undefined) return putText(to, putText(to, end, body.destination ?? ''), body.note);
  return body.destination === undefined ? end : putText(to, end, body.destination);
}

/** Reads lengths and bytes in order, and never reads beyond the end. */
class Cursor {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** Reads `length` bytes. @throws QueueError `bad-record` when fewer are left. */
  take(length: number): Buffer {
    if (length > this.#bytes.length - this.#at) {
      throw badRecord(`a length of ${length} at byte ${this.#at} runs over the end of the body`);
    }
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  /** Reads a 32-bit length and then as many bytes. */
  block(): Buffer {
    return this.take(this.take(4).readUInt32LE());
  }

  get atEnd(): boolean {
    return this.#at === this.#bytes.length;
  }
}

/**
 * Decodes a body. Its `data` is a copy, because the record's bytes in the map may be overwritten after the
 * message is consumed.
 *
 * @throws QueueError `bad-record` when the bytes are not a body of that type.
 */
export function decodeBody(typeByte: number, bytes: Buffer): Body {
  const cursor = new Cursor(bytes);
  if (typeByte === TYPE_BYTE.sms) {
    const sender = cursor.take(MSISDN_BYTES).readBigUInt64LE();
    const count = cursor.take(1).readUInt8();
    const recipients = Array.from({ length: count }, () => cursor.take(MSISDN_BYTES).readBigUInt64LE());
    return finishBody({ type: 'sms', sender, recipients, data: Buffer.from(cursor.block()) }, cursor);
  }
  if (typeByte !== TYPE_BYTE.smtp) throw badRecord(`${typeByte} is not a message type (1 SMTP, 2 SMS)`);
  const sender = cursor.block().toString();
  const recipients = cursor.block().toString();
  const data = Buffer.from(cursor.block());
  return finishBody(
    { type: 'smtp', sender, recipients: recipients === '' ? [] : recipients.split(SEPARATOR), data },
    cursor,
  );
}

/** Decodes a body. Returns undefined for bytes that are not a body, which only other software can have stored. */
export function decodeOrUndefined(typeByte: number, bytes: Buffer): Body | undefined {
  try {
    return decodeBody(typeByte, bytes);
  } catch (error) {
    if (error instanceof QueueError && error.code === 'bad-record') return undefined;
    throw error;
  }
}

function finishBody<B extends Body>(body: B, cursor: Cursor): B {
  if (!cursor.atEnd) body.destination = cursor.block().toString();
  if (!cursor.atEnd) {
    body.note = cursor.block().toString();
    if (body.destination === '') delete body.destination;
  }
  if (!cursor.atEnd) throw badRecord('bytes are left over behind the body');
  return body;
}
