import { compose, type Message } from '../../../conformance/protocols/message.js';
import type { DeliveryReply, HangUp } from '../../../conformance/protocols/protocol.js';
import type { MessageShape } from '../../../conformance/protocols/shapes.js';
import type { Random } from '../../../faults/fault.js';

/** How often each shape comes in a hundred messages; `large` ones are MiB, and cost as much as all the others. */
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
/** Messages of a flood begin with this size. */
export const FLOOD_BYTES = 512 * 1024;
const LARGE_BYTES = 64 * 1024;
const HANG_UPS: readonly HangUp[] = ['before-data', 'in-data', 'before-answer'];

/** What a producer does next. */
export interface Submission {
  message: Message;
  hangUp: HangUp | undefined;
}

/** Where a step stands in the run. */
export interface SubmissionContext {
  run: string;
  id: string;
  /** False for protocols that know messages and no recipients. */
  envelope: boolean;
  /** In a flood: about so large; 0 when there is none. */
  floodBytes: number;
}

/**
 * What a producer does at one step; follows from the step's own generator only, however the run goes. In a flood
 * most messages have the size that is asked for, so that the target's room is used up soon, and then to the last byte.
 */
export function planSubmission(
  { run, id, envelope, floodBytes }: SubmissionContext,
  random: Random,
): Submission {
  const flooding = floodBytes > 0 && random.int(4) > 0;
  const shape = flooding ? floodShape(floodBytes) : pickShape(random);
  const sizeBytes = flooding || (floodBytes > 0 && shape === 'large') ? { sizeBytes: floodBytes } : {};
  const recipients =
    envelope && shape === 'many-recipients' ? { recipients: 2 + random.int(99) } : { recipients: 1 };
  const message = compose({ run, id, shape, ...sizeBytes, ...recipients }, random);
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

/**
 * What the receiver answers to the n-th delivery of a message: mostly it accepts, after a short while, so that
 * deliveries are under way at any moment; a few are put off at the first time.
 */
export function chooseReception(random: Random, id: string | null, delivery: number): DeliveryReply {
  const own = random.fork(`reception-${id}-${delivery}`);
  const dice = own.int(100);
  if (delivery === 1 && dice < 1) return { answer: 'later', delayMs: own.int(10) };
  if (dice < 6) return { answer: 'accept', delayMs: 20 + own.int(60) };
  return { answer: 'accept', delayMs: dice < 50 ? own.int(6) : 0 };
}
