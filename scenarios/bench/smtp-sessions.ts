import { connect } from 'node:net';

/** What one set of sessions got confirmed. */
export interface Confirmed {
  count: number;
  latenciesMs: number[];
}

const ENVELOPE = 'MAIL FROM:<producer@example.org>\r\nRCPT TO:<consumer@example.net>\r\nDATA\r\n';

/**
 * Keeps `sessions` SMTP sessions busy, spread over the ports, until the deadline: one message of `sizeBytes` under way in
 * each, its envelope pipelined. Resolves when the last answer is there.
 *
 * @throws Error when a gateway does not confirm a message.
 */
export async function sendUntil(
  ports: readonly number[],
  sessions: number,
  sizeBytes: number,
  deadlineMs: number,
): Promise<Confirmed> {
  const confirmed: Confirmed = { count: 0, latenciesMs: [] };
  const body = `Subject: load\r\n\r\n${`${'x'.repeat(70)}\r\n`.repeat(Math.ceil(sizeBytes / 72))}.\r\n`;
  const ports64 = Array.from({ length: sessions }, (_, index) => ports[index % ports.length] as number);
  await Promise.all(ports64.map((port) => session(port, body, deadlineMs, confirmed)));
  return confirmed;
}

function session(port: number, body: string, deadlineMs: number, confirmed: Confirmed): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1');
    socket.setNoDelay(true);
    let rest = '';
    let sentMs = 0;
    let greeted = false;
    const next = (): void => {
      if (performance.now() >= deadlineMs) {
        socket.end('QUIT\r\n');
        resolve();
        return;
      }
      sentMs = performance.now();
      socket.write(ENVELOPE);
    };
    /** Only three answers matter: to EHLO, to DATA, to the message; those to MAIL and RCPT are 250 2.1.x. */
    const onLine = (line: string): void => {
      if (!greeted) {
        if (line.startsWith('220')) socket.write('EHLO load\r\n');
        else if (line.startsWith('250 ')) {
          greeted = true;
          next();
        }
      } else if (line.startsWith('354')) socket.write(body);
      else if (/^250 2\.0\.0/.test(line)) {
        confirmed.count += 1;
        confirmed.latenciesMs.push(performance.now() - sentMs);
        next();
      } else if (/^[45]/.test(line)) reject(new Error(`the gateway answered ${line}`));
    };
    socket.on('data', (bytes) => {
      const lines = (rest + bytes.toString('latin1')).split('\r\n');
      rest = lines.pop() ?? '';
      lines.forEach(onLine);
    });
    socket.on('error', reject);
  });
}
