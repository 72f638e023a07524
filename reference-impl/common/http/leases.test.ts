import t from 'tap';
import { requestOf } from './fixtures/raw-http.js';
import { serve, until } from './fixtures/served.js';

t.test('a lease ends after its time: the message comes again at its old place, and 404', async (t) => {
  const { client, store } = await serve(t, { leaseMs: 100 });
  const http = await client();
  for (const id of ['a', 'b']) await http.ask('PUT', `/messages/${id}`, id);
  const first = await http.ask('POST', '/leases');
  t.match(first, { status: 200, body: 'a' });
  await until(() => store.queues()[0]?.inDelivery === 0);
  const again = await http.ask('POST', '/leases');
  t.match(again, { status: 200, body: 'a' });
  t.not(again.headers.lease, first.headers.lease);
  t.match(await http.ask('DELETE', `/leases/${first.headers.lease}`), { status: 404, body: /ended/ });
  t.match(await http.ask('DELETE', '/leases/nonsense'), { status: 404 });
  t.match(await http.ask('DELETE', '/leases/'), { status: 404 });
  t.equal(store.consumed.length, 0);
});

t.test('the end of a lease wakes a receiver that waits', async (t) => {
  const { client } = await serve(t, { leaseMs: 100 });
  const [one, other] = [await client(), await client()];
  await one.ask('PUT', '/messages/a', 'x');
  await one.ask('POST', '/leases');
  t.match(await other.ask('POST', '/leases?wait=30000'), { status: 200, body: 'x' });
});

t.test('a receiver that has gone while it waited takes no message', async (t) => {
  const { client } = await serve(t);
  const [gone, other] = [await client(), await client()];
  const waiting = async () => JSON.parse((await other.ask('GET', '/status')).body).front.waitingReceivers;
  for (const how of ['close', 'reset'] as const) {
    const receiver = how === 'close' ? gone : await client();
    receiver.send(requestOf('POST', '/leases?wait=30000'));
    await until(async () => (await waiting()) === 1);
    receiver[how]();
    await until(async () => (await waiting()) === 0);
    await other.ask('PUT', '/messages/a', how);
    t.match(await other.ask('POST', '/leases'), { status: 200, body: how });
  }
});

t.test('a message whose answer could not be written whole is given back at once', async (t) => {
  const { client, store } = await serve(t);
  const body = Buffer.alloc(16_000_000, 'x');
  const http = await client();
  for (const how of ['close', 'reset'] as const) {
    await http.ask('PUT', '/messages/large', body);
    const receiver = await client();
    receiver.socket.pause();
    receiver.send(requestOf('POST', '/leases'));
    await until(() => store.queues()[0]?.inDelivery === 1);
    receiver[how]();
    await until(() => store.queues()[0]?.inDelivery === 0);
    const leased = await http.ask('POST', '/leases');
    t.equal(leased.body.length, body.length, how);
    t.match(await http.ask('DELETE', `/leases/${leased.headers.lease}`), { status: 204 });
  }
});

t.test('a message whose answer waits behind another one is given back with the connection', async (t) => {
  const { client, store } = await serve(t);
  const http = await client();
  await http.ask('PUT', '/messages/a', 'x');
  store.fault = 'hangs';
  const pipelined = await client();
  pipelined.send(Buffer.concat([requestOf('PUT', '/messages/b', 'y'), requestOf('POST', '/leases')]));
  await until(() => store.queues()[0]?.inDelivery === 1);
  pipelined.close();
  await until(() => store.queues()[0]?.inDelivery === 0);
  t.match(await http.ask('POST', '/leases'), { status: 200, body: 'x' });
});

t.test('the time of a lease does not end it while it is consumed', async (t) => {
  const { client, store } = await serve(t, { leaseMs: 100 });
  const http = await client();
  for (const [end, status] of [
    ['none', 204],
    ['full', 507],
    ['fails', 500],
  ] as const) {
    store.fault = 'none';
    await http.ask('PUT', '/messages/a', end);
    const { headers, body } = await http.ask('POST', '/leases?wait=30000');
    t.equal(body, end);
    store.fault = 'hangs';
    const commits = store.commits;
    http.send(requestOf('DELETE', `/leases/${headers.lease}`));
    await until(() => store.commits > commits);
    await new Promise((resolve) => setTimeout(resolve, 300));
    t.match(await (await client()).ask('POST', '/leases'), { status: 204 }, 'it is not given back');
    store.release(end);
    t.match(await http.answer(), { status });
    const inDelivery = store.queues()[0]?.inDelivery;
    if (end === 'full') {
      t.equal(inDelivery, 0, 'its time is over');
      store.fault = 'none';
      const again = await http.ask('POST', '/leases?wait=30000');
      t.equal(again.body, end, 'a consumption that was rejected has changed nothing');
      t.match(await http.ask('DELETE', `/leases/${again.headers.lease}`), { status: 204 });
    }
    if (end === 'fails') {
      t.equal(inDelivery, 1, 'nobody knows');
      t.match(await http.ask('DELETE', `/leases/${headers.lease}`), { status: 500, body: /unknown/ });
    }
  }
});

t.test('a rejected consumption leaves the lease to its receiver', async (t) => {
  const { client, store } = await serve(t);
  const http = await client();
  await http.ask('PUT', '/messages/a', 'x');
  const { headers } = await http.ask('POST', '/leases');
  store.fault = 'full';
  t.match(await http.ask('DELETE', `/leases/${headers.lease}`), { status: 507 });
  store.fault = 'none';
  t.match(await http.ask('DELETE', `/leases/${headers.lease}`), { status: 204 });
});

t.test('the same consumption twice is committed once and answered twice', async (t) => {
  const { client, store } = await serve(t);
  const [one, other] = [await client(), await client()];
  await one.ask('PUT', '/messages/a', 'x');
  const { headers } = await one.ask('POST', '/leases');
  store.fault = 'hangs';
  const remove = requestOf('DELETE', `/leases/${headers.lease}`);
  one.send(remove);
  await until(() => store.commits === 2);
  other.send(Buffer.concat([remove, requestOf('GET', '/ready')]));
  t.match(await (await client()).ask('GET', '/ready'), { status: 200 });
  store.release();
  for (const client of [one, other, other])
    t.match(await client.answer(), { status: client === one ? 204 : /204|200/ });
  t.match(await one.ask('DELETE', `/leases/${headers.lease}`), { status: 204 }, 'and later');
  t.same(store.consumed, ['a']);
});

t.test(
  'when all leases are given, receivers get 503, and the next message after a consumption',
  async (t) => {
    const { client } = await serve(t, { maxLeases: 1 });
    const [http, waiting] = [await client(), await client()];
    waiting.send(requestOf('POST', '/leases?wait=30000'));
    const other = await client();
    other.send(requestOf('POST', '/leases?wait=30000'));
    await until(async () => JSON.parse((await http.ask('GET', '/status')).body).front.waitingReceivers === 2);
    for (const id of ['a', 'b']) await http.ask('PUT', `/messages/${id}`, id);
    const first = await waiting.answer();
    t.match(first, { status: 200, body: 'a' });
    t.match(await http.ask('POST', '/leases'), { status: 503, body: /in delivery/ });
    t.match(await http.ask('DELETE', `/leases/${first.headers.lease}`), { status: 204 });
    t.match(await other.answer(), { status: 200, body: 'b' });
  },
);
