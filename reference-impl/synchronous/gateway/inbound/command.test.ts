import t from 'tap';
import { parseCommand } from './command.js';

t.test('parsing keeps addresses unchanged', async (t) => {
  const addresses = [
    'a@b',
    'First.Last@Example.ORG',
    'a+b=c@xn--bcher-kva.example',
    '"quoted > local @ part"@example.org',
    '"with \\" quote"@example.org',
    "o'neil/x{y}|z~!#$%&*-_`^?@example.org",
    'user@[192.0.2.1]',
    'user@[IPv6:2001:db8::1]',
    '491701234567@sms.invalid',
  ];
  for (const address of addresses) {
    t.match(parseCommand(`RCPT TO:<${address}>`), { verb: 'RCPT', recipient: address });
    t.match(parseCommand(`MAIL FROM:<${address}> SIZE=10 BODY=8BITMIME`), {
      verb: 'MAIL',
      sender: address,
      sizeBytes: 10,
    });
  }
});

t.test('the forms that RFC 5321 requires are accepted', async (t) => {
  t.match(parseCommand('mail from:<>'), { verb: 'MAIL', sender: '' });
  t.match(parseCommand('MAIL FROM: <a@b>'), { verb: 'MAIL', sender: 'a@b' }, 'many clients send this space');
  t.match(
    parseCommand('RCPT TO:<@one.example,@two.example:a@b>'),
    { recipient: 'a@b' },
    'a source route is ignored',
  );
  t.match(parseCommand('RCPT TO:<Postmaster>'), { recipient: 'Postmaster', domain: '' });
  t.match(parseCommand('RCPT TO:<a@EXAMPLE.org>'), { domain: 'example.org' });
  t.match(parseCommand('ehlo there'), { verb: 'EHLO', name: 'there' });
  t.match(parseCommand('NOOP anything'), { verb: 'NOOP' });
  t.match(parseCommand('HELP MAIL'), { verb: 'HELP' });
  t.match(parseCommand('DATA  '), { verb: 'DATA' }, 'trailing spaces are ignored');
});

t.test('a malformed command gets the reply code of its error', async (t) => {
  const cases: [string, string][] = [
    ['', '500 5.5.2'],
    ['NONSENSE', '500 5.5.2'],
    ['EHLO', '501 5.5.4'],
    ['DATA now', '501 5.5.4'],
    ['MAIL', '501 5.1.7'],
    ['MAIL FROM:a@b', '501 5.1.7'],
    ['MAIL FROM:<a@b', '501 5.1.7'],
    ['MAIL FROM:<a b@c>', '501 5.1.7'],
    ['MAIL FROM:<a@b> SMTPUTF8', '555 5.5.4'],
    ['MAIL FROM:<a@b> SIZE=lots', '501 5.5.4'],
    ['MAIL FROM:<a@b> SIZE', '501 5.5.4'],
    ['MAIL FROM:<a@b> BODY=BINARYMIME', '555 5.5.4'],
    ['MAIL FROM:<b\u00fccher@example.org> SMTPUTF8', '553 5.6.7'],
    ['RCPT TO:<a@b\u00fccher.example>', '553 5.6.7'],
    ['RCPT TO:<a@b..c>', '501 5.1.3'],
    ['EHLO b\u00fccher.example', '501 5.5.4'],
    ['EHLO a\0b', '501 5.5.4'],
    ['STARTTLS now', '501 5.5.4'],
    ['VRFY', '501 5.5.4'],
    ['EXPN list', '502 5.5.1'],
    ['BDAT 10 LAST', '502 5.5.1'],
    [' NOOP', '500 5.5.2'],
    ['RCPT TO:<>', '501 5.1.3'],
    ['RCPT TO:<a>', '501 5.1.3'],
    ['RCPT TO:<@b>', '501 5.1.3'],
    ['RCPT TO:<a@b@c>', '501 5.1.3'],
    ['RCPT TO:<a@b\rc>', '501 5.1.3'],
    ['RCPT TO:<b\u00fccher@example.org>', '553 5.6.7'],
    ['RCPT TO:<a@b> NOTIFY=NEVER', '555 5.5.4'],
    [`RCPT TO:<${'a'.repeat(253)}@b>`, '501 5.1.3'],
  ];
  for (const [line, code] of cases) {
    const command = parseCommand(line);
    t.equal(command.verb === 'error' ? command.reply.slice(0, 9) : 'accepted', code, JSON.stringify(line));
  }
});
