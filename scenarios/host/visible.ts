import { randomBytes } from 'node:crypto';

/**
 * Characters that a terminal, a log viewer or a parser may act on, or that nobody sees: controls (C0, C1, DEL), formats
 * (bidirectional controls, zero-width characters), separators of lines, lone surrogates, and the two that XML forbids.
 */
const ACTING = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\ufffe\uffff]/gu;
/**
 * A workflow command at the start of a line (`::error::`, GitHub ignores white space before it), or anywhere in it
 * (`##[error]`, `##vso[…]`, `##teamcity[…]`).
 */
const COMMAND_AT_START = /^(\s*):(?=:)/;
const COMMAND_ANYWHERE = /#(?=#[a-z]*\[)/gi;
const SHORT_ESCAPES: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };
/** Upper bound of the code points that `\uNNNN` can name. */
const MAX_SHORT_CODE_POINT = 0xffff;

/**
 * Start of a mark that stands for a colour code of the kit. The random part keeps foreign text from containing one:
 * only what `styleMark` made becomes a colour code.
 */
const MARK = `\u0001${randomBytes(8).toString('hex')}:`;
const MARKS = new RegExp(`(${MARK}\\d{1,2};)`);

/**
 * Returns a text as one line in which every character can be seen: others become `\n`, `\x1b`, `\u202e`. No program
 * that reads the line takes it for a command. The result of a text that is already escaped is the same text.
 */
export function visible(text: string): string {
  return text
    .replace(ACTING, escapeCharacter)
    .replace(COMMAND_AT_START, '$1\\x3a')
    .replace(COMMAND_ANYWHERE, '\\x23');
}

/**
 * Escapes in JSON what `visible` escapes in text. The value stays the same.
 * @param json the output of `JSON.stringify` without indentation.
 */
export function visibleJson(json: string): string {
  return json
    .replace(ACTING, (character) =>
      // JSON knows code units only: two for a character beyond the first 65,536.
      Array.from({ length: character.length }, (_, index) => unicodeEscape(character.charCodeAt(index))).join(
        '',
      ),
    )
    .replace(COMMAND_ANYWHERE, '\\u0023');
}

/** Returns the mark of a colour code (SGR), such as 31 for red. `visibleLine` replaces it. */
export function styleMark(code: number): string {
  return `${MARK}${code};`;
}

/** Does what `visible` does, and replaces the marks of `styleMark` by the colour codes. */
export function visibleLine(line: string): string {
  if (!line.includes(MARK)) return visible(line);
  // Foreign text may begin after a mark: escape it as a text of its own.
  return line
    .split(MARKS)
    .map((part, index) => (index % 2 === 1 ? `\u001b[${part.slice(MARK.length, -1)}m` : visible(part)))
    .join('');
}

function escapeCharacter(character: string): string {
  const short = SHORT_ESCAPES[character];
  if (short !== undefined) return short;
  const code = character.codePointAt(0) ?? 0;
  if (code <= 0xff) return `\\x${code.toString(16).padStart(2, '0')}`;
  return code <= MAX_SHORT_CODE_POINT ? unicodeEscape(code) : `\\u{${code.toString(16)}}`;
}

function unicodeEscape(code: number): string {
  return `\\u${code.toString(16).padStart(4, '0')}`;
}
