import type { BodyBudget, Holding } from './budget.js';
import type { Exchange } from './exchange.js';
import { waitIfBulk } from './turns.js';

/** Size of the first buffer of a body that comes in several pieces. */
const FIRST_BYTES = 64 * 1024;
/** Number of pieces after which their mean size counts. Each piece takes time, and a piece may have only one byte. */
const FREE_PIECES = 1000;
const MIN_PIECE_BYTES = 64;
const EMPTY = Buffer.alloc(0);

/**
 * Receives the body of a request. Answers itself when the body is too large (413), when there is no memory for it (503), or
 * when it has no length (411). If the connection breaks before the end, it does not call `receive`: half a body is no message.
 * @param receive called with the whole body. The caller closes the holding when the store has taken the body.
 */
export function receiveBody(
  exchange: Exchange,
  budget: BodyBudget,
  maxBytes: number,
  receive: (body: Buffer, holding: Holding) => void,
): void {
  const { request, declaredBytes } = exchange;
  const refuse = (status: number, line: string) => exchange.refuse({ status, line }, maxBytes);
  const noMemory = () => refuse(503, 'no memory for this body now, try again later');
  if (declaredBytes === undefined && !exchange.hasBody) {
    refuse(411, 'the request has no content-length, expected one or chunks');
    return;
  }
  if (declaredBytes !== undefined && declaredBytes > maxBytes) {
    refuse(413, `the body has ${declaredBytes} bytes, expected at most ${maxBytes}`);
    return;
  }
  const holding = budget.open(declaredBytes ?? 0, noMemory);
  if (holding === undefined) {
    noMemory();
    return;
  }

  let bytes: Buffer = EMPTY;
  let sizeBytes = 0;
  let pieces = 0;
  request.on('data', (chunk: Buffer) => {
    if (!exchange.isOpen) return;
    const neededBytes = sizeBytes + chunk.length;
    if (neededBytes !== declaredBytes) waitIfBulk(request, chunk);
    pieces += 1;
    if (pieces > FREE_PIECES && neededBytes < pieces * MIN_PIECE_BYTES) {
      holding.close();
      exchange.closeAfterwards();
      exchange.fail(400, `the body comes in ${pieces} pieces of less than ${MIN_PIECE_BYTES} bytes`);
      return;
    }
    if (neededBytes > maxBytes) {
      holding.close();
      return refuse(413, `the body has more than ${maxBytes} bytes`);
    }
    if (neededBytes > bytes.length) {
      const capacity =
        neededBytes === declaredBytes ? neededBytes : capacityFor(neededBytes, bytes, declaredBytes);
      if (!holding.take(capacity - bytes.length)) {
        holding.close();
        return noMemory();
      }
      // Most messages come in one piece, which is not copied.
      if (capacity === chunk.length) {
        bytes = chunk;
        sizeBytes = neededBytes;
        return;
      }
      const larger = Buffer.allocUnsafeSlow(capacity);
      bytes.copy(larger, 0, 0, sizeBytes);
      bytes = larger;
    }
    chunk.copy(bytes, sizeBytes);
    sizeBytes = neededBytes;
  });
  request.on('end', () => {
    // A body that gave way to another one is refused, even if its last byte has come in the meantime.
    if (!exchange.isOpen || !request.complete) return;
    if (declaredBytes !== undefined && sizeBytes !== declaredBytes) {
      holding.close();
      return exchange.fail(400, `the body has ${sizeBytes} bytes, expected ${declaredBytes}`);
    }
    exchange.onClosed = undefined;
    holding.pin();
    // A message lives long. The unused end of its buffer would live as long.
    receive(bytes.length === sizeBytes ? bytes : Buffer.from(bytes.subarray(0, sizeBytes)), holding);
  });
  exchange.onClosed = () => holding.close();
  exchange.proceed();
}

/** Returns the size of the buffer for at least `neededBytes`: twice the old one, and never more than declared. */
function capacityFor(neededBytes: number, old: Buffer, declaredBytes: number | undefined): number {
  const capacity = Math.max(neededBytes, 2 * old.length, FIRST_BYTES);
  return declaredBytes === undefined ? capacity : Math.min(capacity, declaredBytes);
}

/** Drops the body of a request that needs none, and calls back at its end. */
export function dropBody(exchange: Exchange, maxBytes: number, proceed: () => void): void {
  if (!exchange.hasBody) proceed();
  else if ((exchange.declaredBytes ?? Number.POSITIVE_INFINITY) > maxBytes)
    exchange.refuse({ status: 413, line: 'the request has a body, expected none' }, maxBytes);
  else {
    exchange.proceed();
    exchange.request.once('end', proceed).resume();
  }
}
