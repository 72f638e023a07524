import t from 'tap';
import { answerOfNack } from './client.js';

t.test(
  'a negative confirmation of a node proves nothing: the leader may have stored the message',
  async (t) => {
    t.match(answerOfNack({ node: 'b' }, 'message nacked'), { outcome: 'indefinite' });
  },
);

t.test('a negative confirmation of a single server is a rejection', async (t) => {
  t.match(answerOfNack({}, 'message nacked'), { outcome: 'rejected', detail: 'basic.nack: message nacked' });
});
