import { join } from 'node:path';

/**
 * The tokens in the four kinds of FIFO (patent [0038, 0039]). Words are little-endian. Each token is one write:
 *
 *     request    "REQ1" u16 slot, u16 0, u32 incarnation, u32 id, u64 offset, u64 length, u64 0    (40 bytes)
 *     receipt    "RCP1" u32 helper, u32 incarnation, u32 id, u32 batch, u32 0                       (24 bytes)
 *     confirm    "CNF1" u32 helper, u32 incarnation, u32 id, u32 batch, u32 errno                   (24 bytes)
 *     confconf   "CCF1" u32 slot,   u32 incarnation, u32 id, u32 batch, u32 helper                  (24 bytes)
 *
 * In the patent a confirmation is an anonymous token. A worker that was stopped for a while, or that follows
 * a dead worker in its slot, could then take the confirmation of another worker and confirm a message that is
 * not on the disk. Therefore every token names its worker and the request that it answers.
 */

/** Size of a request token, in bytes. */
export const REQUEST_BYTES = 40;
/** Size of a receipt, a confirmation, and a confirmation of a confirmation. */
export const ANSWER_BYTES = 24;

const MAGIC = {
  request: 0x31514552,
  receipt: 0x31504352,
  confirm: 0x31464e43,
  confirmAck: 0x31464343,
} as const;

/** A request to write `length` bytes at `offset` of the data file to the disk. */
export interface SyncRequest {
  slot: number;
  /** Incarnation of the worker in the slot `slot`. */
  incarnation: number;
  /** Number of the request within the worker's incarnation. */
  id: number;
  offset: number;
  length: number;
}

/** A token from the helper to a worker: the receipt or the confirmation of a request. */
export interface Answer {
  kind: 'receipt' | 'confirm';
  /** Incarnation of the helper that answers. */
  helper: number;
  /** Incarnation of the worker that sent the request. */
  incarnation: number;
  id: number;
  batch: number;
  /** 0 if the bytes are on the disk, otherwise the errno of the failed msync. */
  errno: number;
}

/** A token from a worker to the helper: the confirmation of a confirmation. */
export interface ConfirmAck {
  slot: number;
  incarnation: number;
  id: number;
  batch: number;
  helper: number;
}

/** Encodes a request as a token of REQUEST_BYTES. */
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

/** Encodes a receipt or a confirmation as a token of ANSWER_BYTES. */
export const encodeAnswer = (answer: Answer): Buffer =>
  encodeWords(MAGIC[answer.kind], answer.helper, answer.incarnation, answer.id, answer.batch, answer.errno);

/** Encodes a confirmation of a confirmation as a token of ANSWER_BYTES. */
export const encodeConfirmAck = (token: ConfirmAck): Buffer =>
  encodeWords(MAGIC.confirmAck, token.slot, token.incarnation, token.id, token.batch, token.helper);

/**
 * Splits the bytes of one read into tokens. It stops at bytes that are not a token, which another program
 * wrote into the FIFO, and drops the rest of the read. A worker whose answer is lost this way asks again
 * after its time-out.
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

/** Decodes the requests in the bytes of one read. */
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

/** Decodes the answers of one kind in the bytes of one read. */
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

/** Decodes the confirmations of confirmations in the bytes of one read. */
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
 * Returns the paths of the FIFOs of a data file (patent [0038]). Requests and confirmations of confirmations
 * have one reader, the helper, and use one FIFO each. Receipts and confirmations have one reader per worker, so
 * each worker slot has its own FIFOs: from a shared FIFO, the first worker to read would take the confirmation
 * of another worker.
 */
export const fifoPaths = (directory: string) => ({
  request: join(directory, 'request.fifo'),
  confirmAck: join(directory, 'confconf.fifo'),
  receipt: (slot: number) => join(directory, `receipt.${slot}.fifo`),
  confirm: (slot: number) => join(directory, `confirm.${slot}.fifo`),
});

/**
 * Size of a read of requests, in bytes: the 64 KiB that a FIFO holds, rounded down to whole tokens of
 * REQUEST_BYTES.
 */
export const REQUEST_READ_BYTES = Math.floor(65_536 / REQUEST_BYTES) * REQUEST_BYTES;
/**
 * Size of a read of answers, in bytes: the 64 KiB that a FIFO holds, rounded down to whole tokens of
 * ANSWER_BYTES.
 */
export const ANSWER_READ_BYTES = Math.floor(65_536 / ANSWER_BYTES) * ANSWER_BYTES;
