import t from 'tap';
import { RawHttp } from '../../common/http/fixtures/raw-http.js';
import { startHttpFront } from '../../common/http/front.js';
import { installed, killed, opened, storedIds } from '../fixtures/queue.js';
import { httpStore } from './http-store.js';

t.test('requests are transactions, queues are administered, and nonsense changes nothing', async (t) => {
  const directory = await installed(t);
  const queue = await opened(t, directory);
  const front = await startHttpFront(httpStore(queue), { leaseMs: 60_000 });
  t.teardown(() => front.stop(1000));
  const http = await RawHttp.open(front.port);
  t.teardown(() => http.close());
  t.match(await http.ask('PUT', '/queues/mine', '{"order":"relaxed"}'), { status: 201 });
  for (const body of ['{"ordr":"relaxed"}', '{"order":"any"}', '{"order":"strict","name":"x"}'])
    t.ok((await http.ask('PUT', '/queues/other', body)).status >= 400, body);
  t.same(
    queue.queues().map(({ definition }) => definition.name),
    ['q0', 'q1', 'mine'],
  );
  const clients = await Promise.all([1, 2, 3].map(() => RawHttp.open(front.port)));
  const answers = await Promise.all(clients.map((client) => client.ask('PUT', '/queues/same', '{}')));
  t.same(answers.map(({ status }) => status).sort(), [200, 200, 201], 'the same request at the same time');
  for (const client of clients) client.close();
  t.match(await http.ask('PUT', '/messages/a?queue=mine', 'x'), { status: 201 });
  const two = {
    put: [
      { id: 'b', body: 'eA==', queue: 'mine' },
      { id: 'c', body: 'eA==', queue: 'nowhere' },
    ],
  };
  t.ok((await http.ask('POST', '/transactions', JSON.stringify(two))).status >= 400);
  t.same(storedIds(killed(t, directory)), { mine: ['a'] }, 'a transaction is all or nothing');
  const leased = await http.ask('POST', '/leases?queue=mine');
  t.match(leased, { status: 200, body: 'x' });
  t.match(await http.ask('DELETE', '/queues/q0'), { status: /^4|^5/ });
  t.match(await http.ask('DELETE', '/queues/mine'), { status: 204 });
  t.ok((await http.ask('DELETE', `/leases/${leased.headers.lease}`)).status >= 400, 'its queue is gone');
  t.same(storedIds(killed(t, directory)), {});
});
