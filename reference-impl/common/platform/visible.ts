/**
 * Characters that a terminal, a log viewer or a parser may act on, or that nobody sees: controls, formats such as those
 * of direction and zero width, separators of lines, lone surrogates, and the two that XML forbids.
 */
const ACTING = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\ufffe\uffff]/gu;
const SHORT_ESCAPES: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };
/** A workflow command of a CI system: `::error::` at the start of a line, `##[error]` anywhere. */
const COMMAND_AT_START = /^(\s*):(?=:)/;
const COMMAND_ANYWHERE = /#(?=#[a-z]*\[)/gi;

/**
 * Returns a text as one line in which every character can be seen, such as `\x1b`, and that no CI system takes for a
 * command. File names, settings and replies of other servers may contain anything.
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
      Array.from({ length: character.length }, (_, index) => unicodeEscape(character.charCodeAt(index))).join(
        '',
      ),
    )
    .replace(COMMAND_ANYWHERE, '\\u0023');
}

function escapeCharacter(character: string): string {
  const short = SHORT_ESCAPES[character];
  if (short !== undefined) return short;
  const code = character.codePointAt(0) ?? 0;
  if (code <= 0xff) return `\\x${code.toString(16).padStart(2, '0')}`;
  return code <= 0xffff ? unicodeEscape(code) : `\\u{${code.toString(16)}}`;
}

const unicodeEscape = (code: number): string => `\\u${code.toString(16).padStart(4, '0')}`;
