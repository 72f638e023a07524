import { compose, type Message } from '../../../conformance/protocols/message.js';
import type { DeliveryReply, HangUp, Protocol } from '../../../conformance/protocols/protocol.js';
import type { MessageShape } from '../../../conformance/protocols/shapes.js';
import type { Random } from '../../../faults/fault.js';

/** Percentage of each shape. `large` messages have MiB, and cost as much as all others together. */
const SHAPE_PERCENTAGES: readonly (readonly [MessageShape, number])[] = [
  ['tiny', 22],
  ['text', 30],
  ['8bit', 12],
  ['binary', 12],
  ['long-lines', 6],
  ['dots', 6],
  ['forged-record', 8],
  ['many-recipients', 3],
  ['large', 1],
];
/** Size of the first messages of a flood. */
export const FLOOD_BYTES = 512 * 1024;
const LARGE_BYTES = 64 * 1024;
const HANG_UPS: readonly HangUp[] = ['before-data', 'in-data', 'before-answer'];

/** One step of a producer: a message to submit. */
export interface Submission {
  message: Message;
  /** Point at which the producer hangs up on purpose; undefined when it does not hang up. */
  hangUp: HangUp | undefined;
}

/** Circumstances of one step in a run. */
export interface SubmissionContext {
  run: string;
  id: string;
  /** True when messages have recipients; false for protocols without recipients. */
  envelope: boolean;
  /** What the protocol can carry in the body of a message. Default: `binary`. */
  content?: Protocol['content'];
  /** Approximate size of the messages in a flood, in bytes; 0 without a flood. */
  floodBytes: number;
}

/**
 * Plans one step of a producer. The result follows only from the step's own generator, whatever happens in
 * the run. In a flood most messages have the requested size, so that the target's free space is used up soon,
 * and then to the last byte.
 */
export function planSubmission(
  { run, id, envelope, content, floodBytes }: SubmissionContext,
  random: Random,
): Submission {
  const flooding = floodBytes > 0 && random.int(4) > 0;
  const shape = flooding ? floodShape(floodBytes) : pickShape(random);
  const sizeBytes = flooding || (floodBytes > 0 && shape === 'large') ? { sizeBytes: floodBytes } : {};
  const recipients =
    envelope && shape === 'many-recipients' ? { recipients: 2 + random.int(99) } : { recipients: 1 };
  const message = compose(
    { run, id, shape, ...(content && { content }), ...sizeBytes, ...recipients },
    random,
  );
  const hangUp = floodBytes === 0 && random.int(50) === 0 ? random.pick(HANG_UPS) : undefined;
  return { message, hangUp };
}

function floodShape(floodBytes: number): MessageShape {
  if (floodBytes >= LARGE_BYTES) return 'large';
  return floodBytes > 1000 ? 'text' : 'tiny';
}

function pickShape(random: Random): MessageShape {
  let dice = random.int(SHAPE_PERCENTAGES.reduce((sum, [, share]) => sum + share, 0));
  for (const [shape, share] of SHAPE_PERCENTAGES) {
    dice -= share;
    if (dice < 0) return shape;
  }
  return 'text';
}

/** Share of the messages whose first delivery is refused while calls of the target fail. */
const REFUSED_PERCENT = 33;

/**
 * Chooses the receiver's answer to the n-th delivery of a message. Mostly it accepts after a short delay, so
 * that deliveries are under way at any moment. It defers a few messages at their first delivery.
 * @param refusesSome true while calls of the target fail. Many messages are deferred then, because what a target writes
 *   after a refused delivery may fail, too. A held delivery would never come to that.
 */
export function chooseReception(
  random: Random,
  id: string | null,
  delivery: number,
  refusesSome = false,
): DeliveryReply {
  const own = random.fork(`reception-${id}-${delivery}`);
  const dice = own.int(100);
  if (refusesSome && delivery === 1 && dice < REFUSED_PERCENT)
    return { answer: 'later', delayMs: 0, evenHeld: true };
  if (delivery === 1 && dice < 1) return { answer: 'later', delayMs: own.int(10) };
  if (dice < 6) return { answer: 'accept', delayMs: 20 + own.int(60) };
  return { answer: 'accept', delayMs: dice < 50 ? own.int(6) : 0 };
}
