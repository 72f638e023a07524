import t from 'tap';
import { QueueError } from '../platform/errors.js';
import { serve } from './fixtures/served.js';
import { startHttpFront } from './front.js';

t.test('a message is confirmed, leased with its id, and consumed', async (t) => {
  const { store, client } = await serve(t);
  const producer = await client();
  t.match(await producer.ask('GET', '/ready'), { status: 200 });
  t.match(await producer.ask('PUT', '/messages/a-1', 'hello'), { status: 201, body: '' });
  t.same(store.stored, ['a-1']);
  const receiver = await client();
  const leased = await receiver.ask('POST', '/leases?wait=0');
  t.match(leased, { status: 200, body: 'hello', headers: { 'message-id': 'a-1', lease: /.{20}/ } });
  t.match(await receiver.ask('POST', '/leases?wait=0'), { status: 204 }, 'it is in delivery');
  t.match(await producer.ask('DELETE', `/leases/${leased.headers.lease}`), { status: 204 }, 'any connection');
  t.same(store.consumed, ['a-1']);
  t.match(await receiver.ask('POST', '/leases'), { status: 204 });
});

t.test('bytes of every value and the empty message come back unchanged', async (t) => {
  const { client } = await serve(t);
  const http = await client();
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, at) => at));
  for (const body of [bytes, Buffer.alloc(0), Buffer.alloc(300_000, '\r\n\r\n')]) {
    t.match(await http.ask('PUT', '/messages/a', body), { status: 201 });
    t.equal((await http.ask('POST', '/leases')).body, body.toString('latin1'));
  }
});

t.test('each answer of the store has its status', async (t) => {
  const { store, client } = await serve(t);
  const http = await client();
  for (const [fault, status] of [
    ['full', 507],
    ['too-large', 413],
    ['fails', 500],
  ] as const) {
    store.fault = fault;
    const { headers, ...answer } = await http.ask('PUT', '/messages/a', 'x');
    t.equal(answer.status, status, fault);
    t.match(answer.body, /^[^\n]+\n$/, 'one line');
    t.match(headers['content-type'], /^text\/plain/);
  }
  store.fault = 'none';
  t.match(await http.ask('PUT', '/messages/a?queue=unknown', 'x'), { status: 404, body: /unknown/ });
  t.equal(store.stored.length, 0);
});

t.test('an id has 1 to 200 safe bytes after decoding', async (t) => {
  const { store, client } = await serve(t);
  const http = await client();
  for (const id of ['a', 'a.b_c~d:e@f+g=h,i-j', '%61%62', 'x'.repeat(200)])
    t.match(await http.ask('PUT', `/messages/${id}`, 'x'), { status: 201 }, id);
  t.equal(store.stored[2], 'ab');
  for (const id of [
    '',
    'x'.repeat(201),
    'a/b',
    'a%2Fb',
    '%',
    '%zz',
    '%ff',
    'a%0D%0Ab',
    '%C3%A4',
    'a%20b',
    '%00',
  ])
    t.match(await http.ask('PUT', `/messages/${id}`, 'x'), { status: 400, body: /[^\n]\n$/ }, id);
  t.equal(store.stored.length, 4);
});

t.test('a receiver that waits gets the message at once when it comes', async (t) => {
  const { client } = await serve(t);
  const receiver = await client();
  const answer = receiver.ask('POST', '/leases?wait=30000');
  const producer = await client();
  await producer.ask('PUT', '/messages/a', 'x');
  t.match(await answer, { status: 200, headers: { 'message-id': 'a' } });
});

t.test('receivers are served in the order of arrival, each from its queue', async (t) => {
  const { client } = await serve(t);
  const http = await client();
  t.match(await http.ask('PUT', '/queues/other', '{}'), { status: 201 });
  const asked = ['', '&queue=other', '&queue=main', '', '&queue=other'];
  const receivers = [];
  for (const [at, queue] of asked.entries()) {
    const receiver = await client();
    receivers.push(receiver);
    receiver.send(`POST /leases?wait=30000${queue} HTTP/1.1\r\nhost: x\r\n\r\n`);
    while (JSON.parse((await http.ask('GET', '/status')).body).front.waitingReceivers <= at);
  }
  for (const [at, queue] of ['other', 'other', 'main', 'main', 'other'].entries())
    await http.ask('PUT', `/messages/m${at}?queue=${queue}`, 'x');
  const got = await Promise.all(receivers.map(async (one) => (await one.answer()).headers['message-id']));
  t.same(got, ['m0', 'm1', 'm2', 'm3', 'm4']);
});

t.test('a receiver gets 204 after its time, 400 for nonsense, 404 for an unknown queue', async (t) => {
  const { client, store } = await serve(t, { maxWaitMs: 50 });
  const http = await client();
  t.match(await http.ask('POST', '/leases?wait=20'), { status: 204 });
  t.match(await http.ask('POST', '/leases?wait=999999999'), { status: 204 }, 'shortened to maxWaitMs');
  for (const query of ['wait=-1', 'wait=', 'wait', 'wait=1e9', 'wait=1&wait=1', 'when=1', 'queue=a%20b', '&'])
    t.match(await http.ask('POST', `/leases?${query}`), { status: 400, body: /[^\n]\n$/ }, query);
  t.match(await http.ask('POST', '/leases?queue=nowhere&wait=20'), { status: 404, body: /nowhere/ });
  store.takeFails = true;
  t.match(await http.ask('POST', '/leases?wait=20'), { status: 500, body: /damaged/ });
});

t.test('queues are created, changed, listed and deleted', async (t) => {
  const { client, store } = await serve(t);
  const http = await client();
  t.match(await http.ask('PUT', '/queues/q.1', '{"limit":7,"kind":"a"}'), { status: 201 });
  t.match(await http.ask('PUT', '/queues/q.1', '{"limit":8}'), { status: 200 });
  await http.ask('PUT', '/messages/a?queue=q.1', 'abc');
  await http.ask('POST', '/leases?queue=q.1');
  const info = { name: 'q.1', messages: 1, inDelivery: 1, bytes: 3, definition: { limit: 8 } };
  t.same(JSON.parse((await http.ask('GET', '/queues/q.1')).body), info);
  t.match(JSON.parse((await http.ask('GET', '/queues')).body).queues, [{ name: 'main' }, info]);
  for (const body of ['', '[]', 'null', '{"a":null}', '{"a":{}}', '{"__proto__":1}', '{'])
    t.match(await http.ask('PUT', '/queues/q.2', body), { status: 400, body: /JSON/ }, body);
  t.match(await http.ask('PUT', '/queues/-', '{}'), { status: 400 });
  store.fault = 'full';
  t.match(await http.ask('PUT', '/queues/q.2', '{}'), { status: 409 });
  t.match(await http.ask('PUT', '/queues/q.1', '{}'), { status: 409 });
  t.match(await http.ask('DELETE', '/queues/q.1'), { status: 409 });
  store.fault = 'fails';
  t.match(await http.ask('PUT', '/queues/q.2', '{}'), { status: 500 });
  store.fault = 'none';
  t.match(await http.ask('DELETE', '/queues/q.1'), { status: 204 });
  t.match(await http.ask('DELETE', '/queues/q.1'), { status: 404 });
  t.match(await http.ask('GET', '/queues/q.1'), { status: 404 });
});

t.test('the status tells what the front holds and what the store says', async (t) => {
  const { client } = await serve(t);
  const http = await client();
  await http.ask('PUT', '/messages/a', 'x');
  await http.ask('POST', '/leases');
  t.match(JSON.parse((await http.ask('GET', '/status')).body), {
    front: { connections: 1, leases: 1, waitingReceivers: 0, bufferedBytes: 0 },
    store: { commits: 1 },
  });
});

t.test('a wrong setting and a port in use are bad-setting', async (t) => {
  const { front, store } = await serve(t);
  await t.rejects(startHttpFront(store, { port: front.port }), new QueueError('bad-setting', ''), 'port');
  for (const settings of [
    { leaseMs: 0 },
    { leaseMs: 1.5 },
    { maxLeases: Number.NaN },
    { maxWaitMs: 2 ** 31 },
  ])
    await t.rejects(startHttpFront(store, settings), { code: 'bad-setting', exitCode: 2 });
});
