import t from 'tap';
import { CountingSink } from '../smtp-sink.js';
import { compare, formatComparison, isDifferent } from './compare.js';
import { SEQUENCES } from './sequences.js';
import { makeWorkplace, startReference, startSmtpServer } from './servers.js';

t.test('the gateway answers as the table says, and each difference to smtp-server has a note', async (t) => {
  const workplace = await makeWorkplace();
  t.teardown(workplace.remove);
  const sink = new CountingSink();
  t.teardown(() => sink.close());
  const gateway = await startReference(workplace, await sink.listen());
  t.teardown(gateway.stop);
  const peer = await startSmtpServer(workplace);
  t.teardown(peer.stop);
  for (const { sequence, answers } of await compare([gateway, peer])) {
    const needsTls = sequence.name.startsWith('STARTTLS') && workplace.certificate === undefined;
    if (!needsTls) t.equal(answers.get('gateway')?.codes, sequence.expected, sequence.name);
    t.ok(!isDifferent(answers) || sequence.note !== undefined, sequence.name);
  }
  t.equal(SEQUENCES.length, new Set(SEQUENCES.map(({ name }) => name)).size);
});

t.test('a row with different codes has a mark and its note', async (t) => {
  const [first] = SEQUENCES;
  if (first === undefined) throw new Error('no sequence');
  const answer = (codes: string) => ({ codes, lines: [] });
  const table = formatComparison([
    {
      sequence: first,
      answers: new Map([
        ['a', answer('250')],
        ['b', answer('250')],
      ]),
    },
    {
      sequence: { ...first, note: 'because' },
      answers: new Map([
        ['a', answer('250')],
        ['b', answer('500 closed')],
      ]),
    },
  ]);
  t.equal(
    table,
    `  sequence         a    b\n  a whole message  250  250\n* a whole message  250  500 closed\n      because\n`,
  );
});
