import t from 'tap';
import { answerOf } from './client.js';

t.test('an error is a rejection only if its SQLSTATE proves that nothing was committed', async (t) => {
  const error = (code?: string) => Object.assign(new Error('so it is'), code === undefined ? {} : { code });
  for (const code of ['23505', '53100', '53300', '22001', '25006', '40001'])
    t.match(answerOf(error(code)), { outcome: 'rejected', detail: `${code} so it is` }, code);
  for (const code of ['08006', '57P01', '57P02', '57P03', '40003', 'XX000', '58030', 'ECONNRESET', undefined])
    t.match(answerOf(error(code)), { outcome: 'indefinite' }, code ?? 'none');
});
