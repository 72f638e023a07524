import fc from 'fast-check';
import t from 'tap';
import { encodedMarks, messageIdsIn } from './encoded-mark.js';
import { markOf } from './message.js';

const RUN = '20261129-ab12';
/** Bytes of a message before and behind its mark. */
const message = (id: string) =>
  Buffer.from(`X-PlugPull: ${markOf(RUN, id)}00ff\r\nFrom: a@b\r\n\r\n=3D body +`);

const ENCODERS: Record<string, (bytes: Buffer) => string> = {
  plain: (bytes) => bytes.toString('latin1'),
  'JSON strings': (bytes) => JSON.stringify({ body: bytes.toString('latin1') }),
  'base64 in JSON': (bytes) => JSON.stringify({ b: bytes.toString('base64') }),
  base64url: (bytes) => bytes.toString('base64url'),
  hex: (bytes) => bytes.toString('hex'),
  'upper hex': (bytes) => bytes.toString('hex').toUpperCase(),
  'quoted-printable': (bytes) => bytes.toString('latin1').replaceAll('=', '=3D'),
  'percent encoding': (bytes) => encodeURIComponent(bytes.toString('latin1')),
  'form encoding': (bytes) => new URLSearchParams({ b: bytes.toString('latin1') }).toString(),
  'JSON escapes': (bytes) => JSON.stringify(bytes.toString('latin1')).replaceAll('=', '\\u003d'),
};

const ids = fc.stringMatching(/^[0-9]{1,3}-[0-9]{1,3}-[0-9]{1,5}$/);

for (const [name, encode] of Object.entries(ENCODERS)) {
  t.test(`a message is found in ${name}, whatever stands before it`, async (t) => {
    fc.assert(
      fc.property(ids, ids, fc.string({ maxLength: 7 }), (id, other, front) => {
        const text = encode(Buffer.concat([Buffer.from(front, 'latin1'), message(id)]));
        const bytes = Buffer.from(`${text}\n${encode(message(other))}`, 'latin1');
        t.ok(messageIdsIn(bytes, RUN).has(id), `${name}: ${JSON.stringify(text)}`);
        t.ok(
          encodedMarks(markOf(RUN, id)).some((form) => bytes.includes(form.bytes)),
          'and by its mark',
        );
        return messageIdsIn(bytes, RUN).size === new Set([id, other]).size;
      }),
      { numRuns: 60 },
    );
  });
}

t.test('messages of another run, and marks that end in the middle, are not found', async (t) => {
  t.equal(messageIdsIn(message('1-2-3'), 'another').size, 0);
  for (const encode of Object.values(ENCODERS))
    t.equal(messageIdsIn(Buffer.from(encode(Buffer.from(`run=${RUN} id=1-2`))), RUN).size, 0);
});
