import { join } from 'node:path';

/**
 * What goes through the four kinds of FIFO [0038, 0039], little-endian, each token written in one piece:
 *
 *     request    "REQ1" u16 slot, u16 0, u32 incarnation, u32 id, u64 offset, u64 length, u64 0    (40 bytes)
 *     receipt    "RCP1" u32 helper, u32 incarnation, u32 id, u32 batch, u32 0                       (24 bytes)
 *     confirm    "CNF1" u32 helper, u32 incarnation, u32 id, u32 batch, u32 errno                   (24 bytes)
 *     confconf   "CCF1" u32 slot,   u32 incarnation, u32 id, u32 batch, u32 helper                  (24 bytes)
 *
 * In the patent a confirmation is an anonymous token. A worker that was stopped for a while, or that follows a dead
 * one in its slot, would then take a confirmation that was meant for somebody else, and say "on the disk" of a
 * message that is not. So every token says whose it is and which request it answers.
 */
export const REQUEST_BYTES = 40;
export const ANSWER_BYTES = 24;

const MAGIC = {
  request: 0x31514552,
  receipt: 0x31504352,
  confirm: 0x31464e43,
  confirmAck: 0x31464343,
} as const;

/** "Write `length` bytes at `offset` of the data file to the disk." */
export interface SyncRequest {
  slot: number;
  /** Incarnation of the worker in that slot. */
  incarnation: number;
  /** Counts the requests of that incarnation. */
  id: number;
  offset: number;
  length: number;
}

export interface Answer {
  kind: 'receipt' | 'confirm';
  /** Incarnation of the helper that answers. */
  helper: number;
  incarnation: number;
  id: number;
  batch: number;
  /** 0: done; else the errno with which msync failed. */
  errno: number;
}

export interface ConfirmAck {
  slot: number;
  incarnation: number;
  id: number;
  batch: number;
  helper: number;
}

export function encodeRequest(request: SyncRequest): Buffer {
  const token = Buffer.alloc(REQUEST_BYTES);
  token.writeUInt32LE(MAGIC.request, 0);
  token.writeUInt16LE(request.slot, 4);
  token.writeUInt32LE(request.incarnation, 8);
  token.writeUInt32LE(request.id, 12);
  token.writeBigUInt64LE(BigInt(request.offset), 16);
  token.writeBigUInt64LE(BigInt(request.length), 24);
  return token;
}

function encodeWords(magic: number, a: number, b: number, c: number, d: number, e: number): Buffer {
  const token = Buffer.allocUnsafe(ANSWER_BYTES);
  token.writeUInt32LE(magic, 0);
  token.writeUInt32LE(a, 4);
  token.writeUInt32LE(b, 8);
  token.writeUInt32LE(c, 12);
  token.writeUInt32LE(d, 16);
  token.writeUInt32LE(e, 20);
  return token;
}

export const encodeAnswer = (answer: Answer): Buffer =>
  encodeWords(MAGIC[answer.kind], answer.helper, answer.incarnation, answer.id, answer.batch, answer.errno);

export const encodeConfirmAck = (token: ConfirmAck): Buffer =>
  encodeWords(MAGIC.confirmAck, token.slot, token.incarnation, token.id, token.batch, token.helper);

/**
 * Splits what was read from a FIFO into tokens. Bytes that are no token (somebody else wrote into the FIFO) are given
 * up to the end of the read: whoever waits for an answer asks again after its time-out.
 */
function splitTokens<T>(bytes: Buffer, size: number, read: (at: number) => T | undefined): T[] {
  const found: T[] = [];
  for (let at = 0; at + size <= bytes.length; at += size) {
    const token = read(at);
    if (token === undefined) break;
    found.push(token);
  }
  return found;
}

export const decodeRequests = (bytes: Buffer): SyncRequest[] =>
  splitTokens(bytes, REQUEST_BYTES, (at) => {
    if (bytes.readUInt32LE(at) !== MAGIC.request) return undefined;
    return {
      slot: bytes.readUInt16LE(at + 4),
      incarnation: bytes.readUInt32LE(at + 8),
      id: bytes.readUInt32LE(at + 12),
      offset: Number(bytes.readBigUInt64LE(at + 16)),
      length: Number(bytes.readBigUInt64LE(at + 24)),
    };
  });

export const decodeAnswers = (bytes: Buffer, kind: Answer['kind']): Answer[] =>
  splitTokens(bytes, ANSWER_BYTES, (at) => {
    if (bytes.readUInt32LE(at) !== MAGIC[kind]) return undefined;
    return {
      kind,
      helper: bytes.readUInt32LE(at + 4),
      incarnation: bytes.readUInt32LE(at + 8),
      id: bytes.readUInt32LE(at + 12),
      batch: bytes.readUInt32LE(at + 16),
      errno: bytes.readUInt32LE(at + 20),
    };
  });

export const decodeConfirmAcks = (bytes: Buffer): ConfirmAck[] =>
  splitTokens(bytes, ANSWER_BYTES, (at) => {
    if (bytes.readUInt32LE(at) !== MAGIC.confirmAck) return undefined;
    return {
      slot: bytes.readUInt32LE(at + 4),
      incarnation: bytes.readUInt32LE(at + 8),
      id: bytes.readUInt32LE(at + 12),
      batch: bytes.readUInt32LE(at + 16),
      helper: bytes.readUInt32LE(at + 20),
    };
  });

/**
 * Where the FIFOs of a data file are [0038]. Requests and confirmations of confirmations have one reader, the helper,
 * and go through one FIFO each. Receipts and confirmations have as many readers as there are workers, so each worker
 * slot has its own: a shared one would hand a worker's confirmation to whoever reads first.
 */
export const fifoPaths = (directory: string) => ({
  request: join(directory, 'request.fifo'),
  confirmAck: join(directory, 'confconf.fifo'),
  receipt: (slot: number) => join(directory, `receipt.${slot}.fifo`),
  confirm: (slot: number) => join(directory, `confirm.${slot}.fifo`),
});

/** A FIFO holds 64 KiB; reads take whole tokens. */
export const REQUEST_READ_BYTES = Math.floor(65_536 / REQUEST_BYTES) * REQUEST_BYTES;
export const ANSWER_READ_BYTES = Math.floor(65_536 / ANSWER_BYTES) * ANSWER_BYTES;
