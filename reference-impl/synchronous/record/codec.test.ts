import fc from 'fast-check';
import t from 'tap';
import { QueueError } from '../../common/platform/errors.js';
import type { Body } from './body.js';
import { bodyBytes, decodeBody, encodeBody, TYPE_BYTE } from './codec.js';

const data = fc.uint8Array({ maxLength: 2000 }).map((bytes) => Buffer.from(bytes));
const line = fc
  .string({ unit: 'grapheme', minLength: 1, maxLength: 60 })
  .filter((text) => !text.includes('\n'));
const destination = fc.option(fc.string({ unit: 'grapheme', maxLength: 40 }), { nil: undefined });
const msisdn = fc.bigInt({ min: 0n, max: 999_999_999_999_999n });

const withDestination = <B extends Body>(body: B, where: string | undefined): B =>
  where === undefined ? body : { ...body, destination: where };

const smtpBody = fc
  .tuple(fc.string({ unit: 'grapheme' }), fc.array(line, { maxLength: 20 }), data, destination)
  .map(
    ([sender, recipients, bytes, where]): Body =>
      withDestination({ type: 'smtp', sender, recipients, data: bytes }, where),
  );
const smsBody = fc
  .tuple(msisdn, fc.array(msisdn, { maxLength: 255 }), data, destination)
  .map(
    ([sender, recipients, bytes, where]): Body =>
      withDestination({ type: 'sms', sender, recipients, data: bytes }, where),
  );
const deadBody = fc
  .tuple(fc.oneof(smtpBody, smsBody), fc.string({ unit: 'grapheme', maxLength: 200 }))
  .map(([body, note]): Body => {
    const { destination: where, ...rest } = body;
    return { ...(where === '' ? rest : body), note };
  });
const anyBody = fc.oneof(smtpBody, smsBody, deadBody);

function encoded(body: Body): Buffer {
  const bytes = Buffer.alloc(bodyBytes(body));
  if (encodeBody(bytes, 0, body) !== bytes.length)
    throw new Error('bodyBytes differs from the number of bytes that encodeBody writes');
  return bytes;
}

/** Decodes a body. @returns undefined for `bad-record`. @throws every other error. */
function tried(type: number, bytes: Buffer): Body | undefined {
  try {
    return decodeBody(type, bytes);
  } catch (error) {
    if (error instanceof QueueError && error.code === 'bad-record') return undefined;
    throw error;
  }
}

t.test('every body of both types is decoded as it was encoded', async (t) => {
  fc.assert(
    fc.property(anyBody, (body) => {
      t.strictSame(decodeBody(TYPE_BYTE[body.type], encoded(body)), body);
    }),
    { numRuns: 300 },
  );
});

t.test('truncated or changed bytes decode to a body or fail with `bad-record` only', async (t) => {
  let refused = 0;
  fc.assert(
    fc.property(
      anyBody,
      fc.nat(),
      fc.array(fc.tuple(fc.nat(), fc.nat(255))),
      fc.nat(3),
      (body, cut, spots, type) => {
        const bytes = encoded(body);
        const short = Buffer.from(bytes.subarray(0, cut % (bytes.length + 1)));
        if (short.length < bytes.length && tried(TYPE_BYTE[body.type], short) === undefined) refused += 1;
        for (const [at, value] of spots) bytes[at % bytes.length] = value;
        tried(type, bytes);
        tried(TYPE_BYTE[body.type], bytes);
      },
    ),
    { numRuns: 500 },
  );
  t.ok(refused > 100, 'more than 100 truncated bodies were refused');
  fc.assert(fc.property(fc.nat(3), data, (type, noise) => void tried(type, noise)));
});

t.test('SMTP and SMS bodies are laid out as in [0027]', async (t) => {
  const smtp = encoded({ type: 'smtp', sender: 'a@b', recipients: ['c@d', 'e@f'], data: Buffer.from('hi') });
  t.equal(smtp.toString('hex'), Buffer.from('\x03\0\0\0a@b\x07\0\0\0c@d\ne@f\x02\0\0\0hi').toString('hex'));
  const sms = encoded({
    type: 'sms',
    sender: 1n,
    recipients: [2n, 3n],
    data: Buffer.from('hi'),
    destination: 'x:1',
  });
  const number = (digit: string) => `${digit}00000000000000`.padStart(16, '0');
  t.equal(
    sms.toString('hex'),
    `${number('1')}02${number('2')}${number('3')}020000006869` +
      `03000000${Buffer.from('x:1').toString('hex')}`,
  );
});

t.test('a body without encoding is refused before space is reserved for it', async (t) => {
  const sms = { type: 'sms' as const, sender: 1n, recipients: [1n], data: Buffer.alloc(0) };
  const smtp = { type: 'smtp' as const, sender: 'a', recipients: ['b'], data: Buffer.alloc(0) };
  const bad: [string, Body][] = [
    ['256 SMS recipients', { ...sms, recipients: Array.from({ length: 256 }, () => 1n) }],
    ['a negative MSISDN', { ...sms, recipients: [-1n] }],
    ['a sender wider than 64 bits', { ...sms, sender: 2n ** 64n }],
    ['a recipient of two lines', { ...smtp, recipients: ['b\nc'] }],
    ['an empty recipient', { ...smtp, recipients: ['b', ''] }],
  ];
  for (const [name, body] of bad) t.throws(() => bodyBytes(body), { code: 'bad-record' }, name);
});

t.test('decoded data is a copy, so the encoded bytes may be overwritten', async (t) => {
  const bytes = encoded({ type: 'sms', sender: 1n, recipients: [], data: Buffer.from('first') });
  const body = decodeBody(TYPE_BYTE.sms, bytes);
  bytes.fill(0);
  t.equal(body.data.toString(), 'first');
});
