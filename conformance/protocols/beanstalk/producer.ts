import { messageOf } from '../../errors.js';
import type { Session } from '../client/session.js';
import type { Answer } from '../protocol.js';
import { BeanstalkDialogue } from './dialogue.js';

/** Beanstalkd's own default. */
const PRIORITY = 1024;
/** A job that was reserved for longer goes to the next who asks; longer than any receiver of a run holds one. */
export const TIME_TO_RUN_S = 60;

/** Definite refusals: the job was not taken. */
const NO = new Set([
  'JOB_TOO_BIG',
  'DRAINING',
  'OUT_OF_MEMORY',
  'EXPECTED_CRLF',
  'BAD_FORMAT',
  'UNKNOWN_COMMAND',
]);

/** Opens a connection that puts jobs into the default tube. */
export async function beanstalkSession(port: number, timeoutMs: number): Promise<Session> {
  const dialogue = await BeanstalkDialogue.open(port, timeoutMs);
  return {
    async put({ bytes }) {
      try {
        const command = `put ${PRIORITY} 0 ${TIME_TO_RUN_S} ${bytes.length}`;
        return answerOf((await dialogue.call(command, bytes)).words);
      } catch (error) {
        return { outcome: 'indefinite', detail: messageOf(error) };
      }
    },
    usable: () => !dialogue.broken,
    close: async () => dialogue.break(new Error('closed')),
  };
}

function answerOf(words: string[]): Answer {
  const [word = ''] = words;
  const detail = words.join(' ');
  if (word === 'INSERTED') return { outcome: 'confirmed', detail };
  return { outcome: NO.has(word) ? 'rejected' : 'indefinite', detail };
}
