import { once } from 'node:events';
import t from 'tap';
import { startMemoryWorker } from '../fixtures/memory-worker.js';
import { RawClient } from '../fixtures/raw-client.js';
import { withoutTrace } from '../fixtures/without-trace.js';

const ENVELOPE = 'MAIL FROM:<from@example.org>\r\nRCPT TO:<to@example.net>\r\nDATA\r\n';

t.test('EHLO offers SIZE, PIPELINING and 8BITMIME', async (t) => {
  const { worker } = await startMemoryWorker(t, { smtp: { maxMessageBytes: 5000, hostname: 'mx.example' } });
  const client = await RawClient.open(worker.port);
  const lines = (await client.ask('EHLO me\r\n')).split('\n');
  t.strictSame(lines, [
    '250-mx.example',
    '250-PIPELINING',
    '250-SIZE 5000',
    '250-8BITMIME',
    '250 ENHANCEDSTATUSCODES',
  ]);
  t.equal(await client.ask('HELO me\r\n'), '250 mx.example');
  t.match(await client.ask('QUIT\r\n'), /^221 /);
  t.equal(await client.reply(), '', 'the connection is closed');
});

t.test('the client gets 250 only after the queue has confirmed the message', async (t) => {
  const { worker, queue } = await startMemoryWorker(t);
  let confirm: () => void = () => undefined;
  queue.enqueueBarrier = new Promise((resolve) => {
    confirm = resolve;
  });
  const client = await RawClient.ready(worker.port);
  await client.askAll(ENVELOPE, 3);
  let isAnswered = false;
  const answer = client.ask('text\r\n.\r\n').then((reply) => {
    isAnswered = true;
    return reply;
  });
  // The same worker answers this NOOP later. A reply that did not wait for the queue would have arrived before.
  const other = await RawClient.ready(worker.port);
  await other.ask('NOOP\r\n');
  t.notOk(isAnswered);
  confirm();
  t.equal(await answer, '250 2.0.0 Ok: queued as 1');
  other.close();
  client.close();
});

t.test('pipelined messages on one connection are answered in order', async (t) => {
  const { worker, queue } = await startMemoryWorker(t);
  const client = await RawClient.ready(worker.port);
  const message = (number: number) => `${ENVELOPE}message ${number}\r\n.\r\n`;
  const replies = await client.askAll(
    `${message(1)}${message(2)}${message(3)}NOOP\r\nRSET\r\nQUIT\r\n`,
    3 * 4 + 3,
  );
  t.strictSame(
    replies.map((reply) => reply.slice(0, 3)),
    ['250', '250', '354', '250', '250', '250', '354', '250', '250', '250', '354', '250', '250', '250', '221'],
  );
  t.strictSame(
    [...queue.live.values()].map(({ body }) => withoutTrace(body.data)),
    ['message 1\r\n', 'message 2\r\n', 'message 3\r\n'],
  );
});

t.test('a session that arrives byte by byte is handled correctly', async (t) => {
  const { worker, queue } = await startMemoryWorker(t);
  const client = await RawClient.open(worker.port);
  const replies = client.askAll('', 7);
  for (const byte of `EHLO me\r\nNOOP\r\n${ENVELOPE}..dot\r\n\r\n.\r\nQUIT\r\n`) {
    client.send(byte);
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.match((await replies).at(-1), /^221/);
  t.strictSame(
    [...queue.live.values()].map(({ body }) => withoutTrace(body.data)),
    ['.dot\r\n\r\n'],
  );
});

t.test('a message with a bare CR or LF is refused, and the session continues', async (t) => {
  const { worker, queue } = await startMemoryWorker(t);
  const client = await RawClient.ready(worker.port);
  t.match(await client.submit('a\nb\r\n'), /^554 5\.6\.0 .*CR or LF that is no CRLF/);
  t.match(await client.submit('a\rb\r\n'), /^554 5\.6\.0/);
  t.match(
    await client.submit('\n.\r\nMAIL FROM:<evil@example>\r\n'),
    /^554 5\.6\.0/,
    'no command was smuggled in',
  );
  t.match(await client.submit('good\r\n'), /^250/);
  t.equal(queue.live.size, 1);
  t.match(await client.ask('NOOP\n'), /^500 5\.5\.2 Lines end in CRLF/);
  client.close();
});

t.test('a message that is too large gets 552 at MAIL with SIZE and after its data', async (t) => {
  const { worker, queue } = await startMemoryWorker(t, { smtp: { maxMessageBytes: 1000 } });
  const client = await RawClient.ready(worker.port);
  t.match(await client.ask('MAIL FROM:<a@b> SIZE=1001\r\n'), /^552 5\.3\.4/);
  t.match(await client.submit(`${'x'.repeat(1000)}\r\n`), /^552 5\.3\.4/);
  t.match(await client.submit(`${'x'.repeat(998)}\r\n`), /^250/);
  queue.forcedOutcome = { outcome: 'rejected', reason: 'too-large', detail: '' };
  t.match(await client.submit('x\r\n'), /^552 5\.3\.4/);
  client.close();
});

t.test('a full queue answers 452 and accepts mail again when it has free space', async (t) => {
  const { worker, queue } = await startMemoryWorker(t);
  const client = await RawClient.ready(worker.port);
  queue.forcedOutcome = { outcome: 'rejected', reason: 'no-space', detail: '' };
  t.match(await client.submit('x\r\n'), /^452 4\.3\.1 No free space/);
  queue.forcedOutcome = { outcome: 'rejected', reason: 'no-entry', detail: '' };
  t.match(await client.submit('x\r\n'), /^452 4\.3\.1 No free index entry/);
  queue.forcedOutcome = undefined;
  t.match(await client.submit('x\r\n'), /^250/);
  t.equal(queue.live.size, 1);
  client.close();
});

t.test('if the outcome of storing is indefinite, the connection closes without a reply', async (t) => {
  const { worker, queue } = await startMemoryWorker(t);
  const client = await RawClient.ready(worker.port);
  queue.forcedOutcome = { outcome: 'indefinite', detail: 'the sync timed out' };
  t.equal(await client.submit('x\r\n'), '');
});

t.test('a client that disconnects during a message leaves nothing in the queue', async (t) => {
  const { worker, queue, stop } = await startMemoryWorker(t);
  const parts = [
    'MAIL FROM:<a@b>\r\n',
    ENVELOPE,
    `${ENVELOPE}half a mess`,
    `${ENVELOPE}all but the end\r\n.`,
    `${ENVELOPE}x\r\n.\r`,
  ];
  for (const how of ['end', 'destroy', 'resetAndDestroy'] as const) {
    for (const part of parts) {
      const client = await RawClient.ready(worker.port);
      await client.askAll(part, part.split('\r\n').length - 1 < 3 ? 1 : 3);
      client.socket[how]();
      await once(client.socket, 'close');
    }
  }
  await stop();
  t.equal(queue.live.size, 0);
});

t.test('a client that closes its side right after its messages still gets the replies', async (t) => {
  const { worker } = await startMemoryWorker(t);
  const client = await RawClient.ready(worker.port);
  await client.askAll(ENVELOPE, 3);
  client.send(`text\r\n.\r\n${ENVELOPE}more\r\n.\r\n`);
  client.socket.end();
  for (const code of ['250', '250', '250', '354', '250']) t.equal((await client.reply()).slice(0, 3), code);
  t.equal(await client.reply(), '');
});

t.test('commands out of order are refused', async (t) => {
  const { worker } = await startMemoryWorker(t);
  const client = await RawClient.open(worker.port);
  t.match(await client.ask('MAIL FROM:<a@b>\r\n'), /^503 5\.5\.1 EHLO first/);
  await client.ask('EHLO me\r\n');
  t.match(await client.ask('RCPT TO:<a@b>\r\n'), /^503/);
  t.match(await client.ask('DATA\r\n'), /^503/);
  t.match(await client.ask('MAIL FROM:<a@b>\r\n'), /^250/);
  t.match(await client.ask('MAIL FROM:<a@b>\r\n'), /^503/);
  t.match(await client.ask('DATA\r\n'), /^554 5\.5\.1 No valid recipients/);
  t.match(await client.ask('RCPT TO:<1@b>\r\n'), /^250/);
  t.match(await client.ask('RSET\r\n'), /^250/);
  t.match(await client.ask('RCPT TO:<3@b>\r\n'), /^503/);
  client.close();
});

t.test('an overlong line gets one 500, from any chunks, and the session continues', async (t) => {
  const { worker } = await startMemoryWorker(t);
  const client = await RawClient.ready(worker.port);
  const replies = client.askAll('', 4);
  for (const part of [
    'x'.repeat(3000),
    'x'.repeat(3000),
    '\r',
    '\nNOOP\r\n',
    `NOOP ${'x'.repeat(9000)}\r\nNOOP\r\n`,
  ]) {
    client.send(part);
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.strictSame(
    (await replies).map((reply) => reply.slice(0, 9)),
    ['500 5.5.2', '250 2.0.0', '500 5.5.2', '250 2.0.0'],
  );
  client.close();
});

t.test('a line without an end and too many invalid commands end the session', async (t) => {
  const { worker } = await startMemoryWorker(t);
  const endless = await RawClient.ready(worker.port);
  t.match(await endless.ask('x'.repeat(2 * 2 ** 20)), /^421 4\.7\.0 The line does not end/);
  t.equal(await endless.reply(), '');
  const nonsense = await RawClient.ready(worker.port);
  const replies = await nonsense.askAll('BLAH\r\n'.repeat(200), 101);
  t.match(replies.at(-2), /^500/);
  t.match(replies.at(-1), /^421 4\.7\.0/);
});

t.test('a connection above the limit gets 421 and is closed', async (t) => {
  const { worker } = await startMemoryWorker(t, { smtp: { maxConnections: 2 } });
  const clients = [await RawClient.ready(worker.port), await RawClient.ready(worker.port)];
  const third = await RawClient.open(worker.port);
  t.equal(await third.reply(), '', 'the connection is closed after its 421');
  for (const client of clients) client.close();
});

t.test('an idle client is disconnected', async (t) => {
  const { worker } = await startMemoryWorker(t, { smtp: { idleTimeoutMs: 50 } });
  const client = await RawClient.ready(worker.port);
  t.match(await client.reply(), /^421 4\.4\.2/);
});

t.test('at shutdown idle clients get 421, and messages in flight are finished and answered', async (t) => {
  const { worker, queue, stop } = await startMemoryWorker(t);
  const idle = await RawClient.ready(worker.port);
  const sending = await RawClient.ready(worker.port);
  const storing = await RawClient.ready(worker.port);
  await sending.askAll(ENVELOPE, 3);
  await storing.askAll(ENVELOPE, 3);
  let confirm: () => void = () => undefined;
  queue.enqueueBarrier = new Promise((resolve) => {
    confirm = resolve;
  });
  storing.send(`stored\r\n.\r\n${ENVELOPE}`);
  const stopped = stop();
  t.match(await idle.reply(), /^421 4\.3\.2 Shutting down/);
  await t.rejects(RawClient.open(worker.port), 'new connections are refused');
  sending.send('sent\r\n.\r\nNOOP\r\n');
  confirm();
  t.match(await sending.reply(), /^250 2\.0\.0 Ok/);
  t.match(await sending.reply(), /^421/);
  t.match(await storing.reply(), /^250 2\.0\.0 Ok/);
  t.match(await storing.reply(), /^421/);
  await stopped;
  t.equal(queue.live.size, 2);
  t.ok(queue.isClosed);
});

t.test('a client that never finishes does not delay the shutdown beyond the grace period', async (t) => {
  const { worker, queue, stop } = await startMemoryWorker(t, { smtp: { shutdownGraceMs: 100 } });
  const client = await RawClient.ready(worker.port);
  await client.askAll(ENVELOPE, 3);
  client.send('half a message');
  await stop();
  t.ok(queue.isClosed);
  t.equal(queue.live.size, 0);
});

t.test('a port that is in use is reported as a bad setting', async (t) => {
  const { worker } = await startMemoryWorker(t);
  await t.rejects(startMemoryWorker(t, { smtp: { port: worker.port } }), {
    code: 'bad-setting',
    message: `smtp: cannot listen on 127.0.0.1:${worker.port} (EADDRINUSE), expected a free port`,
  });
});

t.test('while the queue is slow, the worker stops reading from the client', async (t) => {
  const { worker, queue } = await startMemoryWorker(t);
  let confirm: () => void = () => undefined;
  queue.enqueueBarrier = new Promise((resolve) => {
    confirm = resolve;
  });
  const client = await RawClient.ready(worker.port);
  const large = `${ENVELOPE}${'y'.repeat(8 * 2 ** 20)}\r\n.\r\n`;
  const replies = client.askAll(`${ENVELOPE}x\r\n.\r\n${large}`, 8);
  const drained = once(client.socket, 'drain').then(() => 'drained');
  const looked = new Promise((resolve) => setTimeout(resolve, 100)).then(() => 'waiting');
  t.equal(await Promise.race([drained, looked]), 'waiting', 'the client has to wait');
  confirm();
  t.match((await replies).at(-1), /^250/);
  t.equal(queue.live.size, 2);
  client.close();
});

t.test('recipients beyond the limit get 452, and the message goes to those before', async (t) => {
  const { worker, queue } = await startMemoryWorker(t, { smtp: { maxRecipients: 100 } });
  const client = await RawClient.ready(worker.port);
  await client.ask('MAIL FROM:<from@example.org>\r\n');
  const rcpts = Array.from({ length: 150 }, (_, number) => `RCPT TO:<r${number}@example.net>\r\n`);
  const replies = await client.askAll(rcpts.join(''), 150);
  t.ok(replies.slice(0, 100).every((reply) => reply.startsWith('250 2.1.5')));
  t.ok(replies.slice(100).every((reply) => reply.startsWith('452 4.5.3')));
  await client.ask('DATA\r\n');
  t.match(await client.ask('x\r\n.\r\n'), /^250/);
  t.equal([...queue.live.values()][0]?.body.recipients.length, 100);
  t.match(await client.submit('y\r\n', 'r100@example.net'), /^250/, 'the client sends the others later');
  client.close();
});

t.test('every reply but those to EHLO and HELO has an enhanced status code of its class', async (t) => {
  const { worker, queue } = await startMemoryWorker(t, {
    smtp: { maxMessageBytes: 100, maxRecipients: 100 },
  });
  const client = await RawClient.open(worker.port);
  const check = (reply: string, command: string) => {
    for (const line of reply.split('\n'))
      t.match(line, /^([245])\d\d[ -]\1\.\d\.\d{1,3} /, JSON.stringify(command));
  };
  const ask = async (command: string) => check(await client.ask(command), command);
  const wrong = ['EHLO', 'DATA', 'RCPT TO:<a@b>', 'MAIL FROM:<a@b>'];
  for (const command of wrong) await ask(`${command}\r\n`);
  await client.ask('EHLO me\r\n');
  const commands = [
    'NOOP',
    'RSET',
    'HELP',
    'VRFY',
    'VRFY x',
    'DATA x',
    'STARTTLS',
    'EXPN x',
    '',
    'X',
    'HELO',
  ];
  const mails = ['x', '<a@b> SIZE=x', '<a@b> SIZE=999999', '<a@b> SMTPUTF8', '<a@\xfc>', '<a@b>', '<a@b>'];
  for (const command of commands) await ask(`${command}\r\n`);
  for (const mail of mails) await ask(`MAIL FROM:${mail}\r\n`);
  for (const rcpt of ['x', '<a@b> NOTIFY=NEVER', '<a@\xfc>']) await ask(`RCPT TO:${rcpt}\r\n`);
  check(await client.ask('NOOP\n'), 'a bare LF');
  await ask('DATA\r\n');
  for (let count = 0; count < 101; count += 1) await ask('RCPT TO:<a@b>\r\n');
  await client.ask('DATA\r\n');
  await ask('x\r\n.\r\n');
  check(await client.submit('a\nb\r\n'), 'a bare LF');
  check(await client.submit(`${'x'.repeat(200)}\r\n`), 'a large message');
  check(await client.submit('Received: x\r\n'.repeat(5)), 'a message with hops');
  for (const reason of ['no-space', 'no-entry', 'mutex-held', 'too-large'] as const) {
    queue.forcedOutcome = { outcome: 'rejected', reason, detail: '' };
    check(await client.submit('x\r\n'), reason);
  }
  await ask('QUIT\r\n');
});
