import t, { type Test } from 'tap';
import { seeded } from '../fixtures/random.js';
import { notInstalled, RealServer } from '../fixtures/real-server.js';
import { ReceiptList } from '../fixtures/receipts.js';
import { compose } from './message.js';
import type { ReceiverOptions } from './protocol.js';
import { MESSAGE_SHAPES, type MessageShape } from './shapes.js';

const RUN = 'run-1';
const message = (id: string, shape: MessageShape = 'text') => compose({ run: RUN, id, shape }, seeded(1));

async function consume(t: Test, server: RealServer, options: Partial<ReceiverOptions> = {}) {
  const receipts = new ReceiptList();
  const receiver = await server.protocol.receive([server.address], { run: RUN, receipts, ...options });
  t.teardown(() => receiver.close());
  return { receipts, receiver };
}

/**
 * Target files of real systems, with the program or folder that shows their installation, and whether the system
 * keeps through a kill what it has confirmed.
 */
const SYSTEMS = [
  ['beanstalkd-f0', 'beanstalkd', true],
  ['redis-always', 'redis-server', true],
  ['redis-list-always', 'redis-server', true],
  ['postgres-on', '/usr/lib/postgresql', true],
  ['rabbitmq-classic', '/usr/lib/rabbitmq/bin/rabbitmq-server', true],
  ['mosquitto', '/usr/sbin/mosquitto', false],
  ['nats-jetstream', '/usr/sbin/nats-server', true],
] as const;

for (const [system, program, survivesKill] of SYSTEMS) {
  const why = notInstalled(program);
  const skip = why === undefined ? {} : { skip: why };

  t.test(
    `${system}: the protocol works with the real server, also through kills and hang-ups`,
    skip,
    async (t) => {
      const server = await RealServer.make(system);
      t.teardown(() => server.remove());
      t.notOk(await server.protocol.ready(server.address, 300), 'not ready before the start');
      await t.rejects(server.protocol.connect(server.address, { timeoutMs: 1000 }), {
        code: 'target-unavailable',
      });
      await server.start();

      await t.test('messages of every shape from two producers are delivered byte for byte', async (t) => {
        const producers = [
          await server.protocol.connect(server.address),
          await server.protocol.connect(server.address),
        ];
        const answers = MESSAGE_SHAPES.map((shape, n) => producers[n % 2]?.submit(message(shape, shape)));
        for (const answer of await Promise.all(answers)) t.match(answer, { outcome: 'confirmed' });
        for (const producer of producers) {
          t.ok(producer.usable());
          await producer.close();
        }
        const { receipts, receiver } = await consume(t, server);
        await receipts.waitFor('consumed', MESSAGE_SHAPES.length);
        for (const { id, digest } of receipts.ofKind('delivered'))
          t.equal(digest, message(id ?? '', id as MessageShape).digest, `${id}`);
        await receiver.close();
        t.equal(receiver.inDelivery(), 0);
      });

      await t.test(
        'one message at a time comes in the order of the submits, also through a kill',
        async (t) => {
          const ids = Array.from({ length: survivesKill ? 40 : 20 }, (_, n) => `in-order-${n}`);
          const producer = await server.protocol.connect(server.address);
          for (const id of ids) t.match(await producer.submit(message(id)), { outcome: 'confirmed' });
          await producer.close();
          const first = await consume(t, server, { inOrder: true });
          await first.receipts.waitFor('consumed', 10);
          if (survivesKill) await server.kill();
          await first.receiver.close();
          if (survivesKill) await server.start();
          const second = await consume(t, server, { inOrder: true });
          const seen = () =>
            new Set(
              [first, second].flatMap(({ receipts }) => receipts.ofKind('delivered').map(({ id }) => id)),
            );
          while (seen().size < ids.length)
            await second.receipts.waitFor('delivered', second.receipts.ofKind('delivered').length + 1);
          t.same([...seen()], ids);
          await second.receiver.close();
        },
      );

      await t.test('a producer hangs up at each point, and no half of a message is delivered', async (t) => {
        for (const hangUp of ['before-data', 'in-data', 'before-answer'] as const) {
          const producer = await server.protocol.connect(server.address);
          const answer = await producer.submit(message(hangUp, 'large'), { hangUp });
          t.match(answer, { outcome: 'indefinite', detail: /on purpose/ }, hangUp);
          t.notOk(producer.usable());
          await producer.close();
        }
        const producer = await server.protocol.connect(server.address);
        t.match(await producer.submit(message('last')), { outcome: 'confirmed' });
        await producer.close();
        const { receipts, receiver } = await consume(t, server);
        while (!receipts.ofKind('delivered').some(({ id }) => id === 'last'))
          await receipts.waitFor('delivered', receipts.ofKind('delivered').length + 1);
        for (const { id } of receipts.ofKind('delivered'))
          t.ok(id === 'last' || id === 'before-answer', `${id}: not half a message`);
        await receiver.close();
      });

      await t.test('a message that the receiver does not accept is delivered again', async (t) => {
        const producer = await server.protocol.connect(server.address);
        t.match(await producer.submit(message('again')), { outcome: 'confirmed' });
        await producer.close();
        // Messages of the producers that hung up may still arrive.
        const replyFor = (id: string | null, delivery: number) =>
          ({ answer: id === 'again' && delivery === 1 ? 'later' : 'accept', delayMs: 0 }) as const;
        const { receipts, receiver } = await consume(t, server, { replyFor });
        const again = () => receipts.ofKind('delivered').filter(({ id }) => id === 'again');
        while (again().length < 2)
          await receipts.waitFor('delivered', receipts.ofKind('delivered').length + 1);
        await receipts.waitFor('refused', 1);
        t.match(receipts.ofKind('refused'), [{ permanent: false, sequence: again()[0]?.sequence }]);
        await receiver.close();
      });

      await t.test(
        'a kill breaks a producer, and the receiver gets every message that the server has kept',
        async (t) => {
          const producer = await server.protocol.connect(server.address);
          const { receipts, receiver } = await consume(t, server);
          receiver.hold();
          for (const id of ['1', '2', '3', '4', '5', '6'])
            t.match(await producer.submit(message(id)), { outcome: 'confirmed' });
          await receipts.waitFor('delivered', 1);
          t.ok(receiver.inDelivery() > 0);
          await server.kill();
          t.match(await producer.submit(message('7')), { outcome: 'indefinite' });
          t.notOk(producer.usable());
          await producer.close();
          receiver.release();
          await server.start();
          if (!survivesKill) {
            const again = await server.protocol.connect(server.address);
            t.match(await again.submit(message('8')), { outcome: 'confirmed' });
            await again.close();
          }
          const expected = survivesKill ? /^[1-6]$/ : /^8$/;
          const consumed = () => {
            const ended = new Set(receipts.ofKind('consumed').map(({ sequence }) => sequence));
            return receipts.ofKind('delivered').filter(({ sequence }) => ended.has(sequence));
          };
          const ours = () => new Set(consumed().flatMap(({ id }) => (expected.test(id ?? '') ? [id] : [])));
          while (ours().size < (survivesKill ? 6 : 1))
            await receipts.waitFor('consumed', receipts.ofKind('consumed').length + 1);
          await receiver.close();
          for (const { id, digest } of consumed())
            t.equal(digest, message(id ?? '', id === 'before-answer' ? 'large' : 'text').digest, `${id}`);
        },
      );
    },
  );
}
