import { messageOf } from '../../errors.js';
import type { Address } from '../address.js';
import { openersFor } from '../client/openers.js';
import { type Lease, type LeaseSource, PullReceiver } from '../client/pull-receiver.js';
import { connectProducer, type Session } from '../client/session.js';
import { answerTimeoutMs } from '../client/timeout.js';
import type { Answer, Protocol } from '../protocol.js';
import { BeanstalkConnection } from './connection.js';

const CONSUMERS = 2;

/** beanstalkd's protocol: `put` into the default tube submits, `reserve` receives, `delete` consumes. */
export const beanstalk: Protocol = {
  name: 'beanstalk',
  connect: (address, options) => connectProducer(beanstalkSession, address, options?.timeoutMs),
  async ready(address, timeoutMs) {
    try {
      const connection = await BeanstalkConnection.open(address, timeoutMs);
      const { words } = await connection.call('list-tube-used');
      connection.break(new Error('closed'));
      return words[0] === 'USING';
    } catch {
      return false;
    }
  },
  async receive(addresses, options) {
    const count = options.inOrder ? 1 : CONSUMERS;
    return new PullReceiver(
      openersFor(addresses, count, (address) => () => beanstalkSource(address)),
      options,
    );
  },
};

const WAIT_S = 1;
/** Priority of a released job: equal to that of the producers' jobs. */
const PRIORITY = 1024;

/** Opens a source that reserves jobs of the default tube, and deletes consumed ones. */
async function beanstalkSource(address: Address): Promise<LeaseSource> {
  const connection = await BeanstalkConnection.open(address, answerTimeoutMs(address));
  return {
    async next() {
      const { words, body } = await connection.call(`reserve-with-timeout ${WAIT_S}`);
      const [word, job] = words;
      if (word === 'TIMED_OUT' || word === 'DEADLINE_SOON') return undefined;
      if (word !== 'RESERVED' || job === undefined || body === undefined)
        throw new Error(`a reservation was answered with ${words.join(' ')}`);
      return leaseOf(connection, job, body);
    },
    close: () => connection.break(new Error('closed')),
  };
}

function leaseOf(connection: BeanstalkConnection, job: string, body: Buffer): Lease {
  return {
    body,
    async consume() {
      const { words } = await connection.call(`delete ${job}`);
      if (words[0] === 'DELETED') return undefined;
      if (words[0] === 'NOT_FOUND') return 'NOT_FOUND';
      throw new Error(`a deletion was answered with ${words.join(' ')}`);
    },
    async giveBack() {
      const { words } = await connection.call(`release ${job} ${PRIORITY} 0`);
      return `the job was given back: ${words.join(' ')}`;
    },
  };
}

/**
 * Time after which beanstalkd gives a reserved job to another consumer. It is longer than any receiver holds a
 * job.
 */
const TIME_TO_RUN_S = 60;

/** Answers that are definite rejections: the job was not stored. */
const REJECTIONS = new Set([
  'JOB_TOO_BIG',
  'DRAINING',
  'OUT_OF_MEMORY',
  'EXPECTED_CRLF',
  'BAD_FORMAT',
  'UNKNOWN_COMMAND',
]);

/** Opens a connection that puts jobs into the default tube. */
async function beanstalkSession(address: Address, timeoutMs: number): Promise<Session> {
  const connection = await BeanstalkConnection.open(address, timeoutMs);
  return {
    async put({ bytes }) {
      try {
        const command = `put ${PRIORITY} 0 ${TIME_TO_RUN_S} ${bytes.length}`;
        return answerOf((await connection.call(command, bytes)).words);
      } catch (error) {
        return { outcome: 'indefinite', detail: messageOf(error) };
      }
    },
    usable: () => !connection.broken,
    close: async () => connection.break(new Error('closed')),
  };
}

function answerOf(words: string[]): Answer {
  const [word = ''] = words;
  const detail = words.join(' ');
  if (word === 'INSERTED') return { outcome: 'confirmed', detail };
  return { outcome: REJECTIONS.has(word) ? 'rejected' : 'indefinite', detail };
}
