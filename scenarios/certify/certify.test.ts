import t from 'tap';
import { type LevelResult, withWarningOf } from './certify.js';

t.test('a run whose files the kit does not see has a warning', async (t) => {
  const result = { verdict: 'pass', warnings: ['one'] } as unknown as LevelResult;
  t.match(withWarningOf({ name: 'vm' }, result).warnings, [
    'one',
    /^under vm nothing shows that the target stores/,
  ]);
  t.equal(withWarningOf({ name: 'docker' }, result), result);
});
