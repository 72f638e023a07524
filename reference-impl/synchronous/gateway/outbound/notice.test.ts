import fc from 'fast-check';
import t from 'tap';
import type { DeadNote } from '../../queue/dead-note.js';
import type { SmtpBody } from '../../record/body.js';
import { buildNotice, statusOf } from './notice.js';

const note: DeadNote = {
  reason: 'refused',
  replies: ['550 5.1.1 no such user'],
  attempts: 1,
  queuedAtMs: 1_700_000_000_000,
  firstAttemptMs: 1_700_000_001_000,
  lastAttemptMs: 1_700_000_001_000,
  origin: '0:4294967297',
};
const options = { hostname: 'mx.example.net', returnBytes: 1000, nowMs: 1_700_000_002_000 };
const body = (data: string | Buffer, more: Partial<SmtpBody> = {}): SmtpBody => ({
  type: 'smtp',
  sender: 'from@example.org',
  recipients: ['a@example.net', 'b@example.net'],
  data: typeof data === 'string' ? Buffer.from(data, 'latin1') : data,
  ...more,
});
const textOf = (from: SmtpBody, replies = note.replies, more = options) =>
  buildNotice({ body: from, note: { ...note, replies }, destination: '192.0.2.1:25' }, more).data.toString(
    'latin1',
  );

t.test('a notice is a multipart/report with the status of each recipient and the message', async (t) => {
  const text = textOf(body('Subject: hello\r\n\r\nbody\r\n'), ['550 5.1.1 no a', '552 no b']);
  const [head = '', ...parts] = text.split(/\r\n--=_[0-9a-f]{24}_0(?:--)?\r\n/);
  t.match(head, /^From: .*MAILER-DAEMON@mx\.example\.net>\r\nTo: <from@example\.org>\r\n/);
  t.match(head, /\r\nAuto-Submitted: auto-replied\r\n/);
  t.match(head, /\r\nContent-Type: multipart\/report; report-type=delivery-status;\r\n/);
  t.equal(parts.length, 4);
  t.match(parts[0], /^Content-Type: text\/plain.*<b@example\.net>:\r\n {4}552 no b\r\n/s);
  t.equal(
    parts[1],
    [
      'Content-Type: message/delivery-status',
      '',
      'Reporting-MTA: dns; mx.example.net',
      'Arrival-Date: Tue, 14 Nov 2023 22:13:20 +0000',
      '',
      'Final-Recipient: rfc822; a@example.net',
      'Action: failed',
      'Status: 5.1.1',
      'Remote-MTA: dns; [192.0.2.1]',
      'Diagnostic-Code: smtp; 550 5.1.1 no a',
      'Last-Attempt-Date: Tue, 14 Nov 2023 22:13:21 +0000',
      '',
      'Final-Recipient: rfc822; b@example.net',
      'Action: failed',
      'Status: 5.0.0',
      'Remote-MTA: dns; [192.0.2.1]',
      'Diagnostic-Code: smtp; 552 no b',
      'Last-Attempt-Date: Tue, 14 Nov 2023 22:13:21 +0000',
      '',
    ].join('\r\n'),
  );
  t.equal(parts[2], 'Content-Type: message/rfc822\r\n\r\nSubject: hello\r\n\r\nbody\r\n');
});

t.test('a message that is too large or not 7-bit text is returned as headers', async (t) => {
  const headersOnly = 'Content-Type: text/rfc822-headers\r\n\r\nSubject: a\r\n\r\n--';
  const fits = 'x'.repeat(900);
  t.match(
    textOf(body(`Subject: a\r\n\r\n${fits}\r\n`)),
    `Content-Type: message/rfc822\r\n\r\nSubject: a\r\n\r\n${fits}`,
  );
  for (const rest of [`${fits}\r\n${fits}`, 'caf\xe9', '\0'])
    t.match(textOf(body(`Subject: a\r\n\r\n${rest}\r\n`)), headersOnly);
  const long = textOf(body(`Subject: a\r\n\r\n${'y'.repeat(999)}\r\n`), note.replies, {
    ...options,
    returnBytes: 5000,
  });
  t.match(long, headersOnly);
  t.match(textOf(body('Subject: \xe9\r\n\r\n')), 'Subject: ?\r\n');
});

t.test('a notice is 7-bit text with lines of at most 998 bytes, whatever the message holds', async () => {
  const address = fc.string({ unit: 'binary', maxLength: 300 }).map((text) => `${text}@x`.replace(/\n/g, ''));
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 3000 }),
      fc.array(address, { minLength: 1, maxLength: 3 }),
      address,
      (bytes, recipients, sender) => {
        const notice = buildNotice(
          { body: body(Buffer.from(bytes), { recipients, sender }), note, destination: undefined },
          options,
        );
        const lines = notice.data.toString('latin1').split('\r\n');
        return (
          lines.every((line) => line.length <= 998) && notice.data.every((byte) => byte < 0x80 && byte > 0)
        );
      },
    ),
  );
});

t.test('the same message always gets the same Message-ID', async (t) => {
  const id = (from: SmtpBody, nowMs: number) =>
    /Message-ID: (.*)/.exec(textOf(from, note.replies, { ...options, nowMs }))?.[1];
  t.equal(id(body('x'), 1), id(body('x'), 2));
  t.not(id(body('x'), 1), id(body('x', { sender: 'other@example.org' }), 1));
});

t.test('the status is that of the reply if the classes agree', async (t) => {
  t.equal(statusOf('refused', '550 5.7.1 no'), '5.7.1');
  t.equal(statusOf('refused', '550 4.7.1 no'), '5.0.0');
  t.equal(statusOf('loop', '554 too many hops'), '5.4.6');
  t.equal(statusOf('too-old', 'connect ECONNREFUSED'), '4.4.7');
  t.equal(statusOf('retries-used-up', '450 busy'), '4.0.0');
});
