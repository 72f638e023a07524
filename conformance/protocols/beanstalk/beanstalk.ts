import { PullReceiver } from '../client/pull.js';
import { connectProducer } from '../client/session.js';
import type { Protocol } from '../protocol.js';
import { beanstalkSource } from './consumer.js';
import { BeanstalkDialogue } from './dialogue.js';
import { beanstalkSession } from './producer.js';

const CONSUMERS = 2;

/** beanstalkd's protocol: `put` into the default tube, `reserve` and `delete` out of it. */
export const beanstalk: Protocol = {
  name: 'beanstalk',
  connect: (port, options) => connectProducer(beanstalkSession, port, options?.timeoutMs),
  async ready(port, timeoutMs) {
    try {
      const dialogue = await BeanstalkDialogue.open(port, timeoutMs);
      const { words } = await dialogue.call('list-tube-used');
      dialogue.break(new Error('closed'));
      return words[0] === 'USING';
    } catch {
      return false;
    }
  },
  async receive(ports, options) {
    const opens = ports.flatMap((port) =>
      Array.from({ length: CONSUMERS }, () => () => beanstalkSource(port)),
    );
    return new PullReceiver(opens, options);
  },
};
