import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, open, readFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { SMTPServer } from 'smtp-server';
import { removeTree } from '../../../faults/files/remove-tree.js';
import { referenceProgram } from '../programs.js';
import { SIZE_LIMIT_BYTES } from './sequences.js';

/** A running SMTP server that is compared. */
export interface Server {
  name: string;
  port: number;
  stop: () => Promise<void>;
}

/** A directory for the files of the servers, with a certificate in it if openssl is installed. */
export interface Workplace {
  directory: string;
  certificate: { cert: string; key: string } | undefined;
  remove: () => Promise<void>;
}

const POSTFIX = '/usr/sbin/postfix';
const POSTFIX_SCRIPT = fileURLToPath(
  new URL('../../../../conformance/targets/systems/postfix.sh', import.meta.url),
);

/** Makes the workplace. */
export async function makeWorkplace(): Promise<Workplace> {
  const directory = await mkdtemp(join(tmpdir(), 'plugpull-peers-'));
  // The programs of Postfix run as another user.
  await chmod(directory, 0o755);
  const [cert, key] = [join(directory, 'cert.pem'), join(directory, 'key.pem')];
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const output = ['-days', '2', '-subj', '/CN=localhost', '-keyout', key, '-out', cert];
  const { failed } = await execa('openssl', [...request, ...output], { reject: false });
  return {
    directory,
    certificate: failed ? undefined : { cert, key },
    remove: async () => void removeTree(directory),
  };
}

/** Starts the reference gateway with one worker. Its mail goes to the sink. */
export async function startReference(
  { directory, certificate }: Workplace,
  sinkPort: number,
): Promise<Server> {
  const program = referenceProgram('synchronous/main.js');
  const queue = join(directory, 'queue');
  const size = [
    '--data-bytes',
    '16MiB',
    '--entries',
    '1024',
    '--smtp-max-message-bytes',
    `${SIZE_LIMIT_BYTES}`,
  ];
  await execa(process.execPath, [program, 'install', '--queue', queue, ...size]);
  const tls =
    certificate === undefined ? [] : ['--smtp-tls-cert', certificate.cert, '--smtp-tls-key', certificate.key];
  const service = execa(
    process.execPath,
    [program, 'gateway', '--queue', queue, '--workers', '1', '--next-hop', `127.0.0.1:${sinkPort}`, ...tls],
    { stderr: 'inherit', reject: false },
  );
  const stop = async () => {
    service.kill('SIGTERM');
    await service;
  };
  for await (const line of createInterface({ input: service.stdout })) {
    const { event, ports } = JSON.parse(line) as { event: string; ports?: number[] };
    const [port] = ports ?? [];
    if (event === 'ready' && port !== undefined) return { name: 'gateway', port, stop };
  }
  throw new Error('the gateway ended before it was ready');
}

/** Starts smtp-server (npm) in this process. It accepts and drops all mail. */
export async function startSmtpServer({ certificate }: Workplace): Promise<Server> {
  const server = new SMTPServer({
    size: SIZE_LIMIT_BYTES,
    authOptional: true,
    disableReverseLookup: true,
    disabledCommands: certificate === undefined ? ['AUTH', 'STARTTLS'] : ['AUTH'],
    ...(certificate === undefined
      ? {}
      : { cert: await readFile(certificate.cert), key: await readFile(certificate.key) }),
    onData: (stream, _session, done) => {
      stream.on('end', () =>
        done(stream.sizeExceeded ? Object.assign(new Error('too large'), { responseCode: 552 }) : undefined),
      );
      stream.resume();
    },
  });
  server.on('error', () => undefined);
  server.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.server.once('listening', resolve));
  const { port } = server.server.address() as AddressInfo;
  return { name: 'smtp-server', port, stop: () => new Promise((resolve) => server.close(resolve)) };
}

/** Returns why Postfix cannot be compared on this machine; undefined when it can. */
export function whyNoPostfix(): string | undefined {
  if (!existsSync(POSTFIX)) return 'Postfix is not installed (apt-get install postfix)';
  return process.getuid?.() === 0 ? undefined : 'Postfix needs root';
}

/** Starts Postfix by the script of its target. Its mail goes to the sink. */
export async function startPostfix({ directory, certificate }: Workplace, sinkPort: number): Promise<Server> {
  const data = join(directory, 'postfix-data');
  await mkdir(data);
  await chmod(data, 0o755);
  const port = await freePort();
  await execa('sh', [POSTFIX_SCRIPT, 'install', data]);
  // Postfix opens its log by the path /dev/stdout, which does not work with the socket that Node makes.
  const log = await open(join(directory, 'postfix.log'), 'w');
  const service = spawn('sh', [POSTFIX_SCRIPT, 'serve', data, `${port}`, `127.0.0.1:${sinkPort}`], {
    stdio: ['ignore', log.fd, log.fd],
  });
  const ended = once(service, 'exit');
  const config = ['-c', join(data, 'postfix/config')];
  const stop = async () => {
    await execa(POSTFIX, [...config, 'stop'], { reject: false });
    service.kill('SIGTERM');
    await ended;
    await log.close();
  };
  await waitForPort(port, () => service.exitCode !== null);
  const tls =
    certificate === undefined
      ? []
      : [
          'smtpd_tls_security_level=may',
          `smtpd_tls_cert_file=${certificate.cert}`,
          `smtpd_tls_key_file=${certificate.key}`,
        ];
  // Wrong commands must not slow the comparison down.
  const settings = [`message_size_limit=${SIZE_LIMIT_BYTES}`, 'smtpd_error_sleep_time=0', ...tls];
  await execa('postconf', [...config, '-e', ...settings]);
  await execa('postconf', [...config, '-M', '-e', 'tlsmgr/unix=tlsmgr unix - - n 1000? 1 tlsmgr']);
  await execa(POSTFIX, [...config, 'reload'], { reject: false });
  return { name: 'Postfix', port, stop };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Waits until a server listens. @throws Error when its process ends before */
async function waitForPort(port: number, hasEnded: () => boolean): Promise<void> {
  const hex = port.toString(16).toUpperCase().padStart(4, '0');
  while (!new RegExp(`:${hex} \\S+ 0A `).test(await readFile('/proc/net/tcp', 'latin1'))) {
    if (hasEnded()) throw new Error('Postfix ended before it listened');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
