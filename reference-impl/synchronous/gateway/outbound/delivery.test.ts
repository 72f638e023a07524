import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { SmtpBody } from '../../record/body.js';
import type { MemoryQueue } from '../fixtures/memory-queue.js';
import { startMemoryWorker, UNREACHABLE_ADDRESS } from '../fixtures/memory-worker.js';
import { ACCEPT_ALL, type Script, ScriptedHop } from '../fixtures/scripted-hop.js';
import { Sink } from '../fixtures/sink.js';

function mail(data: string | Buffer, recipients = ['to@example.net'], destination?: string): SmtpBody {
  const bytes = typeof data === 'string' ? Buffer.from(data, 'latin1') : data;
  return {
    type: 'smtp',
    sender: 'from@example.org',
    recipients,
    data: bytes,
    ...(destination && { destination }),
  };
}

async function hop(test: Test, script: Script): Promise<ScriptedHop> {
  const opened = await ScriptedHop.open(script);
  test.teardown(() => opened.close());
  return opened;
}

async function sink(test: Test, options?: Parameters<typeof Sink.open>[0]): Promise<Sink> {
  const opened = await Sink.open(options);
  test.teardown(() => opened.close());
  return opened;
}

/** Waits until the condition holds. The time-out of the test is the limit. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

const recipientsOf = (queue: MemoryQueue) => [...queue.live.values()].map(({ body }) => body.recipients);

t.test('every body arrives byte for byte at an independent SMTP server', async (t) => {
  const receiver = await sink(t);
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: receiver.address, sessions: 1 } });
  const line = fc.oneof(
    fc.constantFrom('', '.', '..', '...x', '. .', 'a'.repeat(3000)),
    fc.uint8Array({ maxLength: 200 }).map((bytes) =>
      Buffer.from(bytes)
        .toString('latin1')
        .replace(/[\r\n]/g, '.'),
    ),
  );
  const body = fc.array(line, { maxLength: 30 }).map((lines) => lines.map((text) => `${text}\r\n`).join(''));
  const samples = [
    '',
    '\r\n',
    '.\r\n',
    '\r\n.\r\n',
    '..\r\n.',
    ...fc.sample(body, 150),
    `${'z'.repeat(70_000)}\r\n`,
  ];
  for (const sample of samples) await queue.enqueue([mail(sample)]);
  await receiver.received(samples.length);
  const sent = samples.map((sample) => (sample === '' || sample.endsWith('\r\n') ? sample : `${sample}\r\n`));
  t.strictSame(
    receiver.messages.map(({ data }) => data.toString('latin1')),
    sent,
  );
  t.equal(
    new Set(receiver.messages.map(({ session }) => session)).size,
    1,
    'one session carries all messages [0036]',
  );
  await until(() => queue.live.size === 0);
});

t.test('an SMS record is delivered as mail between addresses of the SMS domain', async (t) => {
  const receiver = await sink(t);
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: receiver.address } });
  await queue.enqueue([
    { type: 'sms', sender: 491701n, recipients: [491702n, 491703n], data: Buffer.from('hello\r\n') },
  ]);
  t.match(await receiver.received(1), [
    { sender: '491701@sms.invalid', recipients: ['491702@sms.invalid', '491703@sms.invalid'] },
  ]);
});

t.test('a message that gets 4xx is tried again with back-off until it is accepted', async (t) => {
  let refusals = 3;
  const next = await hop(t, (line, connection) =>
    line === '.' && refusals-- > 0 ? '451 later' : ACCEPT_ALL(line, connection),
  );
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
  await queue.enqueue([mail('x\r\n')]);
  await until(() => queue.live.size === 0);
  t.equal(next.lines.filter((line) => line === '.').length, 4);
  t.equal(queue.dead.length, 0);
});

t.test('a message that gets 5xx at any stage goes to the dead-letter queue with the reason', async (t) => {
  for (const stage of ['MAIL', 'RCPT', 'DATA', '.']) {
    const next = await hop(t, (line, connection) =>
      line.startsWith(stage) ? '550 5.7.1 not from you' : ACCEPT_ALL(line, connection),
    );
    const { queue, stop } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
    await queue.enqueue([mail('x\r\n'), mail('y\r\n')]);
    await until(() => queue.dead.length === 2);
    const failure = { reason: 'refused', replies: ['550 5.7.1 not from you'] };
    t.match(queue.dead.slice(0, 2), [{ failure }, { failure }], stage);
    t.equal(queue.live.size, 0);
    await stop();
  }
});

t.test('after the retry limit a message goes to the dead-letter queue', async (t) => {
  const next = await hop(t, (line, connection) =>
    line.startsWith('MAIL') ? '450 busy' : ACCEPT_ALL(line, connection),
  );
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address, retryLimit: 2 } });
  await queue.enqueue([mail('x\r\n')]);
  await until(() => queue.dead.length === 1);
  t.match(queue.dead, [{ failure: { reason: 'retries-used-up', replies: ['450 busy'] } }]);
  t.equal(
    next.lines.filter((line) => line.startsWith('MAIL')).length,
    3,
    'there are a first attempt and two retries',
  );
});

t.test('failed connections do not count for the retry limit', async (t) => {
  let isDown = true;
  const next = await hop(t, (line, connection) =>
    isDown || (line.startsWith('MAIL') && connection < 0) ? undefined : ACCEPT_ALL(line, connection),
  );
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address, retryLimit: 2 } });
  await queue.enqueue([mail('x\r\n')]);
  await until(() => [...queue.live.values()].some(({ retryCount }) => retryCount > 5));
  t.equal(queue.dead.length, 0);
  isDown = false;
  await until(() => queue.consumed.length === 1);
});

t.test(
  'a message that is too old goes to the dead-letter queue, also when the next hop is down',
  async (t) => {
    const { queue } = await startMemoryWorker(t, { delivery: { maxAgeMs: 200 } });
    await queue.enqueue([mail('x\r\n')]);
    await until(() => queue.dead.length === 1);
    t.match(queue.dead, [{ failure: { reason: 'too-old', replies: [/ECONNREFUSED/] } }]);
  },
);

t.test(
  'a clock that jumps makes no message too old: it takes half of the attempts of that time',
  async (t) => {
    const { queue } = await startMemoryWorker(t, { delivery: { maxAgeMs: 10_000 } });
    await queue.enqueue([mail('x\r\n')]);
    for (const [number, stored] of queue.live) queue.live.set(number, { ...stored, queuedAtMs: 0 });
    await until(() => [...queue.live.values()].some(({ retryCount }) => retryCount > 4));
    t.equal(queue.dead.length, 0);
  },
);

t.test(
  'while the dead-letter queue is full, failed messages are parked and good ones overtake',
  async (t) => {
    const next = await hop(t, (line, connection) =>
      line.startsWith('RCPT TO:<never') ? '550 5.1.1 no such user' : ACCEPT_ALL(line, connection),
    );
    const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
    queue.deadRoom = 1;
    await queue.enqueue(Array.from({ length: 20 }, () => mail('bad\r\n', ['never@n'])));
    await until(() => queue.parked().messages === 19);
    await queue.enqueue([mail('good\r\n', ['ok@n'])]);
    await until(() => queue.consumed.length === 1);
    t.match(queue.consumed, [{ recipients: ['ok@n'] }]);
    t.equal(queue.live.size, 19);
    queue.deadRoom = 100;
    await until(() => queue.dead.length === 20);
  },
);

t.test('when the share for parked messages is full, a message goes back to its sender', async (t) => {
  const next = await hop(t, (line, connection) =>
    line.startsWith('RCPT TO:<never') ? '550 5.1.1 no such user' : ACCEPT_ALL(line, connection),
  );
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address, notices: true } });
  queue.deadRoom = 0;
  queue.parkedRoom = 0;
  await queue.enqueue([mail('Subject: a\r\n\r\nbad\r\n', ['never@n'])]);
  await until(() => queue.consumed.length === 2);
  const [original, notice] = queue.consumed;
  t.match(original, { sender: 'from@example.org', recipients: ['never@n'] });
  t.match(notice, { sender: '', recipients: ['from@example.org'] });
  t.match(notice?.data.toString(), /Status: 5\.1\.1.*Subject: a\r\n\r\nbad/s);
  const bounce: SmtpBody = { ...mail('bounce\r\n', ['never@n']), sender: '' };
  await queue.enqueue([bounce]);
  await until(() => queue.parked().messages === 1);
  t.equal(queue.consumed.length, 2, 'no notice is sent for a bounce, so it stays');
});

t.test(
  'the sender of a dead letter gets one notice; a notice that fails becomes a dead letter',
  async (t) => {
    const next = await hop(t, (line, connection) =>
      line.startsWith('RCPT') ? '550 5.1.1 no such user' : ACCEPT_ALL(line, connection),
    );
    const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address, notices: true } });
    await queue.enqueue([mail('x\r\n')]);
    await until(() => queue.letters.length === 2 && queue.letters.every(({ state }) => state !== 'due'));
    t.match(
      queue.letters.map(({ state, letter }) => [letter.body.sender, state]),
      [
        ['from@example.org', 'sent'],
        ['', 'none'],
      ],
    );
    t.equal(queue.live.size, 0);
    t.ok(queue.deadSyncs > 0, 'the index is synced after the notice');
  },
);

t.test('a notice waits until the queue has room for it', async (t) => {
  const next = await hop(t, (line, connection) =>
    line.startsWith('RCPT TO:<never') ? '550 no' : ACCEPT_ALL(line, connection),
  );
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address, notices: true } });
  await queue.enqueue([mail('x\r\n', ['never@n'])]);
  queue.forcedOutcome = { outcome: 'rejected', reason: 'no-space', detail: '' };
  await until(() => queue.deadSyncs > 0);
  t.match(queue.letters, [{ state: 'due' }]);
  queue.forcedOutcome = undefined;
  await until(() => queue.consumed.length === 1);
  t.match(queue.letters, [{ state: 'sent' }]);
});

t.test('deferred recipients are retried and refused ones buried without those already served', async (t) => {
  let isOpen = false;
  const next = await hop(t, (line, connection) => {
    if (line.startsWith('RCPT TO:<never')) return '550 no such user';
    if (line.startsWith('RCPT TO:<later') && !isOpen) return '450 busy';
    return ACCEPT_ALL(line, connection);
  });
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
  await queue.enqueue([mail('x\r\n', ['ok1@n', 'never1@n', 'later1@n', 'ok2@n', 'later2@n', 'never2@n'])]);
  await until(() => queue.dead.length === 1);
  t.match(queue.dead, [
    {
      body: { recipients: ['never1@n', 'never2@n'] },
      failure: { reason: 'refused', replies: ['550 no such user'] },
    },
  ]);
  t.strictSame(recipientsOf(queue), [['later1@n', 'later2@n']]);
  isOpen = true;
  await until(() => queue.live.size === 0);
  t.equal(
    next.lines.filter((line) => line.includes('<ok1@n>')).length,
    1,
    'a served recipient got the message once',
  );
});

t.test('if the split does not fit into the queue, the message stays for all recipients', async (t) => {
  const next = await hop(t, (line, connection) =>
    line.startsWith('RCPT TO:<later') ? '450 busy' : ACCEPT_ALL(line, connection),
  );
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
  await queue.enqueue([mail('x\r\n', ['ok@n', 'later@n'])]);
  queue.forcedOutcome = { outcome: 'rejected', reason: 'no-space', detail: '' };
  await until(() => next.lines.filter((line) => line === '.').length >= 2);
  t.strictSame(recipientsOf(queue), [['ok@n', 'later@n']]);
});

t.test('a connection that breaks during a session loses no message', async (t) => {
  let count = 0;
  const next = await hop(t, (line, connection) => {
    count += 1;
    return count % 7 === 0 && line !== '' ? undefined : ACCEPT_ALL(line, connection);
  });
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
  await queue.enqueue(Array.from({ length: 20 }, (_, number) => mail(`message ${number}\r\n`)));
  await until(() => queue.consumed.length === 20);
  t.equal(queue.live.size, 0);
  t.equal(queue.dead.length, 0);
});

t.test('a host without PIPELINING or without EHLO gets one command at a time', async (t) => {
  for (const hello of ['250 hop', '502 what']) {
    const next = await hop(t, (line, connection) => {
      if (line.startsWith('EHLO')) return hello;
      return line.startsWith('RCPT TO:<bad') ? '550 no' : ACCEPT_ALL(line, connection);
    });
    const { queue, stop } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
    await queue.enqueue([
      mail('a\r\n'),
      mail('b\r\n', ['bad@n']),
      mail('c\r\n', ['bad@n', 'ok@n']),
      mail('d\r\n'),
    ]);
    await until(() => queue.consumed.length === 3 && queue.dead.length === 2);
    t.equal(queue.live.size, 0, hello);
    await stop();
  }
});

t.test('a destination that is down delays no other destination and causes no busy loop', async (t) => {
  const receiver = await sink(t);
  const { queue } = await startMemoryWorker(t, {
    delivery: { nextHop: receiver.address, backoffInitialMs: 200, backoffMaxMs: 1000, batchMessages: 8 },
  });
  await queue.enqueue(Array.from({ length: 50 }, () => mail('down\r\n', ['a@n'], UNREACHABLE_ADDRESS)));
  await queue.enqueue([mail('up\r\n')]);
  await receiver.received(1);
  const takes = queue.takeCount;
  await new Promise((resolve) => setTimeout(resolve, 300));
  t.ok(queue.takeCount - takes < 100, `the queue was asked ${queue.takeCount - takes} times in 300 ms`);
  t.equal(queue.live.size, 50);
});

t.test('a destination that never answers the data delays no other destination', async (t) => {
  const receiver = await sink(t);
  const silent = await hop(t, (line, connection) => (line === '.' ? '' : ACCEPT_ALL(line, connection)));
  const { queue } = await startMemoryWorker(t, {
    smtp: { shutdownGraceMs: 50 },
    delivery: {
      nextHop: receiver.address,
      batchMessages: 8,
      sessions: 1,
      backoffInitialMs: 5000,
      backoffMaxMs: 9000,
    },
  });
  await queue.enqueue(Array.from({ length: 20 }, () => mail('lost\r\n', ['a@n'], silent.address)));
  await queue.enqueue([mail('up\r\n')]);
  await receiver.received(1);
  t.equal(queue.live.size - 20, 0);
});

t.test('a session with a silent host is given up, and its message is tried again', async (t) => {
  let isSilent = true;
  const next = await hop(t, (line, connection) =>
    line === '.' && isSilent ? '' : ACCEPT_ALL(line, connection),
  );
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address, replyTimeoutMs: 50 } });
  await queue.enqueue([mail('x\r\n')]);
  await until(() => next.connections >= 2);
  isSilent = false;
  await until(() => queue.consumed.length === 1);
  t.equal(queue.live.size, 0);
});

t.test('a host that answers DATA with 250 has not got the message, which is tried again', async (t) => {
  const next = await hop(t, (line, connection) =>
    line === 'DATA' && next.lines.filter((one) => one === 'DATA').length === 1
      ? '250 ok'
      : ACCEPT_ALL(line, connection),
  );
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
  await queue.enqueue([mail('x\r\n')]);
  await until(() => queue.consumed.length === 1);
  t.ok(next.lines.includes('.'), 'the message was sent');
});

/** Returns how often a hop has got a command, the last one included. */
const count = (at: ScriptedHop, verb: string): number =>
  at.lines.filter((line) => line.startsWith(verb)).length;

t.test('a host that accepts a message before its end has not got it, which is tried again', async (t) => {
  for (const size of [1, 600_000]) {
    const next = await hop(t, (line, connection) =>
      line === 'DATA' && count(next, 'DATA') === 1 ? '354 go on\r\n250 ok' : ACCEPT_ALL(line, connection),
    );
    const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
    await queue.enqueue([mail('0123456789abcde\r\n'.repeat(size))]);
    await until(() => queue.consumed.length === 1);
    t.equal(count(next, 'DATA'), 2);
  }
});

t.test('a host that answers without end and reads no data is given up', async (t) => {
  const next = await hop(t, (line, connection, socket) => {
    if (line !== 'DATA' || count(next, 'DATA') > 1) return ACCEPT_ALL(line, connection);
    // It refuses the message, which it may do early, but it does so again and again.
    socket.pause();
    return `354 go on\r\n${Array(400_000).fill('450 no').join('\r\n')}`;
  });
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
  await queue.enqueue([mail('0123456789abcde\r\n'.repeat(2_000_000))]);
  await until(() => queue.consumed.length === 1);
  t.equal(count(next, 'DATA'), 2);
});

t.test('a hop that sends a reply byte by byte is given up, and its message is tried again', async (t) => {
  const timers: NodeJS.Timeout[] = [];
  const next = await hop(t, (line, connection, socket) => {
    if (!line.startsWith('MAIL') || count(next, 'MAIL') > 1) return ACCEPT_ALL(line, connection);
    timers.push(setInterval(() => socket.write('250-x\r\n'), 5));
    return '';
  });
  t.teardown(() => timers.forEach(clearInterval));
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address, replyTimeoutMs: 500 } });
  await queue.enqueue([mail('x\r\n')]);
  await until(() => queue.consumed.length === 1);
  t.ok(count(next, 'MAIL') >= 2);
});

t.test('a hop that takes no data is given up, although it sends some bytes now and then', async (t) => {
  const timers: NodeJS.Timeout[] = [];
  const next = await hop(t, (line, connection, socket) => {
    if (line !== 'DATA' || count(next, 'DATA') > 1) return ACCEPT_ALL(line, connection);
    socket.pause();
    timers.push(setInterval(() => socket.write('450 x\r\n'), 5));
    return '354 go on';
  });
  t.teardown(() => timers.forEach(clearInterval));
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address, replyTimeoutMs: 2000 } });
  await queue.enqueue([mail('0123456789abcde\r\n'.repeat(1_000_000))]);
  await until(() => queue.consumed.length === 1);
  t.ok(count(next, 'DATA') >= 2);
});

t.test(
  'a session with a host that does not speak SMTP is given up, and its message is tried again',
  async (t) => {
    const next = await hop(t, (line, connection) =>
      connection === 0 && line.startsWith('MAIL') ? 'HTTP/1.1 400 Bad Request' : ACCEPT_ALL(line, connection),
    );
    const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
    await queue.enqueue([mail('x\r\n')]);
    await until(() => queue.consumed.length === 1);
    t.ok(next.connections >= 2);
  },
);

t.test('several sessions run in parallel, and each ends after messagesPerSession messages', async (t) => {
  const receiver = await sink(t);
  const { queue } = await startMemoryWorker(t, {
    delivery: { nextHop: receiver.address, sessions: 3, messagesPerSession: 10 },
  });
  await queue.enqueue(Array.from({ length: 60 }, () => mail('x\r\n')));
  const messages = await receiver.received(60);
  const perSession = new Map<string, number>();
  for (const { session } of messages) perSession.set(session, (perSession.get(session) ?? 0) + 1);
  t.ok(perSession.size >= 6, `${perSession.size} sessions`);
  t.ok([...perSession.values()].every((count) => count <= 10));
});

t.test('stopping finishes the messages in flight and unlocks the rest', async (t) => {
  let started: () => void = () => undefined;
  const isStarted = new Promise<void>((resolve) => {
    started = resolve;
  });
  const receiver = await sink(t, {
    onMailFrom: (_address, _session, done) => {
      started();
      setTimeout(done, 20);
    },
  });
  const { queue, stop } = await startMemoryWorker(t, {
    delivery: { nextHop: receiver.address, sessions: 1 },
  });
  await queue.enqueue(Array.from({ length: 100 }, () => mail('x\r\n')));
  await isStarted;
  await stop();
  t.equal(
    queue.consumed.length,
    receiver.messages.length,
    'the messages that the next hop accepted are consumed',
  );
  t.ok(queue.live.size > 0 && queue.consumed.length > 0, 'the stop came before the last message');
  t.ok(
    [...queue.live.values()].every(({ retryCount }) => retryCount === 0),
    'the unlocked messages do not count as tried',
  );
});
