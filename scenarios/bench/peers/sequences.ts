/** State of a session before the bytes of a sequence. Each has the commands of those before it. */
export type Start = 'greeting' | 'ehlo' | 'mail' | 'rcpt' | 'data';

/** Bytes that are sent to several SMTP servers, to compare their replies. */
export interface Sequence {
  name: string;
  start: Start;
  /** The bytes, one character each (latin1). They are sent in one write, and QUIT behind them. */
  bytes: string;
  /** Reply codes of the reference gateway to the bytes, without that of QUIT. `closed`: it hung up before QUIT. */
  expected: string;
  /** Why other servers answer otherwise. */
  note?: string;
}

/** Largest message of all compared servers, in bytes. */
export const SIZE_LIMIT_BYTES = 1_000_000;

const MAIL = 'MAIL FROM:<a@example.org>\r\n';
const RCPT = 'RCPT TO:<b@example.net>\r\n';
const END = '\r\n.\r\n';

/** Commands that lead from one state to the next. */
export const START_COMMANDS: Record<Exclude<Start, 'greeting'>, string> = {
  ehlo: 'EHLO client.example.org\r\n',
  mail: MAIL,
  rcpt: RCPT,
  data: 'DATA\r\n',
};

('a bare CR or LF in a message is refused: passed on, it could end the data at another server (smuggling)');

const BARE =
  'a bare CR or LF in a message is refused (RFC 5321 2.3.8): passed on, it could end the data at another server (smuggling)';

export const SEQUENCES: readonly Sequence[] = [
  {
    name: 'a whole message',
    start: 'ehlo',
    bytes: `${MAIL}${RCPT}DATA\r\nx${END}`,
    expected: '250 250 354 250',
  },
  {
    name: 'two messages',
    start: 'ehlo',
    bytes: `${MAIL}${RCPT}DATA\r\nx${END}`.repeat(2),
    expected: '250 250 354 250 250 250 354 250',
  },
  // Order of commands
  {
    name: 'MAIL before EHLO',
    start: 'greeting',
    bytes: MAIL,
    expected: '503',
    note: 'Postfix does not insist on EHLO; RFC 5321 4.1.4 does',
  },
  { name: 'RCPT before EHLO', start: 'greeting', bytes: RCPT, expected: '503' },
  {
    name: 'pipelined before EHLO',
    start: 'greeting',
    bytes: `EHLO x\r\n${MAIL}${RCPT}DATA\r\nx${END}`,
    expected: '250 250 250 354 250',
  },
  {
    name: 'NOOP, RSET, VRFY, HELP before EHLO',
    start: 'greeting',
    bytes: 'NOOP\r\nRSET\r\nVRFY a@example.net\r\nHELP\r\n',
    expected: '250 250 252 214',
    note: 'Postfix has no HELP, which RFC 5321 4.1.1.8 recommends',
  },
  {
    name: 'HELO and a message',
    start: 'greeting',
    bytes: `HELO x\r\n${MAIL}${RCPT}DATA\r\nx${END}`,
    expected: '250 250 250 354 250',
  },
  { name: 'EHLO twice', start: 'ehlo', bytes: 'EHLO x\r\nEHLO y\r\n', expected: '250 250' },
  { name: 'EHLO in a transaction', start: 'rcpt', bytes: 'EHLO x\r\nDATA\r\n', expected: '250 503' },
  { name: 'EHLO without a name', start: 'greeting', bytes: 'EHLO\r\n', expected: '501' },
  { name: 'HELO without a name', start: 'greeting', bytes: 'HELO \r\n', expected: '501' },
  { name: 'EHLO with an address literal', start: 'greeting', bytes: 'EHLO [192.0.2.1]\r\n', expected: '250' },
  {
    name: 'EHLO with two words',
    start: 'greeting',
    bytes: 'EHLO two words\r\n',
    expected: '250',
    note: 'RFC 5321 4.1.1.1 has one name; nothing depends on it, so that the gateway is not strict',
  },
  { name: 'MAIL twice', start: 'mail', bytes: MAIL, expected: '503' },
  { name: 'RCPT before MAIL', start: 'ehlo', bytes: RCPT, expected: '503' },
  { name: 'DATA before MAIL', start: 'ehlo', bytes: 'DATA\r\n', expected: '503' },
  {
    name: 'DATA without a recipient',
    start: 'mail',
    bytes: 'DATA\r\n',
    expected: '554',
    note: 'RFC 5321 3.3 allows 503 and 554',
  },
  {
    name: 'DATA with an argument',
    start: 'rcpt',
    bytes: 'DATA now\r\n',
    expected: '501',
    note: 'DATA has no argument (RFC 5321 4.1.1.4); smtp-server ignores it',
  },
  {
    name: 'RSET before and in a transaction',
    start: 'ehlo',
    bytes: `RSET\r\n${MAIL}RSET\r\n${RCPT}`,
    expected: '250 250 250 503',
  },
  {
    name: 'RSET with an argument',
    start: 'ehlo',
    bytes: 'RSET x\r\n',
    expected: '501',
    note: 'RSET has no argument (RFC 5321 4.1.1.5); smtp-server ignores it',
  },
  {
    name: 'QUIT pipelined, and commands behind it',
    start: 'ehlo',
    bytes: `${MAIL}QUIT\r\n${RCPT}NOOP\r\n`,
    expected: '250 221',
  },
  // Form of commands
  {
    name: 'lower-case commands',
    start: 'greeting',
    bytes: `ehlo x\r\nmail from:<a@b.example>\r\nrcpt to:<c@d.example>\r\ndata\r\nx${END}`,
    expected: '250 250 250 354 250',
  },
  {
    name: 'leading space',
    start: 'ehlo',
    bytes: ' NOOP\r\n',
    expected: '500',
    note: 'a line starts with the verb (RFC 5321 2.4); Postfix skips the space',
  },
  { name: 'trailing spaces', start: 'ehlo', bytes: 'NOOP   \r\nRSET  \r\n', expected: '250 250' },
  {
    name: 'two spaces behind the verb',
    start: 'ehlo',
    bytes: 'MAIL  FROM:<a@example.org>\r\n',
    expected: '250',
    note: 'many clients send it, so that the gateway and Postfix are not strict',
  },
  { name: 'space behind the colon', start: 'ehlo', bytes: 'MAIL FROM: <a@example.org>\r\n', expected: '250' },
  {
    name: 'no brackets',
    start: 'ehlo',
    bytes: 'MAIL FROM:a@example.org\r\n',
    expected: '501',
    note: 'a path has brackets (RFC 5321 4.1.2); Postfix accepts it without',
  },
  {
    name: 'a bracket missing',
    start: 'ehlo',
    bytes: 'MAIL FROM:<a@example.org\r\n',
    expected: '501',
  },
  { name: 'an empty line', start: 'ehlo', bytes: '\r\n', expected: '500' },
  {
    name: 'an unknown command',
    start: 'ehlo',
    bytes: 'GET / HTTP/1.1\r\n',
    expected: '500',
    note: 'smtp-server takes HTTP for an attack and hangs up, which Postfix does for other verbs',
  },
  { name: 'NOOP with an argument', start: 'ehlo', bytes: 'NOOP some words\r\n', expected: '250' },
  {
    name: 'VRFY, EXPN',
    start: 'ehlo',
    bytes: 'VRFY a@example.net\r\nVRFY\r\nEXPN list\r\n',
    expected: '252 501 502',
    note: 'a known command that is missing gets 502 (RFC 5321 4.2.4); Postfix says so, smtp-server calls it unknown',
  },
  {
    name: 'HELP',
    start: 'ehlo',
    bytes: 'HELP\r\nHELP MAIL\r\n',
    expected: '214 214',
    note: 'Postfix has no HELP, which RFC 5321 4.1.1.8 recommends',
  },
  {
    name: 'AUTH, ETRN, BDAT, TURN',
    start: 'ehlo',
    bytes: 'AUTH PLAIN AAAA\r\nETRN x\r\nTURN\r\n',
    expected: '502 502 502',
    note: "a known command that is missing gets 502 (RFC 5321 4.2.4); 503 and 459 are of Postfix's own ETRN and AUTH",
  },
  {
    name: 'a bare LF behind a command',
    start: 'ehlo',
    bytes: 'NOOP\nNOOP\r\n',
    expected: '500 250',
    note: 'a line ends in CRLF (RFC 5321 2.3.8); with two forms of line ends, two servers could see different commands',
  },
  {
    name: 'a bare CR in a command',
    start: 'ehlo',
    bytes: 'NOOP\rNOOP\r\n',
    expected: '500',
    note: 'no command has a CR (RFC 5321 2.3.8); Postfix takes it for white space',
  },
  {
    name: 'NUL in a command',
    start: 'ehlo',
    bytes: 'NO\0OP\r\nMAIL FROM:<a\0@example.org>\r\n',
    expected: '500 501',
  },
  {
    name: '8-bit bytes in commands',
    start: 'greeting',
    bytes: 'EHLO b\xfccher.example\r\nN\xd6OP\r\n',
    expected: '501 500',
    note: 'names are ASCII (RFC 5321 4.1.2); smtp-server does not check them, Postfix answers 500 to the line',
  },
  { name: 'a line of 1,500 bytes', start: 'ehlo', bytes: `NOOP ${'x'.repeat(1500)}\r\n`, expected: '250' },
  {
    name: 'a line of 5,000 bytes',
    start: 'ehlo',
    bytes: `NOOP ${'x'.repeat(5000)}\r\nNOOP\r\n`,
    expected: '500 250',
    note: 'RFC 5321 4.5.3.1.4 asks for 512 bytes, the gateway takes 2,048; the peers have larger limits',
  },
  // Addresses
  { name: 'empty sender', start: 'ehlo', bytes: 'MAIL FROM:<>\r\n', expected: '250' },
  { name: 'empty recipient', start: 'mail', bytes: 'RCPT TO:<>\r\n', expected: '501' },
  { name: 'postmaster without a domain', start: 'mail', bytes: 'RCPT TO:<Postmaster>\r\n', expected: '250' },
  {
    name: 'a recipient without a domain',
    start: 'mail',
    bytes: 'RCPT TO:<b>\r\n',
    expected: '501',
    note: 'only Postmaster may lack a domain (RFC 5321 4.1.1.3); Postfix appends its own',
  },
  {
    name: 'source route',
    start: 'ehlo',
    bytes: `MAIL FROM:<@one.example,@two.example:a@example.org>\r\nRCPT TO:<@one.example:b@example.net>\r\n`,
    expected: '250 250',
  },
  {
    name: 'quoted local parts',
    start: 'mail',
    bytes: 'RCPT TO:<"a b"@example.net>\r\nRCPT TO:<"a>b"@example.net>\r\nRCPT TO:<"a\\"b"@example.net>\r\n',
    expected: '250 250 250',
    note: 'smtp-server does not know blanks and brackets in quotes, which RFC 5321 4.1.2 allows',
  },
  {
    name: 'address literals',
    start: 'mail',
    bytes: 'RCPT TO:<b@[192.0.2.1]>\r\nRCPT TO:<b@[IPv6:2001:db8::1]>\r\n',
    expected: '250 250',
  },
  {
    name: 'two @',
    start: 'mail',
    bytes: 'RCPT TO:<b@c@example.net>\r\n',
    expected: '501',
    note: 'one @ ends the local part (RFC 5321 4.1.2); Postfix takes the last one',
  },
  {
    name: 'dots at the start, the end and in a row',
    start: 'mail',
    bytes: 'RCPT TO:<.b@example.net>\r\nRCPT TO:<b.@example.net>\r\nRCPT TO:<b..c@example.net>\r\n',
    expected: '250 250 250',
    note: 'RFC 5321 4.1.2 forbids them, but some operators of mobile phones gave out such addresses',
  },
  {
    name: 'an empty label in the domain',
    start: 'mail',
    bytes: 'RCPT TO:<b@example..net>\r\n',
    expected: '501',
  },
  {
    name: 'an address that is not ASCII',
    start: 'mail',
    bytes: 'RCPT TO:<b\xc3\xbc@example.net>\r\n',
    expected: '553',
    note: 'without SMTPUTF8 it is an error (RFC 6531 3.5); smtp-server offers SMTPUTF8, Postfix passes the bytes on',
  },
  {
    name: 'a path of 300 bytes',
    start: 'mail',
    bytes: `RCPT TO:<${'b'.repeat(280)}@example.net>\r\n`,
    expected: '501',
    note: 'a path has at most 256 bytes (RFC 5321 4.5.3.1.3); Postfix has no such limit',
  },
  // Parameters
  {
    name: 'SIZE too large',
    start: 'ehlo',
    bytes: `MAIL FROM:<a@example.org> SIZE=${SIZE_LIMIT_BYTES + 1}\r\n`,
    expected: '552',
  },
  {
    name: 'SIZE that is no number',
    start: 'ehlo',
    bytes: 'MAIL FROM:<a@example.org> SIZE=x\r\n',
    expected: '501',
  },
  {
    name: 'BODY=7BIT, BODY=8BITMIME',
    start: 'ehlo',
    bytes:
      'MAIL FROM:<a@example.org> BODY=7BIT\r\nRSET\r\nMAIL FROM:<a@example.org> body=8bitmime SIZE=5\r\n',
    expected: '250 250 250',
  },
  {
    name: 'BODY=BINARYMIME',
    start: 'ehlo',
    bytes: 'MAIL FROM:<a@example.org> BODY=BINARYMIME\r\n',
    expected: '555',
    note: 'BINARYMIME is not offered: 555 (RFC 5321 4.1.1.11); smtp-server calls the value wrong',
  },
  {
    name: 'SMTPUTF8',
    start: 'ehlo',
    bytes: 'MAIL FROM:<a@example.org> SMTPUTF8\r\n',
    expected: '555',
    note: 'the peers offer SMTPUTF8; to a server that does not it is an unknown parameter',
  },
  {
    name: 'unknown parameters',
    start: 'mail',
    bytes:
      'RSET\r\nMAIL FROM:<a@example.org> X=1\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net> Y\r\n',
    expected: '250 555 250 555',
    note: 'RFC 5321 4.1.1.11 asks for 555; smtp-server ignores them',
  },
  // Data
  { name: 'an empty message', start: 'data', bytes: '.\r\n', expected: '250' },
  {
    name: 'dots: stuffed, alone, not stuffed',
    start: 'data',
    bytes: `..\r\n...\r\n.x\r\n. ${END}`,
    expected: '250',
  },
  { name: 'a bare LF in the data', start: 'data', bytes: `a\nb${END}`, expected: '554', note: BARE },
  { name: 'a bare CR in the data', start: 'data', bytes: `a\rb${END}`, expected: '554', note: BARE },
  {
    name: 'LF.LF and a command (smuggling)',
    start: 'data',
    bytes: `a\n.\nNOOP${END}`,
    expected: '554',
    note: BARE,
  },
  {
    name: 'LF.CRLF and a command (smuggling)',
    start: 'data',
    bytes: `a\n.\r\nNOOP${END}`,
    expected: '554',
    note: BARE,
  },
  {
    name: 'CRLF.LF and a command (smuggling)',
    start: 'data',
    bytes: `a\r\n.\nNOOP${END}`,
    expected: '554',
    note: BARE,
  },
  {
    name: 'CR.CR and a command (smuggling)',
    start: 'data',
    bytes: `a\r.\rNOOP${END}`,
    expected: '554',
    note: BARE,
  },
  {
    name: 'CRLF.CR and a command (smuggling)',
    start: 'data',
    bytes: `a\r\n.\rNOOP${END}`,
    expected: '554',
    note: BARE,
  },
  { name: 'NUL and 8-bit bytes in the data', start: 'data', bytes: `\0\xff\xfe${END}`, expected: '250' },
  {
    name: 'a line of 5,000 bytes in the data',
    start: 'data',
    bytes: `${'x'.repeat(5000)}${END}`,
    expected: '250',
  },
  {
    name: 'data beyond the size limit',
    start: 'data',
    bytes: `${`${'x'.repeat(70)}\r\n`.repeat(20_000)}.\r\n`,
    expected: '552',
  },
  {
    name: '120 Received headers',
    start: 'data',
    bytes: `${'Received: from a by b; Fri, 02 Jan 2026 03:04:05 +0000\r\n'.repeat(120)}${END}`,
    expected: '554',
    note: 'RFC 5321 6.3 asks for a limit; smtp-server hands every message to its program, which has to look',
  },
  // STARTTLS
  { name: 'STARTTLS with an argument', start: 'ehlo', bytes: 'STARTTLS now\r\n', expected: '501' },
  {
    name: 'STARTTLS before EHLO',
    start: 'greeting',
    bytes: 'STARTTLS\r\n',
    expected: '503',
    note: 'a client learns from EHLO that STARTTLS exists (RFC 3207 4); the peers do not wait for that',
  },
  {
    name: 'STARTTLS and commands in plain text behind it',
    start: 'ehlo',
    bytes: 'STARTTLS\r\nNOOP\r\nRSET\r\n',
    expected: '220 silent',
    note: 'after 220 all servers wait for TLS and drop the plain text',
  },
];
