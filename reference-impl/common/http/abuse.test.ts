import t from 'tap';
import { RawHttp, requestOf } from './fixtures/raw-http.js';
import { serve, until } from './fixtures/served.js';

const head = (path: string, more: string) => `PUT ${path} HTTP/1.1\r\nhost: x\r\n${more}\r\n`;

t.test('nonsense gets one line of text and ends the connection, and others are served', async (t) => {
  const { front, client, store } = await serve(t);
  const cases: [string, number][] = [
    ['hello\r\n\r\n', 400],
    ['GET /ready HTTP/9.9\r\n\r\n', 400],
    ['\0\0\0\0\0\0\0\0', 400],
    ['GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n', 400],
    [`GET /${'x'.repeat(20_000)} HTTP/1.1\r\nhost: x\r\n\r\n`, 431],
    [`GET /ready HTTP/1.1\r\nhost: x\r\na: ${'x'.repeat(20_000)}\r\n\r\n`, 431],
    [head('/messages/a', 'content-length: 1\r\ncontent-length: 2\r\n'), 400],
    [head('/messages/a', 'content-length: 1\r\ntransfer-encoding: chunked\r\n'), 400],
    [head('/messages/a', 'content-length: -1\r\n'), 400],
    [head('/messages/a', 'content-length: 99999999999999999999999\r\n'), 400],
    [`${head('/messages/a', 'transfer-encoding: chunked\r\n')}zz\r\n`, 400],
    [`${head('/messages/a', 'transfer-encoding: chunked\r\n')}3\r\nabcd\r\n`, 400],
    ['CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n', 405],
  ];
  for (const [bytes, status] of cases) {
    const one = await RawHttp.open(front.port);
    one.send(bytes);
    t.match(await one.answer(), { status, body: /^[^\n]+\n$/ }, bytes.slice(0, 60));
    await one.closed();
  }
  t.equal(store.commits, 0);
  t.match(await (await client()).ask('PUT', '/messages/a', 'x'), { status: 201 });
});

t.test('an unknown path or method is refused, and the connection goes on', async (t) => {
  const { client } = await serve(t);
  const http = await client();
  const cases: [string, string, number][] = [
    ['GET', '/', 404],
    ['GET', '/nowhere', 404],
    ['GET', '//', 404],
    ['GET', 'http://elsewhere/ready', 404],
    ['OPTIONS', '*', 404],
    ['PUT', '/ready', 405],
    ['POST', '/messages/a', 405],
    ['GET', '/leases', 405],
    ['TRACE', '/ready', 405],
    ['PATCH', '/queues/a', 405],
    ['GET', '/ready?x=1', 400],
    ['DELETE', '/leases/%', 400],
  ];
  for (const [method, path, status] of cases)
    for (const body of [undefined, 'a body'])
      t.match(await http.ask(method, path, body), { status, body: /^[^\n]+\n$/ }, `${method} ${path}`);
  t.match(await http.ask('GET', '/leases'), { headers: { allow: 'POST' } });
  http.send('GET /ready HTTP/1.1\r\n\r\n');
  t.match(await http.answer(), { status: 400, body: /host/ });
  t.match(await http.ask('POST', '/leases', '{}'), { status: 204 }, 'a body that is not needed is dropped');
});

t.test('nonsense behind a submit is no answer to the submit', async (t) => {
  const { client, store } = await serve(t);
  for (const nonsense of [
    'hello\r\n\r\n',
    `GET /${'x'.repeat(20_000)}`,
    'CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n',
  ]) {
    const http = await client();
    store.fault = 'hangs';
    const commits = store.commits;
    http.send(Buffer.concat([requestOf('PUT', '/messages/a', 'x'), Buffer.from(nonsense)]));
    await until(() => store.commits > commits);
    http.send('more nonsense');
    t.match(await (await client()).ask('GET', '/ready'), { status: 200 });
    store.release();
    t.match(await http.answer(), { status: 201 }, nonsense.slice(0, 30));
    await http.closed();
  }
});

t.test('requests that were sent together are answered in order, and not without bound', async (t) => {
  const { client, store } = await serve(t, { maxRequestsInFlight: 10 });
  const http = await client();
  const puts = Array.from({ length: 10 }, (_, at) => requestOf('PUT', `/messages/${at}`, `${at}`));
  http.send(Buffer.concat(puts));
  for (const _ of puts) t.match(await http.answer(), { status: 201 });
  t.same(store.stored, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(String));
  store.fault = 'hangs';
  http.send(Buffer.concat([...puts, ...puts]));
  t.match(await http.answer(), { status: 0 }, 'the connection is closed: the outcome is open');
  t.match(await (await client()).ask('GET', '/ready'), { status: 200 });
});

t.test('a body that is too large is refused before it comes', async (t) => {
  const { client, store, front } = await serve(t, { maxBodyBytes: 1000 });
  const http = await client();
  t.match(await http.ask('PUT', '/messages/a', 'x'.repeat(1000)), { status: 201 });
  http.send(head('/messages/a', 'content-length: 1001\r\n'));
  t.match(await http.answer(), { status: 413, body: /1001 bytes, expected at most 1000/ });
  const flood = await client();
  flood.send(head('/messages/a', 'transfer-encoding: chunked\r\n'));
  flood.send(`3e9\r\n${'x'.repeat(1001)}\r\n`);
  t.match(await flood.answer(), { status: 413 });
  // A client that sends the whole body before it reads still gets the answer.
  const whole = await client();
  t.match(await whole.ask('PUT', '/messages/a', 'x'.repeat(3_000_000)), { status: 413 });
  await whole.closed();
  const endless = await RawHttp.open(front.port);
  endless.send(head('/messages/a', 'content-length: 999999999999\r\n'));
  const timer = setInterval(() => endless.socket.writable && endless.send(Buffer.alloc(1_000_000)), 1);
  await endless.closed();
  clearInterval(timer);
  t.equal(store.commits, 1);
});

t.test('a client that expects 100-continue gets it, or the refusal instead', async (t) => {
  const { client, store } = await serve(t, { maxBodyBytes: 1000 });
  const http = await client();
  http.send(head('/messages/a', 'content-length: 3\r\nexpect: 100-continue\r\n'));
  await http.until('100 Continue\r\n\r\n');
  http.send('abc');
  t.match(await http.answer(), { status: 201 });
  http.send(head('/messages/a', 'content-length: 1001\r\nexpect: 100-continue\r\n'));
  t.match(await http.answer(), { status: 413, headers: { connection: 'close' } });
  await http.closed();
  const other = await client();
  other.send(head('/messages/a', 'content-length: 3\r\nexpect: a-miracle\r\n'));
  t.match(await other.answer(), { status: 417 });
  t.equal(store.commits, 1);
});

t.test('a head or a body that comes too slowly gets 408', async (t) => {
  const { client, store } = await serve(t, { headTimeoutMs: 300, requestTimeoutMs: 600 });
  const [slowHead, slowBody, silent] = [await client(), await client(), await client()];
  slowHead.send('PUT /mess');
  slowBody.send(`${head('/messages/a', 'content-length: 10\r\n')}half`);
  silent.send(requestOf('POST', '/leases?wait=30000'));
  t.match(await slowHead.answer(), { status: 408, body: /too slowly/ });
  t.match(await slowBody.answer(), { status: 408, body: /too slowly/ });
  for (const one of [slowHead, slowBody]) await one.closed();
  const http = await client();
  await http.ask('PUT', '/messages/b', 'x');
  t.match(await silent.answer(), { status: 200 }, 'a receiver that waits is not slow');
  t.same(store.stored, ['b']);
});

t.test('when bodies have used up the memory, the largest that is coming gives way', async (t) => {
  const { client, store } = await serve(t, { maxBodyBytes: 400_000, maxBufferedBytes: 500_000 });
  const [large, medium, http] = [await client(), await client(), await client()];
  const used = async () => JSON.parse((await http.ask('GET', '/status')).body).front.bufferedBytes;
  large.send(head('/messages/large', 'content-length: 400000\r\n'));
  large.send('x'.repeat(390_000));
  await until(async () => (await used()) > 390_000);
  medium.send(requestOf('PUT', '/messages/medium', 'y'.repeat(200_000)));
  t.match(await medium.answer(), { status: 201 });
  large.send('x'.repeat(10_000));
  t.match(await large.answer(), { status: 503, body: /no memory/ });
  t.match(await large.ask('PUT', '/messages/large', 'x'.repeat(400_000)), { status: 201 });
  t.same(store.stored, ['medium', 'large']);
  t.equal(await used(), 0);
});

t.test(
  'while the store commits as much as the memory holds, a body is refused before it comes',
  async (t) => {
    const { client, store } = await serve(t, { maxBodyBytes: 10_000, maxBufferedBytes: 15_000 });
    const [http, other] = [await client(), await client()];
    store.fault = 'hangs';
    http.send(requestOf('PUT', '/messages/a', 'x'.repeat(9000)));
    await until(() => store.commits === 1);
    other.send(head('/messages/b', 'content-length: 6000\r\nexpect: 100-continue\r\n'));
    t.match(await other.answer(), { status: 503 });
    const many = await client();
    t.match(await many.ask('PUT', '/messages/b', 'x'.repeat(6000)), { status: 503 });
    store.release();
    t.match(await http.answer(), { status: 201 });
    t.match(await many.ask('PUT', '/messages/b', 'x'.repeat(6000)), { status: 201 });
  },
);

t.test('a body of very many tiny pieces is refused, and one of some is not', async (t) => {
  const { client, store } = await serve(t);
  const [http, flood] = [await client(), await client()];
  const chunked = head('/messages/a', 'transfer-encoding: chunked\r\n');
  http.send(`${chunked}${'1\r\nx\r\n'.repeat(1000)}0\r\n\r\n`);
  t.match(await http.answer(), { status: 201 });
  t.equal((await http.ask('POST', '/leases')).body, 'x'.repeat(1000));
  flood.send(`${chunked}${'1\r\nx\r\n'.repeat(1001)}`);
  t.match(await flood.answer(), { status: 400, body: /pieces/ });
  await flood.closed();
  t.equal(store.commits, 1);
});

t.test('a small message does not wait for many large ones that come', async (t) => {
  const { front, client, store } = await serve(t);
  const floods = await Promise.all(Array.from({ length: 20 }, () => client()));
  const piece = Buffer.alloc(1_000_000);
  for (const { socket } of floods) {
    socket.write(head('/messages/large', 'content-length: 16000000\r\n'));
    let left = 15;
    const send = () => {
      while (left-- > 0 && socket.writable && socket.write(piece));
    };
    socket.on('drain', send);
    send();
  }
  for (let sent = 0; sent < 5; sent += 1) {
    const small = await RawHttp.open(front.port);
    t.match(await small.ask('PUT', '/messages/small', 'x'), { status: 201 });
    small.close();
  }
  t.ok(store.stored.every((id) => id === 'small'));
});

t.test('too many receivers that wait get 503', async (t) => {
  const { client } = await serve(t, { maxWaitingReceivers: 2 });
  const waiting = [await client(), await client()];
  for (const one of waiting) one.send(requestOf('POST', '/leases?wait=30000'));
  const http = await client();
  await until(async () => JSON.parse((await http.ask('GET', '/status')).body).front.waitingReceivers === 2);
  t.match(await http.ask('POST', '/leases?wait=10'), { status: 503, body: /2 receivers/ });
  for (const one of waiting) await http.ask('PUT', '/messages/a', String(one.socket.localPort));
  for (const one of waiting) t.match(await one.answer(), { status: 200 });
});

t.test('when all connections are used by requests, a new one gets 503', async (t) => {
  const { front, client } = await serve(t, { maxConnections: 2 });
  const [waiting, idle] = [await client(), await client()];
  waiting.send(requestOf('POST', '/leases?wait=30000'));
  t.match(await idle.ask('GET', '/ready'), { status: 200 });
  const refused = await RawHttp.open(front.port);
  t.match(await refused.answer(), { status: 503, body: /too many connections/ });
  await refused.closed();
  // Later the idle one loses its place. The one that waits keeps its.
  let status = 503;
  while (status !== 201) {
    const http = await RawHttp.open(front.port);
    status = (await http.ask('PUT', '/messages/a', 'x')).status;
    http.close();
  }
  await idle.closed();
  t.match(await waiting.answer(), { status: 200 });
});

t.test('a client that sends requests and reads no answers is not served without bound', async (t) => {
  const { client, store } = await serve(t);
  const http = await client();
  http.socket.pause();
  const flood = Buffer.concat(Array.from({ length: 30 }, () => requestOf('GET', '/nowhere')));
  let isFull = false;
  for (let at = 0; at < 20_000 && !isFull; at += 1) {
    isFull = !http.socket.write(flood) && http.socket.writableLength > 1_000_000;
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok(isFull || http.socket.destroyed, 'its requests are not read any more');
  t.match(await (await client()).ask('PUT', '/messages/a', 'x'), { status: 201 });
  t.equal(store.commits, 1);
});
