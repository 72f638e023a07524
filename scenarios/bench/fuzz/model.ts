/** A reply of the gateway. */
export interface Reply {
  code: number;
  text: string;
}

/** A complete message of a session, and what the gateway said to it. */
export interface SentMessage {
  sender: string;
  recipients: string[];
  data: Buffer;
  /** `confirmed`: 250. `refused`: 4xx or 5xx. `indefinite`: the connection ended before the reply was read. */
  outcome: 'confirmed' | 'refused' | 'indefinite';
}

/** What a session should have led to. */
export interface Judgement {
  messages: SentMessage[];
  /** Replies that the gateway must not have given. */
  problems: string[];
  /** The first command or message without a reply; undefined if all have one, or after a 221 or 421 of the gateway. */
  unanswered: string | undefined;
}

const MAX_LINE_BYTES = 2048;
/** Commands that a gateway accepts at the right time. They decide when there is no reply. */
const GOOD_MAIL = /^MAIL FROM:<[\w.@-]+>(?: BODY=8BITMIME| SIZE=\d{1,5})*$/i;
const GOOD_RCPT = /^RCPT TO:<[\w.@-]+@[\w.-]+>$/i;
const END = Buffer.from('\r\n.\r\n');

interface State {
  greeted: boolean;
  sender: string | undefined;
  recipients: string[];
}

/**
 * Reads the bytes that a client has sent as RFC 5321 says, beside the replies that it has got, and says which messages
 * were sent and which replies were wrong. It is written for reading, shares no code with the gateway, and sees all
 * bytes at once, so that chunks have no effect on it.
 *
 * After the last reply it goes on as if the gateway had accepted everything: what follows may have been stored.
 *
 * @param maxMessageBytes the SIZE of the gateway.
 */
export function judge(wire: Buffer, replies: readonly Reply[], maxMessageBytes: number): Judgement {
  const messages: SentMessage[] = [];
  const problems: string[] = [];
  const state: State = { greeted: false, sender: undefined, recipients: [] };
  const left = [...replies];
  let at = 0;
  let isClosed = false;
  let unanswered: string | undefined;
  const takeReply = (what: string) => {
    const reply = left.shift();
    if (reply === undefined) unanswered ??= `byte ${at}: ${what}`;
    return reply;
  };
  const fault = (what: string, reply: Reply | undefined) =>
    problems.push(`byte ${at}: ${what} was answered ${reply?.code} ${reply?.text}`);

  while (at < wire.length && !isClosed) {
    const lf = wire.indexOf(0x0a, at);
    const isTooLong = lf - at > MAX_LINE_BYTES;
    // A line that is too long gets its reply at its end, as any other.
    if (lf < 0) break;
    const line = wire.toString('latin1', at, isTooLong ? at + MAX_LINE_BYTES : lf);
    const reply = takeReply(JSON.stringify(line.slice(0, 60)));
    isClosed = reply?.code === 421 || reply?.code === 221;
    const isPositive = reply === undefined ? undefined : reply.code < 400;
    if (isTooLong) {
      if (isPositive) fault('an overlong line', reply);
      at = lf + 1;
      continue;
    }
    at = lf + 1;
    if (!line.endsWith('\r')) {
      if (isPositive) fault(`the line ${JSON.stringify(line)} without CRLF`, reply);
      continue;
    }
    const startsData = runCommand(line.slice(0, -1), state, reply, fault);
    if (isClosed || !startsData) continue;
    const { sender = '', recipients } = state;
    state.sender = undefined;
    state.recipients = [];
    const message = dataFrom(wire, at);
    if (message === undefined) break;
    at = message.end;
    const answer = takeReply(`a message of ${message.data.length} bytes`);
    isClosed = answer?.code === 421;
    const refusal = refusalOf(message.data, maxMessageBytes);
    if (answer !== undefined && answer.code < 400 && refusal !== undefined) fault(refusal, answer);
    if (answer !== undefined && answer.code >= 500 && refusal === undefined) fault('a good message', answer);
    if (answer === undefined && refusal !== undefined) continue;
    const outcome = answer === undefined ? 'indefinite' : answer.code < 400 ? 'confirmed' : 'refused';
    messages.push({ sender, recipients, data: message.data, outcome });
  }
  // An unasked 421 ends an idle session or one at a shutdown.
  const unasked = left.find(({ code }) => code !== 421);
  if (unasked !== undefined) problems.push(`a reply to no command: ${unasked.code} ${unasked.text}`);
  return { messages, problems, unanswered };
}

/** Takes a command and its reply into the state. Without a reply a good command counts as accepted. */
function runCommand(
  line: string,
  state: State,
  reply: Reply | undefined,
  fault: (what: string, reply: Reply | undefined) => void,
): boolean {
  const verb = line.split(' ')[0]?.toUpperCase() ?? '';
  const path = /^[^<]*<([^<>]*)>/.exec(line)?.[1] ?? '';
  const hasBadParameter = / (?:SIZE=(?!\d{1,5}(?: |$))|FOO=)/.test(line);
  const canMail = state.greeted && state.sender === undefined && !hasBadParameter;
  const canRcpt = state.sender !== undefined;
  const canData = canRcpt && state.recipients.length > 0;
  const isAccepted = reply === undefined ? undefined : reply.code < 400;
  switch (verb) {
    case 'EHLO':
    case 'HELO':
      if (isAccepted === false) return false;
      Object.assign(state, { greeted: true, sender: undefined, recipients: [] });
      return false;
    case 'RSET':
      if (isAccepted !== false) Object.assign(state, { sender: undefined, recipients: [] });
      return false;
    case 'MAIL':
      if (isAccepted && !canMail) fault('MAIL at the wrong time', reply);
      if (isAccepted ?? (canMail && GOOD_MAIL.test(line))) state.sender = path;
      return false;
    case 'RCPT':
      if (isAccepted && !canRcpt) fault('RCPT before MAIL', reply);
      if (isAccepted ?? (canRcpt && GOOD_RCPT.test(line))) state.recipients.push(path);
      return false;
    case 'DATA':
      if (isAccepted && !canData) fault('DATA without recipients', reply);
      return isAccepted ?? (canData && line.length === 4);
    case 'NOOP':
    case 'VRFY':
    case 'QUIT':
      return false;
    default:
      if (isAccepted) fault(`the command ${JSON.stringify(line.slice(0, 60))}`, reply);
      return false;
  }
}

/** Finds the message that begins at a position; undefined if its end mark is not there. */
function dataFrom(wire: Buffer, from: number): { data: Buffer; end: number } | undefined {
  // The CRLF of the DATA command is part of the end mark of an empty message.
  const mark = wire.indexOf(END, from - 2);
  if (mark < 0) return undefined;
  const stuffed = wire.toString('latin1', from, mark + 2);
  return { data: Buffer.from(stuffed.replace(/(^|\r\n)\./g, '$1'), 'latin1'), end: mark + END.length };
}

function refusalOf(data: Buffer, maxMessageBytes: number): string | undefined {
  if (data.length > maxMessageBytes) return `a message of ${data.length} bytes`;
  const bare = data.toString('latin1').replaceAll('\r\n', '');
  return /[\r\n]/.test(bare) ? 'a message with a bare CR or LF' : undefined;
}
