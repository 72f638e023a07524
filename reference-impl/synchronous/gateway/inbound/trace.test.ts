import { once } from 'node:events';
import fc from 'fast-check';
import t from 'tap';
import { startMemoryWorker } from '../fixtures/memory-worker.js';
import { RawClient } from '../fixtures/raw-client.js';
import { withoutTrace } from '../fixtures/without-trace.js';
import { countHops, receivedHeader, withoutTrace as stripTrace, traceIds } from './trace.js';

const INFO = {
  heloName: 'client.example',
  clientAddress: '::ffff:192.0.2.1',
  hostname: 'mx.example',
  protocol: 'ESMTP',
  id: 'x-1',
  receivedAt: new Date(Date.UTC(2026, 0, 2, 3, 4, 5)),
} as const;

t.test('the trace header has the form of RFC 5321 4.4', async (t) => {
  t.equal(
    receivedHeader(INFO).toString(),
    'Received: from client.example ([192.0.2.1])\r\n\tby mx.example with ESMTP id x-1;\r\n' +
      '\tFri, 02 Jan 2026 03:04:05 +0000\r\n',
  );
  const from = (info: object) =>
    /from (.*)\r\n\tby/.exec(receivedHeader({ ...INFO, ...info }).toString())?.[1];
  t.equal(from({ clientAddress: '2001:db8::1' }), 'client.example ([IPv6:2001:db8::1])');
  t.equal(from({ clientAddress: undefined }), 'client.example (unknown)');
  t.equal(from({ heloName: '[192.0.2.9]' }), '[192.0.2.9] ([192.0.2.1])');
  for (const heloName of ['a\tb', 'a (comment)', 'a; b', `${'a'.repeat(256)}`, '', '<x>', 'a\r\nX: y'])
    t.equal(from({ heloName }), 'unknown ([192.0.2.1])', JSON.stringify(heloName));
});

t.test(
  'a stored message without its trace header is what the client sent, also when that begins with another',
  async (t) => {
    const ids = traceIds('queue');
    for (const protocol of ['SMTP', 'ESMTP', 'ESMTPS'] as const)
      for (const clientAddress of [INFO.clientAddress, '2001:db8::1', undefined]) {
        const header = receivedHeader({ ...INFO, protocol, clientAddress, id: ids.next() });
        for (const sent of [
          'Subject: x\r\n\r\nbody\r\n',
          '',
          '\r\nReceived: from',
          header.toString('latin1'),
        ])
          t.equal(stripTrace(Buffer.concat([header, Buffer.from(sent)])).toString(), sent);
      }
    const foreign = Buffer.from('Received: from a (b)\r\n\tby c with SMTP id 17;\r\n\tnow\r\n\r\nbody\r\n');
    t.ok(stripTrace(foreign).equals(foreign), 'the header of another relay stays');
  },
);

t.test('every name of a client makes one header of three lines that are not too long', async (t) => {
  fc.assert(
    fc.property(fc.string({ maxLength: 2000 }), fc.string(), (heloName, clientAddress) => {
      const text = receivedHeader({ ...INFO, heloName, clientAddress }).toString('latin1');
      t.match(text, /^Received: [ -~]+\r\n\t[ -~]+\r\n\t[ -~]+\r\n$/);
      t.ok(text.split('\r\n').every((line) => line.length <= 998));
    }),
  );
});

t.test('Received headers are counted in the header section, and those of this queue apart', async (t) => {
  const ids = traceIds('this queue');
  const own = receivedHeader({ ...INFO, id: ids.next() }).toString();
  const other = receivedHeader({ ...INFO, id: traceIds('another queue').next() }).toString();
  const count = (text: string, limit = 1000) => countHops(Buffer.from(text), ids.tag, limit);
  t.strictSame(count(''), { total: 0, own: 0 });
  t.strictSame(count(`${own}${other}${own}Subject: x\r\n\r\n${own}`), { total: 3, own: 2 });
  t.strictSame(count(`${own}${other}no header\r\n${own}`), { total: 2, own: 1 });
  t.strictSame(count('received : a\r\nRECEIVED: b\r\nX-Received: c\r\nReceived-SPF: d\r\n'), {
    total: 2,
    own: 0,
  });
  t.strictSame(
    count(`${own.replace('\tby', ' by').trimEnd()}`),
    { total: 1, own: 1 },
    'without a last line end',
  );
  t.strictSame(count(`Subject:\r\n\tby x with SMTP id ${ids.tag}-1\r\n${other}`), { total: 1, own: 0 });
  t.strictSame(count(own.repeat(50), 30), { total: 30, own: 30 });
  const far = count(`${'a:\r\n'.repeat(100_000)}${own}`);
  t.strictSame(far, { total: 0, own: 0 }, 'a huge header section is not read to its end');
});

t.test('two workers of a queue make different ids with the same tag', async (t) => {
  const [one, two, other] = [traceIds('q'), traceIds('q'), traceIds('p')];
  t.equal(one.tag, two.tag);
  t.not(one.tag, other.tag);
  t.equal(new Set([one.next(), one.next(), two.next(), two.next()]).size, 4);
});

t.test('an accepted message gets one trace header in front, and no other byte changes', async (t) => {
  const { worker, queue } = await startMemoryWorker(t, { smtp: { hostname: 'mx.example' } });
  const client = await RawClient.open(worker.port);
  const text = 'Return-Path: <kept@example>\r\nSubject: x\r\n\r\n..\r\n';
  await client.ask('HELO old.example\r\n');
  t.match(await client.submit(text), /^250/);
  await client.ask('EHLO new.example\r\n');
  t.match(await client.submit(text), /^250/);
  client.close();
  const stored = [...queue.live.values()].map(({ body }) => body.data);
  t.strictSame(
    stored.map((data) => withoutTrace(data)),
    [text, text].map((one) => one.replace('..', '.')),
    'a Return-Path is neither added nor removed: only the last hop does that',
  );
  t.match(
    stored[0]?.toString(),
    /^Received: from old\.example \(\[127\.0\.0\.1\]\)\r\n\tby mx\.example with SMTP id /,
  );
  t.match(
    stored[1]?.toString(),
    /^Received: from new\.example \(\[127\.0\.0\.1\]\)\r\n\tby mx\.example with ESMTP id /,
  );
});

t.test('the trace header does not count against the size limit', async (t) => {
  const { worker, queue } = await startMemoryWorker(t, { smtp: { maxMessageBytes: 10 } });
  const client = await RawClient.ready(worker.port);
  t.match(await client.submit('12345678\r\n'), /^250/);
  t.match(await client.submit('123456789\r\n'), /^552 5\.3\.4/);
  t.match(await client.submit('12345678\r\n'), /^250/, 'the next message starts anew');
  client.close();
  t.strictSame(
    [...queue.live.values()].map(({ body }) => withoutTrace(body.data)),
    ['12345678\r\n', '12345678\r\n'],
  );
});

t.test('a message with too many Received headers gets 554 5.4.6', async (t) => {
  const { worker, queue } = await startMemoryWorker(t, { smtp: { maxHops: 30 } });
  const client = await RawClient.ready(worker.port);
  const header = 'Received: from a by b; Fri, 02 Jan 2026 03:04:05 +0000\r\n';
  t.match(await client.submit(header.repeat(29)), /^250/);
  t.match(await client.submit(header.repeat(30)), /^554 5\.4\.6 Too many hops/);
  t.equal(queue.live.size, 1);
  client.close();
});

t.test(
  'a gateway that delivers to itself refuses the message after a few rounds, and buries it',
  async (t) => {
    // The port of the first worker is not known before it runs, so the second worker closes the circle.
    const second = await startMemoryWorker(t);
    const first = await startMemoryWorker(t, { delivery: { nextHop: `127.0.0.1:${second.worker.port}` } });
    await second.stop();
    const circle = await startMemoryWorker(t, {
      smtp: { port: second.worker.port },
      delivery: { nextHop: `127.0.0.1:${first.worker.port}` },
    });
    const client = await RawClient.ready(first.worker.port);
    t.match(await client.submit('Subject: round\r\n\r\n'), /^250/);
    const dead = () => [...first.queue.dead, ...circle.queue.dead];
    while (dead().length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    t.match(dead(), [
      {
        failure: { reason: 'loop', replies: [/^554 5\.4\.6 Mail loop, the message was here 5 times before/] },
      },
    ]);
    t.equal(first.queue.live.size + circle.queue.live.size, 0);
    client.close();
    await once(client.socket, 'close');
  },
);
