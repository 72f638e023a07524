import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import t, { type Test } from 'tap';
import { seeded } from '../../fixtures/random.js';
import { ReceiptList } from '../../fixtures/receipts.js';
import { localAddress } from '../address.js';
import { compose } from '../message.js';
import { beanstalk } from './beanstalk.js';

const message = compose({ run: 'run-1', id: '1', shape: 'text' }, seeded(1));

/** Starts a server that answers each command whose first word is a key of `answers`. */
async function scripted(t: Test, answers: Readonly<Record<string, string | Buffer | undefined>>) {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      const answer = answers[chunk.toString('latin1').split(/[ \r]/)[0] ?? ''];
      if (answer === 'gone') socket.destroy();
      else if (answer !== undefined) socket.write(answer);
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return (server.address() as AddressInfo).port;
}

t.test('each answer to a put has its exact outcome', async (t) => {
  const cases: [string | undefined, string, RegExp][] = [
    ['INSERTED 12\r\n', 'confirmed', /^INSERTED 12$/],
    ['BURIED 12\r\n', 'indefinite', /^BURIED 12$/],
    ['INTERNAL_ERROR\r\n', 'indefinite', /^INTERNAL_ERROR$/],
    ['JOB_TOO_BIG\r\n', 'rejected', /^JOB_TOO_BIG$/],
    ['DRAINING\r\n', 'rejected', /^DRAINING$/],
    ['OUT_OF_MEMORY\r\n', 'rejected', /^OUT_OF_MEMORY$/],
    ['x'.repeat(2000), 'indefinite', /expected a line/],
    ['gone', 'indefinite', /broke|ECONNRESET/],
    [undefined, 'indefinite', /no answer within 300 ms/],
  ];
  for (const [put, outcome, detail] of cases) {
    const port = await scripted(t, { put });
    const producer = await beanstalk.connect(localAddress(port), {
      timeoutMs: put === undefined ? 300 : 10_000,
    });
    t.match(await producer.submit(message), { outcome, detail }, put?.slice(0, 20) ?? 'silence');
    await producer.close();
  }
});

t.test('NOT_FOUND to a delete is a refusal, and a delete without a clear answer is unanswered', async (t) => {
  const job = Buffer.concat([
    Buffer.from(`RESERVED 7 ${message.bytes.length}\r\n`),
    message.bytes,
    Buffer.from('\r\n'),
  ]);
  for (const [answer, kind, receipt] of [
    ['NOT_FOUND\r\n', 'refused', { detail: 'lease gone: NOT_FOUND' }],
    ['gone', 'consumed', { how: 'unanswered' }],
    ['INTERNAL_ERROR\r\n', 'consumed', { how: 'unanswered' }],
    ['DELETED\r\n', 'consumed', { how: 'answered' }],
  ] as const) {
    const port = await scripted(t, { 'reserve-with-timeout': job, delete: answer });
    const receipts = new ReceiptList();
    const receiver = await beanstalk.receive([localAddress(port)], { run: 'run-1', receipts });
    await receipts.waitFor(kind, 1);
    await receiver.close();
    t.match(receipts.ofKind('delivered')[0], { id: '1', digest: message.digest });
    t.match(receipts.ofKind(kind)[0], receipt, answer);
  }
});
