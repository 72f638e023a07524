import t from 'tap';
import { ReplyReader, replyText } from './reply-reader.js';

t.test('a reply has at most 64 KiB, however its lines and chunks are cut', async (t) => {
  const cuts: [string, number][] = [
    [`250-${'x'.repeat(1000)}\r\n`, 100],
    [`250-${'x'.repeat(60_000)}\r\n`, 2],
    ['250-\r\n', 20_000],
  ];
  for (const [line, count] of cuts) {
    t.throws(() => new ReplyReader().take(Buffer.from(line.repeat(count))), /too long for SMTP/, 'one chunk');
    const reader = new ReplyReader();
    const takeAll = () => {
      for (let at = 0; at < count; at += 1) reader.take(Buffer.from(line));
    };
    t.throws(takeAll, /too long for SMTP/, 'one chunk for each line');
  }
  t.throws(() => new ReplyReader().take(Buffer.from(`250 ${'x'.repeat(70_000)}`)), /too long/, 'no line end');
});

t.test('the limit is that of one reply and not of all', async (t) => {
  const reader = new ReplyReader();
  for (let at = 0; at < 100; at += 1) {
    reader.take(Buffer.from(`250-${'x'.repeat(20_000)}\r\n250-`));
    const [reply] = reader.take(Buffer.from(`b\r\n250 c\r\n`));
    t.strictSame(reply?.lines.slice(1), ['b', 'c']);
  }
});

t.test('a long reply is cut when it becomes a reason', async (t) => {
  t.equal(replyText({ code: 550, lines: ['no', 'such user'] }), '550 no such user');
  t.equal(replyText({ code: 550, lines: ['x'.repeat(60_000)] }).length, 2048);
});
