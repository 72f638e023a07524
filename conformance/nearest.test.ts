import fc from 'fast-check';
import t from 'tap';
import { didYouMean, nearest } from './nearest.js';

const NAMES = ['kill', 'pause', 'power-cut', 'index-loss', 'data-rot'];

t.test('a word with few edits means the nearest name', async (t) => {
  const cases: [string, string][] = [
    ['kil', 'kill'],
    ['kiill', 'kill'],
    ['pasue', 'pause'],
    ['Power-Cut', 'power-cut'],
    ['powercut', 'power-cut'],
    ['power-cuts', 'power-cut'],
    ['index_loss', 'index-loss'],
  ];
  for (const [word, expected] of cases) t.equal(nearest(word, NAMES), expected, word);
  t.equal(didYouMean('kil', NAMES), ' (did you mean kill?)');
});

t.test('a word that is far from every name, or is a name, gets no proposal', async (t) => {
  t.equal(nearest('network', NAMES), undefined);
  t.equal(nearest('', NAMES), undefined);
  t.equal(nearest('k'.repeat(10_000), NAMES), undefined, 'a very long word');
  t.equal(didYouMean('kill', NAMES), '');
});

t.test('one edit of a name always finds a name', async (t) => {
  const oneEdit = fc.property(
    fc.constantFrom(...NAMES),
    fc.nat(),
    fc.constantFrom('x', ''),
    (name, at, letter) => {
      const index = at % name.length;
      const word = name.slice(0, index) + letter + name.slice(index + 1);
      return nearest(word, NAMES) !== undefined;
    },
  );
  t.doesNotThrow(() => fc.assert(oneEdit));
});
