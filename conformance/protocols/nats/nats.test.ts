import { JetStreamApiError } from '@nats-io/jetstream';
import { NoRespondersError, RequestError, TimeoutError } from '@nats-io/transport-node';
import t from 'tap';
import { answerOf } from './nats.js';

t.test('an error is a rejection only if it proves that the message was not stored', async (t) => {
  const full = { code: 503, err_code: 10077, description: 'maximum messages exceeded' };
  t.match(answerOf(new JetStreamApiError(full)), {
    outcome: 'rejected',
    detail: '10077 maximum messages exceeded',
  });
  const nothing = new RequestError('request failed', { cause: new NoRespondersError('plugpull') });
  t.match(answerOf(nothing), { outcome: 'rejected' });
  t.match(answerOf(new Error('jetstream is not enabled', { cause: nothing })), { outcome: 'rejected' });
  t.match(answerOf(new TimeoutError()), { outcome: 'indefinite' });
  t.match(answerOf(new RequestError('request failed', { cause: new Error('closed') })), {
    outcome: 'indefinite',
  });
  t.match(answerOf(new Error('ECONNRESET')), { outcome: 'indefinite', detail: 'ECONNRESET' });
});
