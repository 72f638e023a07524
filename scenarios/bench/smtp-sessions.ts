import { connect } from 'node:net';

/** The messages that were confirmed in a set of sessions. */
export interface LoadResult {
  count: number;
  latenciesMs: number[];
}

const ENVELOPE = 'MAIL FROM:<producer@example.org>\r\nRCPT TO:<consumer@example.net>\r\nDATA\r\n';

/**
 * Keeps `sessions` SMTP sessions busy until the deadline. The sessions are spread over the ports. Each
 * session has one message of about `sizeBytes` in progress and pipelines its envelope. Resolves after the
 * last answer.
 *
 * @param deadlineMs end of the load, on the clock of `performance.now()`.
 * @throws Error when a gateway does not confirm a message.
 */
export async function sendUntil(
  ports: readonly number[],
  sessions: number,
  sizeBytes: number,
  deadlineMs: number,
): Promise<LoadResult> {
  const confirmed: LoadResult = { count: 0, latenciesMs: [] };
  const body = `Subject: load\r\n\r\n${`${'x'.repeat(70)}\r\n`.repeat(Math.ceil(sizeBytes / 72))}.\r\n`;
  const sessionPorts = Array.from({ length: sessions }, (_, index) => ports[index % ports.length] as number);
  await Promise.all(sessionPorts.map((port) => runSession(port, body, deadlineMs, confirmed)));
  return confirmed;
}

function runSession(port: number, body: string, deadlineMs: number, confirmed: LoadResult): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    socket.setNoDelay(true);
    let partialLine = '';
    let sentMs = 0;
    let greeted = false;
    const sendNext = (): void => {
      if (performance.now() >= deadlineMs) {
        socket.end('QUIT\r\n');
        resolve();
        return;
      }
      sentMs = performance.now();
      socket.write(ENVELOPE);
    };
    /**
     * Handles a line of the server. Only the answers to EHLO, to DATA and to the message matter; the answers
     * to MAIL and RCPT are 250 2.1.x.
     */
    const onLine = (line: string): void => {
      if (!greeted) {
        if (line.startsWith('220')) socket.write('EHLO load\r\n');
        else if (line.startsWith('250 ')) {
          greeted = true;
          sendNext();
        }
      } else if (line.startsWith('354')) socket.write(body);
      else if (/^250 2\.0\.0/.test(line)) {
        confirmed.count += 1;
        confirmed.latenciesMs.push(performance.now() - sentMs);
        sendNext();
      } else if (/^[45]/.test(line)) reject(new Error(`the gateway answered ${line}`));
    };
    socket.on('data', (bytes) => {
      const lines = (partialLine + bytes.toString('latin1')).split('\r\n');
      partialLine = lines.pop() ?? '';
      lines.forEach(onLine);
    });
    socket.on('error', reject);
  });
}
