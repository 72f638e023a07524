/*
 * What a mail server may do with a message if the target claims `headers: "may-be-completed"`: it adds a header field
 * Message-ID or Date that the message does not have (RFC 6409, section 8), and it folds lines that are longer than 998
 * bytes with their line end. Each of these can be undone. The digest decides whether the result is the submitted
 * message, so no other change is accepted.
 */

/** Header fields that a server may add, in lower case. */
const COMPLETED_FIELDS = ['message-id', 'date'];
/** Length of a line with its CRLF, in bytes, above which a server may fold the line. */
const LONGEST_UNFOLDED_LINE = 998;
/** Upper bound of the columns at which a server is assumed to fold: a server folds all lines at one column. */
const MAX_FOLD_COLUMNS = 16;

/**
 * Returns the messages from which a server can have made `rest` by completing headers and folding lines, without
 * `rest` itself.
 * @param rest the delivered message behind the kit's header line: header lines, an empty line, the body.
 */
export function* withoutCompletions(rest: Buffer): Generator<Buffer> {
  for (const [index, unfolded] of unfoldings(rest.toString('latin1')).entries()) {
    for (const fields of [[], ...COMPLETED_FIELDS.map((name) => [name]), COMPLETED_FIELDS]) {
      if (index === 0 && fields.length === 0) continue;
      const without = withoutFields(unfolded, fields);
      if (without !== undefined) yield Buffer.from(without, 'latin1');
    }
  }
}

/** Returns the text without the named header fields; undefined unless each of them is there exactly once. */
function withoutFields(text: string, names: readonly string[]): string | undefined {
  const end = text.startsWith('\r\n') ? 0 : text.indexOf('\r\n\r\n') + 2;
  if (end === 1) return undefined;
  // A field goes on in the lines that begin with white space.
  const fields = text.slice(0, end).split(/(?<=\r\n)(?![ \t])/);
  const isNamed = (field: string) => names.includes(field.slice(0, field.indexOf(':')).toLowerCase());
  if (fields.filter(isNamed).length !== names.length) return undefined;
  return `${fields.filter((field) => !isNamed(field)).join('')}${text.slice(end)}`;
}

/** Returns the text, and the texts that a server can have folded to it. */
function unfoldings(text: string): string[] {
  const lines = text.split('\r\n');
  const foldsAt = (index: number) => {
    const [line = '', next = ''] = [lines[index], lines[index + 1]];
    return /^[ \t]/.test(next) && line.length + next.length - 1 + 2 > LONGEST_UNFOLDED_LINE;
  };
  const columns = new Set(lines.flatMap((line, index) => (foldsAt(index) ? [line.length] : [])));
  return [
    text,
    ...[...columns].slice(0, MAX_FOLD_COLUMNS).map((column) => {
      return lines.reduce((unfolded, line, index) => {
        if (index === 0) return line;
        const joins = lines[index - 1]?.length === column && foldsAt(index - 1);
        return joins ? `${unfolded}${line.slice(1)}` : `${unfolded}\r\n${line}`;
      }, '');
    }),
  ];
}
