import fc from 'fast-check';

/** A client session of the fuzz: the bytes that the client sends, and how it sends them. */
export interface SessionPlan {
  wire: Buffer;
  /** Positions at which the bytes are cut into writes, ascending. */
  cuts: readonly number[];
  /** Whether the client waits a moment for replies between two writes. */
  waits: boolean;
  /** How the connection ends: `fin` after the replies, or broken off after `sentBytes` bytes of the wire. */
  end: { how: 'fin' | 'destroy' | 'reset'; sentBytes: number };
}

/** Line ends and end marks that differ from CRLF and CRLF.CRLF by a little, by which messages were smuggled. */
const SMUGGLING = [
  ...['\n.\n', '\r\n.\n', '\n.\r\n', '\r.\r', '\r.\r\n', '\r\n.\r', '\n.\r', '\r\r\n.\r\r\n', '\r\n\0.\r\n'],
  ...['\r\n..\r\n', '\r\n.\0\r\n', '\r\n. \r\n', '\n', '\r', '\r\n\r', '\n\r\n', '\0'],
];

const latin1 = (bytes: Uint8Array) => Buffer.from(bytes).toString('latin1');
/** 8-bit text of one line. */
const eightBit = fc.uint8Array({ maxLength: 60 }).map((bytes) => latin1(bytes).replace(/[\r\n]/g, '\0'));
const longLine = fc
  .constantFrom(511, 512, 513, 998, 999, 1000, 2047, 2048, 2049, 9000)
  .map((length) => 'l'.repeat(length));
const dots = fc.constantFrom('', '.', '..', '...', '.\t', '. .', '.a', '..b', 'c.', '.\0');

/** Text that is a transaction if the gateway takes it for commands. */
const smuggled = (id: string) =>
  fc.constantFrom(
    `MAIL FROM:<s${id}@evil.example>\r\nRCPT TO:<s${id}@fuzz.example>\r\nDATA\r\nsmuggled ${id}\r\n.\r\n`,
    `RSET\r\nMAIL FROM:<s${id}@evil.example>\r\n`,
    'DATA\r\n',
    'QUIT\r\n',
    'EHLO evil\r\n',
  );

const line = (id: string) =>
  fc.oneof(
    { weight: 6, arbitrary: dots },
    { weight: 4, arbitrary: eightBit },
    { weight: 2, arbitrary: fc.constant(`line of ${id}`) },
    { weight: 1, arbitrary: longLine },
  );

/** A block of lines, whose size decides by which path the gateway reads the message. */
const bulk = fc
  .tuple(
    fc.constantFrom('..\r\n', '.\r\n', 'x', 'yz\r\n', '\r\n..'),
    fc.constantFrom(1000, 20_000, 70_000, 140_000),
  )
  .map(([piece, sizeBytes]) =>
    piece.replace(/^\.\r\n$/, '..\r\n').repeat(Math.ceil(sizeBytes / piece.length)),
  );

const body = (id: string) =>
  fc
    .tuple(
      fc.array(
        fc.tuple(
          line(id),
          fc.oneof(
            { weight: 60, arbitrary: fc.constant('\r\n') },
            { weight: 1, arbitrary: fc.constantFrom(...SMUGGLING) },
          ),
        ),
        { maxLength: 14 },
      ),
      fc.oneof({ weight: 12, arbitrary: fc.constant('') }, { weight: 1, arbitrary: bulk }),
      fc.oneof({ weight: 8, arbitrary: fc.constant('') }, { weight: 1, arbitrary: smuggled(id) }),
      fc.boolean(),
      fc.oneof({ weight: 12, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
    )
    .map(([lines, block, commands, commandsFirst, isStuffed]) => {
      const own = lines.map(([text, end]) => text + end).join('');
      const text = commandsFirst ? commands + own + block : own + block + commands;
      const wire = isStuffed ? text.replace(/(^|\r\n)\./g, '$1..') : text;
      return wire === '' || wire.endsWith('\r\n') ? wire : `${wire}\r\n`;
    });

const end = fc.oneof(
  { weight: 20, arbitrary: fc.constant('.\r\n') },
  { weight: 1, arbitrary: fc.constantFrom('.\n', '.\r', '..\r\n', '. \r\n', '\n.\n', '', '.\r\r\n.\r\n') },
);

const transaction = (id: string) =>
  fc
    .tuple(
      fc.oneof(
        { weight: 8, arbitrary: fc.constant('') },
        { weight: 2, arbitrary: fc.constant(' BODY=8BITMIME') },
        { weight: 1, arbitrary: fc.constantFrom(' SIZE=100', ' SIZE=99999999', ' SIZE=x', ' FOO=1') },
      ),
      fc.integer({ min: 1, max: 3 }),
      body(id),
      end,
      noise,
    )
    .map(([parameters, recipients, data, mark, between]) => {
      const rcpt = Array.from({ length: recipients }, (_, at) => `RCPT TO:<m${id}.${at}@fuzz.example>\r\n`);
      return `MAIL FROM:<f${id}@fuzz.example>${parameters}\r\n${between}${rcpt.join('')}DATA\r\n${data}${mark}`;
    });

/** Commands between the others: valid ones, wrong ones, and bytes that are no command. */
const noise: fc.Arbitrary<string> = fc.oneof(
  { weight: 20, arbitrary: fc.constant('') },
  {
    weight: 2,
    arbitrary: fc.constantFrom('NOOP\r\n', 'RSET\r\n', 'VRFY x\r\n', 'noop\r\n', 'EHLO again\r\n'),
  },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      ...[
        'BLAH\r\n',
        '\r\n',
        'NOOP\n',
        'RSET\r',
        'DATA\r\n',
        'BDAT 5 LAST\r\nhello',
        '.\r\n',
        'MAIL FROM:<\r\n',
      ],
      ...[
        'RCPT TO:<a\0b@fuzz.example>\r\n',
        'RCPT TO:<>\r\n',
        'GET / HTTP/1.1\r\n',
        'NO\0OP\r\n',
        'NOOP \r\r\n',
      ],
    ),
  },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }).map((bytes) => `${latin1(bytes)}\r\n`) },
  { weight: 1, arbitrary: longLine.map((text) => `NOOP ${text}\r\n`) },
);

function session(index: number): fc.Arbitrary<SessionPlan> {
  return fc
    .tuple(
      fc.constantFrom('EHLO fuzz\r\n', 'EHLO fuzz\r\n', 'EHLO fuzz\r\n', 'HELO fuzz\r\n', ''),
      fc.integer({ min: 1, max: 4 }),
      fc.array(noise, { minLength: 4, maxLength: 4 }),
    )
    .chain(([hello, count, noises]) =>
      fc.tuple(
        fc.tuple(
          ...Array.from({ length: count }, (_, at) =>
            transaction(`${index}-${at}`).map((text) => `${text}${noises[at]}`),
          ),
        ),
        fc.constant(hello),
        fc.constantFrom('', '', 'QUIT\r\n', 'QUIT\r\nNOOP\r\n'),
      ),
    )
    .chain(([transactions, hello, quit]) => {
      const wire = Buffer.from(hello + transactions.join('') + quit, 'latin1');
      const nearMark = fc.nat().map((at) => {
        // Cut beside a dot, a CR or an LF: there the states of a reader change.
        const from = at % (wire.length + 1);
        const mark = wire.subarray(from).findIndex((byte) => byte === 0x0d || byte === 0x0a || byte === 0x2e);
        return Math.min(wire.length, from + Math.max(0, mark) + (at % 2));
      });
      const cut = fc.oneof({ weight: 3, arbitrary: nearMark }, { weight: 1, arbitrary: fc.nat(wire.length) });
      return fc.record({
        wire: fc.constant(wire),
        cuts: fc
          .oneof(
            { weight: 5, arbitrary: fc.array(cut, { maxLength: 20 }) },
            // Every byte alone, for short sessions.
            {
              weight: 1,
              arbitrary: fc.constant(wire.length < 600 ? Array.from(wire, (_, at) => at) : []),
            },
          )
          .map((cuts) => [...new Set(cuts)].sort((a, b) => a - b)),
        waits: fc.boolean(),
        end: fc.oneof(
          { weight: 8, arbitrary: fc.constant({ how: 'fin' as const, sentBytes: wire.length }) },
          {
            weight: 1,
            arbitrary: fc.record({
              how: fc.constantFrom('fin' as const, 'destroy' as const, 'reset' as const),
              sentBytes: fc.oneof(cut, fc.constant(wire.length)),
            }),
          },
        ),
      });
    });
}

/** Returns the session of an index, always the same for the same seed. */
export function planOf(seed: number, index: number): SessionPlan {
  const [plan] = fc.sample(session(index), { seed: seed * 1_000_003 + index, numRuns: 1 });
  if (plan === undefined) throw new Error('fast-check made no session');
  return plan;
}
