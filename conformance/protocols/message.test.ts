import { crc32c } from '@node-rs/crc32';
import fc from 'fast-check';
import t from 'tap';
import { seeded } from '../fixtures/random.js';
import { type BodyContent, bareLineEndAt } from './forged-record.js';
import { compose, identify, markOf, recipientNumber } from './message.js';
import { MESSAGE_SHAPES } from './shapes.js';

const RUN = 'run-1';
const make = (shape: (typeof MESSAGE_SHAPES)[number], id = '7', seed = 1, content?: BodyContent) =>
  compose({ run: RUN, id, shape, ...(content && { content }) }, seeded(seed));

for (const shape of MESSAGE_SHAPES) {
  t.test(
    `SMTP can carry a message of shape ${shape} unchanged, and the message is identified again`,
    async (t) => {
      const message = make(shape, '7', 1, '8bit');
      const lines = message.bytes.toString('latin1').split('\r\n');
      t.equal(lines.pop(), '', 'ends with CRLF');
      t.equal(bareLineEndAt(message.bytes), -1, 'no bare CR or LF');
      t.ok(
        lines.every((line) => line.length <= 998),
        'RFC 5322, section 2.1.1: no line is longer than 998 characters',
      );
      t.ok(
        lines.slice(0, lines.indexOf('')).every((line) => /^[!-9;-~]+: /.test(line)),
        'the message begins with header lines',
      );
      t.same(identify(message.bytes, RUN), { id: '7', intact: true, digest: message.digest });
      t.ok(message.bytes.includes(markOf(RUN, '7')));
      t.notOk(message.bytes.includes(0), 'RFC 2045, section 2.8: 8bit data contains no NUL bytes');
      t.equal(
        make(shape).bytes.includes(0),
        shape === 'forged-record',
        'only forged records contain NUL bytes',
      );
      t.ok(make(shape, '7', 1, '8bit').bytes.equals(message.bytes), 'the same seed makes the same message');
      t.notOk(make(shape, '7', 2).bytes.equals(message.bytes), 'another seed makes another message');
    },
  );
}

t.test('messages have the properties that their shapes name', async (t) => {
  t.ok(make('tiny').bytes.length < 300);
  t.ok(make('large').bytes.length > 2 ** 20);
  t.equal(make('many-recipients').recipients.length, 100);
  t.ok(make('8bit').bytes.some((byte) => byte > 127));
  t.ok(new Set(make('binary').bytes).size > 250);
  t.match(make('dots').bytes.toString(), /\r\n\.\r\n\.\.\r\n\.x\r\n/);
  t.equal(
    compose({ run: RUN, id: '1', shape: 'text', sizeBytes: 5000, recipients: 3 }, seeded(1)).recipients
      .length,
    3,
  );
});

t.test(
  'a forged record lies on a slot boundary at every position of the message, and contains a valid message',
  async (t) => {
    const { bytes } = make('forged-record');
    const signature = Buffer.from([252, 88, 132, 133]);
    const offsets = new Set<number>();
    for (let at = bytes.indexOf(signature); at >= 0; at = bytes.indexOf(signature, at + 1))
      offsets.add(at % 256);
    t.equal(offsets.size, 256);
    const at = bytes.indexOf(signature);
    const length = bytes.readUInt32LE(at + 24);
    const record = bytes.subarray(at, at + 32 + length + 4);
    const inner = record.indexOf('X-PlugPull: run=run-1 id=forged-7 ');
    t.equal(identify(record.subarray(inner, -4), RUN).id, 'forged-7');
    t.ok(
      identify(record.subarray(inner, -4), RUN).intact,
      'the contained message looks valid and was never submitted',
    );
  },
);

t.test('a forged record without NUL bytes has valid checksums and lengths behind its end', async (t) => {
  const { bytes } = make('forged-record', '7', 1, '8bit');
  const signature = Buffer.from([252, 88, 132, 133]);
  const offsets = new Set<number>();
  for (let at = bytes.indexOf(signature); at >= 0; at = bytes.indexOf(signature, at + 1)) {
    offsets.add(at % 256);
    const header = bytes.subarray(at, at + 32);
    t.equal(header.readUInt32LE(28), crc32c(header.subarray(0, 28)));
    t.ok(header.readUInt32LE(24) > bytes.length);
  }
  t.equal(offsets.size, 256);
  t.match(bytes.toString('latin1'), /\r\nContent-Transfer-Encoding: 8bit\r\n/);
  t.match(make('forged-record').bytes.toString('latin1'), /\r\nContent-Transfer-Encoding: binary\r\n/);
});

t.test('a forged record without forbidden bytes is found for ids with unfavourable checksums', async (t) => {
  // For these ids several paddings give a checksum that contains a bare CR or LF.
  for (const id of ['1-0-25926', '1-0-70923', '1-0-119455']) {
    for (const content of ['binary', '8bit'] as const) {
      const { bytes } = compose({ run: RUN, id, shape: 'forged-record', content }, seeded(1));
      t.equal(bareLineEndAt(bytes), -1);
    }
  }
});

t.test('header lines that a relay adds in front are ignored', async (t) => {
  const { bytes, digest } = make('text');
  const front = 'Received: from a\r\n\tby b; today\r\nX-Other: 1\r\n';
  t.same(identify(Buffer.concat([Buffer.from(front), bytes]), RUN), { id: '7', intact: true, digest });
});

t.test(
  'a message with other bytes in front, cut bytes or added bytes is not intact and has another digest',
  async (t) => {
    const { bytes, digest } = make('text');
    const fronts = ['Received: a\r\n\r\n', 'garbage\r\n', '\r\n', 'A: b\n', ' folded\r\n'];
    const wrong = [
      ...fronts.map((front) => Buffer.concat([Buffer.from(front), bytes])),
      Buffer.concat([bytes, Buffer.from('\r\n')]),
      bytes.subarray(0, -2),
      Buffer.concat([bytes, bytes]),
      Buffer.from(bytes.toString('latin1').replace('id=7 ', 'id=8 '), 'latin1'),
    ];
    for (const [n, each] of wrong.entries()) {
      const found = identify(each, RUN);
      t.equal(found.intact, false, `${n}`);
      t.not(found.digest, digest, `${n}`);
      t.ok(found.id === '7' || n === wrong.length - 1, `${n}: the id can still be read`);
    }
  },
);

t.test('messages of other runs have no id', async (t) => {
  t.match(identify(make('text').bytes, 'run-2'), { id: null, intact: false });
});

t.test('one changed byte at any position is detected', async (t) => {
  const { bytes, digest } = make('text');
  fc.assert(
    fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const changed = Buffer.from(bytes);
      changed[at] = (changed[at] ?? 0) ^ change;
      const found = identify(changed, RUN);
      return !found.intact && found.digest !== digest;
    }),
    { numRuns: 500 },
  );
  t.pass('at every position that was tried');
});

t.test('arbitrary bytes can be identified without an exception, and are not intact', async (t) => {
  const parts = fc.oneof(
    fc.uint8Array(),
    fc
      .constantFrom('X-PlugPull: ', 'run=run-1 id=7 sha256=', '\r\n', '\n', ': ')
      .map((text) => Buffer.from(text)),
  );
  fc.assert(fc.property(fc.array(parts), (list) => !identify(Buffer.concat(list), RUN).intact));
  t.match(identify(Buffer.from(`X-PlugPull: ${'x'.repeat(5000)}`), RUN), { id: null, intact: false });
});

t.test('a recipient’s number is read from its address', async (t) => {
  const { recipients } = make('many-recipients');
  t.same(
    recipients.map(recipientNumber),
    recipients.map((_, n) => n),
  );
  t.equal(recipientNumber('somebody@example.test'), null);
});
