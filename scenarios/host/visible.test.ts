import fc from 'fast-check';
import t from 'tap';
import { actingIn, foreignText } from '../fixtures/foreign-text.js';
import { styleMark, visible, visibleJson, visibleLine } from './visible.js';

t.test('control characters become visible, and other text stays as it is', async (t) => {
  t.equal(visible('\u001b]52;c;eA==\u0007'), '\\x1b]52;c;eA==\\x07');
  t.equal(visible('a\nb\tc\u202ed\u{e0041}\ud800'), 'a\\nb\\tc\\u202ed\\u{e0041}\\ud800');
  t.equal(visible('größer, 日本 🙂 "a\\b"'), 'größer, 日本 🙂 "a\\b"');
});

t.test('commands to a CI system lose their meaning', async (t) => {
  t.equal(visible('::error::x'), '\\x3a:error::x');
  t.equal(visible('  ::error::x'), '  \\x3a:error::x');
  t.equal(visible('a ::error::x'), 'a ::error::x', 'only the start of a line counts');
  t.equal(visible('a ##[error]x ##vso[y]'), 'a \\x23#[error]x \\x23#vso[y]');
});

t.test(
  'any text becomes one line that nothing acts on, and stays the same when it is escaped again',
  async () => {
    fc.assert(
      fc.property(foreignText, (text) => {
        const line = visible(text);
        return !line.includes('\n') && actingIn(line).length === 0 && visible(line) === line;
      }),
    );
  },
);

t.test('any JSON keeps its value', async () => {
  fc.assert(
    fc.property(foreignText, foreignText, (key, value) => {
      const json = JSON.stringify([{ [`k${key}`]: value }]);
      const escaped = visibleJson(json);
      return actingIn(escaped).length === 0 && JSON.stringify(JSON.parse(escaped)) === json;
    }),
  );
});

t.test('colours of the kit work around foreign text, and foreign text cannot make one', async () => {
  const [on, off] = [styleMark(31), styleMark(0)];
  fc.assert(
    fc.property(foreignText, foreignText, (first, second) => {
      const line = visibleLine(`${first}${on}${second}${off}`);
      const [before = '', rest = ''] = line.split('\u001b[31m');
      return (
        line.split('\u001b').length === 3 &&
        rest.endsWith('\u001b[0m') &&
        before === visible(first) &&
        rest === `${visible(second)}\u001b[0m`
      );
    }),
  );
});
