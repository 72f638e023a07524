import fc from 'fast-check';
import t from 'tap';
import { dotStuff } from '../outbound/reply-reader.js';
import { BodyBuffer, SegmentPool } from './body-buffer.js';
import { DataReader, type MailData } from './data-reader.js';
import { MemoryBudget } from './memory-budget.js';

/** Message data without a bare CR or LF, with many dots and line ends. */
const lines = fc
  .array(
    fc.oneof(
      fc.constantFrom('', '.', '..', '.\t', 'a', 'hello.', '. .'),
      fc.uint8Array({ maxLength: 120 }).map((bytes) =>
        Buffer.from(bytes)
          .toString('latin1')
          .replace(/[\r\n]/g, ''),
      ),
    ),
    { maxLength: 12 },
  )
  .map((parts) => Buffer.from(parts.map((part) => `${part}\r\n`).join(''), 'latin1'));

/**
 * Reads wire bytes that are cut into chunks at the given positions. Returns the message and the bytes after
 * its end.
 */
function read(
  wire: Buffer,
  cuts: readonly number[],
  limitBytes = 1e6,
): { message: MailData; rest: string } | undefined {
  const holding = new MemoryBudget(1e8).open(() => undefined);
  const reader = new DataReader(limitBytes, new BodyBuffer(holding, new SegmentPool()));
  const places = [...new Set(cuts.map((cut) => cut % (wire.length + 1)))].sort((a, b) => a - b);
  let from = 0;
  for (const to of [...places, wire.length]) {
    // The reader overwrites the chunk.
    const used = reader.take(Buffer.from(wire.subarray(from, to)));
    if (used !== undefined) {
      const message = reader.result();
      const paidBytes = message.kind === 'data' ? message.data.length : 0;
      if (holding.sizeBytes !== paidBytes)
        throw new Error(`${holding.sizeBytes} bytes are paid for ${paidBytes}`);
      return { message, rest: wire.toString('latin1', from + used) };
    }
    from = to;
  }
  return undefined;
}

const text = (wire: string, limitBytes?: number) => read(Buffer.from(wire, 'latin1'), [], limitBytes);

t.test('the reader restores dot-stuffed data byte for byte from any chunks', async (t) => {
  fc.assert(
    fc.property(lines, fc.array(fc.nat(), { maxLength: 8 }), (data, cuts) => {
      const wire = Buffer.concat([...dotStuff(data), Buffer.from('QUIT\r\n')]);
      t.strictSame(read(wire, cuts), { message: { kind: 'data', data }, rest: 'QUIT\r\n' });
    }),
    { numRuns: 300 },
  );
});

t.test('cutting a message in two at any position gives the same data', async (t) => {
  const wire = Buffer.from('..a\r\n..\r\n\r\n...b\r\n.\r\nMAIL', 'latin1');
  for (let cut = 0; cut <= wire.length; cut++) {
    t.match(
      read(wire, [cut]),
      { message: { kind: 'data', data: Buffer.from('.a\r\n.\r\n\r\n..b\r\n') } },
      `cut at ${cut}`,
    );
  }
});

t.test('a message may be empty or one empty line', async (t) => {
  t.strictSame(text('.\r\n'), { message: { kind: 'data', data: Buffer.alloc(0) }, rest: '' });
  t.strictSame(text('\r\n.\r\n'), { message: { kind: 'data', data: Buffer.from('\r\n') }, rest: '' });
});

t.test('only CRLF.CRLF ends the data, so that a bare line end cannot smuggle in commands', async (t) => {
  for (const end of ['\n.\n', '\n.\r\n', '\r.\r', '\r\n.\n', '\r\n.\r', '\r.\r\n', '\n.\r', '\r\n\0.\r\n']) {
    const found = text(`one${end}MAIL FROM:<evil@example>\r\n.\r\nrest`);
    t.equal(found?.rest, 'rest', JSON.stringify(end));
    if (!end.includes('\0')) t.equal(found?.message.kind, 'bare-line-end', JSON.stringify(end));
  }
});

t.test('a bare CR or LF is detected at any position', async (t) => {
  fc.assert(
    fc.property(
      lines,
      fc.nat(),
      fc.constantFrom('\r', '\n'),
      fc.array(fc.nat(), { maxLength: 4 }),
      (data, at, bare, cuts) => {
        const line = Math.max(0, data.lastIndexOf('\r\n', at % (data.length + 1)));
        const bad = Buffer.concat([data.subarray(0, line), Buffer.from(`x${bare}y`), data.subarray(line)]);
        const wire = Buffer.concat([...dotStuff(bad)]);
        t.equal(read(wire, cuts)?.message.kind, 'bare-line-end');
      },
    ),
    { numRuns: 200 },
  );
});

t.test('a message over the limit is read to its end and discarded', async (t) => {
  t.equal(text(`${'x'.repeat(100)}\r\n.\r\n`, 101)?.message.kind, 'too-large');
  t.equal(text(`${'x'.repeat(100)}\r\n.\r\n`, 102)?.message.kind, 'data');
  t.equal(text(`${'..\r\n'.repeat(10)}.\r\nNOOP`, 30)?.message.kind, 'data', 'removed dots do not count');
  t.equal(text(`${'..\r\n'.repeat(10)}.\r\nNOOP`, 29)?.rest, 'NOOP');
});

t.test('the wire form of any bytes contains the end mark only at its end', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const wire = Buffer.concat([...dotStuff(Buffer.from(bytes))]);
      const whole = Buffer.concat([Buffer.from('\r\n'), wire]);
      t.equal(whole.indexOf('\r\n.\r\n'), whole.length - 5);
    }),
    { numRuns: 200 },
  );
});

t.test(
  'a dot at the start of a line is stuffed beside every block of the wire form, and blocks are small',
  async (t) => {
    for (let padding = 65_536 - 6; padding <= 65_536 + 2; padding++) {
      const data = Buffer.from(`${'x'.repeat(padding)}\r\n.a\r\n..\r\n`);
      const expected = `${'x'.repeat(padding)}\r\n..a\r\n...\r\n.\r\n`;
      t.equal(Buffer.concat([...dotStuff(data)]).toString(), expected, `${padding} bytes before`);
    }
    const sizes = [...dotStuff(Buffer.from('.\r\n'.repeat(500_000)))].map((block) => block.length);
    t.ok(Math.max(...sizes) < 100_000, 'the wire form is never in memory as a whole');
    t.equal(
      sizes.reduce((sum, size) => sum + size),
      2_000_003,
    );
  },
);
