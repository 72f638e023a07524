import type { Socket } from 'node:net';
import t, { type Test } from 'tap';
import type { SmtpBody } from '../../record/body.js';
import { startMemoryWorker } from '../fixtures/memory-worker.js';
import { ACCEPT_ALL, ScriptedHop } from '../fixtures/scripted-hop.js';
import { Sink } from '../fixtures/sink.js';
import { Conversions } from './conversions.js';
import { OutboundSession } from './session.js';

const MIME =
  'MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n';

const mail = (text: string): SmtpBody => ({
  type: 'smtp',
  sender: 'from@example.org',
  recipients: ['to@example.net'],
  data: Buffer.from(text, 'latin1'),
});

/** Waits until the condition holds. The time-out of the test is the limit. */
async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** A hop without 8BITMIME, built on an independent SMTP library. */
async function sevenBitSink(test: Test): Promise<Sink> {
  const sink = await Sink.open({ hide8BITMIME: true });
  test.teardown(() => sink.close());
  return sink;
}

t.test('a hop without 8BITMIME gets MIME in 7-bit form, and its size as it is sent', async (t) => {
  const sink = await sevenBitSink(t);
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: sink.address, sessions: 1 } });
  const ascii = 'Subject: plain\r\n\r\n.ascii\r\n';
  await queue.enqueue([mail(`${MIME}Gr\xfc\xdfe\r\n.\r\n`), mail(ascii), mail(`${MIME}\xfc\r\n`)]);
  const received = (await sink.received(3)).map(({ data }) => data.toString('latin1'));
  const encoded = MIME.replace('8bit', 'quoted-printable');
  t.strictSame(received, [`${encoded}Gr=FC=DFe\r\n.\r\n`, ascii, `${encoded}=FC\r\n`]);
  await until(() => queue.consumed.length === 3);
  t.equal(queue.dead.length, 0);
});

t.test(
  'a message that cannot be converted is refused with 5.6.3, and its neighbours are delivered',
  async (t) => {
    const sink = await sevenBitSink(t);
    const { queue } = await startMemoryWorker(t, { delivery: { nextHop: sink.address, sessions: 1 } });
    await queue.enqueue(['a', 'b\xfc', 'c\xfc', 'd'].map((word) => mail(`Subject: ${word}\r\n\r\n`)));
    await until(() => queue.live.size === 0);
    t.strictSame(
      sink.messages.map(({ data }) => data.toString()),
      ['Subject: a\r\n\r\n', 'Subject: d\r\n\r\n'],
    );
    t.equal(queue.dead.length, 2);
    for (const { failure } of queue.dead)
      t.match(failure, { reason: 'refused', replies: [/^554 5\.6\.3 .*8BITMIME/] });
  },
);

t.test('BODY=8BITMIME declares only messages with 8-bit bytes', async (t) => {
  const hop = await ScriptedHop.open((line, connection) =>
    line.startsWith('EHLO') ? '250-hop\r\n250-8BITMIME\r\n250 SIZE' : ACCEPT_ALL(line, connection),
  );
  t.teardown(() => hop.close());
  const { queue } = await startMemoryWorker(t, { delivery: { nextHop: hop.address, sessions: 1 } });
  await queue.enqueue([mail('Subject: a\r\n\r\n'), mail('Subject: \xfc\r\n\r\n')]);
  await until(() => queue.consumed.length === 2);
  t.strictSame(
    hop.lines.filter((line) => line.startsWith('MAIL')),
    ['MAIL FROM:<from@example.org> SIZE=14', 'MAIL FROM:<from@example.org> SIZE=14 BODY=8BITMIME'],
  );
});

t.test('sessions wait for memory before they convert, and one that ends meanwhile gives up', async (t) => {
  const ends: Socket[] = [];
  const hop = await ScriptedHop.open((line, connection, socket) => {
    if (line.startsWith('EHLO')) return '250 hop';
    if (line !== '.') return ACCEPT_ALL(line, connection);
    ends.push(socket);
    return '';
  });
  t.teardown(() => hop.close());
  const conversions = new Conversions(1);
  const open = () => {
    const waiting = [
      { envelope: { sender: 'a@b', recipients: ['c@d'] }, data: mail(`${MIME}\xfc\r\n`).data },
    ];
    return new OutboundSession(
      {
        ...{ host: '127.0.0.1', port: hop.port, hostname: 'test', keepIdleMs: 0, messagesPerSession: 10 },
        ...{ connectTimeoutMs: 60_000, replyTimeoutMs: 60_000, conversions },
        tls: { mode: 'off', secureContext: undefined },
      },
      { next: () => waiting.pop(), done: () => undefined },
    );
  };
  const [first, second, third] = [open(), open(), open()];
  const runs = [first, second, third].map((session) => session.run());
  const count = (verb: string) => hop.lines.filter((line) => line.startsWith(verb)).length;
  await until(() => count('EHLO') === 3 && ends.length === 1);
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setTimeout(resolve, 5));
  t.equal(count('MAIL'), 1, 'the others wait');
  ends[0]?.write('250 ok\r\n');
  await until(() => ends.length === 2);
  t.equal(count('MAIL'), 2);
  for (const session of [first, second, third]) session.abort();
  const results = await Promise.all(runs);
  t.equal(results.filter(({ undelivered }) => undelivered.length === 1).length, 2);
  t.notOk(conversions.reserve(1).isWaiting, 'all memory is given back');
});
