import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { referenceProgram } from '../programs.js';
import { fuzzSmtp } from './fuzz.js';
import { planOf } from './grammar.js';
import { judge, type Reply } from './model.js';

const reply = (code: number): Reply => ({ code, text: '' });
const judgeText = (wire: string, codes: number[]) =>
  judge(Buffer.from(wire, 'latin1'), codes.map(reply), 1000);

const ENVELOPE = 'EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n';
const ACCEPTED = [250, 250, 250, 354];

t.test('random sessions and killed workers lose, change, split and smuggle no message', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'plugpull-fuzz-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const result = await fuzzSmtp({
    ...{ program: referenceProgram('synchronous/main.js'), directory },
    ...{ seed: 1, sessions: 240, seconds: 600, killEvery: 80 },
  });
  t.strictSame(result.problems, []);
  t.ok(result.kills >= 1, 'a worker was killed');
  t.ok(
    result.confirmed > 50 && result.refused > 5,
    `${result.confirmed} confirmed, ${result.refused} refused`,
  );
  t.ok(result.arrived >= result.confirmed);
});

t.test('a session is the same for the same seed and index', async (t) => {
  t.strictSame(planOf(7, 3), planOf(7, 3));
  t.notSame(planOf(7, 3).wire, planOf(8, 3).wire);
});

t.test('the model reads a session as RFC 5321 says', async (t) => {
  const { messages, problems } = judgeText(
    `${ENVELOPE}..a\r\n.\r\nMAIL FROM:<e@f>\r\nRCPT TO:<g@h>\r\nDATA\r\n.\r\nQUIT\r\n`,
    [...ACCEPTED, 250, 250, 250, 354, 250, 221],
  );
  t.strictSame(problems, []);
  t.strictSame(
    messages.map(({ sender, recipients, data, outcome }) => [sender, recipients, data.toString(), outcome]),
    [
      ['a@b', ['c@d'], '.a\r\n', 'confirmed'],
      ['e@f', ['g@h'], '', 'confirmed'],
    ],
  );
});

t.test('without a reply a complete message may arrive, and an incomplete one may not', async (t) => {
  const wire = `${ENVELOPE}one\r\n.\r\n${ENVELOPE.slice(8)}two\r\n.\r`;
  const outcomes = (codes: number[]) => judgeText(wire, codes).messages.map(({ outcome }) => outcome);
  t.strictSame(outcomes([...ACCEPTED, 250]), ['confirmed']);
  t.strictSame(outcomes(ACCEPTED), ['indefinite']);
  t.strictSame(outcomes([]), ['indefinite']);
  t.strictSame(outcomes([...ACCEPTED, 452]), ['refused']);
  t.match(judgeText(wire, ACCEPTED).unanswered, /a message of 5 bytes/);
  t.equal(judgeText('NOOP\r\nhalf', [250]).unanswered, undefined);
  t.equal(judgeText('x\n\n\n', [500, 421]).unanswered, undefined);
  t.strictSame(outcomes([250, 452]), [], 'the message was never begun');
  const refused = judgeText(wire.replace('RCPT', 'RCPT TO:<>\r\nRCPT').replace('<a@b>', '<a@b> FOO=1'), []);
  t.strictSame(refused.messages, [], 'a wrong MAIL is refused, also without a reply');
  const skipped = judgeText(wire.replace('RCPT', 'RCPT TO:<>\r\nRCPT'), []);
  t.strictSame(skipped.messages[0]?.recipients, ['c@d'], 'a wrong RCPT is refused, also without a reply');
});

t.test('the model finds a gateway that smuggles, accepts too much, or answers too often', async (t) => {
  const cases: [string, string, number[]][] = [
    ['a bare LF', `${ENVELOPE}a\n.\nb\r\n.\r\n`, [...ACCEPTED, 250]],
    ['a smuggled command', `${ENVELOPE}a\n.\r\nRSET\r\n.\r\n`, [...ACCEPTED, 250, 250]],
    ['a message that is too large', `${ENVELOPE}${'x'.repeat(1000)}\r\n.\r\n`, [...ACCEPTED, 250]],
    ['a good message that is refused', `${ENVELOPE}a\r\n.\r\n`, [...ACCEPTED, 554]],
    ['a line without CRLF', 'NOOP\n', [250]],
    ['an overlong line', `NOOP ${'x'.repeat(3000)}\r\n`, [250]],
    ['an unknown command', 'BLAH\r\n', [250]],
    ['MAIL before EHLO', 'MAIL FROM:<a@b>\r\n', [250]],
    ['DATA without recipients', 'EHLO x\r\nMAIL FROM:<a@b>\r\nDATA\r\n', [250, 250, 354]],
    ['one reply too many', 'NOOP\r\n', [250, 250]],
  ];
  for (const [what, wire, codes] of cases) t.ok(judgeText(wire, codes).problems.length > 0, what);
});
