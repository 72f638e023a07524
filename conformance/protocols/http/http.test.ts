import { EventEmitter, once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { KitError } from '../../errors.js';
import { seeded } from '../../fixtures/random.js';
import { ReceiptList } from '../../fixtures/receipts.js';
import { TargetProcess } from '../../fixtures/target-process.js';
import { localAddress } from '../address.js';
import { compose } from '../message.js';
import type { Receiver, ReceiverOptions } from '../protocol.js';
import { MESSAGE_SHAPES, type MessageShape } from '../shapes.js';
import { http } from './http.js';

const RUN = 'run-1';
const message = (id: string, shape: MessageShape = 'text') => compose({ run: RUN, id, shape }, seeded(1));

/** Starts a fixture queue in a separate process. */
async function queue(t: Test, ...more: string[]) {
  const dataDir = mkdtempSync(join(tmpdir(), 'plugpull-http-'));
  const target = await TargetProcess.make('correct', dataDir, more);
  t.teardown(async () => {
    await target.kill();
    rmSync(dataDir, { recursive: true, force: true });
  });
  t.ok(await target.start(), 'ready');
  return target;
}

async function consume(t: Test, port: number, options: Partial<ReceiverOptions> = {}) {
  const receipts = new ReceiptList();
  const receiver: Receiver = await http.receive([localAddress(port)], { run: RUN, receipts, ...options });
  t.teardown(() => receiver.close());
  return { receipts, receiver };
}

/** Starts a server with scripted answers. */
async function scripted(t: Test, listener: RequestListener) {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

t.test('messages of every shape are delivered byte for byte and consumed with an answer', async (t) => {
  const { port } = await queue(t);
  const producer = await http.connect(localAddress(port));
  for (const shape of MESSAGE_SHAPES) {
    t.match(await producer.submit(message(shape, shape)), { outcome: 'confirmed', detail: '201' }, shape);
  }
  const { receipts, receiver } = await consume(t, port);
  await receipts.waitFor('consumed', MESSAGE_SHAPES.length);
  t.equal(receiver.sink, '');
  for (const { id, digest, recipients } of receipts.ofKind('delivered')) {
    t.equal(digest, message(id ?? '', id as MessageShape).digest, `${id}`);
    t.same(recipients, [0]);
  }
  t.ok(receipts.ofKind('consumed').every(({ how }) => how === 'answered'));
  t.ok(producer.usable());
  await producer.close();
});

t.test('each answer to a submit has its exact outcome', async (t) => {
  const cases: [number | 'gone' | 'silent', string, RegExp][] = [
    [201, 'confirmed', /^201 said so$/],
    [400, 'rejected', /^400/],
    [413, 'rejected', /^413/],
    [503, 'rejected', /^503/],
    [507, 'rejected', /^507/],
    [200, 'indefinite', /^200/],
    [202, 'indefinite', /^202/],
    [302, 'indefinite', /^302/],
    [500, 'indefinite', /^500/],
    ['gone', 'indefinite', /hang up|ECONNRESET/],
    ['silent', 'indefinite', /no answer within 400 ms/],
  ];
  for (const [says, outcome, detail] of cases) {
    const port = await scripted(t, (request, response) => {
      request.resume().on('end', () => {
        if (request.url === '/ready') response.end();
        else if (says === 'gone') request.socket.destroy();
        else if (says !== 'silent') response.writeHead(says).end('said\n so');
      });
    });
    const producer = await http.connect(localAddress(port), { timeoutMs: says === 'silent' ? 400 : 10_000 });
    t.match(await producer.submit(message('1')), { outcome, detail }, `${says}`);
    t.equal(producer.usable(), typeof says === 'number');
    await producer.close();
  }
});

t.test('a producer uses a node of a cluster only while the node is ready', async (t) => {
  let status = 503;
  const address = localAddress(
    await scripted(t, (_request, response) => void response.writeHead(status).end()),
  );
  const node = { ...address, node: 'a' };
  await t.rejects(http.connect(node), {
    code: 'target-unavailable',
    message: /^node a \(127\.0\.0\.1\), port \d+: .*503/,
  });
  await (await http.connect(address)).close();
  status = 200;
  await (await http.connect(node)).close();
  t.equal(status, 200);
});

t.test('a full queue rejects, and confirms again after a consumption', async (t) => {
  const { port } = await queue(t, '--max-messages', '1');
  const producer = await http.connect(localAddress(port));
  t.match(await producer.submit(message('1')), { outcome: 'confirmed' });
  t.match(await producer.submit(message('2')), { outcome: 'rejected', detail: '507 full' });
  const { receipts } = await consume(t, port);
  await receipts.waitFor('consumed', 1);
  t.match(await producer.submit(message('3')), { outcome: 'confirmed' });
  await producer.close();
});

t.test(
  'an answer that comes before the end of a body counts, and a hang-up after it breaks nothing',
  async (t) => {
    const server = new EventEmitter();
    const port = await scripted(t, (request, response) => {
      if (request.method === 'GET') {
        response.end();
        return;
      }
      response.on('finish', () => request.resume());
      response.writeHead(503).end();
      request.socket.once('close', () => server.emit('hung-up'));
    });
    const hungUp = once(server, 'hung-up');
    const producer = await http.connect(localAddress(port));
    const huge = { ...message('1', 'large'), bytes: Buffer.alloc(20_000_000) };
    t.match(await producer.submit(huge, { hangUp: 'before-answer' }), {
      outcome: 'rejected',
      detail: /^503/,
    });
    await hungUp;
    await producer.close();
  },
);

t.test('a producer hangs up at each point, and the queue keeps working', async (t) => {
  const { port } = await queue(t);
  for (const hangUp of ['before-data', 'in-data', 'before-answer'] as const) {
    const producer = await http.connect(localAddress(port));
    t.match(
      await producer.submit(message(hangUp, 'large'), { hangUp }),
      { outcome: 'indefinite', detail: /on purpose/ },
      hangUp,
    );
    t.notOk(producer.usable());
    await producer.close();
  }
  const producer = await http.connect(localAddress(port));
  t.match(await producer.submit(message('last')), { outcome: 'confirmed' });
  await producer.close();
  const { receipts } = await consume(t, port);
  await receipts.waitFor('consumed', 1);
  for (const { id } of receipts.ofKind('delivered'))
    t.ok(id === 'last' || id === 'before-answer', 'not half a message');
});

t.test(
  'a connection to a target that is down is target-unavailable, and the target is not ready',
  async (t) => {
    const target = await queue(t);
    await target.kill();
    await t.rejects(http.connect(localAddress(target.port)), KitError);
    await t.rejects(http.connect(localAddress(target.port)), { code: 'target-unavailable', exitCode: 3 });
    t.notOk(await http.ready(localAddress(target.port), 500));
  },
);

t.test(
  'a receiver survives a kill of the target and then gets the messages that were not consumed',
  async (t) => {
    const target = await queue(t);
    const producer = await http.connect(localAddress(target.port));
    const { receipts, receiver } = await consume(t, target.port);
    receiver.hold();
    for (const id of ['1', '2', '3', '4'])
      t.match(await producer.submit(message(id)), { outcome: 'confirmed' });
    await producer.close();
    await receipts.waitFor('delivered', 1);
    t.ok(receiver.inDelivery() > 0);
    await target.kill();
    receiver.release();
    await receipts.waitFor('consumed', 1);
    t.ok(await target.start());
    while (new Set(answeredIds(receipts)).size < 4)
      await receipts.waitFor('consumed', receipts.ofKind('consumed').length + 1);
    t.match(receipts.ofKind('consumed')[0], { how: 'unanswered' });
    await receiver.close();
    t.equal(receiver.inDelivery(), 0);
  },
);

function answeredIds(receipts: ReceiptList): (string | null)[] {
  const answered = new Set(
    receipts.ofKind('consumed').flatMap(({ how, sequence }) => (how === 'answered' ? [sequence] : [])),
  );
  return receipts.ofKind('delivered').flatMap(({ id, sequence }) => (answered.has(sequence) ? [id] : []));
}

t.test(
  'a message is delivered again after its lease expires, and an expired lease cannot be consumed',
  async (t) => {
    const { port } = await queue(t, '--lease-ms', '100');
    const producer = await http.connect(localAddress(port));
    await producer.submit(message('1'));
    await producer.close();
    const { receipts } = await consume(t, port, {
      replyFor: (_id, delivery) => {
        if (delivery === 1) return { answer: 'later', delayMs: 0 };
        // Wait longer than the lease, so that it has expired when the receiver deletes it.
        return { answer: 'accept', delayMs: delivery === 2 ? 500 : 0 };
      },
    });
    await receipts.waitFor('refused', 2);
    await receipts.waitFor('consumed', 1);
    t.match(
      receipts
        .ofKind('refused')
        .map(({ detail }) => detail)
        .sort(),
      ['lease gone: 404', /left to itself/],
    );
  },
);

for (const inOrder of [true, false]) {
  t.test(
    `a receiver takes ${inOrder ? 'one message' : 'two messages'} at a time when order is ${inOrder}`,
    async (t) => {
      const { port } = await queue(t);
      const producer = await http.connect(localAddress(port));
      const ids = Array.from({ length: 8 }, (_, n) => `${n}`);
      for (const id of ids) await producer.submit(message(id));
      await producer.close();
      let most = 0;
      const { receipts, receiver } = await consume(t, port, {
        inOrder,
        replyFor: () => {
          most = Math.max(most, 1 + receiver.inDelivery());
          return { answer: 'accept', delayMs: 20 };
        },
      });
      await receipts.waitFor('consumed', ids.length);
      t.equal(most, inOrder ? 1 : 2);
      if (inOrder)
        t.same(
          receipts.ofKind('delivered').map(({ id }) => id),
          ids,
        );
    },
  );
}

t.test('an unexpected answer to a deletion leaves open whether the message was consumed', async (t) => {
  let leased = 0;
  const port = await scripted(t, (request, response) => {
    if (request.method === 'DELETE') response.writeHead(500).end();
    else if (leased++ === 0) response.writeHead(200, { lease: 'a' }).end(message('1').bytes);
    else response.writeHead(leased % 2 === 0 ? 204 : 500).end();
  });
  const { receipts } = await consume(t, port);
  await receipts.waitFor('consumed', 1);
  t.match(receipts.ofKind('consumed'), [{ how: 'unanswered' }]);
});
