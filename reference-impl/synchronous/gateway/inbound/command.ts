/** A parsed command line of RFC 5321. */
export type Command =
  | { verb: 'EHLO' | 'HELO'; name: string }
  | { verb: 'MAIL'; sender: string; sizeBytes: number }
  | { verb: 'RCPT'; recipient: string; domain: string }
  | { verb: 'DATA' | 'RSET' | 'NOOP' | 'QUIT' | 'VRFY' | 'HELP' | 'STARTTLS' }
  | { verb: 'error'; reply: string };

/** Maximum length of a path, including the angle brackets (RFC 5321 4.5.3.1.3). */
const MAX_PATH_LENGTH = 256;
const ADDRESS =
  /^(?:"(?:[ !#-[\]-~]|\\[ -~])*"|[!#-'*+\-/-9=?A-Z^-~.]+)@(\[[0-9A-Za-z:.-]+\]|(?!.*\.\.)[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?)$/;
/** Commands of RFC 5321 and of extensions that this server does not offer. */
const NOT_IMPLEMENTED = new Set([
  ...['EXPN', 'TURN', 'SEND', 'SOML', 'SAML', 'ETRN', 'ATRN', 'AUTH', 'BDAT', 'BURL'],
]);

const error = (reply: string): Command => ({ verb: 'error', reply });
const BAD_SENDER = error('501 5.1.7 Bad sender address, expected MAIL FROM:<user@domain>');
const BAD_RECIPIENT = error('501 5.1.3 Bad recipient address, expected RCPT TO:<user@domain>');
const BAD_SIZE = error('501 5.5.4 Bad SIZE, expected SIZE= and a number of bytes');
/** SMTPUTF8 is not offered, so that an address has to be ASCII (RFC 6531 3.5). */
const NOT_ASCII = error('553 5.6.7 Addresses that are not ASCII are not supported, SMTPUTF8 is not offered');

/**
 * Parses one line without its CRLF. The line is decoded as latin1, so that bytes above 127 stay one character each.
 */
export function parseCommand(line: string): Command {
  const end = line.indexOf(' ');
  const verb = (end < 0 ? line : line.slice(0, end)).toUpperCase();
  const rest = end < 0 ? '' : line.slice(end + 1).trim();
  switch (verb) {
    case 'EHLO':
    case 'HELO':
      return /^[!-~]+(?: [ -~]*)?$/.test(rest)
        ? { verb, name: rest }
        : error(`501 5.5.4 Expected ${verb} and a name in ASCII`);
    case 'MAIL':
      return parseMail(rest);
    case 'RCPT':
      return parseRcpt(rest);
    case 'DATA':
    case 'RSET':
    case 'QUIT':
    case 'STARTTLS':
      return rest === '' ? { verb } : error(`501 5.5.4 ${verb} takes no argument`);
    case 'VRFY':
      return rest === '' ? error('501 5.5.4 Expected VRFY and an address') : { verb };
    case 'NOOP':
    case 'HELP':
      return { verb };
    default:
      return NOT_IMPLEMENTED.has(verb)
        ? error(`502 5.5.1 ${verb} is not implemented`)
        : error('500 5.5.2 Command not recognized');
  }
}

function parseMail(rest: string): Command {
  const path = parsePath(rest, 'FROM:');
  if (path === undefined) return BAD_SENDER;
  if (!isAscii(path.address)) return NOT_ASCII;
  if (path.address !== '' && !ADDRESS.test(path.address)) return BAD_SENDER;
  let sizeBytes = 0;
  for (const parameter of path.parameters) {
    const upper = parameter.toUpperCase();
    const size = /^SIZE=(\d{1,20})$/.exec(upper);
    if (size !== null) sizeBytes = Number(size[1]);
    else if (upper.startsWith('SIZE=') || upper === 'SIZE') return BAD_SIZE;
    else if (upper !== 'BODY=8BITMIME' && upper !== 'BODY=7BIT') return unknownParameter(parameter);
  }
  return { verb: 'MAIL', sender: path.address, sizeBytes };
}

function parseRcpt(rest: string): Command {
  const path = parsePath(rest, 'TO:');
  if (path === undefined) return BAD_RECIPIENT;
  const [parameter] = path.parameters;
  if (parameter !== undefined) return unknownParameter(parameter);
  // RFC 5321 4.1.1.3: the address of the postmaster of this host may have no domain.
  if (path.address.toLowerCase() === 'postmaster')
    return { verb: 'RCPT', recipient: path.address, domain: '' };
  if (!isAscii(path.address)) return NOT_ASCII;
  const domain = ADDRESS.exec(path.address)?.[1];
  if (domain === undefined) return BAD_RECIPIENT;
  return { verb: 'RCPT', recipient: path.address, domain: domain.toLowerCase() };
}

function isAscii(text: string): boolean {
  return !/[\x80-\xff]/.test(text);
}

function unknownParameter(parameter: string): Command {
  return error(`555 5.5.4 Parameter ${parameter.replace(/[^!-~]/g, '?').slice(0, 40)} is not supported`);
}

/**
 * Parses the path in angle brackets after `FROM:` or `TO:` and the parameters after it. It removes a source
 * route from the path.
 */
function parsePath(rest: string, keyword: string): { address: string; parameters: string[] } | undefined {
  if (rest.slice(0, keyword.length).toUpperCase() !== keyword) return undefined;
  const text = rest.slice(keyword.length).trimStart();
  // A quoted local part may contain any of the delimiters.
  const match = /^<((?:"(?:[^"\\]|\\.)*"|[^"<>])*)>(?: +(.*))?$/.exec(text);
  const path = match?.[1];
  if (path === undefined || path.length + 2 > MAX_PATH_LENGTH) return undefined;
  // RFC 5321 4.1.2, appendix C: a source route must be accepted and should be ignored.
  const address = path.replace(/^@[^\s,:@]+(?:,@[^\s,:@]+)*:/, '');
  return { address, parameters: match?.[2]?.split(/ +/).filter((word) => word !== '') ?? [] };
}
