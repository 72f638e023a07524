import t from 'tap';
import { requestOf } from './fixtures/raw-http.js';
import { serve, until } from './fixtures/served.js';

const base64 = (text: string) => Buffer.from(text).toString('base64');
const json = (value: unknown) => JSON.stringify(value);

t.test('a transaction puts and consumes in one commit', async (t) => {
  const { client, store } = await serve(t);
  const http = await client();
  await http.ask('PUT', '/messages/a', 'x');
  await http.ask('PUT', '/queues/other', '{}');
  const { headers } = await http.ask('POST', '/leases');
  const transaction = {
    put: [
      { id: 'b', body: base64('1') },
      { id: 'c', body: base64('\0é'), queue: 'other' },
      { id: 'd', body: '' },
    ],
    consume: [headers.lease],
  };
  t.match(await http.ask('POST', '/transactions', json(transaction)), { status: 201 });
  t.equal(store.commits, 2);
  t.same(store.consumed, ['a']);
  t.match(await http.ask('POST', '/leases?queue=other'), { body: Buffer.from('\0é').toString('latin1') });
  t.match(await http.ask('POST', '/transactions', json(transaction)), {
    status: 409,
    body: /consumed before/,
  });
  t.equal(store.commits, 2, 'nothing was done');
});

t.test('a transaction with a lease that has ended or is in use does nothing', async (t) => {
  const { client, store } = await serve(t);
  const [http, other] = [await client(), await client()];
  for (const id of ['a', 'b']) await http.ask('PUT', `/messages/${id}`, id);
  const held = (await http.ask('POST', '/leases')).headers.lease;
  const used = (await http.ask('POST', '/leases')).headers.lease;
  const commits = store.commits;
  const put = [{ id: 'c', body: base64('c') }];
  const ended = { put, consume: [held, 'no-lease'] };
  t.match(await http.ask('POST', '/transactions', json(ended)), { status: 404, body: /nothing was done/ });
  store.fault = 'hangs';
  other.send(requestOf('DELETE', `/leases/${used}`));
  await until(() => store.commits === commits + 1);
  const inUse = { put, consume: [held, used] };
  t.match(await http.ask('POST', '/transactions', json(inUse)), { status: 409, body: /another request/ });
  t.equal(store.commits, commits + 1);
  store.release();
  t.match(await other.answer(), { status: 204 });
  t.match(await http.ask('DELETE', `/leases/${held}`), { status: 204 }, 'the other lease is as before');
  t.same(store.consumed, ['b', 'a']);
});

t.test('a transaction that the store rejects leaves its leases, one that fails does not', async (t) => {
  const { client, store } = await serve(t);
  const http = await client();
  await http.ask('PUT', '/messages/a', 'x');
  const { headers } = await http.ask('POST', '/leases');
  const consume = [headers.lease];
  store.fault = 'full';
  t.match(await http.ask('POST', '/transactions', json({ consume })), { status: 507 });
  store.fault = 'none';
  const elsewhere = { put: [{ id: 'b', body: '', queue: 'nowhere' }], consume };
  t.match(await http.ask('POST', '/transactions', json(elsewhere)), { status: 404, body: /nowhere/ });
  store.fault = 'fails';
  t.match(await http.ask('POST', '/transactions', json({ consume })), { status: 500, body: /^[^\n]+\n$/ });
  store.fault = 'none';
  t.match(await http.ask('POST', '/transactions', json({ consume })), { status: 409, body: /unknown/ });
  t.same(store.consumed, []);
});

t.test('a body that is no transaction gets 400, and a message that is too large 413', async (t) => {
  const { client, store } = await serve(t, { maxBodyBytes: 100, maxTransactionBytes: 100_000 });
  const http = await client();
  const put = (change: object) => json({ put: [{ id: 'a', body: '', ...change }] });
  const wrong = [
    '',
    'x',
    '[]',
    'null',
    '{}',
    json({ put: [], consume: [] }),
    json({ puts: [] }),
    json({ put: {} }),
    json({ consume: [1] }),
    json({ consume: ['a', 'a'] }),
    json({ consume: Array(20_000).fill(1) }),
    '['.repeat(90_000),
    put({ id: '' }),
    put({ id: 'a/b' }),
    put({ queue: '' }),
    put({ more: 1 }),
    put({ body: 'abc' }),
    put({ body: 'YWJj!' }),
    put({ body: 'YW Jj' }),
    put({ body: 7 }),
  ];
  for (const body of wrong)
    t.match(await http.ask('POST', '/transactions', body), { status: 400, body: /[^\n]\n$/ }, body);
  const large = put({ body: base64('x'.repeat(101)) });
  t.match(await http.ask('POST', '/transactions', large), { status: 413, body: /101 bytes/ });
  t.match(await http.ask('POST', '/transactions', 'x'.repeat(100_001)), { status: 413 });
  t.equal(store.commits, 0);
});
