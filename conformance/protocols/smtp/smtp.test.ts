import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { KitError } from '../../errors.js';
import { seeded } from '../../fixtures/random.js';
import { ReceiptList } from '../../fixtures/receipts.js';
import { localAddress } from '../address.js';
import { compose } from '../message.js';
import type { DeliveryReply } from '../protocol.js';
import { MESSAGE_SHAPES, type MessageShape } from '../shapes.js';
import { connectSmtp, dotStuff } from './producer.js';
import { SmtpSink } from './sink.js';
import { smtp } from './smtp.js';

const RUN = 'run-1';
const message = (id: string, shape: MessageShape = 'text') => compose({ run: RUN, id, shape }, seeded(1));
const portOf = (sink: string) => Number(sink.split(':')[1]);

/** Returns the answer of a scripted server to a command line, or undefined for no answer. */
type Script = (command: string, socket: Socket) => string | undefined;

/** Starts a server with scripted answers, right or wrong ones. */
async function scripted(t: Test, script: Script, greeting = '220 hi') {
  const heard: string[] = [];
  const server = createServer((socket) => {
    let text = '';
    let inData = false;
    socket.on('error', () => {});
    socket.write(`${greeting}\r\n`);
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      for (let end = text.indexOf('\r\n'); end >= 0; end = text.indexOf('\r\n')) {
        const line = text.slice(0, end);
        text = text.slice(end + 2);
        if (inData && line !== '.') continue;
        const command = inData ? '.' : line;
        inData = false;
        heard.push(command);
        const answer = script(command, socket);
        if (answer !== undefined && !socket.destroyed) socket.write(`${answer}\r\n`);
        inData = answer?.startsWith('354') ?? false;
      }
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => sockets.add(socket));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, heard };
}

const polite: Script = (command) => {
  if (command.startsWith('EHLO')) return '250-hi\r\n250-PIPELINING\r\n250 8BITMIME';
  if (command === 'DATA') return '354 go on';
  if (command === '.') return '250 stored';
  return '250 ok';
};
/** Makes the script of a correct server, except for commands that begin with `start`. */
const but =
  (start: string, answer: string | undefined | ((socket: Socket) => undefined)): Script =>
  (command, socket) => {
    if (!command.startsWith(start)) return polite(command, socket);
    return typeof answer === 'function' ? answer(socket) : answer;
  };
const hangUp = (socket: Socket): undefined => {
  socket.destroy();
};
const goAway = (socket: Socket): undefined => {
  socket.end('421 shutting down\r\n');
};

t.test('each answer to a submit has its exact outcome', async (t) => {
  const plain: Script = (command, socket) =>
    command.startsWith('EHLO') ? '250 hi' : polite(command, socket);
  const plainBut: typeof but = (start, answer) => (command, socket) =>
    command.startsWith(start) ? but(start, answer)(command, socket) : plain(command, socket);
  const cases: [string, Script, string, RegExp, boolean][] = [
    ['250 to the data', polite, 'confirmed', /^250 stored$/, true],
    ['250 without pipelining', plain, 'confirmed', /^250 stored$/, true],
    ['452 to the data', but('.', '452 full'), 'rejected', /^452 full$/, true],
    ['552 to the data', but('.', '552-too\r\n552 large'), 'rejected', /^552 too \/ large$/, true],
    ['421 to the data', but('.', goAway), 'rejected', /^421/, false],
    ['550 to a recipient, pipelined', but('RCPT', '550 nobody'), 'rejected', /^550 nobody$/, false],
    ['550 to a recipient, one by one', plainBut('RCPT', '550 nobody'), 'rejected', /^550 nobody$/, true],
    [
      '451 to MAIL, and no data wanted',
      (c, s) => (c === 'DATA' ? '503 no' : but('MAIL', '451 later')(c, s)),
      'rejected',
      /^451/,
      true,
    ],
    ['421 to MAIL and gone', but('MAIL', goAway), 'rejected', /^421/, false],
    ['452 to DATA', but('DATA', '452 full'), 'rejected', /^452/, true],
    [
      'a refusal, and RSET fails',
      (c, s) => (c === 'RSET' ? '500 what' : but('DATA', '452 full')(c, s)),
      'rejected',
      /^452/,
      false,
    ],
    ['251 to the data', but('.', '251 perhaps'), 'indefinite', /^251/, true],
    ['354 to the data', but('.', '354 more'), 'indefinite', /^354/, true],
    ['250 to DATA', but('DATA', '250 what'), 'indefinite', /expected 354, got 250/, false],
    ['gone at MAIL', but('MAIL', hangUp), 'indefinite', /closed|ECONNRESET|EPIPE/, false],
    ['gone after the data', but('.', hangUp), 'indefinite', /closed|ECONNRESET/, false],
    ['silent after the data', but('.', undefined), 'indefinite', /no answer within 400 ms/, false],
    ['silent at MAIL', but('MAIL', undefined), 'indefinite', /no answer within 400 ms/, false],
    ['not SMTP', but('.', 'HTTP/1.1 200 OK'), 'indefinite', /not an SMTP reply: HTTP/, false],
    [
      'an endless line',
      but('.', 'x'.repeat(40_000).concat('y')),
      'indefinite',
      /not an SMTP reply|endless line/,
      false,
    ],
  ];
  for (const [name, script, outcome, detail, usable] of cases) {
    const { port } = await scripted(t, script);
    const producer = await connectSmtp(localAddress(port), name.startsWith('silent') ? 400 : 10_000);
    const answer = await producer.submit(message('1'));
    t.match(answer, { outcome, detail }, name);
    t.equal(producer.usable(), usable, `${name}: ${usable ? 'usable' : 'not usable'}`);
    t.notMatch(answer.detail, /\n/);
    await producer.close();
    t.notOk(producer.usable());
  }
});

t.test('one refused recipient of several does not lead to an empty message for the others', async (t) => {
  const { port, heard } = await scripted(t, but('RCPT TO:<r1.', '550 nobody'));
  const producer = await connectSmtp(localAddress(port), 10_000);
  t.match(await producer.submit(message('1', 'many-recipients')), { outcome: 'rejected' });
  t.notOk(heard.includes('.'));
  await producer.close();
});

t.test('a target that does not accept the connection is target-unavailable and not ready', async (t) => {
  const cases: [string, Script, string, RegExp][] = [
    ['a greeting that refuses', polite, '554 no', /expected 220, got 554 no/],
    ['EHLO refused', but('EHLO', '502 what'), '220 hi', /expected 250, got 502/],
    ['silence', but('EHLO', undefined), '220 hi', /no answer within 400 ms/],
  ];
  for (const [name, script, greeting, detail] of cases) {
    const { port } = await scripted(t, script, greeting);
    await t.rejects(
      connectSmtp(localAddress(port), 400),
      { code: 'target-unavailable', exitCode: 3, message: detail },
      name,
    );
    t.notOk(await smtp.ready(localAddress(port), 400), `${name}: not ready`);
  }
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  await t.rejects(connectSmtp(localAddress(port)), KitError);
  t.notOk(await smtp.ready(localAddress(port), 400));
});

t.test('a producer hangs up at each point, and all its outcomes are then indefinite', async (t) => {
  const { port, heard } = await scripted(t, polite);
  for (const where of ['before-data', 'in-data', 'before-answer'] as const) {
    const producer = await connectSmtp(localAddress(port));
    t.match(await producer.submit(message('1'), { hangUp: where }), {
      outcome: 'indefinite',
      detail: /on purpose/,
    });
    t.notOk(producer.usable());
    t.match(await producer.submit(message('2')), { outcome: 'indefinite' });
  }
  t.ok(heard.filter((command) => command === '.').length <= 1, 'only the last producer sent all data');
});

t.test(
  'a connection pipelines messages: the next one is sent before the previous one is answered',
  async (t) => {
    let outstanding: (() => void) | undefined;
    const script: Script = (command, socket) => {
      if (command === '.' && outstanding === undefined) {
        outstanding = () => socket.write('250 at last\r\n');
        return undefined;
      }
      // The second envelope has arrived although the first message has no answer yet.
      if (command.startsWith('MAIL') && outstanding) {
        outstanding();
        outstanding = () => {};
      }
      return polite(command, socket);
    };
    const { port } = await scripted(t, script);
    const producer = await connectSmtp(localAddress(port), 5000);
    const answers = await Promise.all(['1', '2', '3'].map((id) => producer.submit(message(id))));
    t.same(
      answers.map(({ detail }) => detail),
      ['250 at last', '250 stored', '250 stored'],
    );
    await producer.close();
    await producer.close();
  },
);

t.test('dots at line starts are doubled, and a single dot ends the data', async (t) => {
  t.equal(dotStuff(Buffer.from('.a\r\n..\r\nb.\r\n.\r\n')).toString(), '..a\r\n...\r\nb.\r\n..\r\n.\r\n');
});

/** Starts a sink, and connects a producer that acts as the relaying target. */
async function relay(
  t: Test,
  options: { replyFor?: (id: string | null, n: number) => DeliveryReply; inDeliveryPerSession?: number } = {},
) {
  const receipts = new ReceiptList();
  const sink = await smtp.receive([], { run: RUN, receipts, ...options });
  t.teardown(() => sink.close());
  return { receipts, sink, producer: await smtp.connect(localAddress(portOf(sink.sink))) };
}

t.test('the sink receives messages of every shape byte for byte', async (t) => {
  const { receipts, sink, producer } = await relay(t);
  t.ok(await smtp.ready(localAddress(portOf(sink.sink)), 5000));
  for (const shape of MESSAGE_SHAPES) {
    const sent = message(shape, shape);
    t.match(await producer.submit(sent), { outcome: 'confirmed' }, shape);
    const came = receipts.ofKind('delivered').at(-1);
    t.match(came, { id: shape, digest: sent.digest }, shape);
    t.same(
      came?.recipients,
      sent.recipients.map((_, n) => n),
    );
  }
  t.equal(
    sink.inDelivery(),
    MESSAGE_SHAPES.length,
    'the target may not have recorded these while the session is open',
  );
  await producer.close();
  await receipts.waitFor('settled', 1);
  t.match(receipts.ofKind('settled'), [{ how: 'known', sequences: MESSAGE_SHAPES.map((_, n) => n + 1) }]);
  t.equal(sink.inDelivery(), 0);
});

t.test('acceptances in a session that breaks are settled as broken', async (t) => {
  const { receipts, producer } = await relay(t);
  await producer.submit(message('1'));
  await producer.submit(message('2'), { hangUp: 'in-data' });
  await receipts.waitFor('settled', 1);
  t.match(receipts.ofKind('settled'), [{ how: 'broken', sequences: [1] }]);
  t.equal(receipts.ofKind('delivered').length, 1, 'half a message is not reported as a delivery');
});

t.test(
  'a QUIT that was sent together with the data does not settle, if the target is gone before the answer',
  async (t) => {
    const receipts = new ReceiptList();
    const sink = await smtp.receive([], { run: RUN, receipts });
    t.teardown(() => sink.close());
    const socket = connect({ host: '127.0.0.1', port: portOf(sink.sink) });
    t.teardown(() => socket.destroy());
    socket.on('error', () => {});
    await once(socket, 'data');
    for (const command of ['EHLO relay', 'MAIL FROM:<a@b.test>', 'RCPT TO:<r0.1@plugpull.test>', 'DATA']) {
      socket.write(`${command}\r\n`);
      await once(socket, 'data');
    }
    const pipelined = Buffer.concat([dotStuff(message('1').bytes), Buffer.from('QUIT\r\n')]);
    socket.write(pipelined, () => socket.destroy());
    await receipts.waitFor('delivered', 1);
    await Promise.race([receipts.waitFor('settled', 1), receipts.waitFor('refused', 1)]);
    // The kernel may report the end of the connection before the data: then the delivery counts as refused.
    t.ok(receipts.ofKind('settled').every(({ how }) => how === 'broken'));
    t.equal(receipts.ofKind('settled').length + receipts.ofKind('refused').length, 1);
  },
);

t.test('the oldest acceptances are known once a session exceeds inDeliveryPerSession', async (t) => {
  const { receipts, sink, producer } = await relay(t, { inDeliveryPerSession: 2 });
  for (const id of ['1', '2', '3']) await producer.submit(message(id));
  t.match(receipts.ofKind('settled'), [{ how: 'known', sequences: [1] }]);
  t.equal(sink.inDelivery(), 2);
  await producer.close();
});

t.test('a message is refused if its session breaks before the acceptance can be written', async (t) => {
  const { receipts, sink, producer } = await relay(t);
  sink.hold();
  await producer.submit(message('1'), { hangUp: 'before-answer' });
  await receipts.waitFor('delivered', 1);
  t.equal(sink.inDelivery(), 1);
  // When the end of this second session is seen, the end of the first one has been seen too.
  const second = connect(portOf(sink.sink), '127.0.0.1');
  await once(second, 'data');
  second.end();
  await once(second, 'close');
  sink.release();
  await receipts.waitFor('refused', 1);
  t.match(receipts.ofKind('refused'), [{ sequence: 1, permanent: false, detail: /session ended/ }]);
  t.same(receipts.ofKind('consumed'), []);
  t.equal(sink.inDelivery(), 0);
});

t.test('a held sink accepts messages only after its release', async (t) => {
  const { receipts, sink, producer } = await relay(t);
  sink.hold();
  const answer = producer.submit(message('1'));
  await receipts.waitFor('delivered', 1);
  t.same(receipts.ofKind('consumed'), []);
  sink.release();
  t.match(await answer, { outcome: 'confirmed' });
  t.match(receipts.ofKind('consumed'), [{ how: 'accepted' }]);
  await producer.close();
});

t.test('a held sink refuses at once when the answer does not wait for its release', async (t) => {
  const { receipts, sink, producer } = await relay(t, {
    replyFor: () => ({ answer: 'later', delayMs: 0, evenHeld: true }),
  });
  sink.hold();
  t.match(await producer.submit(message('1')), { outcome: 'rejected' });
  t.match(receipts.ofKind('refused'), [{ permanent: false }]);
  await producer.close();
});

t.test('the sink refuses with the scripted answers, and accepts the message later', async (t) => {
  const answers: DeliveryReply['answer'][] = ['later', 'go-away', 'never', 'accept'];
  const { receipts, sink } = await relay(t, {
    replyFor: (_id, delivery) => ({ answer: answers[delivery - 1] ?? 'accept', delayMs: 5 }),
  });
  const said: string[] = [];
  for (const _ of answers) {
    const producer = await smtp.connect(localAddress(portOf(sink.sink)));
    said.push((await producer.submit(message('1'))).detail.slice(0, 3));
    await producer.close();
  }
  t.same(said, ['451', '421', '550', '250']);
  t.same(
    receipts.ofKind('refused').map(({ permanent }) => permanent),
    [false, false, true],
  );
  t.equal(receipts.ofKind('consumed').length, 1);
});

t.test('a message without an id of the run is reported without an id', async (t) => {
  const { receipts, producer } = await relay(t);
  const garbage = {
    ...message('1'),
    bytes: Buffer.from('Subject: hi\r\n\r\nwho am I\r\n'),
    recipients: ['a@b.test'],
  };
  t.match(await producer.submit(garbage), { outcome: 'confirmed' });
  t.match(receipts.ofKind('delivered'), [{ id: null, recipients: [0] }]);
  await producer.close();
});

t.test('a sink can close while sessions are open and answers are outstanding', async (t) => {
  const receipts = new ReceiptList();
  const sink = await SmtpSink.start({ run: RUN, receipts });
  const producer = await connectSmtp(localAddress(portOf(sink.sink)));
  sink.hold();
  const answer = producer.submit(message('1'));
  await receipts.waitFor('delivered', 1);
  await sink.close();
  const told = receipts.list.length;
  t.ok(await answer);
  await producer.close();
  await pause(50);
  t.equal(receipts.list.length, told, 'nothing is reported after the sink is closed');
});

t.test('a closed sink has reported the end of each of its sessions', async (t) => {
  const receipts = new ReceiptList();
  const replyFor = (id: string | null): DeliveryReply => ({
    answer: 'accept',
    delayMs: id === '1' ? 0 : 5000,
  });
  const sink = await SmtpSink.start({ run: RUN, receipts, replyFor });
  const accepted = await connectSmtp(localAddress(portOf(sink.sink)));
  const undecided = await connectSmtp(localAddress(portOf(sink.sink)));
  await accepted.submit(message('1'));
  const answer = undecided.submit(message('2'));
  await receipts.waitFor('delivered', 2);
  await sink.close();
  t.match(receipts.ofKind('settled'), [{ sequences: [1], how: 'broken' }]);
  t.match(receipts.ofKind('refused'), [{ sequence: 2, permanent: false }]);
  t.equal(sink.inDelivery(), 0);
  await answer;
  await Promise.all([accepted.close(), undecided.close()]);
});
