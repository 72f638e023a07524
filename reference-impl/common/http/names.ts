/** Id of a message. It is sent in a header and written to logs, so other bytes are not allowed. */
export const ID = /^[A-Za-z0-9._~:@+=,-]{1,200}$/;
/** Name of a queue. */
export const QUEUE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;

/** Parameters behind the `?` of a path. */
export interface Query {
  queue?: string;
  wait?: string;
}

/** Returns what is wrong with the id of a message. */
export function idProblem(id: string): string | undefined {
  return ID.test(id) ? undefined : 'the id of a message has 1 to 200 bytes of A-Z a-z 0-9 . _ ~ : @ + = , -';
}

/** Returns what is wrong with the name of a queue. */
export function queueProblem(name: string | undefined): string | undefined {
  if (name === undefined || QUEUE_NAME.test(name)) return undefined;
  return 'the name of a queue has 1 to 64 bytes of A-Z a-z 0-9 . _ - and begins with a letter or a digit';
}

/** A path and its parameters. `/messages/a?queue=b` has the resource `/messages/` and the name `a`. */
export interface Target {
  resource: string;
  name: string;
  query: Query;
}

const NO_QUERY: Query = {};

/** Reads the target of a request. Returns one line of text if it makes no sense. */
export function readTarget(url: string, allowed: (resource: string) => readonly string[]): Target | string {
  const mark = url.indexOf('?');
  const path = mark < 0 ? url : url.slice(0, mark);
  const slash = path.indexOf('/', 1);
  const resource = slash < 0 ? path : path.slice(0, slash + 1);
  const name = slash < 0 ? '' : decode(path.slice(slash + 1));
  if (name === undefined) return 'the path has a % without two hexadecimal digits of UTF-8';
  if (mark < 0 || mark === url.length - 1) return { resource, name, query: NO_QUERY };
  const query: Query = {};
  const known = allowed(resource);
  for (const parameter of url.slice(mark + 1).split('&')) {
    const equals = parameter.indexOf('=');
    const key = equals < 0 ? parameter : parameter.slice(0, equals);
    const value = equals < 0 ? undefined : decode(parameter.slice(equals + 1));
    if ((key !== 'queue' && key !== 'wait') || !known.includes(key) || query[key] !== undefined || !value)
      return `parameter "${key.slice(0, 40)}" is unknown, given twice or has no value; expected one of: ${known.join(', ') || 'none'}`;
    query[key] = value;
  }
  return { resource, name, query };
}

function decode(text: string): string | undefined {
  if (!text.includes('%')) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
