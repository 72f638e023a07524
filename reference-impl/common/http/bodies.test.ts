import t from 'tap';
import { RawHttp, requestOf } from './fixtures/raw-http.js';
import { serve } from './fixtures/served.js';

const BODY = 'one\r\ntwo\r\n';
const WITH_LENGTH = requestOf('PUT', '/messages/cut', BODY);
const CHUNKED = Buffer.from(
  'PUT /messages/cut HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\none\r\n\r\n5\r\ntwo\r\n\r\n0\r\n\r\n',
);
const TRANSACTION = requestOf('POST', '/transactions', '{"put":[{"id":"cut","body":""}]}');

for (const [name, request] of Object.entries({ WITH_LENGTH, CHUNKED, TRANSACTION }))
  t.test(`a request that breaks at any byte is no message: ${name}`, async (t) => {
    const { store, front, client } = await serve(t);
    for (let cut = 1; cut < request.length; cut += 1) {
      const one = await RawHttp.open(front.port);
      one.send(request.subarray(0, cut));
      // Half of them end in order, half with a reset.
      if (cut % 2 === 0) one.socket.end();
      else await new Promise<void>((resolve) => one.socket.write('', () => resolve()));
      if (cut % 2 === 0) await one.closed();
      one.reset();
    }
    t.equal(store.commits, 0);
    const http = await client();
    http.send(request);
    t.match(await http.answer(), { status: 201 }, 'the whole request is one');
    t.equal(store.commits, 1);
    const { front: state } = JSON.parse((await http.ask('GET', '/status')).body);
    t.match(state, { bufferedBytes: 0 });
  });

t.test('a body that comes in pieces is the same message', async (t) => {
  const { client } = await serve(t);
  const http = await client();
  for (const request of [WITH_LENGTH, CHUNKED]) {
    for (const byte of request) {
      http.send(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    t.match(await http.answer(), { status: 201 });
    t.match(await http.ask('POST', '/leases'), { body: BODY });
  }
  const large = Buffer.from(Array.from({ length: 3_000_000 }, (_, at) => at % 251));
  const chunks = [large.subarray(0, 1), large.subarray(1, 70_001), large.subarray(70_001)];
  http.send('PUT /messages/a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n');
  for (const chunk of chunks) {
    http.send(`${chunk.length.toString(16)}\r\n`);
    http.send(Buffer.concat([chunk, Buffer.from('\r\n')]));
  }
  http.send('0\r\n\r\n');
  t.match(await http.answer(), { status: 201 });
  t.ok(large.equals(Buffer.from((await http.ask('POST', '/leases')).body, 'latin1')));
});

t.test('a submit without a length is refused', async (t) => {
  const { client, store } = await serve(t);
  t.match(await (await client()).ask('PUT', '/messages/a'), { status: 411, body: /content-length/ });
  const old = await client();
  old.send('PUT /messages/a HTTP/1.0\r\n\r\nbody until the end');
  t.match(await old.answer(), { status: 411 });
  t.equal(store.commits, 0);
});

t.test('a producer that hangs up after the whole body may have its message stored', async (t) => {
  const { client, store } = await serve(t);
  const gone = await client();
  store.fault = 'hangs';
  gone.send(WITH_LENGTH);
  while (store.commits === 0) await new Promise((resolve) => setImmediate(resolve));
  gone.reset();
  store.release();
  const http = await client();
  t.match(await http.ask('POST', '/leases?wait=30000'), { status: 200, body: BODY });
});
