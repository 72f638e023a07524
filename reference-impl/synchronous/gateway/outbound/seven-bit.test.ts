import { isAscii } from 'node:buffer';
import fc from 'fast-check';
import t from 'tap';
import { maxSevenBitBytes, toSevenBit } from './seven-bit.js';

const convert = async (text: string) => (await toSevenBit(Buffer.from(text, 'latin1')))?.toString('latin1');

/** Decodes the body of a message with one part. */
function decoded(message: Buffer): Buffer {
  const text = message.toString('latin1');
  const body = text.slice(text.indexOf('\r\n\r\n') + 4);
  if (/^Content-Transfer-Encoding: base64\r$/m.test(text)) return Buffer.from(body, 'base64');
  return Buffer.from(
    body
      .replace(/=\r\n/g, '')
      .replace(/=([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
    'latin1',
  );
}

t.test('a converted body decodes to the same bytes, in short lines of ASCII', async (t) => {
  const line = fc
    .oneof(
      fc.uint8Array({ maxLength: 300 }),
      fc.array(fc.constantFrom(0x20, 0x09, 0x3d, 0x2d, 0x2e, 0x61, 0xfc), { maxLength: 200 }),
    )
    .map((bytes) =>
      Buffer.from(bytes)
        .toString('latin1')
        .replace(/[\r\n]/g, '-'),
    );
  const type = fc.constantFrom('text/plain; charset=utf-8', 'application/octet-stream', 'image/png');
  await fc.assert(
    fc.asyncProperty(
      fc.array(line, { minLength: 1, maxLength: 10 }),
      type,
      fc.constantFrom('\xfc', '\xfc\r\n'),
      async (lines, kind, last) => {
        const body = `${lines.join('\r\n')}${last}`;
        const head = `MIME-Version: 1.0\r\nContent-Type: ${kind}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n`;
        const converted = await toSevenBit(Buffer.from(head + body, 'latin1'));
        if (converted === undefined) throw new Error('not converted');
        t.equal(decoded(converted).toString('latin1'), body);
        t.ok(isAscii(converted));
        t.ok(
          converted
            .toString('latin1')
            .split('\r\n')
            .every((one) => one.length <= 76 && !/[ \t]$/.test(one)),
        );
      },
    ),
    { numRuns: 300 },
  );
});

t.test('text becomes quoted-printable, and the other headers stay', async (t) => {
  t.equal(
    await convert(
      'Subject: x\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding:\r\n 8bit\r\nX-Last: y\r\n\r\nGr\xfc\xdfe = \r\n.\r\n',
    ),
    'Subject: x\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\nX-Last: y\r\n\r\n' +
      'Gr=FC=DFe =3D=20\r\n.\r\n',
  );
});

t.test('only the parts with 8-bit bytes are converted, at any depth', async (t) => {
  const message = (one: string, inner: string, encoding: string, outer: string) =>
    `MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="a b"\r\n${outer}\r\npreamble\r\n--a b\r\n` +
    `Content-Type: text/plain\r\n\r\nascii = stays\r\n--a b  \r\n` +
    `Content-Type: message/rfc822\r\n${outer}\r\nContent-Type: multipart/alternative; boundary=c\r\n${outer}\r\n` +
    `--c\r\nContent-Transfer-Encoding: ${encoding}\r\n\r\n${inner}\r\n--c--\r\n--a b\r\n` +
    `Content-Type: application/pdf\r\n${one}\r\n--a b--\r\nepilogue\r\n`;
  const head = 'Content-Transfer-Encoding: 7bit\r\n';
  t.equal(
    await convert(message('\r\n\xff\xfe', '\xfc\r\n', '8bit', '')),
    message('Content-Transfer-Encoding: base64\r\n\r\n//4=\r\n', '=FC\r\n', 'quoted-printable', head),
  );
});

t.test('a soft line break never makes a line that looks like a delimiter', async (t) => {
  const body = `${'x'.repeat(75)}--b\r\n\xfc`;
  const converted = await convert(
    `MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n${body}\r\n--b--\r\n`,
  );
  t.equal(converted?.match(/^--b/gm)?.length, 2);
});

t.test('a message is not converted if that could change its meaning', async (t) => {
  const mime = 'MIME-Version: 1.0\r\n';
  const cases: [string, string][] = [
    ['not MIME', 'Subject: x\r\n\r\n\xfc\r\n'],
    ['no header section', '\xfc\r\n'],
    ['an 8-bit header', `${mime}Subject: \xfc\r\n\r\nx\r\n`],
    ['a line that is no header', `${mime}nonsense\r\n\r\n\xfc\r\n`],
    ['a declared encoding that is broken', `${mime}Content-Transfer-Encoding: base64\r\n\r\n\xfc\r\n`],
    ['two types', `${mime}Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n\xfc\r\n`],
    ['a signature', `${mime}Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\xfc\r\n--b--\r\n`],
    ['no boundary', `${mime}Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\n\xfc\r\n--b--\r\n`],
    ['no last delimiter', `${mime}Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n\xfc\r\n`],
    [
      'an 8-bit preamble',
      `${mime}Content-Type: multipart/mixed; boundary=b\r\n\r\n\xfc\r\n--b\r\n\r\n--b--\r\n`,
    ],
    ['a delivery report', `${mime}Content-Type: message/delivery-status\r\n\r\n\xfc\r\n`],
    ['parts too deep', `${mime}${'Content-Type: message/rfc822\r\n\r\n'.repeat(40)}\r\n\xfc\r\n`],
  ];
  for (const [why, text] of cases) t.equal(await convert(text), undefined, why);
});

t.test('any bytes are converted to ASCII or refused', async (t) => {
  const piece = fc.constantFrom(
    '--b',
    '--b--',
    '\r\n',
    '\r\n\r\n',
    '\xfc',
    'x',
    ':',
    ' ',
    'Content-Type: multipart/mixed; boundary=b\r\n',
    'Content-Type: message/rfc822\r\n',
  );
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 40 }), async (pieces) => {
      const converted = await toSevenBit(Buffer.from(`MIME-Version: 1.0\r\n${pieces.join('')}`, 'latin1'));
      t.ok(converted === undefined || isAscii(converted));
    }),
    { numRuns: 1000 },
  );
});

const MIME = 'MIME-Version: 1.0\r\n';
const multipart = (parts: string) =>
  `${MIME}Content-Type: multipart/mixed; boundary=b\r\n\r\n${parts}--b--\r\n`;

t.test('the number of parts, the headers and the growth of a message have limits', async (t) => {
  t.ok(await convert(multipart('--b\r\n\r\n\xe4\r\n'.repeat(900))));
  t.equal(await convert(multipart('--b\r\n\r\n\xe4\r\n'.repeat(1000))), undefined, 'parts');
  t.equal(await convert(`${multipart('--b\r\n\r\nx\r\n'.repeat(1000))}\xe4`), undefined, 'ASCII parts');
  t.equal(await convert(multipart(`--b\r\n\r\n${'\xe4'.repeat(30)}\r\n`.repeat(999))), undefined, 'growth');
  t.equal(
    await convert(multipart(`--b\r\n\r\n${'--bx\r\n'.repeat(100_001)}\xe4\r\n`)),
    undefined,
    'delimiters',
  );
  const body = '\r\n\xe4\r\n';
  t.equal(await convert(`${MIME}${'A: b\r\n'.repeat(100_000)}${body}`), undefined, 'headers');
  t.ok(await convert(`${MIME}${'A: b\r\n'.repeat(50_000)}${body}`));
  const large = Buffer.from(`${MIME}\r\n${'\xe4\r\n'.repeat(500_000)}`, 'latin1');
  const converted = await toSevenBit(large);
  t.ok(converted !== undefined && converted.length <= maxSevenBitBytes(large.length));
});

t.test('a conversion lets the event loop continue, and ends when the session has ended', async (t) => {
  const MEGABYTE = 2 ** 20;
  const inputs = {
    'a text': `\r\n${'gr\xfc\xdfe und mehr\r\n'.repeat(MEGABYTE / 8)}`,
    'empty lines': `\r\n${'\r\n'.repeat(MEGABYTE)}\xfc`,
    'binary data': `Content-Type: image/png\r\n\r\n${'\xfc'.repeat(2 * MEGABYTE)}`,
    'many fields': `${'A: b\r\n'.repeat(50_000)}\r\n\xfc`,
    'lines like delimiters': `Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n\xfc\r\n${'--bx\r\n'.repeat(90_000)}--b--\r\n`,
  };
  for (const [name, text] of Object.entries(inputs)) {
    const message = Buffer.from(MIME + text, 'latin1');
    let pauses = 0;
    t.ok(await toSevenBit(message, async () => (pauses += 1)), name);
    t.ok(pauses >= 7, `${name}: ${pauses} pauses`);
    const end = () => Promise.reject(new Error('ended'));
    await t.rejects(toSevenBit(message, end), { message: 'ended' });
  }
});
