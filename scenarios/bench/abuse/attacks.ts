import type { Socket } from 'node:net';

/** One session of an attack. It returns when it has begun; the attacker ends it when the time is over. */
export interface Attack {
  /** What the session does, for the table. */
  what: string;
  /** Starts the attack on a new connection. */
  begin: (socket: Socket) => void;
}

const ENVELOPE = 'EHLO abuse\r\nMAIL FROM:<abuse@example.org>\r\nRCPT TO:<to@example.net>\r\nDATA\r\n';
const CHUNK_BYTES = 64 * 1024;
const DRIP_INTERVAL_MS = 500;

/** Sends the same chunk for ever, as fast as the gateway takes it. */
function flood(socket: Socket, first: string, chunk: Buffer): void {
  socket.write(first);
  const more = () => {
    while (!socket.destroyed && socket.writable && socket.write(chunk));
  };
  socket.on('drain', more);
  more();
}

/** Sends one byte of a text after the other, the last one again and again. */
function drip(socket: Socket, first: string, text: string): void {
  let at = 0;
  socket.write(first);
  const timer = setInterval(() => {
    if (socket.writable) socket.write(text[Math.min(at++, text.length - 1)] ?? '');
  }, DRIP_INTERVAL_MS);
  socket.on('close', () => clearInterval(timer));
}

const repeated = (text: string): Buffer => Buffer.from(text.repeat(Math.ceil(CHUNK_BYTES / text.length)));

function manyRecipients(): string {
  const domain = `@${'d'.repeat(60)}.example`;
  const recipients = Array.from(
    { length: 1000 },
    (_, at) => `RCPT TO:<${`r${at}`.padEnd(180, 'x')}${domain}>\r\n`,
  );
  return `EHLO abuse\r\nMAIL FROM:<abuse@example.org>\r\n${recipients.join('')}`;
}

const MANY_RECIPIENTS = manyRecipients();
const DOT_LINES = repeated('..\r\n');
const ONE_LINE = repeated('x');
const TRANSACTIONS = repeated(
  'MAIL FROM:<abuse@example.org>\r\nRCPT TO:<to@example.net>\r\nRSET\r\nNOOP\r\n',
);
const RSETS = repeated('RSET\r\n');
const EHLOS = repeated('EHLO x\r\n');
const UNKNOWN = repeated('BLAH\r\n');
const BDAT = repeated('BDAT 1000000\r\n');
const HTTP = repeated('GET / HTTP/1.1\r\nHost: example.org\r\n\r\n');

/** All kinds of abuse by name. */
export const ATTACKS: Record<string, Attack> = {
  none: { what: 'connect and QUIT, for comparison', begin: (socket) => socket.end('QUIT\r\n') },
  'dot-lines': {
    what: 'messages of 20.9 MB of ..CRLF',
    begin: (socket) => {
      let sentBytes = 0;
      socket.write(ENVELOPE);
      const more = () => {
        while (socket.writable && sentBytes < 20_900_000) {
          sentBytes += DOT_LINES.length;
          if (!socket.write(DOT_LINES)) return;
        }
        if (socket.writable) socket.end('.\r\nQUIT\r\n');
      };
      socket.on('drain', more);
      more();
    },
  },
  'drip-data': { what: 'one byte of a message every 0.5 s', begin: (socket) => drip(socket, ENVELOPE, 'x') },
  'drip-command': {
    what: 'one byte of a command every 0.5 s',
    begin: (socket) => drip(socket, '', 'EHLO x'),
  },
  'never-read': {
    what: 'EHLO for ever, no reply read',
    begin: (socket) => {
      socket.pause();
      flood(socket, '', EHLOS);
    },
  },
  'half-closed': {
    what: 'half a message, then FIN, the other side stays open',
    begin: (socket) => socket.end(`${ENVELOPE}half a mess`),
  },
  'half-open': { what: 'half a message, then silence', begin: (socket) => socket.write(`${ENVELOPE}half a`) },
  'endless-line': { what: 'a command line without end', begin: (socket) => flood(socket, '', ONE_LINE) },
  'endless-header': {
    what: 'a header line without end',
    begin: (socket) => flood(socket, `${ENVELOPE}Subject: `, ONE_LINE),
  },
  'rset-loop': { what: 'RSET for ever', begin: (socket) => flood(socket, 'EHLO abuse\r\n', RSETS) },
  recipients: {
    what: '1,000 recipients of 250 bytes, then silence',
    begin: (socket) => socket.write(MANY_RECIPIENTS),
  },
  unknown: { what: 'unknown commands', begin: (socket) => flood(socket, 'EHLO abuse\r\n', UNKNOWN) },
  'size-claims': {
    what: 'SIZE=15000000 and 100 bytes, then silence',
    begin: (socket) => socket.write(ENVELOPE.replace('.org>', '.org> SIZE=15000000') + 'x'.repeat(100)),
  },
  bdat: { what: 'BDAT, which is not offered', begin: (socket) => flood(socket, 'EHLO abuse\r\n', BDAT) },
  pipelining: {
    what: 'pipelined MAIL, RCPT, RSET, NOOP',
    begin: (socket) => flood(socket, 'EHLO abuse\r\n', TRANSACTIONS),
  },
  'early-junk': { what: 'HTTP before the greeting', begin: (socket) => flood(socket, '', HTTP) },
  idle: { what: 'connect, then silence', begin: () => undefined },
  reset: {
    what: 'connect, EHLO, reset',
    begin: (socket) => {
      socket.write('EHLO abuse\r\n', () => socket.resetAndDestroy());
    },
  },
};
