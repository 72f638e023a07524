import type { Lease, Source } from '../client/pull.js';
import { BeanstalkDialogue } from './dialogue.js';

const ANSWER_TIMEOUT_MS = 10_000;
const WAIT_S = 1;
/** As urgent as the producers' jobs. */
const PRIORITY = 1024;

/** Reserves jobs of the default tube, and deletes those that are taken. */
export async function beanstalkSource(port: number): Promise<Source> {
  const dialogue = await BeanstalkDialogue.open(port, ANSWER_TIMEOUT_MS);
  return {
    async next() {
      const { words, body } = await dialogue.call(`reserve-with-timeout ${WAIT_S}`);
      const [word, job] = words;
      if (word === 'TIMED_OUT' || word === 'DEADLINE_SOON') return undefined;
      if (word !== 'RESERVED' || job === undefined || body === undefined)
        throw new Error(`a reservation was answered with ${words.join(' ')}`);
      return leaseOf(dialogue, job, body);
    },
    close: () => dialogue.break(new Error('closed')),
  };
}

function leaseOf(dialogue: BeanstalkDialogue, job: string, body: Buffer): Lease {
  return {
    body,
    async take() {
      const { words } = await dialogue.call(`delete ${job}`);
      if (words[0] === 'DELETED') return undefined;
      if (words[0] === 'NOT_FOUND') return 'NOT_FOUND';
      throw new Error(`a deletion was answered with ${words.join(' ')}`);
    },
    async leave() {
      const { words } = await dialogue.call(`release ${job} ${PRIORITY} 0`);
      return `the job was given back: ${words.join(' ')}`;
    },
  };
}
