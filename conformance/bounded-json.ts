import { beyond, LimitError, limit } from './limits.js';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPENING = new Set([0x5b, 0x7b]);
const CLOSING = new Set([0x5d, 0x7d]);
const COMMA = 0x2c;

/**
 * Parses JSON text that a stranger may have written. It counts the values before it makes them: a few bytes of text
 * can make a thousand times as many bytes of objects, and deep nesting exhausts the stack of what reads the result.
 * @throws Error whose message completes `expected …: ` when the text is no JSON, or has too many values or levels.
 */
export function parseBoundedJson(bytes: Buffer): unknown {
  checkStructure(bytes);
  return JSON.parse(bytes.toString('utf8'));
}

function checkStructure(bytes: Buffer): void {
  const [maxValues, maxDepth] = [limit('json-values'), limit('json-depth')];
  // Each value but the first of its list follows a comma or begins a list, so this bounds their number.
  let values = 1;
  let depth = 0;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] ?? 0;
    if (byte === QUOTE) at = endOfString(bytes, at);
    else if (OPENING.has(byte)) {
      depth += 1;
      values += 1;
      if (depth > maxDepth)
        throw new LimitError(`it has ${beyond('json-depth', 'levels of lists and objects')}`);
    } else if (CLOSING.has(byte)) depth -= 1;
    else if (byte === COMMA) values += 1;
    if (values > maxValues) throw new LimitError(`it has ${beyond('json-values', 'values')}`);
  }
}

/** Returns the position of the quote that ends the string that begins at `start`. */
function endOfString(bytes: Buffer, start: number): number {
  let end = bytes.indexOf(QUOTE, start + 1);
  while (end >= 0) {
    let escapes = 0;
    while (bytes[end - 1 - escapes] === BACKSLASH) escapes += 1;
    if (escapes % 2 === 0) return end;
    end = bytes.indexOf(QUOTE, end + 1);
  }
  return bytes.length;
}
