import { once } from 'node:events';
import { createServer, type Socket } from 'node:net';
import { connect as connectTls, createSecureContext, TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import type { SmtpBody } from '../record/body.js';
import { CA, OTHER, SERVER, writeCertificate } from './fixtures/certificates.js';
import { startMemoryWorker } from './fixtures/memory-worker.js';
import { temporaryDirectory } from './fixtures/processes.js';
import { RawClient } from './fixtures/raw-client.js';
import { ACCEPT_ALL, ScriptedHop } from './fixtures/scripted-hop.js';
import { Sink } from './fixtures/sink.js';
import { withoutTrace } from './fixtures/without-trace.js';

const MAIL: SmtpBody = {
  type: 'smtp',
  sender: 'from@example.org',
  recipients: ['to@example.net'],
  data: Buffer.from('Subject: x\r\n\r\n'),
};

/** Waits until the condition holds. The time-out of the test is the limit. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

const tlsWorker = (test: Test, certificate = SERVER) =>
  startMemoryWorker(test, { smtp: writeCertificate(temporaryDirectory(test), certificate) });

/** Continues a connection of a client under TLS. Returns the client of the secure connection. */
async function secure(client: RawClient, servername = 'localhost'): Promise<RawClient> {
  client.socket.removeAllListeners('data');
  const socket = connectTls({ socket: client.socket, ca: CA, servername, host: servername });
  await once(socket, 'secureConnect');
  return RawClient.over(socket);
}

const keywords = (reply: string) => reply.split('\n').map((line) => line.slice(4));

t.test('a client sends mail under TLS, after a new EHLO', async (t) => {
  const { worker, queue } = await tlsWorker(t);
  const plain = await RawClient.open(worker.port);
  t.match(await plain.ask('STARTTLS\r\n'), /^503 5\.5\.1 EHLO first/);
  t.ok(keywords(await plain.ask('EHLO before\r\n')).includes('STARTTLS'));
  t.match(await plain.ask('MAIL FROM:<before@example>\r\n'), /^250/);
  t.match(await plain.ask('STARTTLS\r\n'), /^220 2\.0\.0/);
  const client = await secure(plain);
  t.match(await client.ask('MAIL FROM:<a@b>\r\n'), /^503 5\.5\.1 EHLO first/, 'the old EHLO does not count');
  t.notOk(keywords(await client.ask('EHLO after\r\n')).includes('STARTTLS'));
  t.match(await client.ask('STARTTLS\r\n'), /^503 5\.5\.1/);
  t.match(await client.ask('RCPT TO:<a@b>\r\n'), /^503/, 'the old transaction is over');
  const large = `${'y'.repeat(70)}\r\n`.repeat(10_000);
  t.match(await client.submit(large), /^250/);
  t.match(await client.ask('QUIT\r\n'), /^221/);
  t.equal(await client.reply(), '', 'the connection is closed');
  const [stored] = [...queue.live.values()].map(({ body }) => body.data);
  t.match(stored?.toString('latin1', 0, 200), /^Received: from after .*\r\n\tby localhost with ESMTPS id /);
  t.equal(withoutTrace(stored ?? Buffer.alloc(0)), large);
});

t.test('commands in plain text behind STARTTLS are not executed under TLS', async (t) => {
  const { worker, queue } = await tlsWorker(t);
  const plain = await RawClient.ready(worker.port);
  const injected = 'EHLO evil\r\nMAIL FROM:<evil@example>\r\nRCPT TO:<a@b>\r\n';
  t.match(await plain.ask(`STARTTLS\r\n${injected}`), /^220/);
  const client = await secure(plain);
  t.match(await client.ask('RCPT TO:<victim@example>\r\n'), /^503/, 'no injected command has any effect');
  t.match(await client.ask('NOOP\r\n'), /^250/, 'no reply to an injected command comes');
  client.close();
  t.equal(queue.live.size, 0);
});

t.test('without a certificate STARTTLS is not offered', async (t) => {
  const { worker } = await startMemoryWorker(t);
  const client = await RawClient.open(worker.port);
  t.notOk(keywords(await client.ask('EHLO me\r\n')).includes('STARTTLS'));
  t.match(await client.ask('STARTTLS\r\n'), /^502 5\.5\.1/);
  t.match(await client.ask('NOOP\r\n'), /^250/);
  client.close();
});

t.test('a client that does not speak TLS after STARTTLS is disconnected, and others go on', async (t) => {
  const { worker } = await tlsWorker(t);
  const client = await RawClient.ready(worker.port);
  await client.ask('STARTTLS\r\n');
  client.send('EHLO me\r\nMAIL FROM:<a@b>\r\n'.repeat(20));
  t.notMatch(await client.reply(), /^250/);
  await until(() => client.socket.readableEnded || client.socket.destroyed);
  const other = await RawClient.ready(worker.port);
  t.match(await other.submit('x\r\n'), /^250/);
  other.close();
});

t.test('a handshake that never ends does not outlive the idle time, nor a shutdown', async (t) => {
  const files = writeCertificate(temporaryDirectory(t), SERVER);
  const short = await startMemoryWorker(t, { smtp: { ...files, idleTimeoutMs: 50 } });
  const idle = await RawClient.ready(short.worker.port);
  await idle.ask('STARTTLS\r\n');
  t.equal(await idle.reply(), '', 'the connection is closed');
  const { worker, stop } = await startMemoryWorker(t, { smtp: { ...files, shutdownGraceMs: 50 } });
  const client = await RawClient.ready(worker.port);
  await client.ask('STARTTLS\r\n');
  await stop();
  t.equal(await client.reply(), '');
});

t.test(
  'reloadTls takes the new certificate for new sessions, and keeps the old one if the new one is wrong',
  async (t) => {
    const directory = temporaryDirectory(t);
    const { worker } = await startMemoryWorker(t, { smtp: writeCertificate(directory, SERVER) });
    const nameSeen = async (): Promise<string> => {
      const plain = await RawClient.ready(worker.port);
      await plain.ask('STARTTLS\r\n');
      plain.socket.removeAllListeners('data');
      const socket = connectTls({ socket: plain.socket, ca: CA, rejectUnauthorized: false });
      await once(socket, 'secureConnect');
      const { CN } = socket.getPeerCertificate().subject;
      socket.destroy();
      return String(CN);
    };
    t.equal(await nameSeen(), 'localhost');
    writeCertificate(directory, OTHER);
    t.equal(await nameSeen(), 'localhost', 'the files are read at the start');
    worker.reloadTls();
    t.equal(await nameSeen(), 'other.example');
    writeCertificate(directory, { cert: SERVER.cert, key: OTHER.key });
    t.throws(() => worker.reloadTls(), { code: 'bad-setting' });
    t.equal(await nameSeen(), 'other.example');
  },
);

t.test('a wrong file for TLS is reported in one line that names setting and file', async (t) => {
  const directory = temporaryDirectory(t);
  const good = writeCertificate(directory, SERVER);
  const cases: [object, RegExp][] = [
    [{ smtp: { tlsCert: good.tlsCert } }, /smtp\.tlsCert: found .*expected tlsCert and tlsKey together/],
    [{ smtp: { tlsKey: good.tlsKey } }, /smtp\.tlsKey: found .*expected tlsCert and tlsKey together/],
    [
      { smtp: { ...good, tlsKey: '/none.pem' } },
      /^smtp\.tlsKey: \/none\.pem: cannot be read \(ENOENT\), expected a PEM file$/,
    ],
    [{ smtp: { ...good, tlsKey: good.tlsCert } }, /^smtp\.tlsKey: .*cert\.pem: has no PRIVATE KEY, expected/],
    [{ smtp: { ...good, tlsCert: good.tlsKey } }, /^smtp\.tlsCert: .*key\.pem: has no CERTIFICATE, expected/],
    [{ delivery: { tlsCa: good.tlsKey } }, /^delivery\.tlsCa: .*key\.pem: has no CERTIFICATE, expected/],
    [{ delivery: { tls: 'maybe' } }, /delivery\.tls: found "maybe", expected off, may or require$/],
  ];
  for (const [settings, message] of cases) {
    await t.rejects(startMemoryWorker(t, settings), { code: 'bad-setting', message });
  }
  const mixed = writeCertificate(directory, { cert: SERVER.cert, key: OTHER.key });
  await t.rejects(startMemoryWorker(t, { smtp: mixed }), {
    code: 'bad-setting',
    message: /^smtp\.tlsKey: .*key values mismatch.*, expected the key of the certificate .*cert\.pem$/,
  });
  const broken = writeCertificate(directory, { ...SERVER, cert: SERVER.cert.replace(/\n.{10}/, '\n') });
  await t.rejects(startMemoryWorker(t, { smtp: broken }), {
    message: /^smtp\.tlsCert: .*cert\.pem: found [^\n]*, expected a certificate$/,
  });
});

/** Opens a next hop that offers STARTTLS with the given certificate. */
async function tlsSink(test: Test, { cert, key }: typeof SERVER, isSecure: boolean[] = []): Promise<Sink> {
  const sink = await Sink.open({
    disabledCommands: ['AUTH'],
    cert,
    key,
    onMailFrom: (_address, session, done) => {
      isSecure.push(session.secure);
      done();
    },
  });
  test.teardown(() => sink.close());
  return sink;
}

t.test('mail goes to the next hop under TLS if the hop offers it', async (t) => {
  const files = writeCertificate(temporaryDirectory(t), { ...SERVER, cert: CA });
  for (const tls of ['may', 'require'] as const) {
    const isSecure: boolean[] = [];
    const sink = await tlsSink(t, SERVER, isSecure);
    const { queue } = await startMemoryWorker(t, {
      delivery: { nextHop: sink.address, tls, tlsCa: files.tlsCert },
    });
    for (let count = 0; count < 20; count += 1) await queue.enqueue([MAIL]);
    await until(() => queue.consumed.length === 20);
    t.equal(sink.messages.length, 20);
    t.strictSame([...new Set(isSecure)], [true], tls);
  }
});

t.test('with `require`, a hop with a wrong certificate or without STARTTLS gets no mail', async (t) => {
  const files = writeCertificate(temporaryDirectory(t), { ...SERVER, cert: CA });
  const reasons: [Sink, string | null, RegExp][] = [
    [await tlsSink(t, OTHER), files.tlsCert, /TLS failed: .*127\.0\.0\.1/],
    [await tlsSink(t, SERVER), null, /TLS failed: unable to (?:verify|get)/],
    [await Sink.open(), files.tlsCert, /does not offer STARTTLS, and delivery\.tls is require/],
  ];
  t.teardown(() => reasons[2]?.[0].close());
  for (const [sink, tlsCa, reason] of reasons) {
    const { queue } = await startMemoryWorker(t, {
      delivery: { nextHop: sink.address, tls: 'require', tlsCa, maxAgeMs: 200 },
    });
    await queue.enqueue([MAIL]);
    await until(() => queue.dead.length === 1);
    t.match(queue.dead[0]?.failure.replies[0], reason);
    t.equal(sink.messages.length, 0);
  }
});

t.test(
  'with `may`, any certificate is good enough, and mail goes without TLS to a hop that cannot speak it',
  async (t) => {
    const sink = await tlsSink(t, OTHER);
    const { queue } = await startMemoryWorker(t, { delivery: { nextHop: sink.address } });
    await queue.enqueue([MAIL]);
    await sink.received(1);
    // This hop says yes to STARTTLS, and then speaks on in plain text.
    const broken = await brokenHop(t, '220 go ahead\r\n', (socket) => socket.write('what?\r\n'));
    const second = await startMemoryWorker(t, { delivery: { nextHop: broken.address } });
    await second.queue.enqueue([MAIL]);
    await until(() => second.queue.consumed.length === 1);
    t.equal(broken.data(), MAIL.data.toString());
  },
);

t.test('a hop that demands TLS while TLS fails loses no mail: it goes later, under TLS', async (t) => {
  const demands: [string, (line: string) => boolean][] = [
    ['530 Must issue a STARTTLS command first', (line) => line.startsWith('MAIL')],
    ['530 5.7.0 Must issue a STARTTLS command first', (line) => line.startsWith('RCPT')],
    ['550 5.7.10 Encryption needed', (line) => line.startsWith('RCPT')],
    ['554 5.7.1 Encryption needed', (line) => line === 'DATA'],
  ];
  for (const pipelining of ['', '250-PIPELINING\r\n']) {
    for (const [reply, isRefused] of demands) {
      let failedHandshakes = 0;
      let isOver = false;
      // The trouble with TLS is over after a few attempts. For this test, TLS is then no longer asked for.
      const next = await ScriptedHop.open((line, connection) => {
        if (line.startsWith('EHLO')) return `250-hop\r\n${pipelining}250 ${isOver ? 'SIZE' : 'STARTTLS'}`;
        if (line === 'STARTTLS') {
          failedHandshakes += 1;
          return '454 4.7.0 TLS not available';
        }
        if (!isOver && isRefused(line)) return reply;
        return ACCEPT_ALL(line, connection);
      });
      t.teardown(() => next.close());
      const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
      await queue.enqueue([MAIL]);
      await until(() => failedHandshakes >= 3 || queue.dead.length > 0);
      isOver = true;
      await until(() => queue.live.size === 0);
      t.equal(queue.dead.length, 0, reply);
      t.equal(queue.consumed.length, 1, 'delivered');
    }
  }
});

t.test('a refusal that has nothing to do with TLS is final, also while TLS fails', async (t) => {
  for (const reply of ['550 5.1.1 no such user', '550 no 5.7.1 here']) {
    const next = await ScriptedHop.open((line, connection) => {
      if (line.startsWith('EHLO')) return '250-hop\r\n250 STARTTLS';
      if (line === 'STARTTLS') return '454 4.7.0 TLS not available';
      return line.startsWith('RCPT') ? reply : ACCEPT_ALL(line, connection);
    });
    t.teardown(() => next.close());
    const { queue } = await startMemoryWorker(t, { delivery: { nextHop: next.address } });
    await queue.enqueue([MAIL]);
    await until(() => queue.live.size === 0);
    t.match(queue.dead[0]?.failure, { reason: 'refused', replies: [reply] });
  }
});

t.test('with `off`, STARTTLS is not used', async (t) => {
  const isSecure: boolean[] = [];
  const sink = await tlsSink(t, SERVER, isSecure);
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: sink.address, tls: 'off' } });
  await queue.enqueue([MAIL]);
  await sink.received(1);
  t.strictSame(isSecure, [false]);
});

t.test(
  'replies in plain text behind the reply to STARTTLS are not taken for replies under TLS',
  async (t) => {
    // The injected reply names an extension. If it counted, the session would trust it.
    const hop = await brokenHop(t, '220 go ahead\r\n250 injected\r\n', (socket) => {
      const context = createSecureContext({ cert: SERVER.cert, key: SERVER.key });
      new TLSSocket(socket, { isServer: true, secureContext: context }).on('error', () => undefined);
    });
    const { queue } = await startMemoryWorker(t, {
      delivery: { nextHop: hop.address, tls: 'require', maxAgeMs: 200 },
    });
    await queue.enqueue([MAIL]);
    await until(() => queue.dead.length === 1);
    t.match(queue.dead[0]?.failure.replies[0], /plain text behind its reply to STARTTLS/);
  },
);

/**
 * Opens a hop that offers STARTTLS, answers it with `reply` and then calls `then`. Without STARTTLS it accepts mail.
 */
async function brokenHop(
  test: Test,
  reply: string,
  then: (socket: Socket) => void,
): Promise<{ address: string; data: () => string }> {
  let data = '';
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    let inData = false;
    socket.on('error', () => undefined);
    socket.write('220 hop\r\n');
    const onData = (chunk: Buffer) => {
      const text = chunk.toString('latin1');
      if (inData) {
        data = text.slice(0, text.indexOf('.\r\n'));
        inData = false;
        socket.write('250 ok\r\n');
      } else if (text.startsWith('EHLO')) socket.write('250-hop\r\n250 STARTTLS\r\n');
      else if (text.startsWith('STARTTLS')) {
        socket.off('data', onData);
        socket.write(reply);
        then(socket);
      } else {
        inData = text.startsWith('DATA');
        socket.write(inData ? '354 go on\r\n' : '250 ok\r\n');
      }
    };
    socket.on('data', onData);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  test.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return { address: `127.0.0.1:${port}`, data: () => data };
}
