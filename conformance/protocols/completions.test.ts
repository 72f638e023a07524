import t from 'tap';
import { seeded } from '../fixtures/random.js';
import { identifyDelivery } from './identify-delivery.js';
import { compose } from './message.js';
import type { MessageShape } from './shapes.js';

const RUN = 'run-1';
const make = (shape: MessageShape) => compose({ run: RUN, id: '7', shape, content: '8bit' }, seeded(1));
const completed = { run: RUN, headers: 'may-be-completed' } as const;
const MESSAGE_ID = 'Message-ID: <1@relay.test>\r\n';
const DATE = 'Date: Thu, 01 Jan 2026 00:00:00 +0000\r\n';

/** Adds header lines at the end of the header. */
const complete = (bytes: Buffer, lines: string) =>
  edit(bytes, (text) => text.replace('\r\n\r\n', `\r\n${lines}\r\n`));
const edit = (bytes: Buffer, change: (text: string) => string) =>
  Buffer.from(change(bytes.toString('latin1')), 'latin1');

/** Folds every line that is longer than 998 bytes with its CRLF at a column. */
const fold = (bytes: Buffer, column: number) =>
  edit(bytes, (text) =>
    text
      .split('\r\n')
      .map((line) => (line.length + 2 > 998 ? `${line.slice(0, column)}\r\n ${line.slice(column)}` : line))
      .join('\r\n'),
  );

t.test(
  'a message whose missing headers were completed is intact if the target claims that it completes them',
  async (t) => {
    const tiny = make('tiny');
    const added = [MESSAGE_ID, 'message-id:\r\n <1@relay.test>\r\n'];
    for (const lines of added) {
      const delivered = complete(tiny.bytes, lines);
      t.match(identifyDelivery(delivered, completed), { id: '7', intact: true, digest: tiny.digest }, lines);
      t.match(identifyDelivery(delivered, { run: RUN }), { id: '7', intact: false }, 'without the claim');
    }
  },
);

t.test('folded lines of more than 998 bytes are accepted with the claim, at any column', async (t) => {
  const { bytes, digest } = make('long-lines');
  for (const column of [990, 500]) {
    const folded = fold(bytes, column);
    t.ok(folded.length > bytes.length, 'lines were folded');
    t.match(identifyDelivery(folded, completed), { intact: true, digest }, `${column}`);
    t.match(identifyDelivery(folded, { run: RUN }), { intact: false }, 'without the claim');
  }
});

t.test('nothing else is accepted', async (t) => {
  const text = make('text').bytes;
  const long = make('long-lines').bytes;
  const tiny = make('tiny').bytes;
  const wrong: [string, Buffer][] = [
    ['a header that the message has already', complete(text, MESSAGE_ID)],
    ['a second date', complete(tiny, DATE)],
    ['another header', complete(tiny, 'X-Scanned: yes\r\n')],
    ['two added Message-IDs', complete(tiny, MESSAGE_ID + MESSAGE_ID)],
    ['a changed date', edit(tiny, (whole) => whole.replace('2026', '2027'))],
    ['a body with a line like a header', Buffer.concat([tiny, Buffer.from(MESSAGE_ID)])],
    ['a short line that was folded', edit(text, (whole) => whole.replace('The quick', 'The\r\n  quick'))],
    [
      'lines that were cut',
      edit(long, (whole) =>
        whole
          .split('\r\n')
          .map((line) => line.slice(0, 900))
          .join('\r\n'),
      ),
    ],
    ['a changed byte in a folded line', edit(fold(long, 990), (whole) => `${whole.slice(0, -3)}\x01\r\n`)],
  ];
  for (const [name, bytes] of wrong)
    t.match(identifyDelivery(bytes, completed), { intact: false, bytes }, name);
});

t.test(
  'an id beside the body names a damaged message, if it was submitted, and never an intact one',
  async (t) => {
    const { bytes } = make('text');
    const damaged = edit(bytes, (whole) => whole.replace('id=7', 'id=!'));
    const other = edit(bytes, (whole) => whole.replace('id=7', 'id=8'));
    t.match(identifyDelivery(damaged, { run: RUN }), { id: null, intact: false });
    t.match(identifyDelivery(damaged, { run: RUN }, '7'), { id: '7', intact: false, bytes: damaged });
    t.match(identifyDelivery(other, { run: RUN }), { id: '8', intact: false });
    t.match(identifyDelivery(other, { run: RUN }, '7'), { id: '7', intact: false });
    t.match(identifyDelivery(damaged, { run: RUN, wasSubmitted: () => false }, '7'), { id: null });
    t.match(identifyDelivery(bytes, { run: RUN }, '9'), { id: '7', intact: true });
  },
);
