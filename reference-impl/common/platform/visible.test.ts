import t from 'tap';
import { visible, visibleJson } from './visible.js';

/** Texts with the characters and commands that the kit escapes in its own output (`visible` of the kit), and the result. */
const NASTY: readonly (readonly [string, string])[] = [
  ['\u001b]52;c;eA==\u0007', '\\x1b]52;c;eA==\\x07'],
  ['\u001b[31mred', '\\x1b[31mred'],
  ['\u0000\u007f\u0085\u009b2J', '\\x00\\x7f\\x85\\x9b2J'],
  ['a\nb\rc\td\r\n', 'a\\nb\\rc\\td\\r\\n'],
  ['\u202e\u2066\u200b\ufeff', '\\u202e\\u2066\\u200b\\ufeff'],
  ['\u2028\u2029', '\\u2028\\u2029'],
  ['\u00ad\u034f\u115f\u3164', '\\xad\\u034f\\u115f\\u3164'],
  ['\ud800x\udc00', '\\ud800x\\udc00'],
  ['\ufffe\uffff', '\\ufffe\\uffff'],
  ['\u{e0041}', '\\u{e0041}'],
  ['::error::x', '\\x3a:error::x'],
  ['  ::set-output name=a::b', '  \\x3a:set-output name=a::b'],
  ['a ::error::x', 'a ::error::x'],
  ['##[error]x ##vso[y] ###[z]', '\\x23#[error]x \\x23#vso[y] #\\x23#[z]'],
  ['größer, 日本 🙂 "a\\b"', 'größer, 日本 🙂 "a\\b"'],
];

t.test(
  'every character and command that the kit escapes is escaped by the queue in the same way',
  async (t) => {
    for (const [text, escaped] of NASTY) {
      t.equal(visible(text), escaped);
      t.equal(visible(escaped), escaped, 'an escaped text stays as it is');
    }
  },
);

t.test('every Unicode character that the kit escapes is escaped, and JSON keeps its value', async (t) => {
  const acting = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\ufffe\uffff]/u;
  let escaped = 0;
  for (let code = 0; code <= 0x10ffff; code += 1) {
    const character = String.fromCodePoint(code);
    const isActing = acting.test(character);
    if (isActing) escaped += 1;
    const json = JSON.stringify(character);
    if ((visible(character) === character) === isActing) t.fail(`visible: U+${code.toString(16)}`);
    const safe = visibleJson(json);
    if (acting.test(safe) || JSON.parse(safe) !== JSON.parse(json)) t.fail(`JSON: U+${code.toString(16)}`);
  }
  t.ok(escaped > 4000, `${escaped} characters are escaped`);
});
