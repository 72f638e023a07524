import { join } from 'node:path';
import { bodySeed, type ChecksumKey, checksum, scramble } from '../../common/record/checksum.js';
import { getWide, hex16, putWide, roundUp } from '../files.js';
import type { QueueDefinition, QueueSnapshot } from '../memory/memory-queue.js';
import type { Message } from '../memory/message-list.js';

/**
 * A slot: a file with the definition and the contents of one queue at one checkpoint. Each queue has two, which are written in
 * turn. Little-endian:
 *
 *      0  4  "PPCS"
 *      4  4  length of the definition in bytes
 *      8  8  queue
 *     16  8  checkpoint
 *     24  8  redo position
 *     32  8  number of messages
 *     40  4  generation of the log that the redo position is in
 *     44  4  keyed CRC-32C of bytes 0-43 and of the definition
 *     48     definition as JSON
 *
 * Then the messages, each from a multiple of 8 on:
 *
 *      0  4  "PPCM"
 *      4  4  length of the body in bytes
 *      8  8  number
 *     16  2  length of the id in bytes
 *     18  2  0
 *     20  4  keyed CRC-32C of bytes 0-19
 *     24  4  keyed CRC-32C of id and body
 *     28  4  0
 *     32     id, body
 *
 * The checksums depend on key, queue, checkpoint and place.
 */
export interface SlotHeader {
  queue: number;
  checkpoint: number;
  redo: number;
  count: number;
  generation: number;
  definition: QueueDefinition;
}

/** Size of the header of a slot in bytes, without the definition. */
export const SLOT_HEADER_BYTES = 48;
const MESSAGE_HEADER_BYTES = 32;
const UNIT_BYTES = 8;
const MAGIC_WORD = Buffer.from('PPCS').readUInt32LE(0);
const MESSAGE_MAGIC = Buffer.from('PPCM');
const MESSAGE_MAGIC_WORD = MESSAGE_MAGIC.readUInt32LE(0);
/** Size of the pieces in which a slot is encoded. Transactions continue between two pieces. A pipe holds one piece. */
const PIECE_BYTES = 64 * 1024;

/** Returns the path of a slot. */
export const slotPath = (directory: string, queue: number, slot: 0 | 1): string =>
  join(directory, `${hex16(queue)}.${slot}`);

/** Reads queue and slot out of the name of a slot file; undefined for another file. */
export function parseSlotName(name: string): { queue: number; slot: 0 | 1 } | undefined {
  const [, digits, slot] = /^([0-9a-f]{16})\.([01])$/.exec(name) ?? [];
  return digits === undefined
    ? undefined
    : { queue: Number.parseInt(digits, 16), slot: slot === '1' ? 1 : 0 };
}

interface SlotSeed {
  key: ChecksumKey;
  queue: number;
  checkpoint: number;
}

function seedAt({ key, queue, checkpoint }: SlotSeed, at: number): number {
  let seed = key.low;
  for (const word of [at, queue % 2 ** 32, Math.floor(queue / 2 ** 32), checkpoint % 2 ** 32])
    seed = scramble(seed ^ word);
  return scramble(seed ^ key.high);
}

const extentOf = (idBytes: number, bodyBytes: number): number =>
  roundUp(MESSAGE_HEADER_BYTES + idBytes + bodyBytes, UNIT_BYTES);

/** Encodes a slot, piece by piece. It needs no lock of the queue, because messages do not change. */
export function* encodeSlot(
  seed: SlotSeed,
  { definition, messages, redoPosition }: QueueSnapshot,
  generation: number,
): Generator<Buffer> {
  const text = Buffer.from(JSON.stringify(definition));
  const headerExtent = roundUp(SLOT_HEADER_BYTES + text.length, UNIT_BYTES);
  const header = Buffer.allocUnsafe(headerExtent);
  putHeader(header, { seed, text, redo: redoPosition, count: messages.length, generation });
  if (messages.length === 0) {
    yield header;
    return;
  }
  let at = 0;
  let front = header;
  for (let from = 0; from < messages.length; ) {
    const { to, bytes } = pieceFrom(messages, from, front.length);
    // Allocate only the size of this piece, because most slots are small.
    const piece = Buffer.allocUnsafe(bytes);
    piece.set(front);
    let filled = front.length;
    for (let index = from; index < to; index += 1) {
      const { id, body, number } = messages[index] as Message;
      const idBytes = Buffer.byteLength(id);
      putMessage(piece, filled, { id, idBytes, body, number }, seedAt(seed, at + filled));
      filled += extentOf(idBytes, body.length);
    }
    yield piece;
    at += filled;
    from = to;
    front = NOTHING;
  }
}

const NOTHING = Buffer.alloc(0);

/** Returns how many messages fit into the next piece, at least one, and its size in bytes. */
function pieceFrom(
  messages: QueueSnapshot['messages'],
  from: number,
  frontBytes: number,
): { to: number; bytes: number } {
  let bytes = frontBytes;
  let to = from;
  for (let message = messages[to]; message !== undefined; message = messages[to]) {
    const extent = extentOf(Buffer.byteLength(message.id), message.body.length);
    if (to > from && bytes + extent > PIECE_BYTES) break;
    bytes += extent;
    to += 1;
  }
  return { to, bytes };
}

function putHeader(
  bytes: Buffer,
  {
    seed,
    text,
    redo,
    count,
    generation,
  }: { seed: SlotSeed; text: Buffer; redo: number; count: number; generation: number },
): void {
  bytes.writeUInt32LE(MAGIC_WORD, 0);
  bytes.writeUInt32LE(text.length, 4);
  putWide(bytes, 8, seed.queue);
  putWide(bytes, 16, seed.checkpoint);
  putWide(bytes, 24, redo);
  putWide(bytes, 32, count);
  bytes.writeUInt32LE(generation, 40);
  bytes.set(text, SLOT_HEADER_BYTES);
  bytes.fill(0, SLOT_HEADER_BYTES + text.length);
  bytes.writeUInt32LE(headerSum(bytes, text.length, seedAt(seed, 0)), 44);
}

function headerSum(bytes: Buffer, definitionBytes: number, seed: number): number {
  const front = checksum(bytes, 0, 44, seed);
  return checksum(bytes, SLOT_HEADER_BYTES, SLOT_HEADER_BYTES + definitionBytes, bodySeed(seed, front));
}

function putMessage(
  bytes: Buffer,
  at: number,
  { id, idBytes, body, number }: { id: string; idBytes: number; body: Buffer; number: number },
  seed: number,
): void {
  bytes.writeUInt32LE(MESSAGE_MAGIC_WORD, at);
  bytes.writeUInt32LE(body.length, at + 4);
  putWide(bytes, at + 8, number);
  bytes.writeUInt32LE(idBytes, at + 16);
  const sum = checksum(bytes, at, at + 20, seed);
  bytes.writeUInt32LE(sum, at + 20);
  const idAt = at + MESSAGE_HEADER_BYTES;
  bytes.write(id, idAt, 'utf8');
  bytes.set(body, idAt + idBytes);
  const end = idAt + idBytes + body.length;
  // The body is summed where it is: a view of the piece would cost a third of the call.
  const idSum = checksum(bytes, idAt, idAt + idBytes, bodySeed(seed, sum));
  bytes.writeUInt32LE(checksum(body, 0, body.length, idSum), at + 24);
  bytes.writeUInt32LE(0, at + 28);
  bytes.fill(0, end, at + extentOf(idBytes, body.length));
}

/** A message of a slot. */
export interface StoredMessage {
  number: number;
  id: string;
  body: Buffer;
}

/** A part of a slot that cannot be read: a message whose number and id are intact, or bytes. */
export interface DamagedSlotPart {
  at: number;
  message: StoredMessage | undefined;
  bytes: Buffer;
}

export interface ReadSlot {
  /** undefined when the header is damaged. */
  header: SlotHeader | undefined;
  messages: StoredMessage[];
  damaged: DamagedSlotPart[];
  /** Whether the file ends before its last message does. */
  isCut: boolean;
}

/**
 * Reads a slot.
 * @param expected queue and checkpoint to which the slot must belong.
 */
export function readSlot(bytes: Buffer, expected: SlotSeed): ReadSlot {
  const header = readHeader(bytes, expected);
  const result: ReadSlot = { header, messages: [], damaged: [], isCut: false };
  const start = header === undefined ? UNIT_BYTES : slotHeaderExtent(bytes);
  for (let at = start; at < bytes.length && (header === undefined || total(result) < header.count); ) {
    const found = readMessage(bytes, at, expected);
    if (found !== undefined) {
      const { message, isIntact, isCut, extent } = found;
      result.isCut ||= isCut;
      if (isIntact) result.messages.push(message);
      else result.damaged.push({ at, message, bytes: message.body });
      at += extent;
      continue;
    }
    const next = nextMessage(bytes, at + UNIT_BYTES, expected);
    if (header !== undefined || next < bytes.length)
      result.damaged.push({ at, message: undefined, bytes: bytes.subarray(at, next) });
    at = next;
  }
  // The file ends before its last message.
  if (header !== undefined && total(result) < header.count) {
    result.isCut = true;
    result.damaged.push({ at: bytes.length, message: undefined, bytes: bytes.subarray(bytes.length) });
  }
  return result;
}

const total = ({ messages, damaged }: ReadSlot): number => messages.length + damaged.length;

const slotHeaderExtent = (bytes: Buffer): number =>
  roundUp(SLOT_HEADER_BYTES + bytes.readUInt32LE(4), UNIT_BYTES);

/** Reads queue and checkpoint from the header of a slot, without a check. undefined when the slot is too short. */
export function claimOfSlot(bytes: Buffer): { queue: number; checkpoint: number } | undefined {
  if (bytes.length < SLOT_HEADER_BYTES) return undefined;
  return { queue: getWide(bytes, 8), checkpoint: getWide(bytes, 16) };
}

function readHeader(bytes: Buffer, expected: SlotSeed): SlotHeader | undefined {
  if (bytes.length < SLOT_HEADER_BYTES || bytes.readUInt32LE(0) !== MAGIC_WORD) return undefined;
  const definitionBytes = bytes.readUInt32LE(4);
  if (SLOT_HEADER_BYTES + definitionBytes > bytes.length) return undefined;
  if (headerSum(bytes, definitionBytes, seedAt(expected, 0)) !== bytes.readUInt32LE(44)) return undefined;
  const claim = claimOfSlot(bytes);
  if (claim?.queue !== expected.queue || claim.checkpoint !== expected.checkpoint) return undefined;
  return {
    ...claim,
    redo: getWide(bytes, 24),
    count: getWide(bytes, 32),
    generation: bytes.readUInt32LE(40),
    definition: JSON.parse(
      bytes.toString('utf8', SLOT_HEADER_BYTES, SLOT_HEADER_BYTES + definitionBytes),
    ) as QueueDefinition,
  };
}

function readMessage(
  bytes: Buffer,
  at: number,
  expected: SlotSeed,
): { message: StoredMessage; isIntact: boolean; isCut: boolean; extent: number } | undefined {
  if (at + MESSAGE_HEADER_BYTES > bytes.length || bytes.readUInt32LE(at) !== MESSAGE_MAGIC_WORD)
    return undefined;
  const seed = seedAt(expected, at);
  const sum = checksum(bytes, at, at + 20, seed);
  if (sum !== bytes.readUInt32LE(at + 20)) return undefined;
  const idAt = at + MESSAGE_HEADER_BYTES;
  const idBytes = bytes.readUInt32LE(at + 16);
  const bodyBytes = bytes.readUInt32LE(at + 4);
  const end = idAt + idBytes + bodyBytes;
  const isCut = end > bytes.length;
  const isIntact = !isCut && checksum(bytes, idAt, end, bodySeed(seed, sum)) === bytes.readUInt32LE(at + 24);
  const message = {
    number: getWide(bytes, at + 8),
    id: bytes.toString('utf8', idAt, idAt + idBytes),
    body: bytes.subarray(idAt + idBytes, end),
  };
  return { message, isIntact, isCut, extent: extentOf(idBytes, bodyBytes) };
}

/** Returns the offset of the next message from `from` on; the length of the file when there is none. */
function nextMessage(bytes: Buffer, from: number, expected: SlotSeed): number {
  for (let at = bytes.indexOf(MESSAGE_MAGIC, from); at !== -1; at = bytes.indexOf(MESSAGE_MAGIC, at + 1)) {
    if (at % UNIT_BYTES === 0 && readMessage(bytes, at, expected) !== undefined) return at;
  }
  return bytes.length;
}
