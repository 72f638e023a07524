import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { seeded } from '../../fixtures/random.js';
import { ReceiptList } from '../../fixtures/receipts.js';
import { localAddress } from '../address.js';
import { compose } from '../message.js';
import { MESSAGE_SHAPES, type MessageShape } from '../shapes.js';
import { http } from './http.js';

const RUN = 'run-1';
/** The HTTP front of the reference implementations on a queue in memory. The kit starts it as a program, and imports nothing of it. */
const PROGRAM = fileURLToPath(
  new URL('../../../reference-impl/common/http/fixtures/serve.js', import.meta.url),
);

/** Starts the front and returns its port. */
async function front(t: Test, leaseMs: number): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const { port } = probe.address() as AddressInfo;
  probe.close();
  await once(probe, 'close');
  const child = spawn(process.execPath, [PROGRAM, String(port), String(leaseMs)], { stdio: 'inherit' });
  t.teardown(async () => {
    child.kill('SIGTERM');
    if (child.exitCode === null) await once(child, 'exit');
  });
  while (!(await http.ready(localAddress(port), 1000)))
    await new Promise((resolve) => setTimeout(resolve, 20));
  return port;
}

t.test('the front confirms, delivers byte for byte, and forgets producers that hang up', async (t) => {
  const port = await front(t, 60_000);
  const message = (id: string, shape: MessageShape = 'text') => compose({ run: RUN, id, shape }, seeded(1));
  const producer = await http.connect(localAddress(port));
  for (const shape of MESSAGE_SHAPES)
    t.match(await producer.submit(message(shape, shape)), { outcome: 'confirmed', detail: '201' }, shape);
  for (const hangUp of ['before-data', 'in-data', 'before-answer'] as const) {
    const gone = await http.connect(localAddress(port));
    t.match(await gone.submit(message(hangUp, 'large'), { hangUp }), { outcome: 'indefinite' });
    await gone.close();
  }
  t.match(await producer.submit(message('last')), { outcome: 'confirmed' });
  await producer.close();
  const receipts = new ReceiptList();
  const receiver = await http.receive([localAddress(port)], { run: RUN, receipts });
  t.teardown(() => receiver.close());
  while (!receipts.ofKind('delivered').some(({ id }) => id === 'last'))
    await receipts.waitFor('delivered', receipts.ofKind('delivered').length + 1);
  await receipts.waitFor('consumed', MESSAGE_SHAPES.length + 1);
  const digests = new Map(receipts.ofKind('delivered').map(({ id, digest }) => [id, digest]));
  for (const shape of MESSAGE_SHAPES) t.equal(digests.get(shape), message(shape, shape).digest, shape);
  t.notOk(digests.has('in-data'), 'half a message is none');
  t.ok(receipts.ofKind('consumed').every(({ how }) => how === 'answered'));
});

t.test('the front delivers again what its receiver has refused', async (t) => {
  const port = await front(t, 100);
  const producer = await http.connect(localAddress(port));
  t.match(await producer.submit(compose({ run: RUN, id: '1', shape: 'text' }, seeded(1))), {
    outcome: 'confirmed',
  });
  await producer.close();
  const receipts = new ReceiptList();
  const receiver = await http.receive([localAddress(port)], {
    run: RUN,
    receipts,
    replyFor: (_id, delivery) =>
      delivery === 1 ? { answer: 'later', delayMs: 0 } : { answer: 'accept', delayMs: 0 },
  });
  t.teardown(() => receiver.close());
  await receipts.waitFor('consumed', 1);
  t.equal(receipts.ofKind('delivered').length, 2);
});
