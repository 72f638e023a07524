import { once } from 'node:events';
import { connect as connectTls } from 'node:tls';
import t from 'tap';
import { OTHER, SERVER, writeCertificate } from './fixtures/certificates.js';
import { runQueueCommand, startGateway, temporaryDirectory } from './fixtures/processes.js';
import { RawClient } from './fixtures/raw-client.js';
import { Sink } from './fixtures/sink.js';

/** Returns a port that was free a moment ago. */
async function freePort(): Promise<number> {
  const opened = await Sink.open();
  await opened.close();
  return opened.port;
}

/** Returns the common name in the certificate of a server. */
async function certificateName(port: number): Promise<string> {
  const plain = await RawClient.ready(port);
  await plain.ask('STARTTLS\r\n');
  plain.socket.removeAllListeners('data');
  const socket = connectTls({ socket: plain.socket, rejectUnauthorized: false });
  await once(socket, 'secureConnect');
  const { CN } = socket.getPeerCertificate().subject;
  socket.destroy();
  return String(CN);
}

t.test('a gateway whose next hop is itself stops the loop, also over its other worker', async (t) => {
  const port = await freePort();
  const flags = ['--workers', '2', '--smtp-ports', `${port},0`, '--delivery-notices', 'false'];
  const { service, directory, ports } = await startGateway(t, `127.0.0.1:${port}`, ...flags);
  const client = await RawClient.ready(ports[1] ?? 0);
  t.match(await client.submit('Subject: round\r\n\r\n'), /^250/);
  client.close();
  const isBuried = /"dead-letter".*"554 5\.4\.6 Mail loop, the message was here 5 times before"/;
  while (!isBuried.test(service.stderr)) await new Promise((resolve) => setTimeout(resolve, 20));
  t.equal(await service.stop(), 0);
  const pairs = (await runQueueCommand('inspect', '--summary', '--queue', directory)).stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.match(pairs, [
    { pair: '0', messages: 0 },
    { pair: 'dead', messages: 1 },
  ]);
});

t.test(
  'at SIGHUP the gateway reads its certificate again, and keeps the old one if the new one is wrong',
  async (t) => {
    const files = temporaryDirectory(t);
    const { tlsCert, tlsKey } = writeCertificate(files, SERVER);
    const { service, ports } = await startGateway(
      t,
      '127.0.0.1:1',
      ...['--workers', '1', '--smtp-tls-cert', tlsCert, '--smtp-tls-key', tlsKey],
    );
    const [port = 0] = ports;
    t.equal(await certificateName(port), 'localhost');
    writeCertificate(files, OTHER);
    process.kill(service.pid, 'SIGHUP');
    while ((await certificateName(port)) !== 'other.example') t.comment('not yet');
    writeCertificate(files, { cert: SERVER.cert, key: OTHER.key });
    process.kill(service.pid, 'SIGHUP');
    while (!service.stderr.includes('\n')) await new Promise((resolve) => setTimeout(resolve, 20));
    t.match(service.stderr, /^plugpull queue: the certificate was not read again: smtp\.tlsKey: [^\n]*\n$/);
    t.equal(await certificateName(port), 'other.example');
    t.equal(await service.stop(), 0);
  },
);

t.test('a gateway with a wrong file for TLS ends with one line and exit code 2', async (t) => {
  const directory = temporaryDirectory(t);
  const queue = `${directory}/queue`;
  await runQueueCommand('install', '--queue', queue, '--data-bytes', '1MiB', '--entries', '64');
  const flags = ['--queue', queue, '--next-hop', '127.0.0.1:1'];
  for (const [wrong, message] of [
    [
      ['--smtp-tls-cert', '/none.pem', '--smtp-tls-key', '/none.pem'],
      /smtp\.tlsCert: \/none\.pem: cannot be read \(ENOENT\)/,
    ],
    [
      ['--smtp-tls-cert', '/none.pem'],
      /--smtp-tls-cert: found "\/none\.pem", expected tlsCert and tlsKey together/,
    ],
    [['--delivery-tls', 'maybe'], /--delivery-tls: found "maybe", expected off, may or require/],
    [['--delivery-tls-ca', '/none.pem'], /delivery\.tlsCa: \/none\.pem: cannot be read \(ENOENT\)/],
  ] as const) {
    for (const command of ['gateway', 'worker']) {
      const { code, stdout, stderr } = await runQueueCommand(command, ...flags, ...wrong);
      t.equal(code, 2);
      t.equal(stdout, '');
      t.match(stderr, message);
      t.match(stderr, /^[^\n]*\n$/, 'one line');
    }
  }
});
