import { connect } from 'node:net';

/** What became of the good mail that was sent during an attack. */
export interface GoodMail {
  sent: number;
  /** Number of messages by the code of the last reply, and `none` for those without a reply. */
  answers: Record<string, number>;
  /** Times from the connect to the answer to the message, in milliseconds, ascending. */
  latenciesMs: number[];
}

const INTERVAL_MS = 100;
/** Time after which a message counts as not answered. */
const GIVE_UP_MS = 15_000;
const SMALL_BYTES = 4 * 1024;
const LARGE_BYTES = 256 * 1024;
/** Every message of this number is a large one. */
const LARGE_EVERY = 10;

/** Sends a message on a new connection every 100 ms until the deadline, on the clock of `performance.now()`. */
export async function sendGoodMail(port: number, deadlineMs: number): Promise<GoodMail> {
  const mail: GoodMail = { sent: 0, answers: {}, latenciesMs: [] };
  const pending: Promise<void>[] = [];
  while (performance.now() < deadlineMs) {
    const sizeBytes = mail.sent % LARGE_EVERY === LARGE_EVERY - 1 ? LARGE_BYTES : SMALL_BYTES;
    mail.sent += 1;
    pending.push(sendOne(port, sizeBytes, mail));
    await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
  }
  await Promise.all(pending);
  mail.latenciesMs.sort((a, b) => a - b);
  return mail;
}

function sendOne(port: number, sizeBytes: number, mail: GoodMail): Promise<void> {
  const startedMs = performance.now();
  const body = `Subject: good\r\n\r\n${`${'x'.repeat(70)}\r\n`.repeat(sizeBytes / 72)}.\r\n`;
  const steps = [
    'EHLO good\r\n',
    'MAIL FROM:<good@example.org>\r\n',
    'RCPT TO:<to@example.net>\r\n',
    'DATA\r\n',
    body,
  ];
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.setNoDelay(true);
    let text = '';
    let answer = 'none';
    let step = 0;
    const finish = () => {
      clearTimeout(timer);
      if (answer !== 'none') mail.latenciesMs.push(performance.now() - startedMs);
      mail.answers[answer] = (mail.answers[answer] ?? 0) + 1;
      resolve();
    };
    const timer = setTimeout(() => socket.destroy(), GIVE_UP_MS);
    socket.on('data', (chunk) => {
      text += chunk.toString('latin1');
      const reply = /^(?:\d{3}-.*\r\n)*((\d)\d\d(?: \d\.\d\.\d)?).*\r\n/.exec(text);
      if (reply === null || answer !== 'none') return;
      text = text.slice(reply[0].length);
      const next = steps[step++];
      if (next !== undefined && /[23]/.test(reply[2] ?? '')) socket.write(next);
      else {
        answer = reply[1] ?? '';
        socket.end('QUIT\r\n');
      }
    });
    socket.on('error', () => undefined);
    socket.on('close', finish);
  });
}
