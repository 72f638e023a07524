import { once } from 'node:events';
import { connect } from 'node:net';
import t from 'tap';
import { parseSettings } from '../../settings/load.js';
import { startMemoryWorker } from '../fixtures/memory-worker.js';
import { RawClient } from '../fixtures/raw-client.js';
import { InboundServer } from './server.js';
import { traceIds } from './trace.js';

const ENVELOPE = 'MAIL FROM:<from@example.org>\r\nRCPT TO:<to@example.net>\r\nDATA\r\n';
/** Memory for one large message and some small ones. */
const BUDGET = { maxMessageBytes: 400_000, maxBufferedBytes: 500_000 };

/** Sends the last byte of `text` again and again until the connection ends; returns the reply that ended it. */
async function drip(client: RawClient, text: string): Promise<string> {
  client.send(text);
  const timer = setInterval(() => client.socket.writable && client.send(text.slice(-1)), 10);
  const reply = await client.reply();
  clearInterval(timer);
  return reply;
}

t.test(
  'the largest message in progress gets 452 when the memory is used up, and small mail goes on',
  async (t) => {
    const { worker, queue } = await startMemoryWorker(t, { smtp: BUDGET });
    const large = await RawClient.ready(worker.port);
    const other = await RawClient.ready(worker.port);
    await large.askAll(ENVELOPE, 3);
    large.send('x'.repeat(390_000));
    await other.askAll(ENVELOPE, 3);
    other.send('y'.repeat(200_000));
    const small = await RawClient.ready(worker.port);
    t.match(await small.submit('small\r\n'), /^250/);
    t.match(await other.ask('\r\n.\r\n'), /^250/, 'the smaller message is stored');
    t.match(await large.ask('\r\n.\r\n'), /^452 4\.3\.1 No memory/, 'the larger one gave way');
    t.match(await large.submit(`${'x'.repeat(390_000)}\r\n`), /^250/, 'its session can send it again');
    t.equal(queue.live.size, 3);
    for (const client of [large, other, small]) client.close();
  },
);

t.test('while the queue stores as much as the memory holds, MAIL with SIZE and DATA get 452', async (t) => {
  const { worker, queue } = await startMemoryWorker(t, {
    smtp: { maxMessageBytes: 10_000, maxBufferedBytes: 15_000 },
  });
  let confirm: () => void = () => undefined;
  queue.enqueueBarrier = new Promise((resolve) => {
    confirm = resolve;
  });
  const storing = await RawClient.ready(worker.port);
  await storing.askAll(ENVELOPE, 3);
  storing.send(`${'x'.repeat(9000)}\r\n.\r\n`);
  const client = await RawClient.ready(worker.port);
  while ((await client.ask('MAIL FROM:<a@b> SIZE=6000\r\n')).startsWith('250')) await client.ask('RSET\r\n');
  t.match(await client.ask('MAIL FROM:<a@b> SIZE=6000\r\n'), /^452 4\.3\.1/);
  t.match(await client.ask('MAIL FROM:<a@b> SIZE=10001\r\n'), /^552 5\.3\.4/);
  t.match(await client.submit(`${'x'.repeat(6000)}\r\n`), /^452 4\.3\.1/, 'a size that was not announced');
  confirm();
  t.match(await storing.reply(), /^250/);
  t.match(await client.ask('MAIL FROM:<a@b> SIZE=6000\r\n'), /^250/);
  for (const one of [storing, client]) one.close();
});

t.test('recipients count in the budget, and a session full of them ends for a smaller message', async (t) => {
  const { worker } = await startMemoryWorker(t, {
    smtp: { maxMessageBytes: 10_000, maxBufferedBytes: 50_000 },
  });
  const hoarder = await RawClient.ready(worker.port);
  await hoarder.ask('MAIL FROM:<a@b>\r\n');
  let accepted = 0;
  while ((await hoarder.ask(`RCPT TO:<r${accepted}@example.net>\r\n`)).startsWith('250')) accepted += 1;
  t.ok(accepted > 20 && accepted < 60, `${accepted} recipients`);
  const client = await RawClient.ready(worker.port);
  t.match(await client.submit('small\r\n'), /^250/);
  t.match(await hoarder.reply(), /^421 4\.3\.1/);
  client.close();
});

t.test('a command or a message that drips in ends at its deadline', async (t) => {
  const command = await startMemoryWorker(t, { smtp: { commandTimeoutMs: 400 } });
  t.match(
    await drip(await RawClient.ready(command.worker.port), 'NOOP x'),
    /^421 4\.4\.2 .*command came too slowly/,
  );
  const idle = await startMemoryWorker(t, { smtp: { idleTimeoutMs: 400 } });
  t.match(
    await drip(await RawClient.ready(idle.worker.port), 'NOOP x'),
    /^421 4\.4\.2 Idle/,
    'bytes are no command',
  );
  const session = await startMemoryWorker(t, { smtp: { sessionTimeoutMs: 400 } });
  t.match(await (await RawClient.ready(session.worker.port)).reply(), /^421 4\.4\.2 .*session took too long/);
  const data = await startMemoryWorker(t, { smtp: { dataTimeoutMs: 400, minDataBytesPerSecond: 1_000_000 } });
  const client = await RawClient.ready(data.worker.port);
  await client.askAll(ENVELOPE, 3);
  t.match(await drip(client, 'x'), /^421 4\.4\.2 .*message came too slowly/);
  t.equal(data.queue.live.size, 0);
});

t.test('the default time-outs are those of RFC 5321 4.5.3.2 or longer', async (t) => {
  const { smtp } = parseSettings({ directory: '/nowhere' });
  t.ok(smtp.idleTimeoutMs >= 300_000, 'a client may wait 5 minutes between two commands');
  t.ok(
    Math.min(smtp.idleTimeoutMs, smtp.dataTimeoutMs) >= 180_000,
    'and 3 minutes between two blocks of data',
  );
  t.ok(smtp.maxCommandsPerMessage > 100 && smtp.maxRecipients >= 100, '4.5.3.1.8: 100 recipients');
});

t.test('one address has a limit of connections, and another address still gets in', async (t) => {
  const { worker } = await startMemoryWorker(t, { smtp: { maxConnectionsPerClient: 2 } });
  const clients = [await RawClient.ready(worker.port), await RawClient.ready(worker.port)];
  const refused = connect({ host: '127.0.0.1', port: worker.port });
  t.match(String((await once(refused, 'data'))[0]), /^421 4\.7\.0 Too many connections from your address/);
  const other = connect({ host: '127.0.0.1', port: worker.port, localAddress: '127.0.0.2' });
  t.match(String((await once(other, 'data'))[0]), /^220/);
  clients[0]?.close();
  await once(clients[0]?.socket ?? other, 'close');
  let greeting = '421';
  // The worker sees the end of the connection a little later.
  while (greeting.startsWith('421')) {
    const again = connect({ host: '127.0.0.1', port: worker.port });
    greeting = String((await once(again, 'data'))[0]);
    again.destroy();
  }
  t.match(greeting, /^220/);
  other.destroy();
  clients[1]?.close();
});

t.test('when all connections are used, the client that is idle longest is disconnected', async (t) => {
  const { worker } = await startMemoryWorker(t, {
    smtp: { maxConnections: 2, maxCommandsPerMessage: 1_000_000 },
  });
  const idle = await RawClient.open(worker.port);
  const active = await RawClient.ready(worker.port);
  const ended = idle.reply();
  let greeting = '421';
  while (!greeting.startsWith('220')) {
    await active.askAll('MAIL FROM:<a@b>\r\nRSET\r\n', 2);
    const socket = connect({ host: '127.0.0.1', port: worker.port });
    greeting = String((await once(socket, 'data'))[0]);
    if (!greeting.startsWith('220')) socket.destroy();
    else t.teardown(() => socket.destroy());
  }
  t.match(await ended, /^421 4\.3\.2 Too many connections/);
  t.match(await active.ask('RSET\r\n'), /^250/);
  active.close();
});

t.test(
  'a session with many commands and no message ends, however many recipients a message has',
  async (t) => {
    const { worker } = await startMemoryWorker(t, { smtp: { maxCommandsPerMessage: 20 } });
    for (const command of ['NOOP', 'RSET', 'VRFY x', 'EHLO x', 'MAIL FROM:<a@b>\r\nRSET']) {
      const client = await RawClient.ready(worker.port);
      client.send(`${command}\r\n`.repeat(30));
      const replies: string[] = [];
      for (let reply = await client.reply(); reply !== ''; reply = await client.reply()) replies.push(reply);
      t.match(replies.at(-1), /^421 4\.7\.0 Too many commands/, command);
      t.equal(replies.length, 20, command);
    }
    const client = await RawClient.ready(worker.port);
    const recipients = Array.from({ length: 50 }, (_, at) => `RCPT TO:<r${at}@example.net>\r\n`);
    for (const _ of [1, 2, 3]) {
      const replies = await client.askAll(`MAIL FROM:<a@b>\r\n${recipients.join('')}DATA\r\n`, 52);
      t.match(replies.at(-1), /^354/);
      t.match(await client.ask('x\r\n.\r\n'), /^250/);
    }
    client.close();
  },
);

t.test('a client that does not speak SMTP is refused early', async (t) => {
  const { worker } = await startMemoryWorker(t);
  const client = await RawClient.open(worker.port);
  const replies = await client.askAll(
    'GET / HTTP/1.1\r\nHost: a\r\nAccept: b\r\nA: b\r\nC: d\r\nE: f\r\n\r\n',
    7,
  );
  t.match(replies.at(5), /^421 4\.7\.0 Too many errors/);
  t.equal(replies.at(6), '');
});

t.test('a client that reads no replies is not answered without bound, and is disconnected', async (t) => {
  const { worker } = await startMemoryWorker(t, {
    smtp: { idleTimeoutMs: 200, maxCommandsPerMessage: 1_000_000, sessionTimeoutMs: 86_400_000 },
  });
  const socket = connect({ host: '127.0.0.1', port: worker.port });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.pause();
  const flood = Buffer.from('EHLO x\r\n'.repeat(100_000));
  const send = () => {
    while (socket.writable && socket.write(flood));
  };
  socket.on('drain', send);
  send();
  // The worker destroys the connection, which is an error for the client.
  await new Promise((resolve) => socket.on('close', resolve));
  t.ok(socket.bytesWritten > 0);
});

t.test('many clients that pipeline their recipients and read their replies are all served', async (t) => {
  const { worker, queue } = await startMemoryWorker(t);
  const clients = await Promise.all(Array.from({ length: 150 }, () => RawClient.ready(worker.port)));
  const recipients = Array.from({ length: 100 }, (_, at) => `RCPT TO:<r${at}@example.net>\r\n`).join('');
  const answers = clients.map(async (client) => {
    const replies = await client.askAll(`MAIL FROM:<a@b>\r\n${recipients}DATA\r\n`, 102);
    return replies.at(-1)?.startsWith('354') ? await client.ask('x\r\n.\r\n') : replies.at(-1);
  });
  for (const answer of await Promise.all(answers)) t.match(answer, /^250/);
  t.equal(queue.live.size, 150);
  for (const client of clients) client.close();
});

t.test('of too many clients that read no replies, the one that waits longest is disconnected', async (t) => {
  const server = await InboundServer.start({
    ...parseSettings({ directory: '/nowhere' }).smtp,
    ...{ port: 0, maxCommandsPerMessage: 1_000_000, maxUnreadSessions: 2 },
    traceIds: traceIds('test'),
    secureContext: () => undefined,
    hasRoute: () => true,
    store: async () => ({ outcome: 'indefinite', detail: 'test' }),
    fail: () => undefined,
  });
  const flood = Buffer.from('EHLO x\r\n'.repeat(20_000));
  const sockets = Array.from({ length: 3 }, () => connect({ host: '127.0.0.1', port: server.port }));
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy();
    await server.stop(1000);
  });
  await Promise.race(
    sockets.map(async (socket) => {
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      socket.pause();
      const send = () => {
        while (socket.writable && socket.write(flood));
      };
      socket.on('drain', send);
      send();
      await new Promise((resolve) => socket.on('close', resolve));
    }),
  );
  t.equal(sockets.filter((socket) => socket.destroyed).length, 1);
});

t.test('large messages in progress do not keep a small one waiting until they end', async (t) => {
  const { worker } = await startMemoryWorker(t, { smtp: { maxMessageBytes: 1_000_000 } });
  const chunk = Buffer.from('..\r\n'.repeat(16_384));
  const floods = await Promise.all(Array.from({ length: 20 }, () => RawClient.ready(worker.port)));
  for (const flood of floods) {
    await flood.askAll(ENVELOPE, 3);
    const send = () => {
      while (flood.socket.writable && flood.socket.write(chunk));
    };
    flood.socket.on('drain', send);
    send();
  }
  for (let sent = 0; sent < 5; sent++) {
    const client = await RawClient.ready(worker.port);
    t.match(await client.submit('small\r\n'), /^250/);
    client.close();
  }
  for (const flood of floods) flood.close();
});
