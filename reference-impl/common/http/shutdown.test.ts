import { connect } from 'node:net';
import t from 'tap';
import { requestOf } from './fixtures/raw-http.js';
import { serve, until } from './fixtures/served.js';

const GRACE_MS = 60_000;

t.test('a stop answers what is in progress, and closes all connections', async (t) => {
  const { client, front, store } = await serve(t);
  const [idle, waiting, storing, coming, held] = [
    await client(),
    await client(),
    await client(),
    await client(),
    await client(),
  ];
  t.match(await idle.ask('GET', '/ready'), { status: 200 });
  await held.ask('PUT', '/messages/held', 'x');
  t.match(await held.ask('POST', '/leases'), { status: 200 });
  waiting.send(requestOf('POST', '/leases?wait=30000'));
  const request = requestOf('PUT', '/messages/coming', 'body');
  coming.send(request.subarray(0, -2));
  store.fault = 'hangs';
  storing.send(requestOf('PUT', '/messages/storing', 'x'));
  await until(() => store.commits === 2);
  await until(async () => JSON.parse((await idle.ask('GET', '/status')).body).front.bufferedBytes > 2000);
  const stopped = front.stop(GRACE_MS);
  t.match(await waiting.answer(), { status: 204, headers: { connection: 'close' } });
  await idle.closed();
  coming.send(request.subarray(-2));
  await until(() => store.commits === 3);
  t.equal(store.queues()[0]?.inDelivery, 1);
  store.release();
  for (const one of [storing, coming])
    t.match(await one.answer(), { status: 201, headers: { connection: 'close' } });
  await stopped;
  for (const one of [waiting, storing, coming, held]) await one.closed();
  t.match(store.queues(), [{ messages: 3, inDelivery: 0 }], 'what was in delivery is given back');
  const refused = connect({ host: '127.0.0.1', port: front.port });
  await new Promise((resolve) => refused.on('error', resolve));
});

t.test('a request that comes during a stop gets 503', async (t) => {
  const { client, front, store } = await serve(t);
  const http = await client();
  await http.ask('PUT', '/messages/large', Buffer.alloc(16_000_000, 'x'));
  http.socket.pause();
  http.send(requestOf('POST', '/leases'));
  await until(() => store.queues()[0]?.inDelivery === 1);
  const stopped = front.stop(GRACE_MS);
  http.send(requestOf('PUT', '/messages/b', 'x'));
  http.socket.resume();
  t.match(await http.answer(), { status: 200 }, 'the answer in progress is written whole');
  t.match(await http.answer(), { status: 503, body: /shuts down/ });
  await stopped;
  t.same(store.stored, ['large']);
});

t.test('a stop ends after the grace period, whatever the store does', async (t) => {
  const { client, front, store } = await serve(t);
  const http = await client();
  await http.ask('PUT', '/messages/a', 'x');
  const { headers } = await http.ask('POST', '/leases');
  store.fault = 'hangs';
  const [storing, half] = [await client(), await client()];
  storing.send(requestOf('PUT', '/messages/b', 'x'));
  // Node takes such a connection out of its list.
  storing.send('CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n');
  http.send(requestOf('DELETE', `/leases/${headers.lease}`));
  half.send('PUT /messages/c HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf');
  await until(() => store.commits === 3);
  await Promise.all([front.stop(100), front.stop(100)]);
  for (const one of [storing, http, half]) t.match(await one.answer(), { status: 0 }, 'no answer');
  t.equal(store.queues()[0]?.inDelivery, 1, 'it is being consumed');
  store.release('full');
  await until(() => store.queues()[0]?.inDelivery === 0);
  t.pass('a rejected consumption is given back');
});
