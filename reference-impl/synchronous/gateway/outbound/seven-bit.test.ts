import { isAscii } from 'node:buffer';
import fc from 'fast-check';
import t from 'tap';
import { toSevenBit } from './seven-bit.js';

const convert = (text: string) => toSevenBit(Buffer.from(text, 'latin1'))?.toString('latin1');

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
  fc.assert(
    fc.property(
      fc.array(line, { minLength: 1, maxLength: 10 }),
      type,
      fc.constantFrom('\xfc', '\xfc\r\n'),
      (lines, kind, last) => {
        const body = `${lines.join('\r\n')}${last}`;
        const head = `MIME-Version: 1.0\r\nContent-Type: ${kind}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n`;
        const converted = toSevenBit(Buffer.from(head + body, 'latin1'));
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
    convert(
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
    convert(message('\r\n\xff\xfe', '\xfc\r\n', '8bit', '')),
    message('Content-Transfer-Encoding: base64\r\n\r\n//4=\r\n', '=FC\r\n', 'quoted-printable', head),
  );
});

t.test('a soft line break never makes a line that looks like a delimiter', async (t) => {
  const body = `${'x'.repeat(75)}--b\r\n\xfc`;
  const converted = convert(
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
  for (const [why, text] of cases) t.equal(convert(text), undefined, why);
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
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 40 }), (pieces) => {
      const converted = toSevenBit(Buffer.from(`MIME-Version: 1.0\r\n${pieces.join('')}`, 'latin1'));
      t.ok(converted === undefined || isAscii(converted));
    }),
    { numRuns: 1000 },
  );
});
